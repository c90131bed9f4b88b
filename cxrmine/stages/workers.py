"""Processes that work for one: they end with it, however it ends."""

import contextlib
import ctypes
import os
import signal
import threading
import time

import cv2

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers of these settings
KEPT, LARGEST = 2**27, 2**25


def start() -> None:
    """A worker's first act. OpenCV's own threads would be in the way of the other processes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the one, which then stops its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    keep_memory()
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_memory() -> None:
    """Let memory that is freed stay with the process, where the C library is glibc.

    Else the pixels of every film come as fresh pages from the kernel, which takes a fifth of the time of decoding.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, LARGEST)
