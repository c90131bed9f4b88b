"""A folder of maps: one .npy memory map a shard (uint8, pairs × h × w) with a Parquet that says what each one is.

What needs more than the boxes (another cut, pictures, pixel scores) reads these instead of running the network again.
"""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.errors import CxrError
from cxrmine.files import atomic

FINAL = 0  # the `round` of the aggregated map; 1..T are the maps of the rounds

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("finding", pa.string()),
        ("round", pa.int16()),
        ("scale", pa.float32()),  # what 255 stands for
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("scale_x", pa.float64()),  # input pixels an original pixel
        ("scale_y", pa.float64()),
        ("offset_x", pa.float64()),  # where the original's left edge lies on the input
        ("offset_y", pa.float64()),
    ]
)


def maps_path(folder: Path, shard: int, shards: int) -> Path:
    return folder / f"maps-{shard:05d}-of-{shards:05d}.npy"


class MapsWriter:
    """Append maps in any number; the array's length is written into its header at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = ExitStack()
        self.rows: list[dict[str, Any]] = []
        self.shape: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        self.index_path = self.files.enter_context(atomic(self.path.with_suffix(".parquet")))
        array_path = self.files.enter_context(atomic(self.path))
        self.array = self.files.enter_context(array_path.open("wb"))
        return self

    def add(self, map_: np.ndarray, **row: Any) -> None:
        """One map (h×w, not negative) and what it is."""
        if self.shape is None:
            self.shape = map_.shape
            self._header(1)
        scale = float(map_.max())
        self.array.write(np.rint(map_ * (255 / scale if scale > 0 else 0)).astype(np.uint8).tobytes())
        self.rows.append({**row, "scale": scale})

    def _header(self, count: int) -> None:
        shape = (count, *(self.shape or (1, 1)))
        np.lib.format.write_array_header_1_0(
            self.array, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )  # padded so that the first axis may grow in place

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is None:
            self.array.seek(0)
            self._header(len(self.rows))
            self.array.flush()
            pq.write_table(pa.Table.from_pylist(self.rows, SCHEMA), self.index_path)
        return self.files.__exit__(kind, fault, trace)


def read_maps(folder: Path) -> tuple[pa.Table, list[np.ndarray]]:
    """The index of every shard, with columns `shard` and `row` that point into the memory maps."""
    paths = sorted(folder.glob("maps-*-of-*.npy"))
    if not paths:
        raise CxrError(f"There are no maps in {folder}.", f"Make them: cxrmine mine --maps {folder}.")
    tables, arrays = [], []
    for shard, path in enumerate(paths):
        table = pq.ParquetFile(path.with_suffix(".parquet")).read()
        table = table.append_column("shard", pa.array(np.full(len(table), shard, np.int32)))
        tables.append(table.append_column("row", pa.array(np.arange(len(table)))))
        arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
    return pa.concat_tables(tables), arrays
