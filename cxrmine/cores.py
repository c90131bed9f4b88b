"""How many threads or processes to use."""

import os
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
