"""Where the pixels of an index lie, in image files or in a pack, and how either becomes the network's input."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import Fit, Geometry, fit_geometry, image_size, place, prepare, read_image


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
