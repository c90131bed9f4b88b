"""The shards of a pack as files, and what is kept of each film of a shard while the pack is made.

It imports little: every process that packs waits for what it imports.
"""

import re
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

SHARD_BYTES = 2**27
SHARD = re.compile(r"films-(\d{5,9})\.npy")
FILMS = pa.schema(
    [
        ("image_id", pa.string()),
        ("place", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("crc32", pa.uint32()),
        ("why", pa.string()),  # it cannot be read; else null
        ("source", pa.string()),  # its path in the dataset
    ]
)


def shard_name(number: int) -> str:
    return f"films-{number:05d}.npy"


def shard_number(name: str) -> int | None:
    """None where it is not the name of a shard."""
    match = SHARD.fullmatch(name)
    return int(match[1]) if match and shard_name(int(match[1])) == name else None


def table_path(folder: Path, number: int) -> Path:
    """What is known of the films of a shard, in the order of FILMS, until the pack is finished."""
    return (folder / shard_name(number)).with_suffix(".parquet")


def films_a_shard(size: int) -> int:
    return max(1, SHARD_BYTES // size**2)


def checksum(film: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(film).data)
