"""A dataset's own CSV tables, read as text. What cannot be a row is counted, and nothing is guessed.

Fields are parted by commas, or, where the header has none, by semicolons or tabs. A row has the number that it has
among the rows of the file, after the header, whether or not those before it could be read.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from cxrmine.data.drawn.sheet import Sheet, delimiter
from cxrmine.data.index import Dropped, dropped
from cxrmine.data.quotes import Swallowed, lost_in_quotes
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SWALLOWED = "in a quoted field that goes on over whole rows"


def read_rows(
    tree: Tree, name: str, needed: Sequence[str], others: Sequence[str] = ()
) -> tuple[Sheet, tuple[Dropped, ...]]:
    """The columns `needed` and, of `others`, those that are there, as text without the blanks around it; and the ledger
    of rows that have another number of fields than the header, or are inside a quote that does not end."""
    torn: list[csv.InvalidRow] = []

    def set_aside(row: csv.InvalidRow) -> str:
        torn.append(row)
        return "skip"

    where, content = f"{tree}/{name}", tree.read(name)
    there = header(tree, name, content)
    if absent := [word for word in needed if word not in there]:
        raise CxrError(f"{where} has no column {', '.join(absent)}.", f"It needs {', '.join(needed)}.")
    wanted = [*needed, *(word for word in others if word in there)]
    if twice := sorted({word for word in wanted if there.count(word) > 1}):
        raise CxrError(f"{where} has more than one column {', '.join(twice)}.", "Rename or remove all but one of each.")
    mark = delimiter(content)
    try:
        raw = csv.read_csv(
            pa.BufferReader(content),
            read_options=csv.ReadOptions(use_threads=False),  # with several, nobody knows which row is torn
            parse_options=csv.ParseOptions(delimiter=mark, newlines_in_values=True, invalid_row_handler=set_aside),
            convert_options=csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as fault:
        raise _no_table(where, fault) from None
    columns = {word: pc.utf8_trim_whitespace(raw[word].combine_chunks()) for word in wanted}
    swallowed = lost_in_quotes(content, mark, len(there), [row.text for row in torn], len(raw))
    number, whole, lost = _numbered(len(raw), torn, swallowed)
    alone = [row.text for place, row in enumerate(torn) if place not in swallowed.of_torn]
    ledger = dropped(f"{name}: another number of fields than its header", sorted(_first(alone, mark)))
    ledger += dropped(f"{name}: {SWALLOWED}", _first(lost, mark))
    return Sheet(where, columns, number).filter(whole), ledger


def header(tree: Tree, name: str, content: bytes | None = None) -> list[str]:
    """The names of a table's columns, as they are written."""
    content = tree.read(name) if content is None else content
    _refuse_other_text(f"{tree}/{name}", content)
    try:
        head = csv.open_csv(
            pa.BufferReader(content),
            parse_options=csv.ParseOptions(
                delimiter=delimiter(content), newlines_in_values=True, invalid_row_handler=lambda row: "skip"
            ),
        )
        return head.schema.names
    except pa.ArrowInvalid as fault:
        raise _no_table(f"{tree}/{name}", fault) from None


def _numbered(rows: int, torn: Sequence[csv.InvalidRow], swallowed: Swallowed) -> tuple[Ints, Bools, list[str]]:
    """The number of each row that was read, which of them are whole, and the lines that are lost in quotes."""
    gone = np.array([row.number - 1 for row in torn], dtype=np.int64)
    record = np.setdiff1d(np.arange(1, rows + len(gone) + 1), gone)
    number, whole = record.copy(), np.ones(rows, dtype=bool)
    whole[list(swallowed.of_rows)] = False
    lost = {record[place]: lines for place, lines in swallowed.of_rows.items()}
    lost |= {gone[place]: lines for place, lines in swallowed.of_torn.items()}
    for first, lines in lost.items():
        number[record > first] += len(lines) - 1
    return number, whole, [line for first in sorted(lost) for line in lost[first]]


def _first(lines: Sequence[str], mark: str) -> list[str]:
    return [line.split(mark)[0] for line in lines]


def _refuse_other_text(where: str, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise CxrError(f"{where} is not UTF-8 text, from line {line:,} on.", "Save it as UTF-8.") from None


def _no_table(where: str, fault: Exception) -> CxrError:
    return CxrError(f"{where} is not a table: {str(fault).splitlines()[0]}.", "Get the file again.")
