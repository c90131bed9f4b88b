"""`python -m cxrmine`, `torchrun -m cxrmine` and the console script."""

import sys


def main() -> None:
    try:
        from cxrmine.cli import app
    except KeyboardInterrupt:  # before the command line could take over
        sys.stderr.write("error: Stopped.\n")
        sys.exit(75)
    app(prog_name="cxrmine")


if __name__ == "__main__":
    main()
