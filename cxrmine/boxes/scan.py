"""A boxes table of any length, a part at a time: checked as it comes, without the regions, which few readers need."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.boxes.door import checked, read_table
from cxrmine.boxes.shards import expand, refuse_foreign, shard_stem
from cxrmine.boxes.table import IMAGES_SCHEMA, SCHEMA, images_path
from cxrmine.errors import CxrError
from cxrmine.tables import META_KEY, build, parse_meta

GROUPS = 8  # row groups at a time: half a million boxes
READY = 4  # chunks that are read before they are asked for
REGION = ("region", "region_height", "region_width")
NOT_MINED, UNMENTIONED = -128, -127  # the label of a pair that was not mined, or that nobody labelled

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mined:
    """Every image that was looked at, with or without a box."""

    table: pa.Table  # image_id, patient_id, split, width, height: one row an image, sorted
    readable: npt.NDArray[np.bool_]
    findings: tuple[str, ...]
    labels: npt.NDArray[np.int8]  # images × findings, as the dataset that was mined has them
    negative: Ints  # how many of an image's mined pairs have label 0 …
    asked: int  # … of how many findings that the network knows
    pairs: int  # that were mined
    searched: bool  # whether a pair that is not here was one where nothing was predicted; else nobody looked for it


@dataclass(frozen=True)
class Scan:
    """One boxes table, in one file or in shards."""

    paths: tuple[Path, ...]
    meta: dict[str, Any]  # without the shard

    def chunks(self) -> Iterator[pa.Table]:
        """The rows, in the columns and types of SCHEMA, regions left null; each chunk sorted."""
        for path, sorted_by_us in self._files:
            if not sorted_by_us:
                yield self._whole[path]
                continue
            file = pq.ParquetFile(path)
            columns = [name for name in file.schema_arrow.names if name not in REGION]
            for first in range(0, max(file.num_row_groups, 1), GROUPS):
                groups = list(range(first, min(first + GROUPS, file.num_row_groups)))
                part = file.read_row_groups(groups, columns=columns)
                yield checked(part, where=str(path), source=shard_stem(path))

    def regions(self, rows: Ints) -> pa.Table:
        """region, region_height and region_width of these rows, which ascend; other row groups are not read."""
        parts, start = [], 0
        for path, sorted_by_us in self._files:
            if not sorted_by_us:
                table = self._whole[path].select(REGION)
                parts.append(table.take(pa.array(rows[(rows >= start) & (rows < start + len(table))] - start)))
                start += len(table)
                continue
            file = pq.ParquetFile(path)
            there = set(REGION) <= set(file.schema_arrow.names)
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                mine = rows[(rows >= start) & (rows < start + count)] - start
                if len(mine):
                    part = file.read_row_group(group, columns=list(REGION)) if there else None
                    empty = {name: pa.nulls(len(mine), SCHEMA.field(name).type) for name in REGION}
                    parts.append(part.take(pa.array(mine)) if part is not None else pa.table(empty))
                start += count
        plain = pa.schema([SCHEMA.field(name) for name in REGION])
        return pa.concat_tables([part.cast(plain) for part in parts]) if parts else plain.empty_table()

    @cached_property
    def source(self) -> str:
        """What most of the first boxes say they come from, or the file's name."""
        for path, sorted_by_us in self._files:
            file = pq.ParquetFile(path) if sorted_by_us else None
            if file is not None and (file.num_row_groups == 0 or "source" not in file.schema_arrow.names):
                continue
            table = self._whole[path] if file is None else file.read_row_group(0, columns=["source"])
            counted = pc.drop_null(table["source"].cast(pa.string())).value_counts()
            if len(counted):
                return counted.field("values")[int(np.argmax(counted.field("counts").to_numpy()))].as_py()
        return shard_stem(self.paths[0])

    @cached_property
    def _files(self) -> list[tuple[Path, bool]]:
        """Each file, and whether it is a sorted one of ours, which can be read in parts."""
        return [(path, path.suffix == ".parquet" and META_KEY in _metadata(path)) for path in self.paths]

    @cached_property
    def _whole(self) -> dict[Path, pa.Table]:
        return {
            path: checked(read_table(path), where=str(path), source=shard_stem(path))
            for path, sorted_by_us in self._files
            if not sorted_by_us
        }


def ahead(chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same chunks, read by a thread that begins at once and keeps a few ready."""
    ready: queue.Queue[pa.Table | BaseException | None] = queue.Queue(READY)

    def read() -> None:
        try:
            for chunk in chunks:
                ready.put(chunk)
            ready.put(None)
        except BaseException as fault:  # to be met where the chunks are used
            ready.put(fault)

    threading.Thread(target=read, daemon=True, name="read boxes").start()

    def taken() -> Iterator[pa.Table]:
        while (chunk := ready.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    return taken()


def open_boxes(source: Path | Sequence[Path]) -> Scan:
    paths = expand(source)
    metas = [parse_meta(_metadata(path).get(META_KEY), path) for path in paths]
    refuse_foreign(paths, metas)
    return Scan(tuple(paths), {key: value for key, value in metas[0].items() if key != "shard"})


def read_mined(scan: Scan) -> Mined | None:
    """What the images tables beside the boxes say; None where there is none."""
    beside = [images_path(path) for path in scan.paths]
    there = [path for path in beside if path.exists()]
    if not there:
        return None
    if missing := [path for path in beside if path not in there]:
        raise CxrError(f"{missing[0]} is missing.", "It belongs beside the boxes; copy both.")
    findings = sorted({name for path in beside for name in _findings_in(path)})
    parts = [
        part for path, boxes in zip(beside, scan.paths, strict=True) for part in _image_parts(path, boxes, findings)
    ]
    table = pa.concat_tables([part.table for part in parts])
    order = pc.sort_indices(table["image_id"])
    image = table["image_id"].take(order)
    at = order.to_numpy()
    # An image whose pairs lie in two row groups, or in two shards, has two rows: they become one.
    first = np.append(True, pc.not_equal(image[1:], image[:-1]).to_numpy()) if len(image) else np.empty(0, bool)
    starts = np.flatnonzero(first)

    def joined(name: str, how: np.ufunc) -> npt.NDArray:
        values = np.concatenate([getattr(part, name) for part in parts])[at]
        return how.reduceat(values, starts) if len(starts) else values

    return Mined(
        table.take(order).filter(pa.array(first)).combine_chunks(),
        joined("readable", np.logical_and),
        tuple(findings),
        joined("labels", np.maximum),
        joined("negative", np.add),
        len(scan.meta.get("recipe", {}).get("data", {}).get("findings") or ()),
        sum(part.pairs for part in parts),
        scan.meta.get("findings") in ("predicted", "all"),
    )


def _image_parts(path: Path, boxes: Path, findings: Sequence[str]) -> Iterator[Mined]:
    if parse_meta(_metadata(path).get(META_KEY), path) != parse_meta(_metadata(boxes).get(META_KEY), boxes):
        raise CxrError(f"{path} is not of the same run as {boxes}.", "Mine both again.")
    file = pq.ParquetFile(path)
    if missing := [name for name in IMAGES_SCHEMA.names if name not in file.schema_arrow.names]:
        raise CxrError(f"{path} lacks {', '.join(missing)}.", "Mine it again.")
    for first in range(0, max(file.num_row_groups, 1), GROUPS):
        groups = list(range(first, min(first + GROUPS, file.num_row_groups)))
        read = file.read_row_groups(groups, columns=IMAGES_SCHEMA.names)
        yield _image_part(build(IMAGES_SCHEMA, {name: read[name] for name in IMAGES_SCHEMA.names}), findings)


def _findings_in(path: Path) -> list[str]:
    words = pc.unique(pq.ParquetFile(path).read(columns=["finding"])["finding"].cast(pa.string()))
    return words.drop_null().to_pylist()


def _image_part(pairs: pa.Table, findings: Sequence[str]) -> Mined:
    """One row an image of a part of an images table."""
    image = pairs["image_id"].combine_chunks()
    code = image.indices.to_numpy()
    count = len(image.dictionary)
    row = np.empty(count, np.int64)
    row[code[::-1]] = np.arange(len(code))[::-1]  # the first row of each image
    names = ["image_id", "patient_id", "split", "width", "height"]
    plain = [pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32()]
    table = pairs.select(names).take(pa.array(row)).cast(pa.schema(list(zip(names, plain, strict=True))))
    status = pairs["status"].combine_chunks()
    bad = pc.starts_with(status.dictionary.cast(pa.string()), "unreadable").to_numpy(zero_copy_only=False)
    unreadable = np.append(bad, False)[status.indices.fill_null(len(bad)).to_numpy()]
    finding = pairs["finding"].combine_chunks()
    known = pc.fill_null(pc.index_in(finding.dictionary, pa.array(findings, pa.string())), -1).to_numpy()
    column = np.append(known, -1)[finding.indices.fill_null(len(known)).to_numpy()]
    label = pairs["label"].combine_chunks().fill_null(UNMENTIONED).to_numpy()
    labels = np.full((count, len(findings)), NOT_MINED, np.int8)
    labels[code[column >= 0], column[column >= 0]] = label[column >= 0]
    negative = np.bincount(code[label == 0], minlength=count)
    read = np.bincount(code[unreadable], minlength=count) == 0
    return Mined(table, read, tuple(findings), labels, negative, 0, len(pairs) - finding.null_count, False)


def _metadata(path: Path) -> dict[bytes, bytes]:
    if path.suffix.lower() == ".csv":
        return {}
    try:
        return pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise CxrError(f"There is no boxes table at {path}.", "Check the path.") from None
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).strip().split("\n")[0]
        raise CxrError(f"{path} cannot be read as Parquet: {reason}", "Boxes come as .parquet or .csv.") from None
