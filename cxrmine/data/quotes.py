"""Rows of a CSV file that a quote without its end has taken into one field.

A field may rightly have several lines: a report, a list. Lines are taken for lost rows where one of them, read by
itself, has as many fields as the table, and its first field looks like those of the table's first column: digits where
these have digits, letters where they have letters, the same signs between.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow


class Swallowed(NamedTuple):
    """Place of a row, or of a torn row, → the lines that are lost with it, its own first."""

    of_rows: dict[int, list[str]]
    of_torn: dict[int, list[str]]


def lost_in_quotes(content: bytes, mark: str, columns: int, torn: Sequence[str], rows: int) -> Swallowed:
    """`torn`: the text of the rows that are set aside already; `rows`: how many others there are."""
    if sum(map(bool, content.splitlines())) <= 1 + rows + len(torn):
        return Swallowed({}, {})
    table = _whole(content, mark, columns)
    broken = [pc.match_substring_regex(column, "[\r\n]") for column in table.columns]
    several = broken[0]
    for one in broken[1:]:
        several = pc.or_(several, one)
    shapes: set[str] = set()
    found = Swallowed({}, {})

    def are_rows(lines: Iterable[str]) -> bool:
        alike = [fields[0] for line in lines if len(fields := next(csv.reader([line], delimiter=mark), [])) == columns]
        if alike and not shapes:
            shapes.update(map(_shape, table.column(0).filter(pc.invert(broken[0])).slice(1).to_pylist()))
        return any(_shape(first) in shapes for first in alike)

    for place in pc.indices_nonzero(several).to_pylist():
        cells = [column[place].as_py() for column in table.columns]
        if any(are_rows(cell.splitlines()[1:]) for cell in cells):
            found.of_rows[place - 1] = [line for line in mark.join(cells).splitlines() if line]
    for place, text in enumerate(torn):
        lines = [line for line in text.splitlines() if line]
        if are_rows(lines[1:]):
            found.of_torn[place] = lines
    return found


def _whole(content: bytes, mark: str, columns: int) -> pa.Table:
    """Every column, and the header as its first row."""
    names = [f"f{column}" for column in range(columns)]
    return arrow.read_csv(
        pa.BufferReader(content),
        read_options=arrow.ReadOptions(use_threads=False, autogenerate_column_names=True),
        parse_options=arrow.ParseOptions(
            delimiter=mark, newlines_in_values=True, invalid_row_handler=lambda row: "skip"
        ),
        convert_options=arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    ).combine_chunks()


def _shape(text: str) -> str:
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", text.strip()))
