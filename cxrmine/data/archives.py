"""What lies in archives, listed once for all who ask.

A tar archive has one way through it, from its front to its end, and that of a large dataset takes minutes. So the
tables that lie on the way are kept from the pass that lists it.
"""

import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from cxrmine.data.zips import open_zip
from cxrmine.errors import CxrError

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, NotImplementedError)
TABLE = re.compile(r".+\.(csv|tsv|txt|json|xml|toml|parquet)(\.gz)?", re.IGNORECASE)
MOST_KEPT = 2**28  # bytes of tables, of all archives together; what goes beyond is read where it lies
LONG = 2**26  # bytes of an archive that takes a second or more to go through
MIB = 2**20


class Bar(Protocol):
    def advance(self, n: int = 1) -> None: ...


# total, label, unit → a bar that shows how far a long work is
Watch = Callable[[int, str, str], AbstractContextManager[Bar]]


class Listing(NamedTuple):
    """The files in an archive by the names that it gives them. fault: why there may be more."""

    names: tuple[str, ...]
    fault: CxrError | None = None


class Archives:
    """The listings of all archives of a dataset, and the tables kept from them."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch
        self._listings: dict[Path, Listing] = {}
        self._kept: dict[tuple[Path, str], bytes] = {}
        self._room = MOST_KEPT

    def listing(self, path: Path) -> Listing:
        if path not in self._listings:
            names: dict[str, None] = {}
            fault = None
            try:
                for name in _zip_names(path) if zipfile.is_zipfile(path) else self._tar_names(path):
                    names[name] = None
            except DAMAGED as why:
                fault = CxrError(f"{path} is a damaged or cut off archive: {why}.", "Get the file again.")
            except OSError as why:
                fault = CxrError(f"{path} cannot be read: {why.strerror or why}.", "Get the file again.")
            self._listings[path] = Listing(tuple(names), fault)
        return self._listings[path]

    def kept(self, path: Path, name: str) -> bytes | None:
        """A table of an archive that was listed, if it was kept."""
        return self._kept.get((path, name))

    def forget(self) -> None:
        """The tables, when all have been read."""
        self._kept.clear()
        self._room = 0

    def _tar_names(self, path: Path) -> Iterator[str]:
        size = path.stat().st_size
        watched = self.watch(size // MIB, f"listing {path.name}", "MiB") if self.watch and size >= LONG else None
        with path.open("rb") as raw, watched or nullcontext() as bar, tarfile.open(fileobj=raw, mode="r|*") as archive:
            done = 0
            for info in archive:
                if bar and raw.tell() // MIB > done:
                    bar.advance(raw.tell() // MIB - done)
                    done = raw.tell() // MIB
                if info.isreg():
                    name = plain(info)
                    if info.size <= self._room and TABLE.fullmatch(name):
                        self._keep(path, name, archive.extractfile(info))
                    yield name

    def _keep(self, path: Path, name: str, file: IO[bytes] | None) -> None:
        """The first file of a name is the one that counts. One that is cut off raises an error of tarfile."""
        if file and (path, name) not in self._kept:
            self._kept[path, name] = content = file.read()
            self._room -= len(content)


def plain(info: tarfile.TarInfo) -> str:
    return info.name.removeprefix("./")


def _zip_names(path: Path) -> list[str]:
    return [info.filename for info in open_zip(path).archive.infolist() if not info.is_dir()]
