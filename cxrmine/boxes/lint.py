"""Faults in truth as it was drawn: every one is found and named with its row, and nothing is mended by guessing.

A table here has image_id, finding and the four corners; reader, image_width, image_height and row (what the file calls
it; else 1, 2, 3 …) where there are such. A box is held against its image's sides only where these are known.
"""

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.door import OUTSIDE
from cxrmine.errors import UsageError, did_you_mean, rows_text, some_text
from cxrmine.tables import COORDINATES

KINDS = (
    "unknown finding",
    "no finding name",
    "no image name",
    "unknown image",
    "not a number",
    "without area",
    "negative",
    "outside the image",
    "xywh read as corners",
    "corners read as xywh",
    "duplicated",
    "image without a box",
)
NOTABLE = 0.10  # the share of rows from which a fault is the file's way of writing, not a slip
SHOWN_LINES = 20
HINTED = 100  # unknown words that a hint is looked for
WIDTHS = "(the last two numbers seem to be a width and a height: name their columns so)"
CORNERS = "(the last two numbers seem to be the other corner: name their columns x_max and y_max)"

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mark = tuple[str, Ints, Sequence[str]]  # kind, places in the table, and what of each


class Fault(NamedTuple):
    kind: str  # of KINDS
    row: int  # 0: no row's, but what the file says of an image
    what: str


def lint(
    table: pa.Table,
    *,
    findings: Sequence[str] | None = None,
    images: AbstractSet[str] | None = None,
    without_box: Sequence[str] = (),
    units: str = "corners",
) -> list[Fault]:
    """Every fault, by kind and then by row; a row has each kind once at most.

    findings, images: those that are known (None: any). without_box: images that the file lists and has no box for.
    units: how the file wrote its boxes, `corners` or `xywh`.
    """
    row = rows_of(table)
    marks = [*_names(table, findings, images), *_numbers(table, units), *_duplicated(table)]
    marks.sort(key=lambda mark: KINDS.index(mark[0]))
    faults = [
        Fault(kind, at, what)
        for kind, places, whats in marks
        for at, what in zip(row[places].tolist(), whats, strict=True)
    ]
    return faults + [Fault(KINDS[-1], 0, name) for name in without_box]


def without_faults(table: pa.Table, faults: Sequence[Fault]) -> pa.Table:
    """The rows that have none; of rows given twice, the first stays."""
    faulty = np.array([fault.row for fault in faults], dtype=np.int64)
    return table.filter(pa.array(~np.isin(rows_of(table), faulty)))


def summary(faults: Sequence[Fault]) -> list[str]:
    """A line for each kind and word: how many, and the first rows."""
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[fault.kind, fault.what if fault.row else ""].append(fault)
    lines = []
    for (kind, what), group in groups.items():
        where = (
            rows_text([fault.row for fault in group]) if group[0].row else some_text([fault.what for fault in group])
        )
        lines.append(f"{len(group):,} {kind}{' ' * bool(what)}{what}: {where}")
    if len(lines) > SHOWN_LINES:
        lines[SHOWN_LINES:] = [f"and {len(lines) - SHOWN_LINES:,} more such lines"]
    return lines


def report(faults: Sequence[Fault], where: str, rows: int) -> str:
    """One sentence with every kind of fault."""
    if not faults:
        return f"{where} has no fault in {rows:,} rows."
    faulty = len({fault.row for fault in faults} - {0})
    return f"{where} has {faulty:,} faulty of {rows:,} rows: {'; '.join(summary(faults))}."


def rename(table: pa.Table, names: Mapping[str, str], vocabulary: Sequence[str] | None = None) -> pa.Table:
    """`table` with findings renamed as told; a word that is in no row, or leads out of the vocabulary, is refused."""
    place = table.schema.get_field_index("finding")
    encoded = table["finding"].cast(pa.string()).combine_chunks().dictionary_encode()
    present = [word for word in encoded.dictionary.to_pylist() if word]
    for old, new in names.items():
        if old not in present:
            raise UsageError(
                f"No box is of {old!r}, to be renamed.{did_you_mean(old, present)}",
                f"The boxes are of {', '.join(sorted(present)) or 'nothing'}.",
            )
        if vocabulary is not None and new not in vocabulary:
            raise UsageError(
                f"{old!r} cannot become {new!r}, which is unknown.{did_you_mean(new, vocabulary)}",
                f"Known: {', '.join(vocabulary)}.",
            )
    words = pa.array([names.get(word, word) for word in encoded.dictionary.to_pylist()], pa.string())
    field = table.schema.field(place)
    return table.set_column(place, field, words.take(encoded.indices).cast(field.type))


def rows_of(table: pa.Table) -> Ints:
    """The numbers of the rows in their file."""
    if "row" in table.column_names:
        return table["row"].to_numpy().astype(np.int64)
    return np.arange(1, len(table) + 1)


def _names(table: pa.Table, findings: Sequence[str] | None, images: AbstractSet[str] | None) -> list[Mark]:
    marks: list[Mark] = []
    of_finding = _unknown(table["finding"], findings, hint=True)
    of_image = _unknown(table["image_id"], images, hint=False)
    for (unknown, whats, empty), kind in ((of_finding, "finding"), (of_image, "image")):
        marks += [(f"unknown {kind}", unknown, whats), _plain(f"no {kind} name", empty)]
    return marks


def _unknown(
    column: pa.ChunkedArray, known: Sequence[str] | AbstractSet[str] | None, *, hint: bool
) -> tuple[Ints, list[str], Ints]:
    """(where a word is not among the known, the word with a hint, where there is no word)"""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    blank = pc.equal(pc.utf8_trim_whitespace(encoded.dictionary), "").to_numpy(zero_copy_only=False)
    empty = np.append(blank, True)
    if known is None:
        return np.empty(0, np.int64), [], np.flatnonzero(empty[codes])
    words = encoded.dictionary.to_pylist()
    strange = np.array([word not in known for word in words] + [False]) & ~empty
    texts: dict[int, str] = {}
    for n, code in enumerate(np.flatnonzero(strange).tolist()):
        texts[code] = repr(words[code]) + (_hint(words[code], known) if hint and n < HINTED else "")
    rows = np.flatnonzero(strange[codes])
    return rows, [texts[code] for code in codes[rows].tolist()], np.flatnonzero(empty[codes])


def _hint(word: str, known: Sequence[str] | AbstractSet[str]) -> str:
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lowered, 1)
    return f" (did you mean {lowered[near[0]]!r}?)" if near else ""


def _numbers(table: pa.Table, units: str) -> list[Mark]:
    x0, y0, x1, y1 = box = [_floats(table, name) for name in COORDINATES]
    width, height = _floats(table, "image_width"), _floats(table, "image_height")
    with np.errstate(invalid="ignore"):  # NaN is what is missing or not known, and compares as no fault
        usable = np.isfinite(box).all(axis=0)
        flat = {"x_max is not above x_min": usable & (x1 <= x0), "y_max is not above y_min": usable & (y1 <= y0)}
        low = {"x_min": usable & (x0 < -OUTSIDE), "y_min": usable & (y0 < -OUTSIDE)}
        beyond = {
            "x_max is beyond image_width": usable & (x1 > width + OUTSIDE),
            "y_max is beyond image_height": usable & (y1 > height + OUTSIDE),
        }
        none = np.zeros(len(table), dtype=bool)
        widths, corners = none, none
        if units == "corners":
            inverted = np.any(list(flat.values()), axis=0)
            fits = _lies_inside((x0, y0, x0 + x1, y0 + y1), width, height)
            widths = _if_notable(inverted & fits, int(usable.sum()))
        else:
            out = np.any(list(beyond.values()), axis=0)
            fits = _lies_inside((x0, y0, x1 - x0, y1 - y0), width, height)
            sized = usable & np.isfinite(width) & np.isfinite(height)
            corners = _if_notable(out, int(sized.sum())) if fits[out].all() else none
    return [
        _by_name("not a number", {name: ~np.isfinite(v) for name, v in zip(COORDINATES, box, strict=True)}),
        _by_name("without area", {text: rows & ~widths for text, rows in flat.items()}),
        _by_name("negative", low),
        _by_name("outside the image", {text: rows & ~corners for text, rows in beyond.items()}),
        _plain("xywh read as corners", np.flatnonzero(widths), WIDTHS),
        _plain("corners read as xywh", np.flatnonzero(corners), CORNERS),
    ]


def _lies_inside(box: tuple[Floats, Floats, Floats, Floats], width: Floats, height: Floats) -> Bools:
    """Whether each box has an area and lies in its image, as far as that is known."""
    x0, y0, x1, y1 = box
    out = (x1 > width + OUTSIDE) | (y1 > height + OUTSIDE)
    return (x0 >= -OUTSIDE) & (y0 >= -OUTSIDE) & (x1 > x0) & (y1 > y0) & ~out


def _if_notable(rows: Bools, of: int) -> Bools:
    """These rows if they are many enough to tell how the file was written, else none."""
    count = int(rows.sum())
    notable = count >= max(NOTABLE * of, 2) or count == of == 1
    return rows if notable else np.zeros_like(rows)


def _duplicated(table: pa.Table) -> list[Mark]:
    """Rows with the same image, finding, reader and four numbers as an earlier one."""
    keys: list[np.ndarray] = [_floats(table, name) for name in COORDINATES]
    keys += [_codes(table, name) for name in ("reader", "finding", "image_id")]
    order = np.lexsort(keys)  # stable: equal rows stay in their order
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    return [_plain("duplicated", np.sort(order[1:][same]))]


def _plain(kind: str, rows: Ints, what: str = "") -> Mark:
    return kind, rows, [what] * len(rows)


def _by_name(kind: str, masks: Mapping[str, Bools]) -> Mark:
    """One mark a row, which joins the names of all masks that it is in."""
    code = np.sum([rows.astype(np.int64) << i for i, rows in enumerate(masks.values())], axis=0)
    joined = [", ".join(name for i, name in enumerate(masks) if bits >> i & 1) for bits in range(1 << len(masks))]
    rows = np.flatnonzero(code)
    return kind, rows, [joined[bits] for bits in code[rows]]


def _floats(table: pa.Table, name: str) -> Floats:
    """The column as float64, NaN where it has nothing or is not there."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return table[name].cast(pa.float64()).to_numpy()


def _codes(table: pa.Table, name: str) -> npt.NDArray[np.int32]:
    """A number for each word of the column; -1 where there is none."""
    if name not in table.column_names:
        return np.full(len(table), -1, dtype=np.int32)
    encoded = pc.dictionary_encode(table[name].cast(pa.string()).combine_chunks())
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
