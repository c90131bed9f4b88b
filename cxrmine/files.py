"""Writing so that a reader never sees half a file, and a run folder never has two writers."""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from cxrmine.errors import CxrError


@contextlib.contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError say the name a person gave: one that names no file, or the temporary one, names `path`."""
    try:
        yield
    except OSError as fault:
        if fault.filename is None:
            if fault.errno is None:  # pyarrow has it in its text only, at times
                found = re.search(r"errno (\d+)", str(fault), re.IGNORECASE)
                fault.errno, fault.strerror = (int(found[1]) if found else None), str(fault) or type(fault).__name__
            fault.filename = str(path)
        elif temporary and Path(str(fault.filename)).is_relative_to(temporary):
            fault.filename, fault.filename2 = str(path / Path(str(fault.filename)).relative_to(temporary)), None
        raise


def explained(fault: OSError) -> str:
    """What happened to which file, without a full stop: No space left on device (b.parquet)"""
    text = str(fault.strerror or fault) or type(fault).__name__
    why = os.strerror(fault.errno) if fault.errno else text.splitlines()[0]
    return f"{why} ({fault.filename})" if fault.filename else why


def check_writable(path: Path) -> None:
    """Refuse a place where no file can come to be, before there is anything to put there."""
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir():
        raise CxrError(f"{path} cannot be written: {folder} is a file.", "Choose another place.")
    probe = folder / _temporary(path).name
    try:
        probe.touch()
        probe.unlink()
    except OSError as fault:
        raise CxrError(f"{path} cannot be written: {fault.strerror}.", "Choose another place.") from None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on any error."""
    temporary = _temporary(path)
    with naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what killed processes of this host left of an earlier try at the same file."""
    prefix = f".{path.name}.{socket.gethostname()}."
    for stale in path.parent.glob(f"{glob_escape(prefix)}*.tmp"):
        pid = stale.name[len(prefix) : -len(".tmp")]
        if pid.isdigit() and not _alive(int(pid)):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)


def glob_escape(text: str) -> str:
    """`text` as a glob pattern that matches only itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a whole folder: `path` must not exist, or be an empty folder."""
    temporary = _temporary(path)
    with naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                path.rmdir()
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def move_aside(folder: Path) -> Path:
    """runs/cam → runs/cam.1, or the first number that is free; its lock stays with this process."""
    aside = next(p for n in itertools.count(1) if not (p := folder.with_name(f"{folder.name}.{n}")).exists())
    aside.mkdir()
    for entry in sorted(folder.iterdir()):
        if entry.name != ".lock":
            entry.rename(aside / entry.name)
    return aside


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Hold `folder`/.lock; yield whose dead lock was taken over, or "".

    The kernel drops the lock with its process, so a killed owner never blocks; host and pid in the file are for people.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise CxrError(f"{folder} is a file, or lies in one, where a folder should be.", "Choose another.") from None
    with (folder / ".lock").open("ab+", buffering=0) as file:
        with naming(folder / ".lock"):
            dead_owner = _claim(file, folder)
        try:
            yield dead_owner
        finally:
            file.truncate(0)


def _claim(file: FileIO, folder: Path) -> str:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().decode(errors="replace").strip() or "another process"
        raise CxrError(
            f"{folder} is in use by {owner}.", "Wait for it to end, stop it, or choose another folder with --run."
        ) from None
    file.seek(0)
    dead_owner = file.read().decode(errors="replace").strip()
    file.truncate(0)
    file.write(f"{socket.gethostname()} pid {os.getpid()}\n".encode())
    return dead_owner
