"""A pack: a dataset's films, decoded once, in memory-mapped uint8 shards with the index beside them.

pack.json
    What it is of, its size and fit, and its shards. Written last: without it a pack is not finished.
index.parquet, boxes.parquet, looked_at.parquet
    The index, and of every film width and height as it was, its crc32, and why one is missing; the boxes; who looked.
severity.parquet
    How severe findings are, where the dataset says it.
films-00000.npy …
    films × size × size uint8, in the order in which they were read. The path of a film is films-00000.npy/17.
plan.json, films-00000.parquet …
    While it is made: what is being made, and the films of a shard that is finished.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.data.films import Mapped, Packed, Shards
from cxrmine.data.images import Fit
from cxrmine.data.index import BOX_SCHEMA, Dropped, Index
from cxrmine.data.shard_files import checksum, shard_name, shard_number
from cxrmine.errors import CxrError
from cxrmine.files import atomic, write_json

SCHEMA_VERSION = 1
DONE, PLAN, INDEX, BOXES, LOOKED_AT = "pack.json", "plan.json", "index.parquet", "boxes.parquet", "looked_at.parquet"
SIDES = ("width", "height")
FITS = ("stretch", "pad")
COLUMNS = ("image_id", "split", "patient_id", "view", "labels", "boxed", "path", *SIDES, "crc32", "why")
AGAIN = "Pack the dataset again."


def is_pack(folder: Path) -> bool:
    """Whether it is one; an unfinished one is an error."""
    if not (folder / DONE).is_file() and (folder / PLAN).is_file():
        raise CxrError(f"{folder} is a pack that is not finished.", "Run the same cxrmine pack again: it goes on.")
    return (folder / DONE).is_file()


def write_pack(folder: Path, index: Index, films: pa.Table, size: int, fit: Fit, shards: Mapping[int, int]) -> None:
    """The index of a pack and then its pack.json.

    `films`: FILMS and `path`, in the order of the index. `shards`: the number of each and how many films it has.
    """
    table = index.table.drop_columns([n for n in ("path", "width", "height") if n in index.table.column_names])
    for name in ("path", *SIDES, "crc32", "why"):
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
        "shards": [{"name": shard_name(number), "films": count} for number, count in sorted(shards.items())],
        "notes": list(index.notes),
        "dropped": [asdict(entry) for entry in index.dropped],
    }
    write_json(folder / DONE, description)


def open_pack(folder: Path) -> Index:
    said = description(folder)
    table = _table(folder / INDEX)
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise CxrError(f"{folder / INDEX} has no column {', '.join(missing)}.", AGAIN)
    boxes = _boxes(folder / BOXES)
    looked_at = _table(folder / LOOKED_AT) if (folder / LOOKED_AT).is_file() else None
    shards = Mapped([(folder / entry["name"], entry["films"]) for entry in said["shards"]], said["size"])
    packed = Shards(shards, _places(folder, said, table), said["size"], cast(Fit, said["fit"]))
    ledger = tuple(Dropped(e["reason"], e["count"], tuple(e["examples"])) for e in said["dropped"])
    notes = (f"packed: {said['films']:,} films at {said['size']} pixels ({said['fit']})", *said["notes"])
    return Index(folder, said["layout"], tuple(said["findings"]), table, boxes, ledger, notes, looked_at, None, packed)


def _places(folder: Path, said: dict[str, Any], table: pa.Table) -> dict[str, Packed]:
    """Where each film lies. Every path must name a place that is there."""
    number = {entry["name"]: i for i, entry in enumerate(said["shards"])}
    films = {}
    for path, width, height in zip(*(table[n].to_pylist() for n in ("path", *SIDES)), strict=True):
        if path is not None:
            shard, _, place = str(path).rpartition("/")
            inside = shard in number and place.isdecimal() and int(place) < said["shards"][number[shard]]["films"]
            if not inside or width is None or height is None:
                raise CxrError(f"{folder / INDEX} has a film at {path!r}, where there is none.", AGAIN)
            films[path] = Packed(number[shard], int(place), width, height)
    return films


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


def description(folder: Path) -> dict[str, Any]:
    """What pack.json says, with all of it there and of the right kind."""
    path = folder / DONE
    try:
        said = json.loads(path.read_text())
        version = int(said["schema"])
    except (OSError, ValueError, TypeError, KeyError):
        raise CxrError(f"{path} does not describe a pack.", AGAIN) from None
    if version > SCHEMA_VERSION:
        raise CxrError(f"{path} has schema version {version}; this program knows {SCHEMA_VERSION}.", "Upgrade cxrmine.")
    if wrong := [name for name, is_right in RIGHT.items() if not is_right(said.get(name))]:
        raise CxrError(f"{path} is damaged: {', '.join(wrong)}.", AGAIN)
    return cast(dict[str, Any], said)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_shards(value: object) -> bool:
    """Each with a name that a shard has, so that nothing outside the folder is opened, and none twice."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return False
    names = [entry.get("name") for entry in value]
    good = all(isinstance(name, str) and shard_number(name) is not None for name in names)
    return good and len(set(names)) == len(names) and all(_is_count(entry.get("films")) for entry in value)


def _is_ledger(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(e, dict)
        and _is_text(e.get("reason"))
        and _is_count(e.get("count"))
        and _are_texts(e.get("examples"))
        for e in value
    )


RIGHT: dict[str, Callable[[object], bool]] = {
    "layout": _is_text,
    "fingerprint": _is_text,
    "findings": _are_texts,
    "size": lambda value: _is_count(value) and value != 0,
    "fit": lambda value: value in FITS,
    "films": _is_count,
    "shards": _are_shards,
    "notes": _are_texts,
    "dropped": _is_ledger,
}


def _boxes(path: Path) -> pa.Table:
    table = _table(path)
    try:
        return table.cast(BOX_SCHEMA)
    except (pa.ArrowException, ValueError):
        raise CxrError(f"{path} is not the boxes of a pack.", AGAIN) from None


def _table(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read().combine_chunks()
    except (pa.ArrowException, OSError) as fault:
        raise CxrError(f"{path} cannot be read: {str(fault).splitlines()[0]}.", AGAIN) from None
