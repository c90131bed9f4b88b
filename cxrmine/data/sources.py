"""A dataset's own files as bytes, text and names, gzipped or not; whatever cannot be read says so in a sentence."""

import gzip
import os
import zlib
from pathlib import Path

from cxrmine.errors import CxrError


def read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except gzip.BadGzipFile:
        raise CxrError(f"{path} is not a gzip file.", "Get the file again, or rename it.") from None
    except (EOFError, zlib.error):
        raise CxrError(f"{path} is damaged or cut off.", "Get the file again.") from None
    except OSError as fault:
        raise CxrError(f"{path} cannot be read: {fault.strerror}.", "Make it readable.") from None


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CxrError(f"{path} is not UTF-8 text.", "Get the file again.") from None


def names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError as fault:
        raise CxrError(f"{folder} cannot be listed: {fault.strerror}.", "Make it readable.") from None
