"""The door to every dataset. A new layout is a new file in layouts/: SHAPE, recognise(tree) and read(tree, reading);
and COLUMNS, where columns of its tables may be named."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pyarrow.compute as pc

from cxrmine.data import vocabulary
from cxrmine.data.archives import Archives, Watch
from cxrmine.data.assemble import FILM, assemble
from cxrmine.data.index import Dropped, Index, dropped
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
DEEPEST = 6  # folders above a dataset
MOST_BELOW = 50  # folders beside each other that are looked into
SHOWN = 6  # names in a message
DAMAGED_ARCHIVE = "archive that cannot be read, and has no film that is named"


def open_dataset(
    path: Path, reading: Reading | None = None, archives: bool = False, watch: Watch | None = None
) -> Index:
    """The index of the dataset in folder `path`, or in one below it, whatever its layout; with `archives`, those in it
    are looked into, and `path` may be one. `watch` shows how far a long listing is."""
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
    top = Tree(path, archives, listed=Archives(watch))
    found = _only(top)
    layout, tree = found.layout, found.tree
    told = with_own(reading or Reading(), tree)
    refuse_untaken(told, getattr(layout, "COLUMNS", ()), _name(layout))
    raw = vocabulary.renamed(layout.read(tree, told), told.vocabulary)
    index = right_sides(assemble(tree, with_own_masks(tree, raw), told))
    tree.listed.forget()
    notes = [f"layout: {index.layout}, because {found.why}"]
    if found.below:
        notes.append(f"folder: {found.below} in the one that was named")
    return replace(index, dropped=index.dropped + _damaged(index), notes=(*notes, *index.notes))


# --- where it begins, and in which layout


class Found(NamedTuple):
    """below: where it lies in the folder that was named, if not at its top."""

    tree: Tree
    layout: ModuleType
    why: str
    below: str = ""


def _only(top: Tree) -> Found:
    """The one dataset that is there."""
    faults: list[CxrError] = []
    found = _found(top, faults)
    if len(found) > 1:
        names = ", ".join(f"{one.below} ({_name(one.layout)})" for one in found)
        raise CxrError(f"{top} has {len(found)} datasets in it: {names}.", f"Name one: --data {top}/{found[0].below}")
    if found:
        return found[0]
    raise _unknown(top, faults)


def _found(tree: Tree, faults: list[CxrError], deep: int = DEEPEST, several: bool = True) -> list[Found]:
    """The dataset that begins at this folder; or else those in its folders; or else those in its archives, whatever
    lies beside them. Only one level may have several of them, and further down each is followed where it is alone: the
    films of a dataset may lie in 100,000 folders. What cannot be read joins `faults`."""
    for layout in LAYOUTS:
        try:
            if why := layout.recognise(tree):
                return [Found(tree, layout, why)]
        except CxrError as fault:
            faults.append(fault)
    try:
        folders = [name for name in tree.top if tree.is_folder(name)] if deep else []
        packed = [name for name in tree.top if tree.is_open(name) and name not in folders] if deep else []
    except CxrError as fault:
        faults.append(fault)
        return []
    for names in (folders, packed):
        one = len(names) == 1
        if one or (several and len(names) <= MOST_BELOW):
            below = {name: _found(tree.under(name), faults, deep - 1, several and one) for name in names}
            found = [
                entry._replace(below=f"{name}/{entry.below}".rstrip("/"))
                for name, entries in below.items()
                for entry in entries
                if len(tree.top) == 1 or _has_films(entry)
            ]
            if found:
                return found
    return []


def _has_films(found: Found) -> bool:
    """A table that lies in one of several folders may be of anything. A DICOM film may have no ending."""
    return found.layout is not table or any(
        FILM.fullmatch(name) or ARCHIVE.fullmatch(name) or "." not in name.rpartition("/")[2]
        for name in found.tree.names
    )


def _name(layout: ModuleType) -> str:
    return str(layout.SHAPE).partition(" (")[0]


def _unknown(top: Tree, faults: Sequence[CxrError]) -> CxrError:
    there = [f"{name}/" if top.is_folder(name) else name for name in top.top]
    shown = f"{', '.join(there[:SHOWN])}{f' and {len(there) - SHOWN:,} more' if len(there) > SHOWN else ''}"
    what = f"{top} is in no layout that is known here; at its top: {shown or 'nothing'}."
    if faults:
        what += f" {faults[0].what}"
    third = "make a pack, which is read from its archives" if top.packed_away() else "give its tables their own names"
    return CxrError(
        what,
        "Name the folder that has the dataset's tables; or put a table labels.csv (image, patient, findings) beside "
        f"the films; or {third}. The layouts are in docs/data.md.",
    )


# --- archives that are damaged


def _damaged(index: Index) -> tuple[Dropped, ...]:
    """The ledger's entry for archives that no film is missed of."""
    assert index.tree is not None
    damaged, path = index.tree.damaged, index.table["path"]
    for name, fault in damaged.items():
        inside = pc.sum(pc.starts_with(path, f"{name}/")).as_py() or 0
        if inside:
            raise CxrError(f"{fault.what} Films that tables name lie in it: {inside:,} or more.", fault.cure)
        if path.null_count:
            raise CxrError(
                f"{fault.what} Of the films that tables name, {path.null_count:,} are nowhere else, and may lie in it.",
                f"{fault.cure} Or move it away, if it has no films.",
            )
    return dropped(DAMAGED_ARCHIVE, sorted(damaged))
