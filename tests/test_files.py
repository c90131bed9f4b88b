"""No reader sees half a file; no folder has two writers."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxrmine.errors import CxrError
from cxrmine.files import atomic, atomic_folder, check_writable, explained, locked, write_bytes


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    write_bytes(file, b"old")
    with pytest.raises(OSError, match="full"), atomic(file) as temporary:
        temporary.write_bytes(b"ne")
        raise OSError("full")
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    killed = "import os, sys; from pathlib import Path; from cxrmine.files import atomic\n"
    killed += "with atomic(Path(sys.argv[1])) as t: t.write_bytes(b'x'); os.kill(os.getpid(), 9)"
    file = tmp_path / "a[1].bin"
    subprocess.run([sys.executable, "-c", killed, str(file)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert not file.exists()
    write_bytes(file, b"whole")
    assert [p.name for p in tmp_path.iterdir()] == ["a[1].bin"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "d") as temporary:
        (temporary / "a").write_text("a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "d") as temporary:
        (temporary / "a").write_text("a")
    assert (tmp_path / "d" / "a").read_text() == "a"


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cxrmine.files import locked\nwith locked(Path(sys.argv[1])): pass"
    )
    with locked(tmp_path):
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "CxrError" in second.stderr
    assert f"pid {os.getpid()}" in second.stderr


def test_a_dead_owners_lock_is_taken_over(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from cxrmine.files import locked\n"
    code += "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    dead = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    dead.wait()
    with locked(tmp_path) as owner:
        assert f"pid {dead.pid}" in owner
    with locked(tmp_path) as owner:
        assert owner == ""


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(CxrError), locked(tmp_path):
        raise CxrError("x")
    with locked(tmp_path) as owner:
        assert owner == ""


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ENOSPC, "pyarrow: [errno 28] No space"), "No space left on device (a.bin)"),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space left"), "No space left on device (a.bin)"),
        (OSError("the disk\nmelted"), "the disk (a.bin)"),
        (OSError(), "OSError (a.bin)"),
        (FileNotFoundError(2, "No such file", "other.png"), "No such file or directory (other.png)"),
    ],
)
def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r".") as raised, atomic(Path("a.bin")):
        raise fault
    assert explained(raised.value) == said
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_is_never_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, atomic(tmp_path / "a.bin"):
        pass  # nothing was written
    assert raised.value.filename == str(tmp_path / "a.bin")
    with pytest.raises(FileNotFoundError) as raised, atomic_folder(tmp_path / "d") as temporary:
        (temporary / "no" / "file").write_text("x")
    assert raised.value.filename == str(tmp_path / "d" / "no" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_bytes(tmp_path / "folder", b"x")
    assert explained(raised.value) == f"Is a directory ({tmp_path / 'folder'})"


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "yet" / "a.bin")
    (tmp_path / "a.bin").write_bytes(b"x")
    check_writable(tmp_path / "a.bin")
    for wrong in (tmp_path / "a.bin" / "b", Path("/proc/a.bin"), tmp_path / ("n" * 300)):
        with pytest.raises(CxrError, match="cannot be written"):
            check_writable(wrong)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_cannot_be_locked_as_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(CxrError, match="is a file"), locked(folder):
            pass
