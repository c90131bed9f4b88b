"""Zip archives that stay open, so that their directory is read once by a process and not for every few members."""

import os
import threading
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

KEPT = 2  # by each process: to read the directory of 200,000 members takes seconds, and 100 MB


class Zip(NamedTuple):
    """An open archive. One thread at a time reads from it."""

    archive: ZipFile
    turn: threading.Lock


_kept: dict[tuple[Path, tuple[int, ...]], Zip] = {}
_opening = threading.Lock()


def open_zip(path: Path) -> Zip:
    """The archive, opened again where the file is another by now.

    One that is no longer kept is closed when the last who reads from it lets go of it.
    """
    with _opening:
        status = path.stat()
        key = path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        found = _kept.pop(key, None) or Zip(ZipFile(path), threading.Lock())
        _kept[key] = found  # at the end: it is the one used last
        for old in [other for other in _kept if other[0] == path and other != key] + list(_kept)[:-KEPT]:
            _kept.pop(old, None)
        return found


def _forget() -> None:
    """In a process that was forked: it shares no place in a file with its parent, and waits for no lock of it."""
    global _opening
    _opening = threading.Lock()
    _kept.clear()


os.register_at_fork(after_in_child=_forget)
