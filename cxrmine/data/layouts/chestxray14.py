"""NIH ChestX-ray14, and everything in its layout (Kaggle's copy, phantom datasets).

Wang et al. 2017, "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks". 112,120 frontal films of 30,805
patients, 1024×1024 PNG; 14 findings mined from reports, so 1 or 0 and never uncertain; 984 boxes of 8 findings on 880
films of the official test list, drawn by a radiologist.

Data_Entry_2017*.csv
    Image Index, Finding Labels (joined with |), Patient ID, View Position. Width and Height in it are of the original
    radiograph, not of the PNG, and so are not read.
train_val_list.txt, test_list.txt
    The official split, by patient; 10 % of the training patients become `val`.
BBox_List_2017.csv
    Image, finding, x, y, w, h by position (its header has more names than its rows have fields), in pixels of the PNG,
    which has 1024×1024. Where the PNG or JPEG here of a film that is named as NIH names them (00000001_000) has another
    size, its boxes are scaled, and it says so. Phantom datasets tell their size in truth.parquet: nothing is scaled.
    `Infiltrate` there is `Infiltration` in Data_Entry.
images/, images_001/images/ … images_012/images/, images_001/, images_01.tar.gz …, or the folder itself
    The films, under the names in Data_Entry with their endings (.png, .jpg, .dcm). Where none lies in any of these
    (images-224/images-224/ of resized copies), they are taken from wherever they are, and it says so.

Each text file may be .gz. Findings are those that occur in Finding Labels, in alphabetical order. `image_id` is the
Image Index as it stands, with its ending. An empty Finding Labels is "nobody said anything", not "No Finding".
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import FILM, NO_SPLIT, TRAIN_AND_VAL, Raw
from cxrmine.data.drawn import nih
from cxrmine.data.reading import Reading
from cxrmine.data.rows import read_rows
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, some_text

SHAPE = "ChestX-ray14 (a file Data_Entry_2017*.csv or Data_Entry_2017*.csv.gz in the folder)"
NORMAL = "No Finding"
NEEDED, OTHERS = ("Image Index", "Finding Labels", "Patient ID"), ("View Position",)
LISTS = ("train_val_list.txt", "test_list.txt")
OF_PHANTOMS = "truth.parquet"
DRAWN_ON = f"films of {nih.SIDE}×{nih.SIDE} pixels"
FOLDER = re.compile(r"(images(_\d+)?(\.tar\.gz|\.tgz|\.tar|\.zip)?/)?(images/)?[^/]+")


def recognise(tree: Tree) -> str:
    found = _candidates(tree, "Data_Entry_2017")
    return f"{found[0]} is in it" if found else ""


def read(tree: Tree, reading: Reading) -> Raw:
    name = _only(tree, "Data_Entry_2017")
    sheet, ledger = read_rows(tree, name, NEEDED, OTHERS)
    image = sheet.columns["Image Index"]
    split, note = _split(tree, image)
    films, about_films = _films(tree, set(image.to_pylist()))
    images = pa.table(
        {
            "image_id": image,
            "patient_id": sheet.columns["Patient ID"],
            "view": sheet.text("View Position"),
            "split": split,
            "path": pa.array([films.get(word) for word in image.to_pylist()], pa.string()),
        }
    )
    labels, notes = _labels(sheet.columns["Finding Labels"])
    boxes, drawn_on = _boxes(tree)
    return Raw(
        "ChestX-ray14",
        images,
        labels,
        boxes=boxes,
        dropped=ledger,
        notes=(f"labels: {name}", *([note] if note else []), *notes, *about_films),
        occurring=True,
        is_film=lambda path: FILM.fullmatch(path) is not None and (bool(about_films) or bool(FOLDER.fullmatch(path))),
        drawn_on=drawn_on,
    )


def _candidates(tree: Tree, stem: str) -> list[str]:
    return [
        name for name in tree.top if name.startswith(stem) and name.endswith((".csv", ".csv.gz")) and tree.has(name)
    ]


def _only(tree: Tree, stem: str) -> str:
    """The one file of that kind; X.csv beside X.csv.gz is one, read unpacked."""
    found = _candidates(tree, stem)
    found = [name for name in found if name.removesuffix(".gz") not in found or not name.endswith(".gz")]
    if len(found) > 1:
        names = ", ".join(found)
        raise CxrError(f"{tree} has {len(found)} files {stem}*: {names}.", "Their labels differ: keep the one to use.")
    return found[0]


def _labels(column: pa.StringArray) -> tuple[dict[str, pa.Array], tuple[str, ...]]:
    """A few hundred different texts make up the column: each is read once and spread over its rows."""
    encoded = column.dictionary_encode()
    combinations = [
        {nih.OTHER_SPELLINGS.get(word.strip(), word.strip()) for word in text.split("|")} - {""}
        for text in encoded.dictionary.to_pylist()
    ]
    findings = tuple(sorted(set().union(*combinations) - {NORMAL}))
    silent = np.array([not words for words in combinations], bool)
    rows = encoded.indices.to_numpy()
    mask = silent[rows] if silent.any() else None
    known = {f: np.array([f in words for words in combinations], dtype=np.int8)[rows] for f in findings}
    notes = []
    if unusual := [finding for finding in findings if finding not in nih.PUBLISHED_FINDINGS]:
        notes.append(f"findings beyond the published 14: {', '.join(unusual)}")
    torn = np.array([NORMAL in words and len(words) > 1 for words in combinations], bool)[rows].sum()
    if torn:
        notes.append(f"images with {NORMAL} beside a finding, which then counts: {torn:,}")
    return {f: pa.array(values, mask=mask) for f, values in known.items()}, tuple(notes)


def _split(tree: Tree, image: pa.StringArray) -> tuple[pa.Array, str]:
    """The split of every row, null where there are no lists; and a note."""
    lists = {name: path for name in LISTS if (path := tree.first(name))}
    if not lists:
        return pa.nulls(len(image), pa.string()), ""
    if len(lists) == 1:
        raise CxrError(
            f"{tree} has {next(iter(lists))} and not the other list.", f"It needs both of {', '.join(LISTS)}, or none."
        )
    train_val, test = (_read_list(tree, lists[name]) for name in LISTS)
    both = train_val.filter(pc.is_in(train_val, value_set=test))
    if len(both):
        others = f", and so are {len(both) - 1:,} others" * (len(both) > 1)
        raise CxrError(f"{both[0]} is in both {' and '.join(LISTS)}{others}.", "Take each from one of the lists.")
    of_rest = pc.if_else(pc.is_in(image, value_set=train_val), TRAIN_AND_VAL, NO_SPLIT)
    note = f"split: official lists ({len(train_val):,} names train and validation, {len(test):,} test)"
    return pc.if_else(pc.is_in(image, value_set=test), "test", of_rest), note


def _read_list(tree: Tree, name: str) -> pa.StringArray:
    return pa.array([word for line in tree.text(name).splitlines() if (word := line.strip())], pa.string())


def _boxes(tree: Tree) -> tuple[pa.Table | None, str]:
    """As drawn; and what they were drawn on, where films may be copies of another size."""
    name = tree.first("BBox_List_2017.csv") or (_only(tree, "BBox_List") if _candidates(tree, "BBox_List") else None)
    if not name:
        return None, ""
    table = nih.read(nih.by_position(tree.text(name), f"{tree}/{name}")).table
    return table, "" if tree.has(OF_PHANTOMS) else DRAWN_ON


def _films(tree: Tree, known: set[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Image → path: of several files of one name the first, the top before folders; and where none lies in a folder of
    NIH's, from wherever they are, with a note."""
    usual = [path for path in tree.names if FOLDER.fullmatch(path)]
    others = [path for path in tree.names if path.rpartition("/")[2] in known]
    elsewhere = bool(others) and not any(path.rpartition("/")[2] in known for path in usual)
    films: dict[str, str] = {}
    for path in sorted(others if elsewhere else usual, key=lambda p: (p.rpartition("/")[0], p)):
        films.setdefault(path.rpartition("/")[2], path)
    folders = sorted({path.rpartition("/")[0] for path in films.values()})
    note = f"films: none in images/ or its like, so from {some_text(folders)}/"
    return films, (note,) * elsewhere
