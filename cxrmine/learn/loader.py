"""From rows of an index to batches of uint8 films, decoded on threads while the network works."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from torch import Tensor

from cxrmine.config import Data
from cxrmine.data.images import Geometry, Unreadable, needed
from cxrmine.data.index import UNMENTIONED, Index
from cxrmine.errors import CxrError

UNCERTAIN = -1
NO_SUCH_FILE = "no such file"
AHEAD = 3  # batches decoded before they are asked for


@dataclass(frozen=True)
class Batch:
    """What could be read of some rows of an index, and what could not."""

    rows: np.ndarray
    images: Tensor  # uint8, N×1×S×S
    geometries: list[Geometry]
    unreadable: list[tuple[int, str]]  # row, why


def batches(index: Index, data: Data, groups: Iterable[np.ndarray], workers: int) -> Iterator[Batch]:
    """One batch a group of rows, in order. OpenCV frees the interpreter while it decodes, so threads are enough."""
    cv2.setNumThreads(1)
    paths, films = index.table.column("path").to_pylist(), index.films
    if films.largest and films.largest < (whole := needed(data.size, data.fit)):
        fits = max(size for size in range(films.largest + 1) if needed(size, data.fit) <= films.largest)
        cropped = f" with data.fit = {data.fit}, which cuts it out of {whole}" if whole > data.size else ""
        raise CxrError(
            f"{index.root} has films of {films.largest} pixels, and data.size is {data.size}{cropped}.",
            f"Pack again with --size {whole}, or say --set data.size={fits}.",
        )

    why = index.table["why"].to_pylist() if "why" in index.table.column_names else [None] * len(paths)

    def load(row: int) -> tuple[np.ndarray, Geometry] | Unreadable:
        if paths[row] is None:
            return Unreadable(why[row] or NO_SUCH_FILE)
        try:
            return films.fitted(paths[row], data.size, data.fit)
        except Unreadable as fault:
            return fault

    waiting: deque[tuple[np.ndarray, list[Future[tuple[np.ndarray, Geometry] | Unreadable]]]] = deque()
    groups = iter(groups)
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
    try:
        for rows in islice(groups, AHEAD):
            waiting.append((rows, [pool.submit(load, int(row)) for row in rows]))
        while waiting:
            rows, loading = waiting.popleft()
            for following in islice(groups, 1):
                waiting.append((following, [pool.submit(load, int(row)) for row in following]))
            yield _collate(rows, [film.result() for film in loading], data.size)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _collate(rows: np.ndarray, films: list[tuple[np.ndarray, Geometry] | Unreadable], size: int) -> Batch:
    read = [(row, film) for row, film in zip(rows, films, strict=True) if not isinstance(film, Unreadable)]
    images = np.empty((len(read), 1, size, size), np.uint8)
    for i, (_, film) in enumerate(read):
        images[i, 0] = film[0]
    return Batch(
        rows=np.array([row for row, _ in read], np.int64),
        images=torch.from_numpy(images),
        geometries=[film[1] for _, film in read],
        unreadable=[
            (int(row), film.why) for row, film in zip(rows, films, strict=True) if isinstance(film, Unreadable)
        ],
    )


def training_groups(
    count: int, batch_size: int, seed: int, epoch: int, first: int, rank: int, processes: int
) -> list[np.ndarray]:
    """The rows of each step of an epoch from step `first` on, as one process of `processes` sees them.

    The order depends on (seed, epoch) alone, so a run goes on where it stopped without remembering a sampler. The last
    images that do not fill a batch wait for the next epoch's order.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    step = min(batch_size, count)
    return [order[i * step : (i + 1) * step][rank::processes] for i in range(first, count // step)]


def steps_an_epoch(count: int, batch_size: int) -> int:
    return count // min(batch_size, count)


def inference_groups(count: int, batch_size: int, rank: int = 0, processes: int = 1) -> list[np.ndarray]:
    whole = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    return whole[rank::processes]


def targets(labels: np.ndarray, data: Data) -> Tensor:
    """int8 labels → 1, 0, or NaN for what does not count."""
    values = labels.astype(np.float32)
    values[labels == UNCERTAIN] = {"ignore": np.nan, "ones": 1.0, "zeros": 0.0}[data.uncertain]
    values[labels == UNMENTIONED] = {"ignore": np.nan, "zeros": 0.0}[data.unmentioned]
    return torch.from_numpy(values)
