"""VinDr-CXR, as PhysioNet has it and as Kaggle's VinBigData challenge has its training half.

Nguyen et al. 2022, "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations". 18,000 frontal (PA)
films as DICOM: 15,000 for training, each read by 3 of 17 radiologists, and 3,000 for testing, each with the consensus
of 5. 22 local findings with boxes, and 6 global ones, without: COPD, Lung tumor, Pneumonia, Tuberculosis, Other
diseases and No finding, which is none here.

annotations/annotations_train.csv, annotations_test.csv (PhysioNet), train.csv (Kaggle: 14 findings, training half)
    image_id, rad_id, class_name, x_min, y_min, x_max, y_max: a row a box and reader, in pixels of the DICOM as stored;
    a reader who found nothing has a row `No finding`. The test table has no rad_id. class_id is not read.
annotations/image_labels_train.csv, image_labels_test.csv (PhysioNet)
    image_id, rad_id, then a column a finding, 1 or 0: a row an image and reader; the test table has one an image, no
    rad_id, and `Other disease` for `Other diseases`. Where they are missing, labels come from the tables of boxes.
train/, test/
    The films, <image_id>.dicom; or copies (.png, .jpg), of which many are smaller than what the boxes are drawn on.
train_meta.csv, test_meta.csv (beside the smaller copies that people share)
    image_id, dim0, dim1: height and width of the DICOM. By these, boxes are scaled to the copies, and it says so. Where
    a copy has no size there and a box reaches beyond it, the boxes of all such copies are left out, and it says so.
    Of a DICOM film they are the index's height and width.

The PhysioNet tables may lie in annotations/ or at the top; each may be .gz. Of several readers who read an image:
present if at least half of them found it, uncertain if fewer did, absent if none did. So some boxes are of uncertain
findings. Boxes keep their reader, and looked_at has who read which image; of the consensus nobody is named. Findings
are those that a reader found somewhere. No table tells patients apart, or has a view, and the DICOM headers, which are
asked, are all but empty: each image counts as a patient of its own. The publication says that all films are PA. A test
film without labels, as Kaggle's all are, is no part of the index and is counted in a note. VinDr-PCXR, of children, has
PhysioNet's form with rad_ID for rad_id, and is read alike.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import DICOM, FILM, TRAIN_AND_VAL, Raw, films_by_stem, stem, struct_of
from cxrmine.data.drawn import vindr
from cxrmine.data.drawn.sheet import Sheet, as_float
from cxrmine.data.index import Dropped
from cxrmine.data.reading import Reading
from cxrmine.data.rows import header, read_rows
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError

SHAPE = "VinDr-CXR (annotations/annotations_train.csv or image_labels_train.csv, or VinBigData's train.csv)"
KAGGLE = "train.csv"
READER = "rad_id"
OTHER_SPELLINGS = {"Other disease": "Other diseases"}
SIZES = {"width": "dim1", "height": "dim0"}
DRAWN_ON = "the DICOM films"
TEST = re.compile(r"(^|/)test[^/]*/", re.IGNORECASE)
Ints = npt.NDArray[np.int64]


class Part(NamedTuple):
    """The tables of one split; None for one that is not there."""

    split: str | None
    labels: str | None
    boxes: str | None


class Votes(NamedTuple):
    """What readers said. image, reader: a row each that they read; found: of each finding, which of these rows."""

    image: list[str | None]
    reader: list[str | None]
    found: dict[str, Ints]


def recognise(tree: Tree) -> str:
    found = [name for part in _parts(tree) for name in (part.labels, part.boxes) if name]
    return f"{found[0]} is in it" if found else ""


def read(tree: Tree, reading: Reading) -> Raw:
    ledger: tuple[Dropped, ...] = ()
    votes: list[Votes] = []
    splits: dict[str, str | None] = {}
    tables: list[pa.Table] = []
    parts = _parts(tree)
    for part in parts:
        drawn, torn = _sheet(tree, part.boxes) if part.boxes else (None, ())
        ledger += torn
        if drawn:
            tables.append(vindr.read(drawn).table)
        if part.labels:
            said, torn = _of_labels(tree, part.labels)
            ledger += torn
        else:
            said = _of_boxes(drawn)
        votes.append(said)
        splits |= {name: part.split for name in said.image if name and name not in splits}
    films = films_by_stem(tree.names)
    names = list(splits)
    images = {
        "image_id": names,
        "patient_id": names,
        "view": [None] * len(names),
        "split": list(splits.values()),
        "path": [films.get(name) for name in names],
    }
    table = pa.table({name: pa.array(values, pa.string()) for name, values in images.items()})
    sizes, torn = _sizes(tree, table["image_id"].combine_chunks())
    boxes = _with_sizes(pa.concat_tables(tables), table["image_id"], sizes) if tables else None
    if sizes:
        whole = pc.match_substring_regex(table["path"], DICOM.pattern + "$", ignore_case=True)
        for name, values in sizes.items():
            table = table.append_column(name, pc.if_else(whole, values, None))
    unlabelled = _unlabelled(tree, splits)
    return Raw(
        "VinDr-CXR",
        table,
        _labels(votes, names),
        boxes=boxes,
        looked_at=_looked_at(votes),
        dropped=ledger + torn,
        notes=tuple(_notes(parts, table, len(unlabelled), bool(sizes))),
        is_film=lambda path: FILM.fullmatch(path) is not None and path not in unlabelled,
        told=(),
        drawn_on=DRAWN_ON,
        sizes_needed=True,
    )


def _parts(tree: Tree) -> list[Part]:
    """The splits that the dataset has tables of: PhysioNet's two, or else Kaggle's one, in which there is no split."""
    parts = []
    for name, split in (("train", TRAIN_AND_VAL), ("test", "test")):
        labels, boxes = (
            tree.first(f"annotations/{kind}_{name}.csv", f"{kind}_{name}.csv")
            for kind in ("image_labels", "annotations")
        )
        if labels or boxes:
            parts.append(Part(split, labels, boxes))
    kaggle = tree.first(KAGGLE)
    if parts or not kaggle:
        return parts
    try:
        known = vindr.recognise(header(tree, kaggle))
    except CxrError:  # another dataset's train.csv
        return []
    return [Part(None, None, kaggle)] if known else []


# --- what readers said


def _sheet(tree: Tree, name: str, needed: tuple[str, ...] = vindr.COLUMNS) -> tuple[Sheet, tuple[Dropped, ...]]:
    """The column of readers is rad_id in any case of its letters, or missing."""
    readers = [word for word in header(tree, name) if word.lower() == READER]
    sheet, ledger = read_rows(tree, name, needed, readers)
    renamed = {READER if word in readers else word: values for word, values in sheet.columns.items()}
    return sheet._replace(columns=renamed), ledger


def _of_labels(tree: Tree, name: str) -> tuple[Votes, tuple[Dropped, ...]]:
    known = [word for word in header(tree, name) if word and word != "image_id" and word.lower() != READER]
    findings = [word for word in known if word.lower() != vindr.NORMAL]
    sheet, ledger = _sheet(tree, name, ("image_id", *findings))
    found = {}
    for finding in findings:
        column = sheet.columns[finding].dictionary_encode()
        said = np.array([as_float(text) > 0 for text in column.dictionary.to_pylist()], bool)
        found[OTHER_SPELLINGS.get(finding, finding)] = np.flatnonzero(said[column.indices.to_numpy()])
    return Votes(sheet.text("image_id").to_pylist(), sheet.text(READER).to_pylist(), found), ledger


def _of_boxes(sheet: Sheet | None) -> Votes:
    if sheet is None:
        return Votes([], [], {})
    finding = sheet.text("class_name")
    named = [word for word in pc.unique(finding).to_pylist() if word and word.lower() != vindr.NORMAL]
    found = {word: np.flatnonzero(pc.fill_null(pc.equal(finding, word), False)) for word in named}
    return Votes(sheet.text("image_id").to_pylist(), sheet.text(READER).to_pylist(), found)


def _labels(votes: list[Votes], names: list[str]) -> dict[str, pa.Array]:
    """Of each image's readers, counted once each: half or more → 1, fewer → −1, none → 0."""
    place = {name: row for row, name in enumerate(names)}
    findings = tuple(sorted({word for said in votes for word, rows in said.found.items() if len(rows)}))
    readers, found = np.zeros(len(names), int), np.zeros((len(names), len(findings)), int)
    for said in votes:
        people = list(zip((place.get(name or "", -1) for name in said.image), said.reader, strict=True))
        for image, _ in set(people):
            if image >= 0:
                readers[image] += 1
        for column, finding in enumerate(findings):
            for image, _ in {people[row] for row in said.found.get(finding, ()) if people[row][0] >= 0}:
                found[image, column] += 1
    present = (2 * found >= readers[:, None]) & (found > 0)
    return struct_of(findings, np.where(present, 1, np.where(found > 0, -1, 0)).astype(np.int8))


def _looked_at(votes: list[Votes]) -> pa.Table | None:
    pairs = dict.fromkeys(
        (image, reader)
        for said in votes
        for image, reader in zip(said.image, said.reader, strict=True)
        if image and reader
    )
    if not pairs:
        return None
    image, reader = zip(*pairs, strict=True)
    return pa.table({"image_id": pa.array(image, pa.string()), "reader": pa.array(reader, pa.string())})


# --- films


def _sizes(tree: Tree, image: pa.StringArray) -> tuple[dict[str, pa.Array], tuple[Dropped, ...]]:
    """Of the DICOM films, where a table beside their copies tells them."""
    columns = {name: pa.nulls(len(image), pa.int32()) for name in SIZES}
    ledger: tuple[Dropped, ...] = ()
    metas = [name for part in ("train", "test") if (name := tree.first(f"{part}_meta.csv"))]
    for name in metas:
        sheet, torn = read_rows(tree, name, ("image_id", *SIZES.values()))
        at = pc.index_in(image, value_set=sheet.columns["image_id"])
        columns = {ours: pc.coalesce(columns[ours], sheet.sides(theirs).take(at)) for ours, theirs in SIZES.items()}
        ledger += torn
    return (columns if metas else {}), ledger


def _with_sizes(boxes: pa.Table, image: pa.ChunkedArray, sizes: Mapping[str, pa.Array]) -> pa.Table:
    """With the size of the DICOM film that each box was drawn on, where it is told."""
    at = pc.index_in(boxes["image_id"].combine_chunks(), value_set=image.combine_chunks())
    for name, values in sizes.items():
        place = boxes.column_names.index(f"image_{name}")
        boxes = boxes.set_column(place, f"image_{name}", values.take(at))
    return boxes


def _unlabelled(tree: Tree, known: dict[str, str | None]) -> frozenset[str]:
    films = (path for path in tree.names if FILM.fullmatch(path) and TEST.search(path))
    return frozenset(path for path in films if stem(path) not in known)


def _notes(parts: list[Part], table: pa.Table, unlabelled: int, sized: bool) -> Iterator[str]:
    tables = ", ".join(part.labels or part.boxes or "" for part in parts)
    yield f"labels: {tables}; present if at least half of an image's readers found it, uncertain if fewer did"
    if unlabelled:
        yield f"test films without labels, not in the index: {unlabelled:,}"
    copies = sum(not DICOM.fullmatch(path) for path in table["path"].drop_null().to_pylist())
    if copies and not sized:
        yield (
            f"boxes are in pixels of the DICOM films, and {copies:,} films here are copies: nothing tells their scale; "
            "train_meta.csv (image_id, dim0, dim1) beside them would"
        )
