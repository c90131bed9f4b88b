"""How many threads or processes to use."""

import os

MOST_THREADS = 8  # more decode no faster, and a shared node has other users


def available() -> int:
    """The cores this process may run on; a cluster's scheduler may have given it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(asked: int | None) -> int:
    return asked or min(MOST_THREADS, available())
