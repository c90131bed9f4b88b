"""The door for truth in any form that is known here. A file is recognised by what is in it, never by its name."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.data.drawn import coco, ham, nih, plain, rsna, vindr
from cxrmine.data.drawn.sheet import Drawn, Sheet, delimiter
from cxrmine.data.gzipped import unpacked
from cxrmine.errors import CxrError, UsageError, rows_text
from cxrmine.settings import assignments
from cxrmine.tables import META_KEY, parse_meta

SHEETS = (nih, plain, vindr, rsna)
DOCUMENTS = (coco, ham)
SHOWN = 12  # columns in a message
PARQUET = b"PAR1"


def read_drawn(path: Path, columns: Mapping[str, str] | None = None) -> Drawn:
    """Boxes that people drew, in a form that is known, or any table whose columns are named: ours → the file's."""
    return drawn_in(_content(Path(path)), path, columns)


def drawn_in(content: bytes, path: Path, columns: Mapping[str, str] | None = None) -> Drawn:
    """The same from bytes that are already in memory, of `path`."""
    if content.startswith(PARQUET):
        return _from_sheet(parquet_sheet(content, path), columns)
    text = _text(content, path)
    if text.lstrip()[:1] in ("{", "["):
        return from_document(text, path, columns)
    return _from_sheet(_csv(text, path, named=columns is not None), columns)


def parse_columns(text: str) -> dict[str, str]:
    """`image_id=filename,finding=label,…`: our column → the file's."""
    columns = assignments(text, plain.EXAMPLE)
    plain.refuse_wrong(columns)
    return columns


def _from_sheet(sheet: Sheet, columns: Mapping[str, str] | None) -> Drawn:
    if columns is not None:
        return plain.read(sheet, columns)
    for form in SHEETS:
        if form.recognise(tuple(sheet.columns)):
            return form.read(sheet)
    names = list(sheet.columns)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    raise _strange(sheet.where, f"its columns are {', '.join(names[:SHOWN])}{more}")


def from_document(text: str, path: Path | str, columns: Mapping[str, str] | None = None) -> Drawn:
    """`path`: where the text is from, for messages."""
    if columns is not None:
        raise UsageError(f"{path} is JSON, and has no columns to be named.", "Leave --columns out.")
    document = parse_json(text, path)
    for form in DOCUMENTS:
        if form.recognise(document):
            return form.read(document, str(path))
    raise _strange(path, "its JSON is of another shape")


def parse_json(text: str, path: Path | str) -> Any:
    """A document in which no key hides another."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path))
    except (ValueError, RecursionError) as fault:
        raise CxrError(f"{path} is damaged JSON: {fault}.", "Get the file again.") from None


def _strange(where: Path | str, why: str) -> CxrError:
    known = "; ".join(form.SHAPE for form in (*SHEETS, *DOCUMENTS))
    return CxrError(
        f"{where} has truth in no form that is known here: {why}.",
        f"Known: {known}. The columns of any other table can be named: --columns {plain.EXAMPLE}.",
    )


def _content(path: Path) -> bytes:
    try:
        return unpacked(path.read_bytes(), path)
    except FileNotFoundError:
        raise CxrError(f"There is no truth at {path}.", "Check the path.") from None
    except OSError as fault:
        raise CxrError(f"{path} cannot be read: {fault.strerror}.", "Name a file that can be read.") from None


def _text(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _strange(path, "it is neither Parquet nor UTF-8 text") from None
    if not text.strip():
        raise _strange(path, "it is empty")
    return text


def _once(pairs: Sequence[tuple[str, Any]], path: Path | str) -> dict[str, Any]:
    """A key that comes twice would hide what the first one has."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise CxrError(f"{path} has {twice!r} twice in one object.", "Join them, or remove one.")
    return result


def parquet_sheet(content: bytes, path: Path) -> Sheet:
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).strip().split("\n")[0]
        raise CxrError(f"{path} is damaged Parquet: {reason}", "Get the file again.") from None
    parse_meta((table.schema.metadata or {}).get(META_KEY), path)
    _refuse_twice(table.column_names, path)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    return Sheet(str(path), columns, np.arange(1, len(table) + 1))


def _csv(text: str, path: Path, named: bool) -> Sheet:
    """`row` counts every line of the table after the header, so that blank ones, which say nothing, have a number."""
    try:
        mark = delimiter(text.encode())
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except csv.Error as fault:
        raise CxrError(f"{path} is a damaged CSV file: {fault}.", "Get the file again.") from None
    start = next((i for i, record in enumerate(records) if _said(record)), None)
    if start is None:
        raise _strange(path, "it is empty")
    header = [name.strip() for name in records[start]]
    names = (None if named else nih.header(header)) or header
    rows = [(i, record) for i, record in enumerate(records[start + 1 :], start=1) if _said(record)]
    long = [i for i, record in rows if len(record) > len(names) and _said(record[len(names) :])]
    if long:
        raise CxrError(
            f"{path}: more fields than the header has ({len(names)}) in {rows_text(long)}.",
            "Put quotes around a field with a comma.",
        )
    _refuse_twice(names, path)
    blank = [""] * len(names)
    whole = [(*record, *blank[len(record) :])[: len(names)] for _, record in rows]
    fields = zip(*whole, strict=True) if whole else [()] * len(names)
    columns = {
        name: pc.utf8_trim_whitespace(pa.array(field, pa.string()))
        for name, field in zip(names, fields, strict=True)
        if name
    }
    return Sheet(str(path), columns, np.array([i for i, _ in rows], dtype=np.int64))


def _said(record: Sequence[str]) -> bool:
    return any(map(str.strip, record))


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in names if name and list(names).count(name) > 1})
    if twice:
        raise CxrError(f"{path} has more than one column {', '.join(twice)}.", "Rename or remove all but one of each.")
