"""Decoders in processes of their own: what they may do to themselves, and that nothing of it gets out."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cxrmine.data import apart
from cxrmine.data.images import Unreadable, decode_image
from tests.films import JPEG_2000_LOSSLESS, JPEG_LS, codestream, dicom

PIXELS = np.arange(40 * 64, dtype=np.uint16).astype(np.uint8).reshape(40, 64)
HOUSE = str(apart.SCRIPT.parent)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """decode() with a helper whose decoder is one line of Python."""
    monkeypatch.setattr(apart, "_idle", {})

    def decode(line: str, size: int = 12) -> np.ndarray:
        script = tmp_path / "helper.py"
        script.write_text(
            f"import os, pathlib, signal, sys, time\nsys.path.insert(0, {HOUSE!r})\n"
            f"import apart_helper\ndef decode(code, width, height, samples, bits):\n    {line}\n"
            "apart_helper.load = lambda _: decode\napart_helper.main()\n"
        )
        monkeypatch.setattr(apart, "SCRIPT", script)
        return apart.decode("rle", b"abc", size, 1, 1, 8)

    yield decode
    apart._end_all()


def reason(decode, line: str, size: int = 12) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(Unreadable) as caught:
        decode(line, size)
    return caught.value.why


def test_pixels_come_back_and_the_helper_stays(made_up) -> None:  # type: ignore[no-untyped-def]
    assert made_up("return bytes(range(width))").tolist() == list(range(12))
    first = apart.helpers()
    assert made_up("never run: the helper is there already").tolist() == list(range(12))
    assert apart.helpers() == first


def test_what_a_decoder_prints_is_lost(made_up, capfd: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    line = "print('P' * 99, flush=True); os.write(1, b'P' * 99); os.write(2, b'x'); return bytes(range(width))"
    assert made_up(line).tolist() == list(range(12))
    assert "".join(capfd.readouterr()) == ""


def test_what_decoders_do_on_damage(made_up, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    damaged = "damaged: its pixels cannot be decoded"
    for line in ("raise ValueError('a name')", "raise SystemExit(0)", "return None", "return bytes(width + 1)"):
        assert reason(made_up, line) == damaged
        apart._end_all()
    assert reason(made_up, "os.abort()") == apart.CRASHED
    assert reason(made_up, "os.kill(os.getpid(), signal.SIGSEGV)") == apart.CRASHED
    assert apart.helpers() == []
    assert reason(made_up, "return bytearray(3 * 2**30)[:width]") == "needs more than 2 GB to decode"
    apart._end_all()
    monkeypatch.setattr(apart, "SECONDS", 0.2)
    assert reason(made_up, "\n    while True: pass") == "took longer than 10 s to decode"
    monkeypatch.setattr(apart, "PATIENCE", 0.5)
    assert reason(made_up, "time.sleep(1000)") == "took longer than 10 s to decode"


def test_a_helper_that_was_killed_from_outside_costs_no_film(made_up, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    flag = tmp_path / "died"
    die = f"there = pathlib.Path({str(flag)!r}); there.exists() or (there.touch(), os.kill(os.getpid(), 9))"
    line = f"{die}; return b'7' * width"
    assert made_up(line).tolist() == [ord("7")] * 12
    os.kill(apart.helpers()[0], signal.SIGKILL)
    assert made_up(line).tolist() == [ord("7")] * 12


def test_a_helper_leaves_signals_to_its_parent(made_up) -> None:  # type: ignore[no-untyped-def]
    made_up("return bytes(width)")
    (pid,) = apart.helpers()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
        made_up("return bytes(width)")
    assert apart.helpers() == [pid]


def test_a_decoder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, made_up) -> None:  # type: ignore[no-untyped-def]
    made_up("return bytes(width)")
    apart._end_all()
    script = apart.SCRIPT
    script.write_text(script.read_text().replace("lambda _: decode", "lambda _: None"))
    with pytest.raises(Unreadable, match="its decoder could not be loaded"):
        apart.decode("rle", b"abc", 12, 1, 1, 8)


def test_many_threads_get_each_its_own_pixels() -> None:
    films = [(PIXELS + n).astype(np.uint8) for n in range(40)]
    data = [dicom(film, (JPEG_LS, JPEG_2000_LOSSLESS)[n % 2]) for n, film in enumerate(films)]
    with ThreadPoolExecutor(4) as pool:
        for film, decoded in zip(films, pool.map(decode_image, data), strict=True):
            assert (decoded == film).all()


def test_a_helper_ends_with_its_parent() -> None:
    """Whose end is sudden: nothing of it can run any more."""
    code = codestream(PIXELS, JPEG_LS, 8)
    parent = f"""
import os
from cxrmine.data import apart
assert apart.decode("jpegls", {code!r}, 64, 40, 1, 8).tolist()[:99] == list(range(99))
print(apart.helpers()[0], flush=True)
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    status = Path(f"/proc/{int(ended.stdout)}/stat")
    for _ in range(600):
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the helper is still there")
