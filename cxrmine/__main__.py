"""`python -m cxrmine`, `torchrun -m cxrmine` and the console script."""

from cxrmine.cli import app


def main() -> None:
    app(prog_name="cxrmine")


if __name__ == "__main__":
    main()
