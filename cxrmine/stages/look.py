"""What looking at every film of a dataset once tells: its size, whether it can be read, and what is odd about it. And
at every mask of an organ."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from cxrmine.console import progress, progress_bar
from cxrmine.cores import available, threads
from cxrmine.data.encoded import Unreadable
from cxrmine.data.films import Shards
from cxrmine.data.images import decode_image, encoded_size
from cxrmine.data.index import Index
from cxrmine.data.organs import decode_mask
from cxrmine.data.shard_files import checksum
from cxrmine.data.tree import Tree
from cxrmine.stages.workers import start

FEW = 400  # films that are looked at sooner than processes start
PORTION = 64  # films a process is handed at once
BETWEEN = 0.5  # seconds from one look at how many films are done to the next
BLACK = 8  # the gray value that nothing of a black film is above, but for a two-hundredth of it
DARKER = 15  # how much darker than both lungs the middle of the chest is in a film that looks inverted


class Film(NamedTuple):
    """path is in the dataset. digest: of its pixels, where they were decoded."""

    path: str
    size: tuple[int, int] | None = None  # width, height
    why: str = ""  # it cannot be read
    odd: str = ""
    digest: str = ""


Look = Callable[[str, bytes | Unreadable], Film]
Counts = MutableSequence[int]  # of each portion the films that are done


def look(index: Index, fast: bool, workers: int | None) -> Iterator[Film]:
    """A Film for every file that is there, in no order; with `fast`, for those with boxes, without their pixels."""
    there = index.present()[0].table
    if fast:
        there = there.filter(there["boxed"])
    paths = there["path"].to_pylist()
    if isinstance(index.packed, Shards):
        return progress(_packed(index, paths, fast), len(paths), "checking")
    tree = index.tree or Tree(index.root)
    return _all(_fast if fast else _film, tree, paths, workers, "checking")


def look_at_masks(index: Index, workers: int | None) -> Iterator[Film]:
    """A Film for every mask of an organ, without a digest, in no order."""
    if index.organs is None:
        return iter(())
    paths = index.organs["path"].to_pylist()
    return _all(_mask, index.tree or Tree(index.root), paths, workers, "checking masks")


def _all(one: Look, tree: Tree, paths: Sequence[str], workers: int | None, label: str) -> Iterator[Film]:
    """The bar moves film by film: a tar archive, which is one portion, may take hours."""
    portions = tree.portions(paths, PORTION)
    done = RawArray("q", max(len(portions), 1))
    with progress_bar(len(paths), label) as bar, _pool(len(paths), workers, done) as pool:
        waiting = {
            pool.submit(_portion, one, number, tree.root, tree.archives, tree.base, portion)
            for number, portion in enumerate(portions)
        }
        while waiting:
            ready, waiting = wait(waiting, BETWEEN, FIRST_COMPLETED)
            bar.advance(sum(done) - bar.done)
            for future in ready:
                yield from future.result()


@contextmanager
def _pool(films: int, workers: int | None, done: Counts) -> Iterator[Executor]:
    """Threads for a few films; processes for many, which decode DICOM side by side too."""
    pool: Executor = (
        ThreadPoolExecutor(threads(workers), initializer=_count_in, initargs=(done,))
        if films <= FEW or workers == 1
        else ProcessPoolExecutor(workers or available(), multiprocessing.get_context("spawn"), _start, (done,))
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(done: Counts) -> None:
    start()
    _count_in(done)


def _count_in(done: Counts) -> None:
    """Of each portion how many films are done; each has its own place, so that nobody waits for a lock."""
    _counts.done = done


_counts = SimpleNamespace(done=None)


def _portion(one: Look, number: int, root: Path, archives: bool, base: str, paths: Sequence[str]) -> list[Film]:
    done, looked = _counts.done, []
    for path, content in Tree(root, archives, base).stream(paths):
        looked.append(one(path, content))
        done[number] += 1
    return looked


def _mask(path: str, content: bytes | Unreadable) -> Film:
    try:
        if isinstance(content, Unreadable):
            raise content
        mask = decode_mask(content)
    except Unreadable as fault:
        return Film(path, why=fault.why)
    height, width = mask.shape
    return Film(path, (width, height), odd="" if mask.any() else "mask of an organ with nothing in it")


def _fast(path: str, content: bytes | Unreadable) -> Film:
    try:
        if isinstance(content, Unreadable):
            raise content
        return Film(path, encoded_size(content))
    except Unreadable as fault:
        return Film(path, why=fault.why)


def _film(path: str, content: bytes | Unreadable) -> Film:
    try:
        if isinstance(content, Unreadable):
            raise content
        pixels = decode_image(content)
    except Unreadable as fault:
        return Film(path, why=fault.why)
    height, width = pixels.shape
    return Film(path, (width, height), odd=oddity(pixels), digest=f"{width}x{height} {_digest(pixels)}")


def _digest(pixels: np.ndarray) -> str:
    """Long enough that of millions of films no two have the same by chance."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=12).hexdigest()


def oddity(pixels: np.ndarray) -> str:
    """What makes one doubt that it is a film of a chest as it should be; else nothing."""
    if pixels.min() == pixels.max():
        return "constant image: one gray value"
    small = pixels[:: max(1, pixels.shape[0] // 256), :: max(1, pixels.shape[1] // 256)].astype(np.float32)
    if np.quantile(small, 0.995) <= BLACK:
        return "black image: hardly a pixel above black"
    height, width = small.shape
    chest = small[int(0.3 * height) : max(int(0.65 * height), 1)]
    left, middle, right = (
        chest[:, int(a * width) : max(int(b * width), int(a * width) + 1)].mean()
        for a, b in ((0.2, 0.38), (0.45, 0.55), (0.62, 0.8))
    )
    if chest.size and middle < min(left, right) - DARKER:
        return "image that looks inverted: the spine is darker than both lungs"
    return ""


def _packed(index: Index, paths: Sequence[str], fast: bool) -> Iterator[Film]:
    """The bytes of every film must be those that were packed; with `fast` only its size is told, from the index."""
    shards = index.packed
    assert isinstance(shards, Shards)
    packed = dict(zip(index.table["path"].to_pylist(), index.table["crc32"].to_pylist(), strict=True))
    for path in paths:
        film = shards.films[path]
        if fast:
            yield Film(path, (film.width, film.height))
            continue
        pixels = shards.shards[film.shard][film.place]
        why = "" if checksum(pixels) == packed[path] else "damaged: its checksum does not match"
        yield Film(
            path, (film.width, film.height), why, oddity(pixels), f"{film.width}x{film.height} {_digest(pixels)}"
        )
