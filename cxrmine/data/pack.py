"""A pack: a dataset's films, decoded once, in memory-mapped uint8 shards with the index beside them.

pack.json
    What it is of, its size and fit, and its shards. Written last: without it a pack is not finished.
index.parquet, boxes.parquet, looked_at.parquet
    The index, and of every film width and height as it was, its crc32, and why one is missing; the boxes; who looked.
films-00000.npy …
    films × size × size uint8. The path of a film is films-00000.npy/17.
plan.json, films-00000.parquet …
    While it is made: what is being made, and the films of a shard that is finished.
"""

import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.data.films import Packed, Shards
from cxrmine.data.images import Fit
from cxrmine.data.index import BOX_SCHEMA, Dropped, Index
from cxrmine.errors import CxrError
from cxrmine.files import atomic, write_json

SCHEMA_VERSION = 1
DONE, PLAN, INDEX, BOXES, LOOKED_AT = "pack.json", "plan.json", "index.parquet", "boxes.parquet", "looked_at.parquet"
SHARD_BYTES = 2**27
FILMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("place", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("crc32", pa.uint32()),
        ("why", pa.string()),  # it cannot be read; else null
    ]
)


def shard_name(number: int) -> str:
    return f"films-{number:05d}.npy"


def films_a_shard(size: int) -> int:
    return max(1, SHARD_BYTES // size**2)


def checksum(film: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(film).data)


def is_pack(folder: Path) -> bool:
    """Whether it is one; an unfinished one is an error."""
    if not (folder / DONE).is_file() and (folder / PLAN).is_file():
        raise CxrError(f"{folder} is a pack that is not finished.", "Run the same cxrmine pack again: it goes on.")
    return (folder / DONE).is_file()


def write_pack(folder: Path, index: Index, films: pa.Table, size: int, fit: Fit, shards: list[int]) -> None:
    """The index of a pack and then its pack.json; `films`: FILMS and `path`, in the order of the index."""
    table = index.table.drop_columns([n for n in ("path", "width", "height") if n in index.table.column_names])
    for name in ("path", "width", "height", "crc32", "why"):
        table = table.append_column(name, films[name])
    for name, content in ((INDEX, table), (BOXES, index.boxes), (LOOKED_AT, index.looked_at)):
        if content is not None:
            with atomic(folder / name) as temporary:
                pq.write_table(content, temporary, compression="zstd")
    description = {
        "schema": SCHEMA_VERSION,
        "kind": "pack",
        "layout": index.layout,
        "fingerprint": index.fingerprint,
        "findings": list(index.findings),
        "size": size,
        "fit": fit,
        "films": int(table.num_rows - table["path"].null_count),
        "shards": [{"name": shard_name(number), "films": count} for number, count in enumerate(shards)],
        "notes": list(index.notes),
        "dropped": [asdict(entry) for entry in index.dropped],
    }
    write_json(folder / DONE, description)


def open_pack(folder: Path) -> Index:
    said = _description(folder)
    table = _table(folder / INDEX)
    boxes = _table(folder / BOXES)
    looked_at = _table(folder / LOOKED_AT) if (folder / LOOKED_AT).is_file() else None
    shards = [_shard(folder / entry["name"], entry["films"], said["size"]) for entry in said["shards"]]
    number = {entry["name"]: i for i, entry in enumerate(said["shards"])}
    films = {}
    for path, width, height in zip(*(table[n].to_pylist() for n in ("path", "width", "height")), strict=True):
        if path is not None:
            shard, _, place = path.rpartition("/")
            films[path] = Packed(number[shard], int(place), width, height)
    packed = Shards(shards, films, said["size"], cast(Fit, said["fit"]))
    ledger = tuple(Dropped(e["reason"], e["count"], tuple(e["examples"])) for e in said["dropped"])
    notes = (f"packed: {said['films']:,} films at {said['size']} pixels ({said['fit']})", *said["notes"])
    findings = tuple(said["findings"])
    return Index(
        folder, said["layout"], findings, table, boxes.cast(BOX_SCHEMA), ledger, notes, looked_at, None, packed
    )


def damaged(index: Index) -> list[str]:
    """The paths of films whose bytes are not those that were packed."""
    assert isinstance(index.packed, Shards)
    wrong = []
    for path, crc in zip(index.table["path"].to_pylist(), index.table["crc32"].to_pylist(), strict=True):
        if path is not None:
            film = index.packed.films[path]
            if checksum(index.packed.shards[film.shard][film.place]) != crc:
                wrong.append(path)
    return wrong


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DONE
    try:
        said = json.loads(path.read_text())
        version = int(said["schema"])
    except (OSError, ValueError, TypeError, KeyError):
        raise CxrError(f"{path} does not describe a pack.", "Pack the dataset again.") from None
    if version > SCHEMA_VERSION:
        raise CxrError(f"{path} has schema version {version}; this program knows {SCHEMA_VERSION}.", "Upgrade cxrmine.")
    return said


def _table(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read().combine_chunks()
    except (pa.ArrowException, OSError) as fault:
        raise CxrError(f"{path} cannot be read: {str(fault).splitlines()[0]}.", "Pack the dataset again.") from None


def _shard(path: Path, films: int, size: int) -> np.ndarray:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as fault:
        raise CxrError(f"{path} cannot be read: {fault}.", "Pack the dataset again.") from None
    if shard.dtype != np.uint8 or shard.shape != (films, size, size):
        raise CxrError(f"{path} does not hold {films} films of {size} × {size} pixels.", "Pack the dataset again.")
    return shard
