"""Decoders that may crash on damage, or print, each in a process of its own that may die.

A helper (apart_helper.py) is started on first need, kept, and used by one thread at a time; there are as many as
threads that decode at once. Codestreams go to it and pixels come back through pipes, as bytes of a known length. It
ends with this process: its input ends then. A helper that dies is replaced, and what it died on is tried once more, so
that one killed from outside costs no film.
"""

import atexit
import os
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cxrmine.data.encoded import Unreadable

Decoder = Literal["rle", "openjpeg", "jpegls", "jpeg", "jpeg-lossless"]
SCRIPT = Path(__file__).with_name("apart_helper.py")
REQUEST = struct.Struct("<IIIBB")  # bytes of codestream, width, height, samples, bits: the same in apart_helper.py
SECONDS = 10  # of the helper's own processor time: on a busy machine a sound film takes longer by the clock
PATIENCE = 30 * SECONDS if hasattr(signal, "setitimer") else SECONDS  # by the clock
TOO_SLOW = f"took longer than {SECONDS} s to decode"
CRASHED = "damaged: its decoder crashed on it"
ANSWERS = {
    b"D": "damaged: its pixels cannot be decoded",
    b"M": "needs more than 2 GB to decode",
    b"I": "its decoder could not be loaded",
}

_idle: dict[tuple[int, Decoder], list["Helper"]] = {}  # by process too: a fork must not share its parent's pipes


def decode(decoder: Decoder, code: bytes, width: int, height: int, samples: int, bits: int) -> np.ndarray:
    """The samples of a codestream in one row: uint8 up to 8 bits, else uint16."""
    idle = _idle.setdefault((os.getpid(), decoder), [])
    for _ in range(2):
        helper = _take(idle) or Helper(decoder)
        try:
            pixels = helper.decode(code, width, height, samples, bits)
        except BaseException as fault:
            if isinstance(fault, Unreadable) and helper.alive():
                idle.append(helper)
            else:  # no one knows what it would answer next
                helper.end()
            raise
        if pixels is not None:
            idle.append(helper)
            return pixels
        helper.end()
    raise Unreadable(CRASHED)


def helpers() -> list[int]:
    """The process ids of those of this process that wait."""
    return [helper.process.pid for (owner, _), idle in _idle.items() if owner == os.getpid() for helper in idle]


def _take(idle: list["Helper"]) -> "Helper | None":
    while True:
        try:
            helper = idle.pop()
        except IndexError:
            return None
        if helper.alive():
            return helper
        helper.end()


class Helper:
    """One process with one decoder."""

    def __init__(self, decoder: Decoder) -> None:
        command = [sys.executable, "-P", str(SCRIPT), decoder, str(SECONDS)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=one_thread
            )
        except OSError:
            raise Unreadable("its decoder could not be started") from None
        self._overdue = False

    def alive(self) -> bool:
        return self.process.poll() is None

    def decode(self, code: bytes, width: int, height: int, samples: int, bits: int) -> np.ndarray | None:
        """None where it died; Unreadable where it could not, or where that took too long."""
        room = bytearray(width * height * samples * (1 if bits <= 8 else 2))
        to, back = self._pipes()
        overdue = threading.Timer(PATIENCE, self._end_overdue)
        overdue.daemon = True
        overdue.start()
        try:
            to.write(REQUEST.pack(len(code), width, height, samples, bits))
            to.write(code)
            to.flush()
            answer = back.read(1)
            if answer == b"P" and back.readinto(room) == len(room):  # waits for all of it
                return np.frombuffer(room, np.uint8 if bits <= 8 else np.uint16)
        except OSError:  # a broken pipe
            answer = b""
        finally:
            overdue.cancel()
        if answer in ANSWERS:
            raise Unreadable(ANSWERS[answer])
        ended = self.process.wait()
        if self._overdue or ended == -getattr(signal, "SIGPROF", 0):
            raise Unreadable(TOO_SLOW)
        return None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in self._pipes():
            with suppress(OSError):  # what was not yet written has nowhere to go
                pipe.close()

    def _pipes(self) -> tuple[Any, Any]:
        return self.process.stdin, self.process.stdout

    def _end_overdue(self) -> None:
        self._overdue = True
        self.process.kill()


@atexit.register
def _end_all() -> None:
    for (owner, _), idle in _idle.items():
        while owner == os.getpid() and (helper := _take(idle)):
            helper.end()
