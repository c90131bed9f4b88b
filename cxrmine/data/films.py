"""Where the pixels of an index lie, in image files or in a pack, and how either becomes the network's input."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import Fit, Geometry, fit_geometry, image_size, place, prepare, read_image
from cxrmine.errors import CxrError

MOST_OPEN = 256  # shards of a pack at once: each holds a file open


class Films(Protocol):
    @property
    def largest(self) -> int | None:
        """The greatest input that it has pixels for; None: as large as each film is."""
        ...

    def fitted(self, path: str, size: int, fit: Fit) -> tuple[np.ndarray, Geometry]:
        """size×size uint8, and where the film lies in it. Unreadable where there is none."""
        ...

    def size(self, path: str) -> tuple[int, int]:
        """Width and height of the original film. Unreadable where there is none."""
        ...


class Loose:
    """Image files below a folder."""

    largest: int | None = None

    def __init__(self, root: Path) -> None:
        self.root = root

    def fitted(self, path: str, size: int, fit: Fit) -> tuple[np.ndarray, Geometry]:
        return prepare(read_image(self.root / path), size, fit)

    def size(self, path: str) -> tuple[int, int]:
        return image_size(self.root / path)


class Packed(NamedTuple):
    """Where a film lies in a pack, and the size of the file that it was."""

    shard: int
    place: int
    width: int
    height: int


class Shards:
    """The memory-mapped films of a pack, all of `largest` pixels a side and fitted by `fit`."""

    def __init__(self, shards: Sequence[np.ndarray], films: Mapping[str, Packed], side: int, fit: Fit) -> None:
        self.shards, self.films, self.largest, self.fit = shards, films, side, fit

    def fitted(self, path: str, size: int, fit: Fit) -> tuple[np.ndarray, Geometry]:
        """As packed, where that is what is asked for; else cut out of its square and fitted again."""
        film = self._film(path)
        pixels = self.shards[film.shard][film.place]
        if len(self.shards) > MOST_OPEN:
            pixels = np.array(pixels)  # a part of the map would hold its file open
        packed = fit_geometry(film.width, film.height, self.largest, self.fit)
        if (size, fit) == (self.largest, self.fit):
            return pixels, packed
        geometry = fit_geometry(film.width, film.height, size, fit)
        return place(np.ascontiguousarray(pixels[packed.film()]), geometry), geometry

    def size(self, path: str) -> tuple[int, int]:
        film = self._film(path)
        return film.width, film.height

    def _film(self, path: str) -> Packed:
        film = self.films.get(path)
        if film is None:
            raise Unreadable("not in the pack")
        return film


class Mapped(Sequence[np.ndarray]):
    """Shards, each looked at once and memory-mapped again when it is wanted: a map holds its file open, of which a
    process may have some thousand, and a large pack has more shards."""

    def __init__(self, files: Sequence[tuple[Path, int]], size: int) -> None:
        for path, films in files:
            _shard(path, films, size)
        self.files = files

        def opened(number: int) -> np.ndarray:
            return _shard(*files[number], size)

        self.opened = lru_cache(MOST_OPEN)(opened)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: Any) -> Any:
        return self.opened(number)


def _shard(path: Path, films: int, size: int) -> np.ndarray:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as fault:
        raise CxrError(f"{path} cannot be read: {fault}.", "Pack the dataset again.") from None
    if shard.dtype != np.uint8 or shard.shape != (films, size, size):
        raise CxrError(f"{path} does not hold {films} films of {size} × {size} pixels.", "Pack the dataset again.")
    return shard
