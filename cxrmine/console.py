"""What a person sees: results on stdout, progress and log lines on stderr."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
PLAIN_LINE_SECONDS = 30.0  # how often a pipe or a log file gets a line instead of a moving bar


class Progress:
    """A tqdm bar on a terminal; elsewhere a line every 30 seconds. Rate and time left in both."""

    def __init__(self, total: int, label: str, unit: str, shown: bool) -> None:
        self.total, self.label, self.unit, self.shown = total, label, unit, shown
        self.done = 0
        self.initial = 0
        self.started = time.monotonic()
        self.last_line = self.started
        self.note = ""
        self.bar = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, desc=label, unit=f" {unit}", file=sys.stderr, leave=True, dynamic_ncols=True)

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
def progress_bar(total: int, label: str, unit: str = "images", shown: bool = True) -> Iterator[Progress]:
    bar = Progress(total, label, unit, shown)
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


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """A table on stdout: first column left, the others right. In a pipe: the same, without colour or cut-off cells."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        shown.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*map(escaped, row))
    screen = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    if not screen.is_terminal:
        screen = Console(file=sys.stdout, highlight=False, soft_wrap=True, width=200)
    screen.print(f"[bold]{escaped(title)}[/bold]")
    screen.print(shown)
    if note:
        screen.print(escaped(note) + "\n")


def escaped(text: str) -> str:
    """Text whose brackets rich must not read as markup."""
    return text.replace("[", "\\[")


def error(what: str, cure: str) -> None:
    """An error a person can mend, on stderr."""
    lead = "\x1b[31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    sys.stderr.write(f"{lead} {what}\n" + (f"       {cure}\n" if cure else ""))
