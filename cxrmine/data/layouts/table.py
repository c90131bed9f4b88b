"""One CSV or Parquet file at the top of a folder with films anywhere below: a dataset of no other layout.

Columns that are known without being told are in data.columns.NAMES (image, patient_id, Finding Labels and so on,
whatever their case, blanks and underscores); others are named with --columns or in cxrmine-data.toml, ours=theirs.

image, path
    `image_id` is image as it is written, or else path. The film lies at path, or else at image: a path from the top, a
    part of one, or a name alone, with or without its ending, that only one film has.
findings
    Words joined with |, or else with ; or a comma; `No Finding`, `normal` and `none` are no finding, and an empty field
    is "nobody said anything". Or a column a finding with 1, 0, -1 (uncertain, u) or nothing: those that are told
    (findings=A,B), or all that have nothing else in them; where a column No Finding is 1, nothing becomes 0.
finding, reader, x_min, y_min, x_max, y_max or x, y, width, height
    A row a box in pixels of the film, so several rows an image; a row without a box is fine. Where there are no
    findings, an image has those of its rows. What an image's rows say of its patient, split and view must agree.
split, patient, view
    train, val (valid, validation, dev) or test. Without a column of patients the headers of DICOM films tell who is one
    (see data.people), and `patient_id` is then the first image of that patient. A view that is not given comes from
    there too. Where there are train rows and no val rows, 10 % of the training patients become `val`.
boxes.csv, boxes.parquet, boxes.json, or *bbox*
    Boxes in any form of data.drawn.read, of images named as in the table, or with or without folders and ending. Where
    the form or the file tells the size of what they were drawn on, they are scaled to copies of another, which is said.
table
    Which file, where several could be it: --columns table=labels.csv. Files with the same columns whose names each
    speak of another split (train.csv, valid.csv, test.csv) are one table, and the name is the split, if no column is.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import Raw, films_and
from cxrmine.data.columns import FORMS, Columns, resolve, shown
from cxrmine.data.drawn.read import drawn_in
from cxrmine.data.drawn.sheet import Drawn, Sheet, corners, drawn_table, from_xywh
from cxrmine.data.index import dropped
from cxrmine.data.labels import findings_of_rows, of_images
from cxrmine.data.meant import meant
from cxrmine.data.paths import column_inside, inside
from cxrmine.data.reading import OURS, Reading
from cxrmine.data.sheets import Own, read_own
from cxrmine.data.tree import Tree, is_safe
from cxrmine.data.words import SPLIT_WORDS, plain, with_validation
from cxrmine.errors import CxrError, did_you_mean

SHAPE = "table (a .csv or .parquet file at the top of a folder, with columns of films and findings)"
COLUMNS = tuple(name for name in OURS if name != "labels")
TABLE = re.compile(r".+\.(csv|csv\.gz|parquet)", re.IGNORECASE)
DRAWN = re.compile(r"(boxes|[^/]*bbox[^/]*)\.(csv|json|parquet)(\.gz)?", re.IGNORECASE)
MINED = re.compile(r"(boxes|severity)\..*", re.IGNORECASE)  # never the dataset's own table
FILES = ("image", "path")  # columns that may say where a film lies
NO_IMAGE = "row without an image"
DISAGREES = "row that says otherwise than another of its image"
SEVERAL_FILMS = "image that may be one of several films"

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Texts = list[str | None]


def recognise(tree: Tree) -> str:
    """Any table will do: what one lacks is best said of it by name."""
    found = _tables(tree)
    return f"{found[0]} is in it" if found else ""


def read(tree: Tree, reading: Reading) -> Raw:
    own, columns, notes = _chosen(tree, reading.columns)
    sheet, ledger, name = own.sheet, own.ledger, " + ".join(own.names)
    sheet.columns.update((c, column_inside(tree.root, sheet.text(c))) for k, c in columns.of.items() if k in FILES)
    of_image = sheet.text(columns.of.get("image") or columns.of["path"])
    named = pc.is_valid(of_image).to_numpy(zero_copy_only=False)
    ledger += dropped(NO_IMAGE, _row_names(name, sheet, ~named))
    image, at = _grouped(of_image.drop_null(), bool(columns.box))
    sheet = sheet.filter(named)
    facts, agree = _facts(sheet, columns, at, len(image))
    ledger += dropped(DISAGREES, _row_names(name, sheet, ~agree))
    sheet, at = sheet.filter(agree), at[agree]
    path, unclear = _films(tree, image, facts.get("path", [None] * len(image)))
    split, about_split = with_validation(facts.get("split", [None] * len(image)))
    findings, rows, about_labels = findings_of_rows(sheet, columns)
    drawn, about_boxes = _beside(tree, own.names, image)
    view = facts.get("view", [None] * len(image))
    texts = {"image_id": image, "patient_id": facts.get("patient", image), "view": view, "split": split, "path": path}
    return Raw(
        "table",
        pa.table({key: pa.array(values, pa.string()) for key, values in texts.items()}),
        of_images(findings, rows, at, len(image)),
        boxes=pa.concat_tables([_boxes(sheet, columns, findings), *([drawn.table] if drawn else [])]),
        looked_at=_looked_at(sheet, columns, drawn),
        dropped=ledger + dropped(SEVERAL_FILMS, unclear),
        notes=(*notes, *about_split, *about_labels, *about_boxes),
        told=("patient",) if "patient" in facts else (),
        drawn_on="films of the size that their file tells" if drawn else "",
    )


# --- the table


def _tables(tree: Tree) -> list[str]:
    """Tables at the top; one that is named like a list of boxes only where there is no other."""
    found = [n for n in tree.top if TABLE.fullmatch(n) and not MINED.fullmatch(n) and tree.has(n)]
    found = [n for n in found if not (n.endswith(".gz") and n.removesuffix(".gz") in found)]
    return [n for n in found if not DRAWN.fullmatch(n)] or found


def _chosen(tree: Tree, told: Mapping[str, str]) -> tuple[Own, Columns, tuple[str, ...]]:
    """The one table that has what is needed, its columns, and what to say of it."""
    there, rest = _tables(tree), {ours: theirs for ours, theirs in told.items() if ours != "table"}
    names = [told["table"]] if "table" in told else there
    if not all(is_safe(name) and tree.has(name) for name in names):
        raise CxrError(f"{tree} has no table {names[0]}.{did_you_mean(names[0], there)}", f"It has {shown(there)}.")
    tables, faults = read_own(tree, names, rest)
    found: list[tuple[Own, Columns]] = []
    for own in tables:
        try:
            found.append((own, resolve(own.sheet, rest)))
        except CxrError as fault:
            faults.append(fault)
    if not found:
        raise CxrError(" ".join(fault.what for fault in faults), faults[0].cure)
    if len(found) > 1:
        words = [" + ".join(own.names) for own, _ in found]
        raise CxrError(
            f"{tree} has {len(found)} tables of films and findings: {shown(words)}.",
            f"Choose one with --columns table={found[0][0].names[0]}, or join them, with a column split.",
        )
    own, columns = found[0]
    said = ", ".join(f"{ours} = {theirs}" for ours, theirs in columns.of.items() if theirs != columns.text)
    notes = [
        f"labels: {', '.join(own.names)}",
        *own.notes,
        f"columns: {said}, findings = {columns.text or shown(columns.flags)}",
    ]
    if columns.unread:
        notes.append(f"columns that are not read: {shown(columns.unread)}")
    if others := [other for other in names if other not in own.names]:
        notes.append(f"tables that are not read: {shown(others)}")
    return own, columns, tuple(notes)


def _row_names(name: str, sheet: Sheet, which: Bools) -> list[str]:
    return [f"{name}: row {row}" for row in sheet.row[which].tolist()]


# --- images


def _grouped(image: pa.Array, together: bool) -> tuple[list[str], Ints]:
    """Images, and which of them each row is of. A table without boxes has a row an image: a second one is a fault."""
    if not together:
        return image.to_pylist(), np.arange(len(image))
    encoded = image.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _facts(sheet: Sheet, columns: Columns, at: Ints, images: int) -> tuple[dict[str, Texts], Bools]:
    """What rows say of their images: of several the first that says something. And the rows that agree with that."""
    facts: dict[str, Texts] = {}
    agree = np.ones(len(at), dtype=bool)
    for ours in ("path", "patient", "split", "view"):
        if ours in columns.of:
            column = _splits(sheet, columns.of[ours]) if ours == "split" else sheet.text(columns.of[ours])
            says = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
            first = np.full(images, -1)
            first[at[says][::-1]] = says[::-1]
            known = column.take(pa.array(first, mask=first < 0))
            facts[ours] = known.to_pylist()
            same = pc.equal(column, known.take(pa.array(at)))
            agree &= pc.fill_null(same, True).to_numpy(zero_copy_only=False)
    return facts, agree


def _splits(sheet: Sheet, name: str) -> pa.Array:
    encoded = sheet.text(name).dictionary_encode()
    words = encoded.dictionary.to_pylist()
    if strange := next((word for word in words if plain(word) not in SPLIT_WORDS), None):
        row = sheet.row[pc.index(sheet.text(name), strange).as_py()]
        raise CxrError(
            f"{sheet.where}: {name} is {strange!r} in row {row}, which is no split.",
            "Write train, val or test, or nothing; or name another column: --columns split=THEIRS.",
        )
    return pa.array([SPLIT_WORDS[plain(word)] for word in words], pa.string()).take(encoded.indices)


def _films(tree: Tree, image: Sequence[str], told: Sequence[str | None]) -> tuple[Texts, list[str]]:
    """The film of every image, None where it is not there; and the images of which it is unclear."""
    wanted = [path or name for path, name in zip(told, image, strict=True)]
    safe = [word if is_safe(word) else None for word in wanted]
    films, unclear = meant(safe, films_and(tree, safe))
    of_unclear = {*unclear}
    return (
        [film if good else word for film, good, word in zip(films, safe, wanted, strict=True)],  # assemble tells why
        [name for name, word in zip(image, wanted, strict=True) if word in of_unclear],
    )


# --- boxes


def _boxes(sheet: Sheet, columns: Columns, findings: Sequence[str]) -> pa.Table:
    """The rows of the table that have a box, or the beginning of one."""
    if not columns.box:
        return drawn_table({})
    drawn = np.zeros(len(sheet.row), dtype=bool)
    for side in columns.box:
        drawn |= pc.is_valid(sheet.text(columns.of[side])).to_numpy(zero_copy_only=False)
    rows = sheet.filter(drawn)
    named = columns.of.get("finding") or columns.text
    if not named and len(findings) > 1:
        raise CxrError(
            f"{sheet.where} has boxes, and no column of their finding.", "Name it: --columns finding=THEIRS."
        )
    sides = [rows.numbers(columns.of[side]) for side in columns.box]
    if len(rows.row) and np.nanmax(np.abs(sides), initial=0) <= 1:
        raise CxrError(f"{sheet.where} has boxes in parts of a film, all at most 1.", "Write them in pixels.")
    image = rows.text(columns.of.get("image") or columns.of["path"])
    box = corners(*sides) if columns.box == FORMS[0] else from_xywh(*sides)
    finding = rows.text(named) if named else pa.array([*findings] * len(image), pa.string())
    reader = rows.text(columns.of.get("reader", ""))
    return drawn_table({"image_id": image, "finding": finding, **box, "reader": reader, "row": rows.row.tolist()})


def _beside(tree: Tree, tables: Sequence[str], image: Sequence[str]) -> tuple[Drawn | None, tuple[str, ...]]:
    """Boxes of a file of their own, their images by the names that the table has; and what to say."""
    names = [name for name in tree.top if DRAWN.fullmatch(name) and name not in tables and tree.has(name)]
    if not names:
        return None, ()
    if len(names) > 1:
        raise CxrError(f"{tree} has {len(names)} files of boxes: {shown(names)}.", "Keep the one to use.")
    try:
        drawn = drawn_in(tree.read(names[0]), Path(f"{tree}/{names[0]}"))
    except CxrError as fault:
        cure = f"Mend it, name its columns image_id, finding, {', '.join(FORMS[0])}, or move it away."
        raise CxrError(fault.what, cure) from None
    if drawn.made_by:
        return None, (f"boxes: not those of {names[0]}, which come from {', '.join(drawn.made_by)}, not from people",)
    seen = drawn.looked_at
    return (
        drawn._replace(
            table=_renamed(tree, drawn.table, image), looked_at=None if seen is None else _renamed(tree, seen, image)
        ),
        (f"boxes: {names[0]} ({drawn.kind})",),
    )


def _renamed(tree: Tree, table: pa.Table, image: Sequence[str]) -> pa.Table:
    words = inside(tree.root, table["image_id"].to_pylist())
    found = [new or old for new, old in zip(meant(words, {*image})[0], words, strict=True)]
    return table.set_column(table.column_names.index("image_id"), "image_id", pa.array(found, pa.string()))


def _looked_at(sheet: Sheet, columns: Columns, drawn: Drawn | None) -> pa.Table | None:
    """Who read which image, where the table or the file of boxes names readers."""
    parts = [] if drawn is None or drawn.looked_at is None else [drawn.looked_at.select(["image_id", "reader"])]
    if columns.box and "reader" in columns.of:
        image = sheet.text(columns.of.get("image") or columns.of["path"])
        parts.append(pa.table({"image_id": image, "reader": sheet.text(columns.of["reader"])}))
    if not parts:
        return None
    table = pa.concat_tables(parts).filter(pc.is_valid(pa.concat_tables(parts)["reader"]))
    return table.group_by(["image_id", "reader"]).aggregate([]).sort_by("image_id") if len(table) else None
