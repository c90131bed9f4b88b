"""What a person sees: results on stdout, progress and log lines on stderr."""

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
BETWEEN = 2  # cells from one column of a table to the next
NARROWEST = 40  # a terminal that lines are broken for
PLAIN_LINE_SECONDS = 30.0  # how often a pipe or a log file gets a line instead of a moving bar


class Progress:
    """A tqdm bar on a terminal; elsewhere a line every 30 seconds. Rate and time left in both."""

    def __init__(self, total: int, label: str, unit: str, shown: bool, after: float = 0.0) -> None:
        self.total, self.label, self.unit, self.shown = total, label, unit, shown
        self.done = 0
        self.initial = 0
        self.started = time.monotonic()
        self.last_line = self.started
        self.note = ""
        self.bar = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            form = {"unit": f" {unit}", "leave": True, "dynamic_ncols": True, "delay": after}
            self.bar = tqdm(total=total, desc=label, file=sys.stderr, **form)

    def resume_at(self, done: int) -> None:
        """Work that an earlier process did: shown as done, left out of the rate."""
        self.done = self.initial = done
        if self.bar is not None:
            self.bar.initial = self.bar.n = done
            self.bar.refresh()

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(n)
        elif self.shown and time.monotonic() - self.last_line >= PLAIN_LINE_SECONDS:
            self._line()

    def _line(self) -> None:
        now = time.monotonic()
        rate = (self.done - self.initial) / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        log(
            f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {clock(left)} left {self.note}".rstrip()
        )
        self.last_line = now

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.shown and time.monotonic() - self.started >= 2:
            self._line()


def clock(seconds: float) -> str:
    """125 → 2:05; an hour or more → 1:02:05."""
    if seconds == float("inf"):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


@contextlib.contextmanager
def progress_bar(
    total: int, label: str, unit: str = "images", shown: bool = True, after: float = 0.0
) -> Iterator[Progress]:
    """`after`: seconds that the work may take before a bar is shown."""
    bar = Progress(total, label, unit, shown, after)
    try:
        yield bar
    finally:
        bar.close()


def progress(iterable: Iterable[Item], total: int, label: str, unit: str = "images") -> Iterator[Item]:
    with progress_bar(total, label, unit) as bar:
        for item in iterable:
            yield item
            bar.advance()


def log(line: str) -> None:
    """A line on stderr that does not break a bar."""
    if sys.stderr.isatty() and "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def say(text: str = "") -> None:
    """A result, on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", above: str = "") -> None:
    """A table on stdout: first column left, the others right; `above` between it and its title, `note` below.

    No cell is ever cut off: what is too wide for a terminal comes in parts, each with the first column.
    """
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    screen = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    width = screen.width if screen.is_terminal else sys.maxsize
    screen.print(f"[bold]{escaped(title)}[/bold]")
    if above:
        screen.print(escaped(_wrapped(above, width)))
    for columns in _parts(header, rows, width):
        shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for i in columns:
            shown.add_column(escaped(header[i]), justify="right" if i else "left", no_wrap=True)
        for row in rows:
            shown.add_row(*(escaped(row[i]) for i in columns))
        screen.width = sum(_widths(header, rows)) + BETWEEN * (len(header) + 1)
        screen.print()
        screen.print(Padding(shown, (0, 0, 0, 1), expand=False))
    screen.print()
    if note:
        screen.print(escaped(_wrapped(note, width)) + "\n")


def _parts(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """The columns of each part: the first one, and as many others as a line of this width holds, but one at least."""
    widths = _widths(header, rows)
    part, used = [0], widths[0] + BETWEEN
    for i, wide in enumerate(widths[1:], start=1):
        if len(part) > 1 and used + wide + BETWEEN > width:
            yield part
            part, used = [0], widths[0] + BETWEEN
        part.append(i)
        used += wide + BETWEEN
    yield part


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Of each column its widest line, in cells of a terminal."""
    from rich.cells import cell_len

    return [
        max(cell_len(line) for text in (name, *column) for line in text.split("\n"))
        for name, column in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)
    ]


def _wrapped(text: str, width: int) -> str:
    """Lines broken between words where they are wider than a terminal; what goes on is indented."""
    if width >= sys.maxsize:
        return text
    return "\n".join(
        textwrap.fill(
            line, max(width, NARROWEST), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for line in text.split("\n")
    )


def escaped(text: str) -> str:
    """Text whose brackets rich must not read as markup."""
    return text.replace("[", "\\[")


def error(what: str, cure: str) -> None:
    """An error a person can mend, on stderr."""
    lead = "\x1b[31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    sys.stderr.write(f"{lead} {what}\n" + (f"       {cure}\n" if cure else ""))
