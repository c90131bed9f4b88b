"""The boxes table, and beside it the table of every pair that was looked at: their columns, and how they are written.

Both are sorted by image, finding and rank, carry their provenance in the metadata key `cxrmine`, and have the same
bytes whenever the same work is done: no clock, host or path, and row groups that do not depend on batches.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.errors import CxrError
from cxrmine.files import atomic, naming
from cxrmine.tables import META_KEY, NAME, Columns, Rows, build, dictionary, ordered, parse_meta, with_meta

ROW_GROUP = 65536

SCHEMA = pa.schema(
    [
        ("image_id", NAME),
        ("finding", NAME),
        ("split", NAME),
        ("patient_id", NAME),
        ("rank", pa.int16()),
        ("score", pa.float32()),
        ("probability", pa.float32()),
        ("x_min", pa.float32()),
        ("y_min", pa.float32()),
        ("x_max", pa.float32()),
        ("y_max", pa.float32()),
        ("threshold", pa.float32()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("region", pa.binary()),
        ("region_height", pa.int16()),
        ("region_width", pa.int16()),
        ("source", NAME),
    ]
)
OUTSIDE = pa.field("outside", pa.float32())  # `mine --organs`: the share of the box outside them; null without any
TRUTH_SCHEMA = SCHEMA.append(pa.field("reader", NAME))
IMAGES_SCHEMA = pa.schema(
    [
        ("image_id", NAME),
        ("patient_id", NAME),
        ("split", NAME),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("finding", NAME),  # null in the one row of an image that could not be read
        ("label", pa.int8()),
        ("probability", pa.float32()),
        ("boxes", pa.int16()),
        ("status", NAME),  # ok, no box, unreadable: why
    ]
)
BOX_ORDER = ("image_id", "finding", "rank")
IMAGE_ORDER = ("image_id", "finding")


def truth_table(columns: Columns) -> pa.Table:
    """Boxes that people drew, as a boxes table: score and probability 1, no threshold and no region.

    Takes image_id, finding, split, patient_id, x_min, y_min, x_max, y_max, image_width, image_height, and `reader`
    where there is one. The rank is the order within the pair as given.
    """
    table = build(TRUTH_SCHEMA, columns)
    ones = np.ones(len(table))
    given = {n: table[n] for n in columns} | {"score": ones, "probability": ones, "source": ["truth"] * len(table)}
    given["rank"] = order_in_pair(dictionary(table["image_id"]), dictionary(table["finding"]))
    return ordered(build(TRUTH_SCHEMA, given), BOX_ORDER)


def order_in_pair(image: pa.DictionaryArray, finding: pa.DictionaryArray) -> np.ndarray:
    """1, 2, 3 … within each (image, finding), in the order of the rows."""
    pair = image.indices.to_numpy(zero_copy_only=False).astype(np.int64) * max(len(finding.dictionary), 1)
    pair = pair + finding.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(pair, kind="stable")
    place = np.arange(len(pair))
    starts = np.diff(pair[order], prepend=-1) != 0
    rank = np.empty(len(pair), dtype=np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(starts, place, 0)) + 1
    return rank


def images_path(boxes: Path) -> Path:
    """B.parquet → B.images.parquet"""
    return boxes.with_name(f"{boxes.stem}.images.parquet")


def read_meta(path: Path) -> dict[str, Any]:
    """What a table says about its making, `{}` where it is not ours; refuses a schema newer than this program's."""
    try:
        raw = (pq.ParquetFile(path).schema_arrow.metadata or {}).get(META_KEY)
    except (pa.ArrowException, OSError) as error:
        raise CxrError(
            f"{path} cannot be read as Parquet: {str(error).strip().splitlines()[0]}", "Was it written to the end?"
        ) from None
    return parse_meta(raw, path)


def write_boxes(path: Path, table: pa.Table, meta: Mapping[str, Any]) -> None:
    """A whole table at once; the images table, where there is one, is BoxWriter's."""
    with atomic(path) as temporary:
        stream = _Stream(path, temporary, table.schema.remove_metadata(), BOX_ORDER, meta)
        with stream.closing():
            stream.append({name: table[name] for name in table.column_names})
            stream.close()


class BoxWriter:
    """Writes B.parquet and B.images.parquet as the batches come, in bounded memory.

    Batches must come in the order of image_id. Both files appear at a clean end, the boxes last: where B.parquet is,
    all of it is. After an exception neither is new, and an earlier pair is as it was.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any], more: Sequence[pa.Field] = ()) -> None:
        """`more`: columns of the boxes beyond SCHEMA."""
        self.path, self.meta = Path(path), meta
        self.schema = pa.schema([*SCHEMA, *more])

    def write(self, boxes: Columns | Rows, images: Columns | Rows) -> None:
        """Some columns of SCHEMA and of IMAGES_SCHEMA, or their rows; the other columns are null."""
        self.boxes.append(boxes)
        self.images.append(images)

    @contextlib.contextmanager
    def _files(self) -> Iterator["BoxWriter"]:
        # The images are the inner file: left first, so renamed first.
        with atomic(self.path) as boxes, atomic(images_path(self.path)) as images:
            self.boxes = _Stream(self.path, boxes, self.schema, BOX_ORDER, self.meta)
            self.images = _Stream(images_path(self.path), images, IMAGES_SCHEMA, IMAGE_ORDER, self.meta)
            with self.boxes.closing(), self.images.closing():
                yield self
                self.boxes.close()
                self.images.close()
            self.path.unlink(missing_ok=True)  # never the boxes of an earlier run beside the images of this one

    def __enter__(self) -> "BoxWriter":
        self._context = self._files()
        return self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)


class _Stream:
    """One sorted Parquet file; row groups are cut by rows alone, so the batch size leaves no trace in the bytes."""

    def __init__(
        self, path: Path, temporary: Path, schema: pa.Schema, order: Sequence[str], meta: Mapping[str, Any]
    ) -> None:
        self.path, self.schema, self.order = path, schema, order
        self.plain = pa.schema([(f.name, pa.string() if f.type == NAME else f.type) for f in schema])
        self.waiting: list[pa.Table] = []
        self.rows = 0
        self.last: tuple[Any, ...] = ()
        with naming(path):
            self.writer = pq.ParquetWriter(temporary, with_meta(schema, meta), compression="zstd")

    def append(self, columns: Columns | Rows) -> None:
        table = ordered(build(self.schema, columns), self.order)
        if len(table) == 0:
            return
        first, last = (tuple(table[n][i].as_py() or "" for n in self.order[:2]) for i in (0, len(table) - 1))
        if first < self.last:
            raise ValueError(f"batches must come sorted: {first} after {self.last}")
        self.last = last
        self.waiting.append(table.cast(self.plain))
        self.rows += len(table)
        while self.rows >= ROW_GROUP:
            self._write(ROW_GROUP)

    def _write(self, rows: int) -> None:
        joined = pa.concat_tables(self.waiting)
        group = joined.slice(0, rows).combine_chunks()
        built = build(self.schema, {n: group[n] for n in group.column_names})
        with naming(self.path):
            self.writer.write_table(built, row_group_size=ROW_GROUP)
        self.waiting, self.rows = [joined.slice(rows)], self.rows - rows

    def close(self) -> None:
        if self.rows:
            self._write(self.rows)
        with naming(self.path):
            self.writer.close()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """After an error the file is given up; that it cannot be closed either must not hide the error."""
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self.writer.close()
