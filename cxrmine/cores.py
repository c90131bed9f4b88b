"""How many threads or processes to use, and two settings of the C library that work on the CPU gains from."""

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

MOST_THREADS = 8  # more decode no faster, and a shared node has other users


def available() -> int:
    """The cores this process may run on; a cluster's scheduler may have given it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


stopped = threading.Event()  # long loops on other threads look at it, and end


@contextmanager
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads whose work is given up where something goes wrong: what waits is dropped, what runs ends soon."""
    stopped.clear()
    with ThreadPoolExecutor(threads(None)) as made:
        try:
            yield made
        except BaseException:
            stopped.set()
            made.shutdown(wait=False, cancel_futures=True)
            raise


def threads(asked: int | None) -> int:
    return asked or min(MOST_THREADS, available())


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed, instead of giving it back and faulting it in anew: every activation of a
    network, and the pixels of every film, whose decoding that makes a fifth slower."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
