"""Films with COCO's JSON for detection, as COCO itself and Roboflow lay them out.

annotations.json, instances_*.json or _annotations.coco.json, one or several
    At the top, or in folders: annotations/instances_train.json beside train/ or images/, or one in each of train/,
    valid/ and test/ among its films. The form is that of data.drawn.coco: boxes x, y, w, h in pixels of the film.

An image has a finding (1) if it has a box of it, and has none of the others (0): who drew looked at every image of the
list. Findings are the categories that an image has. `image_id` is the file_name as written; where two films have the
same one, it gets the folder of its list, or the last part of the list's name, before it. The film is looked for beside
its list, at the top, beside the list's folder, and in the folder of its split; then by its name alone. An image that
two lists have is taken from the first. The split is the one that the list's path speaks of, or else the film's;
valid/ is val. Where there are training images and no validation images, 10 % of the training patients become `val`.

COCO knows no patients. Each image is taken for a patient of its own, unless columns.patient names a key of the entries
under `images`, or the header of a DICOM film tells. Width and height are those of the entries.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import FILM, Raw
from cxrmine.data.drawn import coco
from cxrmine.data.drawn.read import parse_json
from cxrmine.data.drawn.sheet import Drawn
from cxrmine.data.index import Dropped, dropped
from cxrmine.data.meant import meant
from cxrmine.data.paths import entries_inside
from cxrmine.data.reading import Reading
from cxrmine.data.tree import Tree
from cxrmine.data.words import is_normal, split_in, with_validation
from cxrmine.errors import CxrError, did_you_mean

SHAPE = "COCO (a file annotations.json, instances_*.json or _annotations.coco.json, with its films beside or below it)"
COLUMNS = ("patient",)
LIST = re.compile(r"([^/]+/){0,2}(annotations|instances_[^/]+|_annotations\.coco)\.json")
KEYS = tuple(f'"{name}"'.encode() for name in coco.LISTS)
SIDES = ("width", "height")
LISTED_TWICE = "image that another list has too"
BOX_OF_TWICE = "box of an image that another list has too"


class Listed(NamedTuple):
    """What one file lists."""

    name: str
    drawn: Drawn
    files: list[str]
    patients: list[str | None] | None
    paths: list[str | None]


def recognise(tree: Tree) -> str:
    found = _lists(tree)
    return f"{' and '.join(found[:3])} {'are' if len(found) > 1 else 'is'} in it" if found else ""


def read(tree: Tree, reading: Reading) -> Raw:
    films = [name for name in tree.names if FILM.fullmatch(name)]
    lists = [_listed(tree, name, films, reading.columns.get("patient", "")) for name in _lists(tree)]
    names, twice, notes = _names(lists)
    images = pa.concat_tables([_images(one, ids) for one, ids in zip(lists, names, strict=True)])
    split, said = with_validation(images["split"].to_pylist())
    images = images.set_column(images.column_names.index("split"), "split", pa.array(split, pa.string()))
    boxes, ledger = _boxes(lists, names)
    return Raw(
        "COCO",
        images.filter(pc.is_valid(images["image_id"])),
        _labels(lists, images["image_id"].drop_null(), boxes),
        boxes=boxes,
        dropped=dropped(LISTED_TWICE, twice) + ledger,
        notes=(f"labels and boxes: {', '.join(one.name for one in lists)}", *notes, *said),
        occurring=True,
        told=() if any(one.patients is None for one in lists) else ("patient",),
    )


def _lists(tree: Tree) -> list[str]:
    return [name for name in tree.names if LIST.fullmatch(name) and all(key in tree.read(name) for key in KEYS)]


def _listed(tree: Tree, name: str, films: Sequence[str], key: str) -> Listed:
    where = f"{tree}/{name}"
    document = parse_json(tree.text(name), Path(where))
    if not coco.recognise(document):
        raise CxrError(f"{where} is not COCO's JSON.", f"It needs the lists {', '.join(coco.LISTS)}.")
    entries_inside(tree.root, document["images"], "file_name")
    drawn = coco.read(document, where)
    files = [entry["file_name"] for entry in document["images"]]
    patients = _patients(document["images"], key, where) if key else None
    return Listed(name, drawn, files, patients, _paths(name, files, films, frozenset(tree.names)))


def _patients(entries: Sequence[dict], key: str, where: str) -> list[str | None]:
    there = list(dict.fromkeys(name for entry in entries for name in entry))
    if entries and key not in there:
        raise CxrError(
            f"{where}: no entry of images has the key {key} for patient.{did_you_mean(key, there)}",
            f"Their keys are {', '.join(there)}.",
        )
    values = [entry.get(key) for entry in entries]
    return [str(v) if isinstance(v, str | int) and not isinstance(v, bool) else None for v in values]


def _paths(name: str, files: Sequence[str], films: Sequence[str], there: frozenset[str]) -> list[str | None]:
    """Where each film lies: in one of the places where COCO's tools look for it, or elsewhere if its name is unique."""
    beside, part = _beside(name), _part(name)
    above = beside.removesuffix("/").rpartition("/")[0]
    above = f"{above}/" if above else ""
    folders = [beside, "", above, *([f"{above}{part}/", f"{above}images/{part}/"] if part else []), f"{above}images/"]
    paths = [next((f"{folder}{file}" for folder in folders if f"{folder}{file}" in there), None) for file in files]
    lost = [file for file, path in zip(files, paths, strict=True) if path is None]
    free = {*films} - {*paths}
    of = dict(zip(lost, meant(lost, free)[0], strict=True))
    return [of[file] if path is None else path for file, path in zip(files, paths, strict=True)]


def _beside(name: str) -> str:
    return "".join(name.rpartition("/")[:2])


def _part(name: str) -> str:
    """train2017 of instances_train2017.json"""
    stem = name.rpartition("/")[2].removesuffix(".json")
    return stem.removeprefix("instances_") if stem.startswith("instances_") else ""


def _names(lists: Sequence[Listed]) -> tuple[list[list[str | None]], list[str], tuple[str, ...]]:
    """The image_id of every entry, None where an earlier list has the same film; those; and what to say."""
    films: dict[str, set[str]] = {}
    for one in lists:
        for file, path in zip(one.files, one.paths, strict=True):
            films.setdefault(file, set()).add(path or _beside(one.name) + file)
    clashing = {file for file, places in films.items() if len(places) > 1}
    shared = Counter(_beside(one.name) for one in lists)
    seen: set[str] = set()
    names: list[list[str | None]] = []
    twice: list[str] = []
    for one in lists:
        prefix = f"{_part(one.name)}/" if shared[_beside(one.name)] > 1 else _beside(one.name)
        own: list[str | None] = []
        for file, path in zip(one.files, one.paths, strict=True):
            image_id, film = (prefix + file if file in clashing else file), path or _beside(one.name) + file
            again = not seen.isdisjoint({f"id {image_id}", f"film {film}"})
            own.append(None if again else image_id)
            twice += [f"{one.name}: {file}"] * again
            seen |= {f"id {image_id}", f"film {film}"}
        names.append(own)
    note = f"names that two films have, and so with the folder of their list before them: {len(clashing):,}"
    return names, twice, (note,) * bool(clashing)


def _images(one: Listed, names: Sequence[str | None]) -> pa.Table:
    columns = {
        "image_id": names,
        "patient_id": names if one.patients is None else one.patients,
        "view": [None] * len(names),
        "split": [
            split_in(one.name) or split_in(path or file) for file, path in zip(one.files, one.paths, strict=True)
        ],
        "path": one.paths,
    }
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    seen = one.drawn.looked_at
    if seen is not None:
        of = pc.index_in(pa.array(one.files, pa.string()), seen["image_id"].combine_chunks())
        for side in SIDES:
            table = table.append_column(side, seen[f"image_{side}"].combine_chunks().take(of))
    return table


def _boxes(lists: Sequence[Listed], names: Sequence[Sequence[str | None]]) -> tuple[pa.Table, tuple[Dropped, ...]]:
    """All boxes under the names of their images, and those of images that an earlier list has."""
    kept: list[pa.Table] = []
    lost: list[str] = []
    for one, ids in zip(lists, names, strict=True):
        of = dict(zip(one.files, ids, strict=True))
        table = one.drawn.table
        files = table["image_id"].to_pylist()
        image = [None if file is None else of[file] for file in files]
        again = np.array([file is not None and of[file] is None for file in files], dtype=bool)
        lost += [f"{one.name}: box {row}" for row in table["row"].filter(pa.array(again)).to_pylist()]
        place = table.column_names.index("image_id")
        kept.append(table.set_column(place, "image_id", pa.array(image, pa.string())).filter(pa.array(~again)))
    return pa.concat_tables(kept), dropped(BOX_OF_TWICE, lost)


def _labels(lists: Sequence[Listed], image: pa.ChunkedArray, boxes: pa.Table) -> dict[str, pa.Array]:
    findings = sorted({word for one in lists for word in one.drawn.vocabulary or () if not is_normal(word)})
    labels = {}
    for finding in findings:
        having = boxes["image_id"].filter(pc.equal(boxes["finding"], finding)).combine_chunks()
        labels[finding] = pc.is_in(image, value_set=having).combine_chunks().cast(pa.int8())
    return labels
