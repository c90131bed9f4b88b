"""A folder of maps: one .npy memory map a shard (uint8, pairs × h × w) with a Parquet that says what each one is.

The Parquet carries the same provenance as the boxes that were cut from the maps; one folder holds the maps of one work.
What needs more than the boxes (another cut, pictures, pixel scores) reads these instead of running the network again.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.boxes.door import read_table
from cxrmine.boxes.shards import SHARD, shard_path
from cxrmine.boxes.table import read_meta
from cxrmine.errors import CxrError
from cxrmine.files import atomic
from cxrmine.tables import with_meta

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
    return shard_path(folder / "maps.npy", shard, shards)


def index_path(maps: Path) -> Path:
    """What each map of the array is."""
    return maps.with_suffix(".parquet")


class MapsWriter:
    """Append maps in any number; the array's length is written into its header at the end."""

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self.path, self.meta = path, meta
        self.files = ExitStack()
        self.rows: list[dict[str, Any]] = []
        self.shape: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        self.index_path = self.files.enter_context(atomic(index_path(self.path)))
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
            pq.write_table(pa.Table.from_pylist(self.rows, with_meta(SCHEMA, self.meta)), self.index_path)
            index_path(self.path).unlink(missing_ok=True)  # never the index of earlier maps beside these
        return self.files.__exit__(kind, fault, trace)


def refuse_other_shards(folder: Path, shards: int | None = None) -> list[Path]:
    """The arrays in `folder`, which are all of one total (`shards`, where it is given)."""
    paths = sorted(path for path in folder.glob("maps-*-of-*.npy") if SHARD.fullmatch(path.stem))
    totals = {int(path.stem[-5:]) for path in paths} | ({shards} if shards else set())
    if len(totals) > 1:
        raise CxrError(
            f"The maps in {folder} differ in the number of shards: {' and '.join(map(str, sorted(totals)))}.",
            "Remove those of the older work, or choose another --maps.",
        )
    return paths


def read_maps(folder: Path) -> tuple[pa.Table, list[np.ndarray]]:
    """The index of every shard, with columns `shard` and `row` that point into the memory maps."""
    paths = refuse_other_shards(folder)
    if not paths:
        raise CxrError(f"There are no maps in {folder}.", f"Make them: cxrmine mine --maps {folder}.")
    _refuse_missing(folder, paths)
    _refuse_foreign(paths)
    tables, arrays = [], []
    for shard, path in enumerate(paths):
        table, array = read_table(index_path(path)), _array(path)
        if len(table) != len(array):
            raise CxrError(f"{path} has {len(array)} maps, its index {len(table)}.", "Mine this shard again.")
        table = table.append_column("shard", pa.array(np.full(len(table), shard, np.int32)))
        tables.append(table.append_column("row", pa.array(np.arange(len(table)))))
        arrays.append(array)
    return pa.concat_tables(tables).replace_schema_metadata(None), arrays


def _refuse_missing(folder: Path, paths: list[Path]) -> None:
    total = int(paths[0].stem[-5:])
    arrays = [maps_path(folder, i, total) for i in range(1, total + 1)]
    wanted = [file for array in arrays for file in (array, index_path(array))]
    missing = [file for file in wanted if not file.exists()]
    if missing:
        raise CxrError(
            f"{missing[0]} is missing{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}.",
            f"Mine that shard again with --maps {folder}.",
        )


def _refuse_foreign(paths: list[Path]) -> None:
    first, *others = [(index_path(path), read_meta(index_path(path))) for path in paths]
    for path, meta in others:
        for key in sorted((set(meta) | set(first[1])) - {"shard"}):
            if meta.get(key) != first[1].get(key):
                raise CxrError(f"{path} and {first[0]} differ in {key}.", "Only maps of one work can be read together.")


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as fault:
        raise CxrError(f"{path} is damaged: {str(fault).splitlines()[0]}", "Mine this shard again.") from None
