"""Arrow tables of ours: how they are built and sorted, and their provenance in the metadata key `cxrmine`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.errors import CxrError

SCHEMA_VERSION = 1
META_KEY = b"cxrmine"
NAME = pa.dictionary(pa.int32(), pa.string())
COORDINATES = ("x_min", "y_min", "x_max", "y_max")
REQUIRED = ("image_id", "finding", *COORDINATES)

Columns = Mapping[str, Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray]
Rows = Sequence[Mapping[str, Any]]


def build(schema: pa.Schema, columns: Columns | Rows) -> pa.Table:
    """A table of `schema` from some of its columns, or row by row; what is not given is null."""
    if not isinstance(columns, Mapping):
        names = {name for row in columns for name in row}
        columns = {name: [row.get(name) for row in columns] for name in names}
    unknown = sorted(set(columns) - set(schema.names))
    if unknown:
        raise ValueError(f"no such column: {', '.join(unknown)}")
    rows = len(next(iter(columns.values()))) if columns else 0
    arrays = [_array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type) for f in schema]
    return pa.table(arrays, schema=schema)


def ordered(table: pa.Table, by: Sequence[str]) -> pa.Table:
    """Sorted by the columns `by` (null first), in one chunk, each dictionary sorted and without unused words.

    So two tables of the same rows are equal, however the rows came together.
    """
    words = {f.name for f in table.schema if pa.types.is_dictionary(f.type)}
    arrays = {n: dictionary(table[n]) if n in words else table[n].combine_chunks() for n in table.column_names}
    keys = [arrays[n].indices.fill_null(-1) if n in words else arrays[n] for n in by]
    values = [key.to_numpy(zero_copy_only=False) for key in keys]
    result = pa.table(list(arrays.values()), schema=table.schema)
    return result if _sorted(values) else result.take(pa.array(np.lexsort(values[::-1])))


def _sorted(keys: Sequence[np.ndarray]) -> bool:
    """Whether rows are in the order of the first key, then of the second, and so on."""
    equal: np.ndarray | bool = True
    for key in keys:
        if (equal & (key[1:] < key[:-1])).any():
            return False
        equal = equal & (key[1:] == key[:-1])
    return True


def parse_meta(raw: bytes | None, where: Path) -> dict[str, Any]:
    try:
        meta = json.loads(raw) if raw else {}
        version = int(meta.get("schema", SCHEMA_VERSION))
    except (ValueError, TypeError, AttributeError):
        raise CxrError(f"{where} has damaged metadata.", "Write the table again.") from None
    if version > SCHEMA_VERSION:
        raise CxrError(
            f"{where} has schema version {version}; this program knows {SCHEMA_VERSION}.", "Upgrade cxrmine to read it."
        )
    return meta


def with_meta(schema: pa.Schema, meta: Mapping[str, Any]) -> pa.Schema:
    """`schema` with its provenance, as `read_meta` reads it."""
    text = json.dumps({"schema": SCHEMA_VERSION, **meta}, sort_keys=True, ensure_ascii=False)
    return schema.with_metadata({META_KEY: text.encode()})


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if kind == NAME:
        return dictionary(values if isinstance(values, pa.Array) else pa.array(values, pa.string()))
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if pa.types.is_integer(kind):
        return pa.array(values).cast(kind)  # refuses 1.5 and what does not fit
    return pa.array(np.asarray(values, dtype=np.float32) if isinstance(values, np.ndarray) else values, kind)


def dictionary(values: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Codes into a sorted dictionary of the words in use."""
    encoded = values if pa.types.is_dictionary(values.type) else values.cast(pa.string()).dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    words = encoded.dictionary.cast(pa.string())
    used = np.zeros(len(words) + 1, dtype=bool)
    if encoded.null_count == 0:
        codes = encoded.indices.to_numpy()
        used[codes] = True
        if used[:-1].all() and pc.all(pc.greater(words[1:], words[:-1])).as_py() is not False:
            return pa.DictionaryArray.from_arrays(encoded.indices.cast(pa.int32()), words)
    else:
        codes = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
        used[codes] = True
    used = used[:-1]
    order = pc.sort_indices(words).to_numpy()
    order = order[used[order]]
    place = np.zeros(len(words) + 1, dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    missing = codes == len(words)
    return pa.DictionaryArray.from_arrays(pa.array(place[codes], mask=missing), words.take(pa.array(order)))
