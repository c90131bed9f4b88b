"""XML that other people made: read only where nothing in it could make the reader fetch or swell."""

import re
from xml.etree import ElementTree

from cxrmine.data.encoded import Unreadable
from cxrmine.data.tree import Content

DECLARATION = re.compile(r"<!(DOCTYPE|ENTITY)")


def xml_root(content: Content) -> ElementTree.Element | None:
    """None where it is damaged, not UTF-8, or declares a document type or entities."""
    if isinstance(content, Unreadable):
        return None
    try:
        text = content.decode("utf-8-sig")
        return None if DECLARATION.search(text) else ElementTree.fromstring(text)
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError):
        return None
