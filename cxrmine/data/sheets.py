"""Tables of one's own with all their columns as text, and those that are parts of one, joined."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.columns import NAMES
from cxrmine.data.drawn.read import parquet_sheet
from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.index import Dropped
from cxrmine.data.rows import header, read_rows
from cxrmine.data.tree import Tree
from cxrmine.data.words import plain, split_in
from cxrmine.errors import CxrError

EMPTY = pa.array(["", "nan", "null", "na", "n/a"])


class Own(NamedTuple):
    """A table that was read: the files it is from, its rows, the ledger, and what to say of it."""

    names: tuple[str, ...]
    sheet: Sheet
    ledger: tuple[Dropped, ...]
    notes: tuple[str, ...] = ()


def read_own(tree: Tree, names: Sequence[str], told: Mapping[str, str]) -> tuple[list[Own], list[CxrError]]:
    """The tables, and why others cannot be read. Where several have the same columns and the name of each speaks of
    another split, they are one."""
    tables, faults = [], []
    for name in names:
        try:
            tables.append(_own(tree, name))
        except CxrError as fault:
            faults.append(fault)
    parts: dict[frozenset[str], list[Own]] = {}
    for table in tables:
        parts.setdefault(frozenset(table.sheet.columns), []).append(table)
    joined = []
    for alike in parts.values():
        splits = [split_in(table.names[0]) for table in alike]
        are_parts = len(alike) > 1 and None not in splits and len({*splits}) == len(splits)
        joined += [_joined(tree, alike, told)] if are_parts else alike
    return joined, faults


def _own(tree: Tree, name: str) -> Own:
    if name.lower().endswith(".parquet"):
        raw = parquet_sheet(tree.read(name), Path(f"{tree}/{name}"))
        ledger: tuple[Dropped, ...] = ()
    else:
        raw, ledger = read_rows(tree, name, (), list(filter(None, header(tree, name))))
    columns = {word: text for word, column in raw.columns.items() if (text := _as_text(column)) is not None}
    return Own((name,), Sheet(raw.where, columns, raw.row), ledger)


def _as_text(column: pa.Array) -> pa.Array | None:
    """A list becomes words joined with |, a truth value 1 or 0, nothing null; what can be no text is no column."""
    try:
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pc.binary_join(column.cast(pa.list_(pa.string())), "|")
        column = (column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column).cast(pa.string())
    except pa.ArrowException:
        return None
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(pc.utf8_lower(column), value_set=EMPTY), None, column)


def _joined(tree: Tree, parts: Sequence[Own], told: Mapping[str, str]) -> Own:
    """Rows are counted on from file to file. A column `split` of the files' names, where they have none themselves."""
    names = tuple(part.names[0] for part in parts)
    words = [*parts[0].sheet.columns]
    columns = {word: pa.concat_arrays([part.sheet.columns[word] for part in parts]) for word in words}
    note = f"{' and '.join(names)} have the same columns, and are read as one table"
    if "split" not in told and not {plain(word) for word in words} & {plain(word) for word in NAMES["split"]}:
        split = [split_in(part.names[0]) for part in parts for _ in range(len(part.sheet.row))]
        columns["split"] = pa.array(split, pa.string())
        note += "; the split is what the file's name says"
    row = [part.sheet.row for part in parts]
    for place in range(1, len(row)):
        row[place] = row[place] + row[place - 1].max(initial=0)
    where = f"{tree}/{' + '.join(names)}"
    return Own(names, Sheet(where, columns, np.concatenate(row)), sum((part.ledger for part in parts), ()), (note,))
