"""What of a pack is there, and what is left to do, split into tasks that can be done side by side."""

from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.data.images import Fit
from cxrmine.data.index import Index
from cxrmine.data.shard_files import FILMS, films_a_shard, shard_number, table_path
from cxrmine.data.tree import ONE_WAY
from cxrmine.errors import CxrError
from cxrmine.stages.packer import Place, Task

Films = list[tuple[str, str]]  # image and path
Shards = list[tuple[int, int]]  # number and films


def finished(out: Path) -> dict[int, pa.Table]:
    """The shards that are there, and FILMS of each. One whose table cannot be read is not: it is made again."""
    found = {}
    for path in sorted(out.glob("films-*.npy")):
        number = shard_number(path.name)
        if number is not None and table_path(out, number).is_file():
            try:
                found[number] = pq.ParquetFile(table_path(out, number)).read().cast(FILMS)
            except (pa.ArrowException, ValueError):
                continue
    return found


def tasks(index: Index, out: Path, size: int, fit: Fit, workers: int) -> list[Task]:
    """Films that are in no shard, and again those that could not be read. The long ones come first: a tar archive is
    one task, for it has one way through it; of other films a shard is one."""
    assert index.tree is not None
    tree, there = index.tree, finished(out)
    left, again = _left(index, there, out)
    work: list[tuple[Films, Shards, list[Place]]] = []
    free = (number for number in count() if number not in there)
    for container in sorted(left.keys() | again.keys()):
        films = left.get(container, [])
        shards = list(_shards(films, films_a_shard(size), free))
        unread = again.get(container, {})
        if ONE_WAY.fullmatch(container or ("" if tree.root.is_dir() else tree.root.name)):
            work.insert(0, (films, shards, list(chain.from_iterable(unread.values()))))
        else:
            work += _apart(films, shards)
            work += [([], [], places) for places in unread.values()]
    threads = max(1, workers // max(1, len(work)))
    where = tree.root, tree.archives, tree.base
    return [Task(*where, tuple(f), tuple(s), tuple(a), out, size, fit, threads) for f, s, a in work]


def _left(
    index: Index, there: dict[int, pa.Table], out: Path
) -> tuple[dict[str, Films], dict[str, dict[int, list[Place]]]]:
    """By container: films that are in no shard, in the order of the index; and by shard those that could not be read.

    A shard's are all in the container of its first one, so that no two tasks write to it."""
    assert index.tree is not None
    known = {}
    for number, table in there.items():
        for image, place, why, source in zip(
            *(table[name].to_pylist() for name in ("image_id", "place", "why", "source")), strict=True
        ):
            known[image] = number, place, why, source
    left: dict[str, Films] = {}
    unread: dict[int, list[Place]] = {}
    for image, path in zip(index.table["image_id"].to_pylist(), index.table["path"].to_pylist(), strict=True):
        if path is None:
            continue
        if image not in known:
            left.setdefault(index.tree.container(path), []).append((image, path))
            continue
        number, place, why, source = known[image]
        if why is not None:
            unread.setdefault(number, []).append(Place(number, place, path))
        elif source != path:
            what = f"image {image} was {source} there and is {path} here"
            raise CxrError(f"{out} is a pack of something else: {what}.", "Name another folder, or say --fresh.")
    again: dict[str, dict[int, list[Place]]] = {}
    for number, places in unread.items():
        again.setdefault(index.tree.container(places[0].path), {})[number] = places
    return left, again


def _shards(films: Films, most: int, free: Iterator[int]) -> Iterator[tuple[int, int]]:
    for first in range(0, len(films), most):
        yield next(free), min(most, len(films) - first)


def _apart(films: Films, shards: Shards) -> Iterator[tuple[Films, Shards, list[Place]]]:
    first = 0
    for number, many in shards:
        yield films[first : first + many], [(number, many)], []
        first += many
