"""What can go wrong, as two sentences and an exit code."""

import functools
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import typer

from cxrmine import console
from cxrmine.errors import CxrError
from cxrmine.files import explained

Command = TypeVar("Command", bound=Callable[..., Any])
debug = False


def guarded(command: Command) -> Command:
    """Turn what can go wrong into two sentences and an exit code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CxrError as fault:
            if debug:
                raise
            _fail(fault.what, fault.cure, fault.exit_code)
        except KeyboardInterrupt:
            _fail("Stopped.", "Run the same command to go on.", 75)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (the reader of our pipe has left)
            raise typer.Exit(1) from None
        except OSError as fault:
            if debug:
                raise
            _fail(f"{explained(fault)}.", "Nothing half-written was left; run it again when that is mended.", 1)
        except MemoryError:
            _fail("Out of memory.", "Try a smaller --batch-size or fewer --workers.", 1)
        except Exception as fault:  # a fault of ours: named as such, its traceback on demand
            if debug or isinstance(fault, typer.Exit):
                raise
            name = type(fault).__name__
            _fail(f"This is a fault of cxrmine, not yours: {name}: {fault}", "Please report what --debug shows.", 1)

    return wrapper  # type: ignore[return-value]


def _fail(what: str, cure: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")
    console.error(what if rank == "0" else f"[process {rank}] {what}", cure)
    raise typer.Exit(code)


def stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
