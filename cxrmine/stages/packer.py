"""One process's part of `pack`: films from their bytes into the shards of a pack.

A shard is there once its films, and then their table, are under their final names; what a killed run
left is made again.
"""

import math
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import Fit, decode_image, prepare
from cxrmine.data.pack import FILMS, checksum, shard_name
from cxrmine.data.tree import Content, Tree
from cxrmine.errors import CxrError, Stopped
from cxrmine.files import atomic
from cxrmine.stages.workers import start

AHEAD = 4  # films a thread whose bytes are held before they are decoded


class Shard(NamedTuple):
    number: int
    images: tuple[str, ...]
    paths: tuple[str, ...]  # in the dataset


class Task(NamedTuple):
    """Shards that are filled side by side, from one reading of what they lie in."""

    root: Path
    archives: bool
    base: str
    shards: tuple[Shard, ...]
    out: Path
    size: int
    fit: Fit
    threads: int


class Film(NamedTuple):
    width: int | None
    height: int | None
    crc32: int | None
    why: str | None


def table_path(out: Path, number: int) -> Path:
    return (out / shard_name(number)).with_suffix(".parquet")


class Shared(NamedTuple):
    """What all processes see: how many films are done, and whether to stop."""

    counter: "Synchronized[int]"
    stopped: Event


_shared: Shared | None = None


def share(counter: "Synchronized[int]", stopped: Event) -> None:
    """A worker's first act."""
    global _shared
    _shared = Shared(counter, stopped)
    start()


def fill(task: Task) -> None:
    with ExitStack() as files:
        filling = [Filling(task, shard, files) for shard in task.shards]
        where = {path: (one, place) for one in filling for place, path in enumerate(one.shard.paths)}
        tree = Tree(task.root, task.archives, task.base)
        for path, pixels, film in _decoded(tree.stream(where), task):
            one, place = where[path]
            one.put(place, pixels, film)
            if _shared is not None:
                if _shared.stopped.is_set():
                    raise Stopped("Stopped.")  # what is half written goes
                with _shared.counter.get_lock():
                    _shared.counter.value += 1


class Filling:
    """A shard on its way: a file under a temporary name, and what is known of each of its films."""

    def __init__(self, task: Task, shard: Shard, files: ExitStack) -> None:
        self.task, self.shard, self.left = task, shard, len(shard.paths)
        self.films: list[Film | None] = [None] * len(shard.paths)
        self.file = files.enter_context(ExitStack())
        self.temporary = self.file.enter_context(atomic(task.out / shard_name(shard.number)))
        self.pixels = self.file.enter_context(self.temporary.open("w+b"))
        self.start = _write_header(self.pixels, (len(shard.paths), task.size, task.size))

    def put(self, place: int, pixels: np.ndarray | None, film: Film) -> None:
        if pixels is not None:
            self.pixels.seek(self.start + place * self.task.size**2)
            self.pixels.write(np.ascontiguousarray(pixels).data)
        self.films[place] = film
        self.left -= 1
        if not self.left:
            self._finish()

    def _finish(self) -> None:
        """The films as they lie in the file now must be those that were decoded."""
        films = [film for film in self.films if film is not None]
        self.pixels.seek(self.start)
        for film in films:
            written = self.pixels.read(self.task.size**2)
            if film.crc32 is not None and zlib.crc32(written) != film.crc32:
                raise CxrError(f"{self.task.out} does not keep what is written to it.", "Pack to another disk.")
        self.file.close()
        columns = [self.shard.images, range(len(films)), *zip(*films, strict=True)]
        arrays = [pa.array(values, kind.type) for values, kind in zip(columns, FILMS, strict=True)]
        with atomic(table_path(self.task.out, self.shard.number)) as temporary:
            pq.write_table(pa.Table.from_arrays(arrays, schema=FILMS), temporary)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Make it an .npy file of uint8 zeros; returns where they start. Films are written into it, not memory-mapped:
    every page of a map costs a fault."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    start = file.tell()
    file.truncate(start + math.prod(shape))
    return start


Decoded = tuple[str, np.ndarray | None, Film]


def _decoded(stream: Iterator[tuple[str, Content]], task: Task) -> Iterator[Decoded]:
    """Films as they come; with several threads in the same order, and only so many ahead that memory stays small."""
    if task.threads == 1:
        yield from (_film(path, content, task) for path, content in stream)
        return
    with ThreadPoolExecutor(task.threads) as pool:
        waiting: deque[Future[Decoded]] = deque()
        for path, content in stream:
            waiting.append(pool.submit(_film, path, content, task))
            if len(waiting) >= AHEAD * task.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _film(path: str, content: Content, task: Task) -> Decoded:
    try:
        if isinstance(content, Unreadable):
            raise content
        whole = decode_image(content)
    except Unreadable as fault:
        return path, None, Film(None, None, None, fault.why)
    pixels, _ = prepare(whole, task.size, task.fit)
    return path, pixels, Film(whole.shape[1], whole.shape[0], checksum(pixels), None)
