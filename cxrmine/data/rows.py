"""A dataset's own CSV tables, read as text. What cannot be a row is counted, and nothing is guessed."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.index import Dropped, dropped
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError


def read_rows(
    tree: Tree, name: str, needed: Sequence[str], others: Sequence[str] = ()
) -> tuple[Sheet, tuple[Dropped, ...]]:
    """The columns `needed` and, of `others`, those that are there, as text without the blanks around it; and the ledger
    of rows that have another number of fields than the header."""
    torn: list[str] = []

    def set_aside(row: csv.InvalidRow) -> str:
        torn.append(row.text.split(",")[0])
        return "skip"

    where, content = f"{tree}/{name}", tree.read(name)
    there = header(tree, name, content)
    if absent := [word for word in needed if word not in there]:
        raise CxrError(f"{where} has no column {', '.join(absent)}.", f"It needs {', '.join(needed)}.")
    wanted = [*needed, *(word for word in others if word in there)]
    if twice := sorted({word for word in wanted if there.count(word) > 1}):
        raise CxrError(f"{where} has more than one column {', '.join(twice)}.", "Rename or remove all but one of each.")
    try:
        raw = csv.read_csv(
            pa.BufferReader(content),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=set_aside),
            convert_options=csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as fault:
        raise _no_table(where, fault) from None
    columns = {word: pc.utf8_trim_whitespace(raw[word].combine_chunks()) for word in wanted}
    ledger = dropped(f"{name}: another number of fields than its header", sorted(torn))
    return Sheet(where, columns, np.arange(1, len(raw) + 1)), ledger


def header(tree: Tree, name: str, content: bytes | None = None) -> list[str]:
    """The names of a table's columns, as they are written."""
    try:
        head = csv.open_csv(
            pa.BufferReader(tree.read(name) if content is None else content),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip"),
        )
        return head.schema.names
    except (pa.ArrowInvalid, UnicodeDecodeError) as fault:
        raise _no_table(f"{tree}/{name}", fault) from None


def _no_table(where: str, fault: Exception) -> CxrError:
    return CxrError(f"{where} is not a table: {str(fault).splitlines()[0]}.", "Get the file again.")
