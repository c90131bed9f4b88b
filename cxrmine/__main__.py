"""`python -m cxrmine`, `torchrun -m cxrmine` and the console script."""

import atexit
import contextlib
import os
import sys


def main() -> None:
    try:
        from cxrmine.cli import app
    except KeyboardInterrupt:  # before the command line could take over
        sys.stderr.write("error: Stopped.\n")
        sys.exit(75)
    try:
        app(prog_name="cxrmine")
    except SystemExit as end:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and (end.code is None or isinstance(end.code, int)):
            _leave(end.code or 0)
        raise


def _leave(code: int) -> None:
    """One of several processes ends here, without taking the interpreter apart: threads that PyTorch has for talking to
    the others sometimes abort the process then, and so fail a run that was done."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader has left
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
