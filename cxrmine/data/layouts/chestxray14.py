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
    Image, finding, x, y, w, h by position (its header has more names than its rows have fields), in pixels of the PNG.
    `Infiltrate` there is `Infiltration` in Data_Entry.
images/, images_001/images/ … images_012/images/, images_001/, or the folder itself
    The films, under the names in Data_Entry with their endings (.png, .jpg, .dcm).

Each text file may be .gz. Findings are those that occur in Finding Labels, in alphabetical order. `image_id` is the
Image Index as it stands, with its ending. An empty Finding Labels is "nobody said anything", not "No Finding".
"""

import csv
import io
import itertools
import math
import re
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from cxrmine.data.index import (
    BOX_SCHEMA,
    FILE_WITHOUT_ROW,
    IN_NO_LIST,
    SECOND_FILE,
    Dropped,
    Index,
    dropped,
    is_validation,
    split_by_patient,
)
from cxrmine.data.sources import names_in, read_bytes, read_text
from cxrmine.errors import CxrError

SHAPE = "ChestX-ray14 (a file Data_Entry_2017*.csv or Data_Entry_2017*.csv.gz in the folder)"
PUBLISHED_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
OTHER_SPELLINGS = {"Infiltrate": "Infiltration"}
NORMAL = "No Finding"
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "View Position")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".dcm")
NO_NUMBERS = "box without four numbers"
IMAGE_FOLDER = re.compile(r"images(_\d+)?")


def recognise(root: Path) -> bool:
    return bool(_candidates(root, "Data_Entry_2017"))


def read(root: Path) -> Index:
    entries = _only(root, "Data_Entry_2017")
    table, ledger = _read_entries(entries)
    paths, file_faults = _find_images(root, table["image_id"])
    split, outside, note = _split(root, table)
    table = table.append_column("path", paths).append_column("split", split)
    ledger += file_faults + dropped(IN_NO_LIST, table["image_id"].filter(outside).to_pylist())
    table = table.filter(pc.invert(outside)).sort_by("image_id").combine_chunks()
    if not table.num_rows:
        raise CxrError(f"Nothing is left of {root} to read: {_ledger_text(ledger)}.", "Mend those files.")
    findings, labels, label_notes = _labels(table["Finding Labels"].combine_chunks())
    boxes, box_faults = _read_boxes(root, table["image_id"], findings)
    boxed = pc.is_in(table["image_id"], value_set=boxes["image_id"].combine_chunks())
    table = table.drop_columns("Finding Labels").append_column("labels", labels).append_column("boxed", boxed)
    table = table.select(["image_id", "path", "split", "patient_id", "view", "labels", "boxed"]).combine_chunks()
    notes = (f"labels: {entries.name}", note, *label_notes)
    return Index(root, "ChestX-ray14", findings, table, boxes, ledger + box_faults, notes)


def _ledger_text(ledger: Sequence[Dropped]) -> str:
    return "; ".join(f"{entry.reason} ({entry.count:,})" for entry in ledger) or "no rows"


# --- files


def _candidates(root: Path, stem: str) -> list[Path]:
    return sorted(p for p in root.glob(f"{stem}*") if p.name.endswith((".csv", ".csv.gz")) and p.is_file())


def _only(root: Path, stem: str) -> Path:
    """The one file of that kind; X.csv beside X.csv.gz is one, read unpacked."""
    found = _candidates(root, stem)
    found = [p for p in found if not (p.suffix == ".gz" and p.with_suffix("") in found)]
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise CxrError(f"{root} has {len(found)} files {stem}*: {names}.", "Their labels differ: keep the one to use.")
    return found[0]


def _first_that_exists(root: Path, name: str) -> Path | None:
    return next((p for p in (root / name, root / f"{name}.gz") if p.is_file()), None)


# --- Data_Entry


def _read_entries(path: Path) -> tuple[pa.Table, tuple[Dropped, ...]]:
    """image_id, Finding Labels, patient_id and view of every row that can be used, and the ledger of the others."""
    torn: list[str] = []

    def set_aside(row: arrow_csv.InvalidRow) -> str:
        torn.append(row.text.split(",")[0])
        return "skip"

    try:
        raw = arrow_csv.read_csv(
            pa.BufferReader(read_bytes(path)),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=set_aside),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(COLUMNS),
                include_missing_columns=True,
                column_types=dict.fromkeys(COLUMNS, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as fault:
        raise CxrError(f"{path} is not a table: {str(fault).splitlines()[0]}.", "Get the file again.") from None
    absent = [name for name in COLUMNS[:3] if raw.num_rows and raw[name].null_count]
    if absent:
        raise CxrError(f"{path} has no column {', '.join(absent)}.", f"It needs {', '.join(COLUMNS[:3])}.")
    image, findings, patient, view = (pc.utf8_trim_whitespace(raw[name]) for name in COLUMNS)
    view = pc.if_else(pc.equal(view, ""), None, view)
    table = pa.table({"image_id": image, "Finding Labels": findings, "patient_id": patient, "view": view})
    table, faults = _usable(table.combine_chunks())
    return table, dropped(f"{path.name}: another number of fields than its header", sorted(torn)) + faults


def _usable(table: pa.Table) -> tuple[pa.Table, tuple[Dropped, ...]]:
    """Without rows whose name could lead out of the dataset, that have no patient, or that name an image again."""
    image = table["image_id"]
    unsafe = pc.or_(pc.match_substring_regex(image, r"[/\\\x00-\x1f]"), pc.is_in(image, pa.array(["", ".", ".."])))
    ledger = dropped("unsafe image name", [repr(name) for name in image.filter(unsafe).to_pylist()])
    table = table.filter(pc.invert(unsafe))
    nobody = pc.equal(table["patient_id"], "")
    ledger += dropped("no patient", table["image_id"].filter(nobody).to_pylist())
    table = table.filter(pc.invert(nobody)).combine_chunks()
    if pc.count_distinct(table["image_id"]).as_py() < table.num_rows:
        codes = table["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        again = np.ones(len(codes), dtype=bool)
        again[np.unique(codes, return_index=True)[1]] = False
        ledger += dropped("second row of an image", table["image_id"].filter(pa.array(again)).to_pylist())
        table = table.filter(pa.array(~again)).combine_chunks()
    return table, ledger


def _labels(column: pa.StringArray) -> tuple[tuple[str, ...], pa.StructArray, tuple[str, ...]]:
    """A few hundred different texts make up the column: each is read once and spread over its rows."""
    encoded = column.dictionary_encode()
    combinations = [
        {OTHER_SPELLINGS.get(word.strip(), word.strip()) for word in text.split("|")} - {""}
        for text in encoded.dictionary.to_pylist()
    ]
    findings = tuple(sorted(set().union(*combinations) - {NORMAL}))
    if not findings:
        raise CxrError("No image of this dataset has a finding.", "Finding Labels says No Finding in every row.")
    known = np.array([[finding in words for words in combinations] for finding in findings], dtype=np.int8)
    silent = np.array([not words for words in combinations])
    rows = encoded.indices.to_numpy()
    mask = silent[rows] if silent.any() else None
    columns = [pa.array(of_finding[rows], mask=mask) for of_finding in known]
    notes = []
    if unusual := [finding for finding in findings if finding not in PUBLISHED_FINDINGS]:
        notes.append(f"findings beyond the published 14: {', '.join(unusual)}")
    torn = np.array([NORMAL in words and len(words) > 1 for words in combinations])[rows].sum()
    if torn:
        notes.append(f"images with {NORMAL} beside a finding, which then counts: {torn:,}")
    return findings, pa.StructArray.from_arrays(columns, names=list(findings)), tuple(notes)


# --- split lists


def _split(root: Path, table: pa.Table) -> tuple[pa.Array, pa.Array, str]:
    """The split of every row, which rows are in neither list, and a note on where the split is from."""
    names = ("train_val_list.txt", "test_list.txt")
    lists = {name: path for name in names if (path := _first_that_exists(root, name))}
    patients = table["patient_id"].combine_chunks().dictionary_encode()
    people = patients.dictionary.to_pylist()
    held_out = pa.array([is_validation(p) for p in people]).take(patients.indices)
    if not lists:
        test = pa.array([split_by_patient(p) == "test" for p in people]).take(patients.indices)
        outside = pa.array(np.zeros(table.num_rows, dtype=bool))
        note = "split: no official lists here; by a fixed draw, 20 % of the patients are test"
    elif len(lists) == 1:
        lone = next(iter(lists))
        raise CxrError(f"{root} has {lone} and not the other list.", f"It needs both of {', '.join(names)}, or none.")
    else:
        train_val, listed_test = (_read_list(lists[name]) for name in names)
        both = train_val.filter(pc.is_in(train_val, value_set=listed_test))
        if len(both):
            others = f", and so are {len(both) - 1:,} others" * (len(both) > 1)
            raise CxrError(f"{both[0]} is in both {' and '.join(names)}{others}.", "Take each from one of the lists.")
        image = table["image_id"].combine_chunks()
        test = pc.is_in(image, value_set=listed_test)
        outside = pc.invert(pc.or_(test, pc.is_in(image, value_set=train_val)))
        note = f"split: official lists ({len(train_val):,} names train and validation, {len(listed_test):,} test)"
    return pc.if_else(test, "test", pc.if_else(held_out, "val", "train")), outside, note


def _read_list(path: Path) -> pa.StringArray:
    return pa.array([name for line in read_text(path).splitlines() if (name := line.strip())], pa.string())


# --- boxes


def _read_boxes(root: Path, images: pa.ChunkedArray, findings: Sequence[str]) -> tuple[pa.Table, tuple[Dropped, ...]]:
    """Truth boxes as corners. Those that cannot be used are counted: nothing may stand in `boxes` without an area."""
    path = _first_that_exists(root, "BBox_List_2017.csv")
    if path is None and _candidates(root, "BBox_List"):
        path = _only(root, "BBox_List")
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path))) if any(row)] if path else []
    except csv.Error as fault:
        raise CxrError(f"{path} is not a table: {fault}.", "Get the file again.") from None
    known = set(images.to_pylist()) if rows else set()
    if rows and _box_fault(rows[0], known, findings) == NO_NUMBERS:
        rows = rows[1:]  # the header; a copy without one keeps its first box
    faults: dict[str, list[str]] = {}
    kept = []
    for row in rows:
        reason = _box_fault(row, known, findings)
        if reason:
            faults.setdefault(reason, []).append(",".join(row).rstrip(","))
        else:
            x, y, w, h = map(float, row[2:6])
            kept.append((row[0].strip(), _finding(row[1]), x, y, x + w, y + h))
    kept.sort()
    columns = zip(*kept, strict=True) if kept else itertools.repeat((), len(BOX_SCHEMA))
    arrays = [pa.array(values, field.type) for values, field in zip(columns, BOX_SCHEMA, strict=True)]
    ledger = tuple(entry for reason, texts in faults.items() for entry in dropped(reason, texts))
    return pa.Table.from_arrays(arrays, schema=BOX_SCHEMA), ledger


def _finding(word: str) -> str:
    return OTHER_SPELLINGS.get(word.strip(), word.strip())


def _box_fault(row: Sequence[str], images: Container[str], findings: Sequence[str]) -> str:
    try:
        numbers = [float(field) for field in row[2:6]]
    except ValueError:
        numbers = []
    if len(numbers) < 4 or not all(map(math.isfinite, numbers)):
        return NO_NUMBERS
    if row[0].strip() not in images:
        return "box of an image without a row"
    if _finding(row[1]) not in findings:
        return "box of a finding that no image is labelled with"
    if numbers[2] <= 0 or numbers[3] <= 0:
        return "box without an area"
    return ""


# --- films


def _find_images(root: Path, images: pa.ChunkedArray) -> tuple[pa.Array, tuple[Dropped, ...]]:
    """The path of every image, relative to the dataset: one listing a folder, and no image is asked for by itself."""
    known = images.to_pylist()
    wanted = set(known)
    where: dict[str, str] = {}
    strangers, twice = [], []
    for folder in _image_folders(root):
        prefix = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for name in names_in(folder):
            if name in where:
                twice.append(prefix + name)
            elif name in wanted:
                where[name] = prefix + name
            elif name.lower().endswith(IMAGE_ENDINGS):
                strangers.append(prefix + name)
    ledger = dropped(FILE_WITHOUT_ROW, strangers) + dropped(SECOND_FILE, twice)
    return pa.array([where.get(name) for name in known], pa.string()), ledger


def _image_folders(root: Path) -> list[Path]:
    named = sorted(p for p in root.iterdir() if IMAGE_FOLDER.fullmatch(p.name) and p.is_dir())
    return [root, *named, *(inner for p in named if (inner := p / "images").is_dir())]
