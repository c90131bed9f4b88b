"""No reader sees half a file; no folder has two writers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxrmine.errors import CxrError
from cxrmine.files import atomic, atomic_folder, locked, write_bytes


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
