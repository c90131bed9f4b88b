"""The door to every dataset. A new layout is a new file in layouts/: SHAPE, recognise(tree) and read(tree, reading);
and COLUMNS, where columns of its tables may be named."""

from dataclasses import replace
from pathlib import Path

from cxrmine.data import vocabulary
from cxrmine.data.assemble import assemble
from cxrmine.data.index import Index
from cxrmine.data.layouts import (
    chestxray14,
    chexpert,
    coco,
    jsrt,
    mimic,
    montgomery,
    openi,
    padchest,
    rsna,
    table,
    vindr,
)
from cxrmine.data.organ_files import right_sides, with_own_masks
from cxrmine.data.pack import is_pack, open_pack
from cxrmine.data.reading import Reading, refuse_untaken, with_own
from cxrmine.data.tree import ARCHIVE, Tree
from cxrmine.errors import CxrError, UsageError

LAYOUTS = (chestxray14, chexpert, mimic, vindr, rsna, openi, padchest, coco, montgomery, jsrt, table)
DEEPEST = 6  # folders that have nothing but one folder in them


def open_dataset(path: Path, reading: Reading | None = None, archives: bool = False) -> Index:
    """The index of the dataset in folder `path`, whatever its layout; with `archives`, those in it are looked into, and
    `path` may be one."""
    if not path.exists():
        raise CxrError(f"There is no dataset folder {path}.", "Name it with --data, or make one with cxrmine phantom.")
    if is_pack(path):
        if reading not in (None, Reading()):
            raise UsageError(
                f"{path} is a pack, and is read as it was made.", "Leave these flags out, or pack again with them."
            )
        return open_pack(path)
    if path.is_file() and not ARCHIVE.fullmatch(path.name):
        raise CxrError(
            f"{path} is a file, not a dataset folder.", "Name the folder that the dataset was unpacked into."
        )
    if path.is_file() and not archives:
        raise CxrError(f"{path} is an archive.", f"Make a pack of it first: cxrmine pack --data {path} --out PACK.")
    top = tree = Tree(path, archives)
    for _ in range(DEEPEST):
        for layout in LAYOUTS:
            if why := layout.recognise(tree):
                told = with_own(reading or Reading(), tree)
                refuse_untaken(told, getattr(layout, "COLUMNS", ()), layout.SHAPE.partition(" (")[0])
                raw = vocabulary.renamed(layout.read(tree, told), told.vocabulary)
                index = right_sides(assemble(tree, with_own_masks(tree, raw), told))
                return replace(index, notes=(f"layout: {index.layout}, because {why}", *index.notes))
        inner = [name for name in tree.top if not name.startswith(".")]
        if len(inner) != 1 or (tree.has(inner[0]) and not (archives and ARCHIVE.fullmatch(inner[0]))):
            break
        tree = tree.under(inner[0])
    known = "; ".join(layout.SHAPE for layout in LAYOUTS)
    raise CxrError(f"{top} is in no layout that is known here.", f"Known: {known}.")
