"""Errors that a person caused or can mend: one sentence of what and where, one of what to do."""

import difflib
from collections.abc import Sequence

SHOWN = 5  # rows or words that a message names


class CxrError(Exception):
    """The input is at fault (exit 1)."""

    exit_code = 1

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what} {self.cure}".strip()


class UsageError(CxrError):
    """The command line is at fault (exit 2)."""

    exit_code = 2


class Stopped(CxrError):
    """A signal stopped the work (exit 75). What was saved stays; the cure says what the same command does."""

    exit_code = 75


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """ " Did you mean X?" (with its leading space), or nothing."""
    lowered = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f" Did you mean {lowered[near[0]]}?" if near else ""


def rows_text(rows: Sequence[int]) -> str:
    """`row 3`, or `rows 3, 17, 20, 31, 58 and 39 more`"""
    return f"row{'s' * (len(rows) > 1)} {some_text([str(row) for row in rows])}"


def some_text(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN:,} more" if len(words) > SHOWN else ""
    return f"{', '.join(words[:SHOWN])}{more}"
