"""What the headers of DICOM films say: each is read once, by the one reader that every film goes through."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cxrmine.console import progress_bar
from cxrmine.cores import pool, stopped
from cxrmine.data.dicom import Facts, dicom_facts
from cxrmine.data.encoded import Unreadable
from cxrmine.data.tree import Content, Tree

PORTION = 64  # headers that a thread reads before it says so
SHOWN_AFTER = 2.0  # seconds


def read_headers(tree: Tree, names: Sequence[str]) -> dict[str, Facts]:
    """Of those of these films that are DICOM and can be read."""
    loose = [name for name in names if tree.root.is_dir() and not tree.container(name)]
    packed = sorted({*names} - {*loose})
    portions = [loose[first : first + PORTION] for first in range(0, len(loose), PORTION)]
    told: dict[str, Facts] = {}
    with progress_bar(len(names), "reading headers", after=SHOWN_AFTER) as bar, pool() as threads:
        for portion, facts in zip(portions, threads.map(partial(_of_files, tree.root), portions), strict=True):
            told |= facts
            bar.advance(len(portion))
        for name, content in tree.stream(packed):
            if (said := header_facts(content)) is not None:
                told[name] = said
            bar.advance()
    return told


def header_facts(film: Path | Content) -> Facts | None:
    """None where the file is no DICOM film, or cannot be read: that is found again, and said, where it is decoded."""
    try:
        return None if isinstance(film, Unreadable) else dicom_facts(film)
    except Unreadable:
        return None


def _of_files(root: Path, names: Sequence[str]) -> dict[str, Facts]:
    said = {name: header_facts(root / name) for name in names if not stopped.is_set()}
    return {name: facts for name, facts in said.items() if facts is not None}
