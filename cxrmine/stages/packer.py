"""One process's part of `pack`: films from their bytes into the shards of a pack.

A shard is there once its films, and then their table, are under their final names; what a killed run
left is made again. Shards are filled one after another, films in the order in which they are read.
"""

import math
import os
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import Fit, decode_image, prepare
from cxrmine.data.shard_files import FILMS, checksum, shard_name, table_path
from cxrmine.data.tree import Content, Tree
from cxrmine.errors import CxrError, Stopped
from cxrmine.files import atomic
from cxrmine.stages.workers import start

AT_ONCE = 2**24  # bytes that are sent to the disk together
AHEAD = 4  # films a thread whose bytes are held before they are decoded


class Place(NamedTuple):
    """Of a film that could not be read, in a shard that is there."""

    shard: int
    place: int
    path: str


class Task(NamedTuple):
    """What one process reads, from its front to its end: films, and the shards that are filled with them."""

    root: Path
    archives: bool
    base: str
    films: tuple[tuple[str, str], ...]  # image and path
    shards: tuple[tuple[int, int], ...]  # number and films
    again: tuple[Place, ...]
    out: Path
    size: int
    fit: Fit
    threads: int


class Film(NamedTuple):
    width: int | None
    height: int | None
    crc32: int | None
    why: str | None


class Row(NamedTuple):
    """Of a shard's table."""

    image_id: str
    place: int
    width: int | None
    height: int | None
    crc32: int | None
    why: str | None
    source: str


class Shared(NamedTuple):
    """What all processes see: how many films are done, and whether to stop."""

    counter: "Synchronized[int]"
    stopped: Event

    def one_more(self) -> None:
        if self.stopped.is_set():
            raise Stopped("Stopped.")  # what is half written goes
        with self.counter.get_lock():
            self.counter.value += 1


_shared: Shared | None = None


def share(counter: "Synchronized[int]", stopped: Event) -> None:
    global _shared
    _shared = Shared(counter, stopped)


def begin(counter: "Synchronized[int]", stopped: Event) -> None:
    """A process's first act."""
    share(counter, stopped)
    start()


Decoded = tuple[str, np.ndarray | None, Film]  # path, pixels
Packed = tuple[str, str, np.ndarray | None, Film]  # image, path, pixels


def fill(task: Task) -> None:
    again = Again(task)
    with closing(_films(task, again)) as films:
        for number, count in task.shards:
            _write_shard(task, number, count, films)
        for image, *_ in films:  # none is left but those that are read again
            raise RuntimeError(f"{image} has no shard")
    again.write_tables()


def _films(task: Task, again: "Again") -> Generator[Packed, None, None]:
    """Films for shards, in the order in which they are read. Several images may have one path."""
    images: dict[str, list[str]] = {}
    for image, path in task.films:
        images.setdefault(path, []).append(image)
    stream = Tree(task.root, task.archives, task.base).stream(dict.fromkeys([*images, *again.places]))
    for path, pixels, film in _decoded(stream, task):
        for place in again.places.get(path, ()):
            again.put(place, pixels, film)
            _count()
        for image in images.get(path, ()):
            yield image, path, pixels, film
            _count()


def _count() -> None:
    if _shared is not None:
        _shared.one_more()


def _write_shard(task: Task, number: int, count: int, films: Iterator[Packed]) -> None:
    """The next so many of `films`. As they lie in the file then, they must be those that were decoded."""
    rows: list[Row] = []
    often = max(1, AT_ONCE // task.size**2)
    with (
        atomic(task.out / shard_name(number)) as temporary,
        temporary.open("w+b") as file,
        ThreadPoolExecutor(1) as disk,  # it gets the films as they come: else all would wait for it at the end
    ):
        start = _write_header(file, (count, task.size, task.size))
        for place, (image, path, pixels, film) in enumerate(islice(films, count)):
            if pixels is not None:
                file.seek(start + place * task.size**2)
                file.write(np.ascontiguousarray(pixels).data)
            rows.append(Row(image, place, *film, path))
            if place % often == often - 1:
                file.flush()
                disk.submit(os.fsync, file.fileno())
        if len(rows) < count:  # it must never have its final name
            raise RuntimeError(f"{shard_name(number)} got {len(rows)} of its {count} films")
        file.seek(start)
        for row in rows:
            _refuse_other_bytes(task, file, row.crc32)
    _write_table(task, number, rows)


class Again:
    """Films that an earlier run could not read, in shards that are there. Nobody uses their places: what can be read by
    now is written there, and the table that says so comes after."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.places: dict[str, list[Place]] = {}
        for place in task.again:
            self.places.setdefault(place.path, []).append(place)
        self.read: dict[int, dict[int, tuple[Film, str]]] = {}  # shard → place → the film and its path

    def put(self, at: Place, pixels: np.ndarray | None, film: Film) -> None:
        if pixels is not None:
            with (self.task.out / shard_name(at.shard)).open("r+b") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                start = file.tell() + at.place * self.task.size**2
                file.seek(start)
                file.write(np.ascontiguousarray(pixels).data)
                file.seek(start)
                _refuse_other_bytes(self.task, file, film.crc32)
                os.fsync(file.fileno())
        self.read.setdefault(at.shard, {})[at.place] = film, at.path

    def write_tables(self) -> None:
        for number, read in self.read.items():
            table = pq.ParquetFile(table_path(self.task.out, number)).read()
            rows = [Row(*values) for values in zip(*(table[name].to_pylist() for name in Row._fields), strict=True)]
            for place, (film, path) in read.items():
                rows[place] = Row(rows[place].image_id, place, *film, path)
            _write_table(self.task, number, rows)


def _refuse_other_bytes(task: Task, file: BinaryIO, crc32: int | None) -> None:
    written = file.read(task.size**2)
    if crc32 is not None and zlib.crc32(written) != crc32:
        raise CxrError(f"{task.out} does not keep what is written to it.", "Pack to another disk.")


def _write_table(task: Task, number: int, rows: Sequence[Row]) -> None:
    arrays = [pa.array(values, kind.type) for values, kind in zip(zip(*rows, strict=True), FILMS, strict=True)]
    with atomic(table_path(task.out, number)) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=FILMS), temporary)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Make it an .npy file of uint8 zeros; returns where they start. Films are written into it, not memory-mapped:
    every page of a map costs a fault."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    start = file.tell()
    file.truncate(start + math.prod(shape))
    return start


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
