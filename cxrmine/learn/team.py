"""Several processes on one work (torchrun): each tells the others what it has, and a fault in one ends all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from cxrmine.errors import CxrError

Share = TypeVar("Share")


class EndedElsewhere(CxrError):
    """Another process has ended, and says why."""


class Team:
    """One process is a team, too: it has nobody to tell, and does not load torch for it."""

    def __init__(self, device: str) -> None:
        self.size, self.main = 1, True
        if os.environ.get("WORLD_SIZE", "1") != "1":
            from cxrmine.learn import parallel

            world = parallel.accelerator(device)
            self.size, self.main = world.num_processes, world.is_main_process

    def exchange(self, own: Share) -> list[Share]:
        """What every process has, in their order. All of them call this, and wait here for the last."""
        return [own] if self.size == 1 else self._told(own, "")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Nobody goes on after a fault in one process, and nobody leaves before all are through."""
        try:
            yield
            self.exchange(None)
        except EndedElsewhere:
            raise
        except Exception as fault:
            if self.size > 1:
                self._told(None, str(fault) or type(fault).__name__)
            raise

    def _told(self, own: Share, fault: str) -> list[Share]:
        from accelerate.utils import gather_object

        try:
            shares: list[tuple[Share, str]] = gather_object([(own, fault)])
        except RuntimeError:  # killed: its end of the line is closed
            raise EndedElsewhere("Another process has ended.", "Run the same command again.") from None
        for process, (_, why) in enumerate(shares):
            if why and not fault:
                raise EndedElsewhere(f"Process {process} has ended: {why}")
        return [share for share, _ in shares]
