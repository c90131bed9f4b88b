"""Processes that work for one: they end with it, however it ends."""

import os
import signal
import threading
import time

import cv2

from cxrmine.cores import keep_freed_memory


def start() -> None:
    """A worker's first act. OpenCV's own threads would be in the way of the other processes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the one, which then stops its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    keep_freed_memory()
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
