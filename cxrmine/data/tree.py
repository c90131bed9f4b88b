"""A dataset's files by name, whether they lie in folders or in archives.

A name is relative to the dataset and has slashes. What lies in an archive is named through it:
images_01.tar.gz/images/00000001_000.png. A member of an archive whose name leads out of it is not there, nor is what
is hidden: names with a dot before them, and what a Mac adds to its archives.
"""

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

from cxrmine.data.archives import DAMAGED, Archives, plain
from cxrmine.data.encoded import Unreadable
from cxrmine.data.gzipped import unpacked
from cxrmine.data.zips import open_zip
from cxrmine.errors import CxrError

ARCHIVE = re.compile(r".+\.(zip|tar|tar\.gz|tgz)", re.IGNORECASE)
ONE_WAY = re.compile(r".+\.(tar|tar\.gz|tgz)", re.IGNORECASE)
MASK = re.compile(r"([^/]+\.(zip|tar|tar\.gz|tgz)/)?organs/(left_lung|right_lung|heart)/[^/]+\.(?i:png)")
UNSAFE = re.compile(r"[\\\x00-\x1f]")
LARGEST_FILE = 2**30  # 120 megapixels of four 16-bit channels, uncompressed
OF_A_MAC = "__MACOSX"

Content = bytes | Unreadable


class Tree:
    """`root`: a folder or an archive. `base`: the folder in the archive that the dataset begins at, with its slash.
    `listed`: what is known of its archives already."""

    def __init__(self, root: Path, archives: bool = False, base: str = "", listed: Archives | None = None) -> None:
        self.root, self.archives, self.base, self.listed = root, archives, base, listed or Archives()
        self.strange: list[str] = []  # members of archives whose names lead out of them
        self.damaged: dict[str, CxrError] = {}  # archives in a folder that cannot be read to their end, and why

    def __str__(self) -> str:
        return f"{self.root}/{self.base}".rstrip("/") if self.base else str(self.root)

    @cached_property
    def top(self) -> tuple[str, ...]:
        """What lies at the top: files, folders and archives, sorted."""
        if self.root.is_dir():
            return tuple(name for name in _names_in(self.root) if not is_hidden(name))
        return tuple(sorted({name.partition("/")[0] for name in self.names}))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every file but `masks`, sorted; with `archives` those in archives too."""
        return tuple(name for name in self._files if not MASK.fullmatch(name))

    @cached_property
    def masks(self) -> tuple[str, ...]:
        """organs/heart/00000001_000.png and its like: no films, whatever the layout."""
        return tuple(name for name in self._files if MASK.fullmatch(name))

    @cached_property
    def _files(self) -> tuple[str, ...]:
        if not self.root.is_dir():
            inside = (name.removeprefix(self.base) for name in self._members("") if name.startswith(self.base))
            if fault := self.listed.listing(self.root).fault:
                raise fault
            return tuple(sorted(inside))
        loose = list(_walk(self.root))
        packed = [archive for archive in loose if self.archives and ARCHIVE.fullmatch(archive)]
        return tuple(sorted([*loose, *(f"{a}/{name}" for a in packed for name in self._members(a))]))

    def has(self, name: str) -> bool:
        return (self.root / name).is_file() if self.root.is_dir() else name in self._known

    def first(self, *names: str) -> str | None:
        """The first of these that is there, as it is or gzipped."""
        return next((n for name in names for n in (name, f"{name}.gz") if self.has(n)), None)

    def under(self, name: str) -> "Tree":
        """The tree of a folder, or of an archive, at the top."""
        if self.root.is_dir():
            return Tree(self.root / name, self.archives, listed=self.listed)
        return Tree(self.root, self.archives, f"{self.base}{name}/", self.listed)

    def is_folder(self, name: str) -> bool:
        """Whether what is at the top under this name is a folder."""
        return (self.root / name).is_dir() if self.root.is_dir() else not self.has(name)

    def is_open(self, name: str) -> bool:
        """Whether what is at the top under this name is a folder, or an archive that is looked into."""
        return not self.has(name) or (self.archives and self.root.is_dir() and ARCHIVE.fullmatch(name) is not None)

    def packed_away(self) -> list[str]:
        """Archives at the top that are not looked into."""
        return [] if self.archives else [name for name in self.top if ARCHIVE.fullmatch(name)]

    def read(self, name: str) -> bytes:
        """A file of the dataset's own tables, unpacked where it is gzipped."""
        content = next(content for _, content in self.stream([name]))
        if isinstance(content, Unreadable):
            raise CxrError(f"{self}/{name} cannot be read: {content.why}.", "Get the file again, or make it readable.")
        return unpacked(content, f"{self}/{name}")

    def text(self, name: str) -> str:
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise CxrError(f"{self}/{name} is not UTF-8 text.", "Get the file again.") from None

    def stream(self, names: Iterable[str]) -> Iterator[tuple[str, Content]]:
        """The content of these files, archive by archive, and each archive once from its front to its end."""
        of: dict[str, list[str]] = {}
        for name in names:
            of.setdefault(self.container(name), []).append(name)
        for archive, wanted in of.items():
            if archive or not self.root.is_dir():
                prefix = f"{archive}/" if archive else ""
                inside = {(self.base + name).removeprefix(prefix): name for name in wanted}
                yield from self._kept(archive, inside)
                yield from ((inside[n], content) for n, content in _read_members(self._archive(archive), inside))
            else:
                yield from ((name, read_file(self.root / name)) for name in wanted)

    def portions(self, names: Iterable[str], most: int) -> list[list[str]]:
        """Files that can be read apart from each other at no cost: a tar archive's all at once, for it has one way
        through it; of others at most so many. The long ones come first."""
        of: dict[str, list[str]] = {}
        for name in names:
            of.setdefault(self.container(name), []).append(name)
        whole, parts = [], []
        for archive, inside in of.items():
            if ONE_WAY.fullmatch(archive or ("" if self.root.is_dir() else self.root.name)):
                whole.append(inside)
            else:
                parts += [inside[first : first + most] for first in range(0, len(inside), most)]
        return whole + parts

    def container(self, name: str) -> str:
        """The archive that a file lies in, or nothing."""
        if not (self.archives and self.root.is_dir()):
            return ""
        parts = PurePosixPath(name).parts
        heads = ("/".join(parts[:i]) for i in range(1, len(parts)))
        return next((head for head in heads if ARCHIVE.fullmatch(head) and (self.root / head).is_file()), "")

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._files)

    def _archive(self, name: str) -> Path:
        return self.root / name if name else self.root

    def _kept(self, archive: str, inside: dict[str, str]) -> Iterator[tuple[str, Content]]:
        """Of these members, by their names there and here, those that were kept; the others are left in `inside`."""
        for member in list(inside):
            content = self.listed.kept(self._archive(archive), member)
            if content is not None:
                yield inside.pop(member), _sized(len(content)) or content

    def _members(self, archive: str) -> list[str]:
        path = self._archive(archive)
        found, fault = self.listed.listing(path)
        if fault and archive:
            self.damaged[archive] = fault
        self.strange += [f"{archive or path.name}: {name!r}" for name in found if not is_safe(name)]
        return [name for name in found if is_safe(name) and not any(map(is_hidden, name.split("/")))]


def is_safe(name: str) -> bool:
    """Whether a relative path stays where it is."""
    parts = name.split("/")
    return not {"", ".", ".."} & set(parts) and not UNSAFE.search(name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no part of a dataset."""
    return name.startswith(".") or name == OF_A_MAC


def read_file(path: Path) -> Content:
    """The bytes of a film, or why there are none."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            return Unreadable("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        return _sized(status.st_size) or path.read_bytes()
    except FileNotFoundError:
        return Unreadable("no such file")
    except PermissionError:
        return Unreadable("permission denied")
    except OSError as fault:
        return Unreadable(f"not readable: {fault.strerror}")


def _sized(size: int) -> Unreadable | None:
    if size == 0:
        return Unreadable("empty: zero bytes")
    return Unreadable(f"larger than {LARGEST_FILE // 2**20} MiB") if size > LARGEST_FILE else None


# --- folders


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError as fault:
        raise CxrError(f"{folder} cannot be listed: {fault.strerror}.", "Make it readable.") from None


def _walk(root: Path) -> Iterator[str]:
    """Every file below, through links but never in a circle; what is hidden is not looked at."""
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            status = (root / folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if not is_hidden(entry.name):
                        name = f"{folder}{entry.name}"
                        if entry.is_dir():
                            waiting.append(f"{name}/")
                        else:
                            yield name
        except OSError as fault:
            raise CxrError(f"{root / folder} cannot be listed: {fault.strerror}.", "Make it readable.") from None


# --- archives


def _read_members(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, Content]]:
    """Of these members, each that is there; of those that a damaged archive loses, why."""
    left = dict.fromkeys(wanted)
    if not left:
        return
    read = _read_zip if zipfile.is_zipfile(path) else _read_tar
    try:
        for name, content in read(path, left):
            if name in left:  # an archive may have a name twice: the first counts
                del left[name]
                yield name, content
        why = "not in its archive"
    except (*DAMAGED, OSError):
        why = "its archive is damaged or cut off"
    yield from ((name, Unreadable(why)) for name in left)


def _read_zip(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, Content]]:
    archive, turn = open_zip(path)
    for name in list(wanted):
        info = archive.NameToInfo.get(name)
        if info is None:
            continue
        content: Content
        try:
            with turn:
                content = _sized(info.file_size) or archive.read(info)
        except (*DAMAGED, RuntimeError):  # RuntimeError: it is encrypted
            content = Unreadable("damaged or encrypted in its archive")
        yield name, content


def _read_tar(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, Content]]:
    left = set(wanted)
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            name = plain(info)
            if name in left and info.isreg():
                left.discard(name)
                yield name, _sized(info.size) or _whole(archive.extractfile(info), info.size)
            if not left:
                return


def _whole(file: IO[bytes] | None, size: int) -> Content:
    content = file.read() if file else b""
    return content if len(content) == size else Unreadable("cut off in its archive")
