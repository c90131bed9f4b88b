"""What every form of truth is read into: the rows as the file has them, before anything is checked.

A number that is missing, no number or not finite is null here: the linter finds it, with its row. Only what makes the
whole file doubtful is an error of the reader.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.errors import CxrError, rows_text
from cxrmine.tables import COORDINATES, build

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("finding", pa.string()),
        *((name, pa.float64()) for name in COORDINATES),
        ("patient_id", pa.string()),
        ("split", pa.string()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("reader", pa.string()),
        ("row", pa.int64()),
    ]
)
LOOKED_AT = pa.schema([SCHEMA.field(n) for n in ("image_id", "patient_id", "image_width", "image_height", "reader")])
MOST_PIXELS = 2**31 - 1

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Drawn(NamedTuple):
    """`table` has SCHEMA, in file order; `row` counts from 1 after the header (JSON: the boxes in file order).

    looked_at: LOOKED_AT, every image and each reader who read it, with or without boxes: a pair that has no box there
    is known to be absent; None where the form does not tell. without_box: images that the file lists and has no box
    for, where that does not tell either.
    """

    table: pa.Table
    looked_at: pa.Table | None
    kind: str
    vocabulary: tuple[str, ...] | None = None  # the findings of the form, as it spells them
    units: str = "corners"  # how the file writes boxes: corners or xywh
    without_box: tuple[str, ...] = ()
    made_by: tuple[str, ...] = ()  # what its boxes say they come from, where that is not people


class Sheet(NamedTuple):
    """The columns of a CSV (text, without the blanks around it) or Parquet file, and the number of every row."""

    where: str
    columns: dict[str, pa.Array]
    row: Ints

    def text(self, name: str) -> pa.Array:
        """The column as text, null where it is empty; all null where there is no such column."""
        if name not in self.columns:
            return pa.nulls(len(self.row), pa.string())
        try:
            column = self.columns[name].cast(pa.string())
        except pa.ArrowException:
            raise CxrError(f"{self.where}: {name} is {self.columns[name].type}, not text.", "Name another.") from None
        return pc.if_else(pc.equal(column, ""), None, column)

    def numbers(self, name: str) -> Floats:
        """The column as numbers; NaN where it has none that is finite."""
        column = self.columns[name]
        try:
            values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except pa.ArrowException:  # no number somewhere
            values = np.array([as_float(text) for text in self.text(name).to_pylist()], dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def sides(self, name: str) -> pa.Array:
        """The column as widths or heights of images; all null where there is no such column."""
        if name not in self.columns:
            return pa.nulls(len(self.row), pa.int32())
        given = self.text(name).is_valid().to_numpy(zero_copy_only=False)
        return sides(self.numbers(name), given, name, self.where, self.row)

    def filter(self, keep: npt.NDArray[np.bool_]) -> "Sheet":
        mask = pa.array(keep)
        return Sheet(self.where, {name: column.filter(mask) for name, column in self.columns.items()}, self.row[keep])


def drawn_table(columns: Mapping[str, Any]) -> pa.Table:
    """SCHEMA from some of its columns; the others are null."""
    return build(SCHEMA, columns)


def looked_at(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """LOOKED_AT from some of its columns, each image and reader once; a row without an image's name says nothing."""
    table = build(LOOKED_AT, columns)
    first: dict[tuple[str | None, str | None], int] = {}
    for place, key in enumerate(zip(table["image_id"].to_pylist(), table["reader"].to_pylist(), strict=True)):
        first.setdefault(key, place)
    table = table.take(pa.array(first.values(), pa.int64()))
    return table.filter(table["image_id"].is_valid()).combine_chunks()


def corners(x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> dict[str, pa.Array]:
    """The four columns; null for NaN, and for what the float32 of a boxes table could not hold."""
    with np.errstate(over="ignore"):
        bad = [~np.isfinite(values.astype(np.float32)) for values in (x0, y0, x1, y1)]
    return {n: pa.array(v, mask=b) for n, v, b in zip(COORDINATES, (x0, y0, x1, y1), bad, strict=True)}


def from_xywh(x: Floats, y: Floats, w: Floats, h: Floats) -> dict[str, pa.Array]:
    return corners(x, y, x + w, y + h)


def sides(values: Floats, given: npt.NDArray[np.bool_], name: str, where: str, row: Ints) -> pa.Array:
    """Widths or heights of images as int32, null where none is given; a size that can be none is an error."""
    with np.errstate(invalid="ignore"):
        good = (values >= 1) & (values == np.round(values)) & (values <= MOST_PIXELS)
    if (bad := given & ~good).any():
        raise CxrError(
            f"{where}: {name} is not a whole number from 1 in {rows_text(row[bad].tolist())}.",
            "It is the image's size in pixels; leave it empty where it is not known.",
        )
    return pa.array(np.where(good, values, 0).astype(np.int32), mask=~good)


def delimiter(content: bytes) -> str:
    """What parts the fields of a CSV file: a comma, or what else its header has where that has none."""
    head = re.sub(rb'"[^"]*"', b"", b"".join(content[:65536].lstrip().splitlines()[:1]))
    return "," if b"," in head else ";" if b";" in head else "\t" if b"\t" in head else ","


def as_number(value: Any) -> float:
    """A number of a JSON document; NaN for what is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def four(values: Any) -> tuple[float, ...]:
    """A box of a JSON document; four times NaN where it has not four entries."""
    whole = isinstance(values, list) and len(values) == len(COORDINATES)
    return tuple(map(as_number, values)) if whole else (math.nan,) * len(COORDINATES)


def as_float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
