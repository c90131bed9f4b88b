"""The erasure masks of a run's training films, a bit a cell: a Parquet table a round, with a row a pair.

A mask is h×w bool: True is kept, False is erased. A pair that is not in the table has erased nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.errors import CxrError
from cxrmine.files import atomic

Mask = npt.NDArray[np.bool_]
SIZE = b"cells"  # the metadata key of h and w


class Masks(NamedTuple):
    """Masks of pairs (image_id, finding), all of h×w cells."""

    pairs: list[tuple[str, str]]
    kept: npt.NDArray[np.uint8]  # pairs × bytes, packed
    shape: tuple[int, int]

    def unpack(self, rows: npt.ArrayLike) -> Mask:
        """n×h×w, of these pairs."""
        height, width = self.shape
        bits = np.unpackbits(self.kept[np.asarray(rows, np.int64)], axis=1, count=height * width)
        return bits.reshape(-1, height, width).astype(bool)


def gather(pairs: Sequence[tuple[str, str]], packed: Sequence[npt.NDArray[np.uint8]], shape: tuple[int, int]) -> Masks:
    """Masks of `shape`, each packed by np.packbits. Sorted by pair: whoever found which, the table is the same."""
    order = sorted(range(len(pairs)), key=lambda i: pairs[i])
    kept = np.array([packed[i] for i in order], np.uint8).reshape(len(pairs), -(-shape[0] * shape[1] // 8))
    return Masks([pairs[i] for i in order], kept, shape)


def write_masks(path: Path, masks: Masks) -> None:
    schema = _schema(*masks.shape)
    names, findings = ([pair[i] for pair in masks.pairs] for i in (0, 1))
    columns = [names, findings, [row.tobytes() for row in masks.kept]]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary)


def read_masks(path: Path) -> Masks:
    refusal = CxrError(f"{path} does not hold erasure masks.", "Remove it: it is made again where it is needed.")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError):
        raise refusal from None
    size = (table.schema.metadata or {}).get(SIZE, b"").split()
    if len(size) != 2 or not all(number.isdigit() for number in size):
        raise refusal
    schema = _schema(int(size[0]), int(size[1]))
    if not table.schema.equals(schema):
        raise refusal
    names, findings, rows = (table[name].to_pylist() for name in schema.names)
    kept = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), schema.field("kept").type.byte_width)
    return Masks(list(zip(names, findings, strict=True)), kept, (int(size[0]), int(size[1])))


def _schema(height: int, width: int) -> pa.Schema:
    kept = pa.binary(-(-height * width // 8))
    fields = [("image_id", pa.string()), ("finding", pa.string()), ("kept", kept)]
    return pa.schema(fields, metadata={SIZE: f"{height} {width}"})
