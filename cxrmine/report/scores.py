"""Scores as tables: on a terminal, in Markdown, and as CSV with a line a figure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cxrmine.scoring.comparison import Differences
from cxrmine.scoring.figures import MEAN, POOLED, Figures, Key
from cxrmine.scoring.localization import THIRDS
from cxrmine.scoring.protocols import Column, Protocol

SIZE_AT = ("0.1", "0.3", "0.5")
WHOLE = {"detected", "true", "truth"}


class Table(NamedTuple):
    """What console.table takes: a first column of names, and cells of one or two lines."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


class Row(NamedTuple):
    """One method, with or without intervals and counts: figures by key."""

    name: str
    values: dict[Key, float]
    intervals: dict[Key, tuple[float, float]]

    @classmethod
    def of(cls, name: str, figures: Figures) -> "Row":
        counts: dict[Key, float] = {**figures.counts}
        return cls(name, figures.values | counts, figures.intervals)


def rows_of(methods: Iterable[tuple[str, Figures]]) -> list[Row]:
    return [Row.of(name, figures) for name, figures in methods]


def summary(rows: Sequence[Row], protocol: Protocol, notes: Sequence[str] = ()) -> Table:
    """A row a method, a column as the protocol has it, mean over findings (or all pooled, where it is so defined)."""
    columns = protocol.columns
    body = [[row.name, *(cell(row, column, _overall(row, column)) for column in columns)] for row in rows]
    note = "\n".join([protocol.sentence(), *notes])
    return Table("Boxes against truth, mean over findings", ["", *(_heading(c, protocol) for c in columns)], body, note)


def by_finding(rows: Sequence[Row], protocol: Protocol) -> Iterator[Table]:
    """A table a column of the protocol: a row a finding, a column a method."""
    for column in protocol.columns:
        findings = [key.finding for key in _first(rows, column)]
        there = [row for row in rows if any(_key(column, f) in row.values for f in findings)]
        body = [[finding, *(cell(row, column, finding) for row in there)] for finding in findings]
        if body:
            yield Table(_heading(column, protocol), ["finding", *(row.name for row in there)], body)


def by_size(rows: Sequence[Row], edges: Sequence[float]) -> Table:
    """Acc of small, middle and large truth boxes: thirds of all judged ones by their area."""
    columns = [Column("by_size", t, (third,), f"{third} {t}") for t in SIZE_AT for third in THIRDS]
    body = [[row.name, *(cell(row, column, MEAN) for column in columns)] for row in rows if _has(row, "by_size")]
    ends = f"small: up to {edges[0]:,.0f} square pixels, middle: up to {edges[1]:,.0f}." if len(edges) == 2 else ""
    return Table("Acc by the truth's size, mean over findings", ["", *(c.heading for c in columns)], body, ends)


def compared(differences: dict[str, Differences], first: str, protocol: Protocol) -> Iterator[Table]:
    """How every other prediction differs from the first: a row a finding, the first figure of every column."""
    for name, by_key in differences.items():
        columns = [c for c in protocol.columns if any(key[0] == c.measure for key in by_key)]
        keys = [_key(column, "") for column in columns]
        findings = list(dict.fromkeys(key.finding for key in by_key if key._replace(finding="") in keys))
        body = [[f, *(_difference(by_key.get(key._replace(finding=f))) for key in keys)] for f in findings]
        note = "Difference [95 % interval] by bootstrap over patients; p by Holm over the findings, of a mean as it is."
        if body:
            yield Table(f"{name} − {first}", ["finding", *(_heading(c, protocol) for c in columns)], body, note)


def cell(row: Row, column: Column, finding: str) -> str:
    """0.444 (1.65), and under it the interval of the first figure: [0.39, 0.49]"""
    keys = [Key(column.measure, finding, column.at, name) for name in column.figures]
    main = _number(row.values.get(keys[0]), column.figures[0])
    if len(keys) > 1 and keys[1] in row.values:
        main += f" ({row.values[keys[1]]:.2f})"
    low, high = row.intervals.get(keys[0], (math.nan, math.nan))
    return main if math.isnan(low) else f"{main}\n[{low:.3f}, {high:.3f}]"


def markdown(tables: Iterable[Table]) -> str:
    """The same tables for a paper's supplement or an issue: one line a row."""
    parts = []
    for table in tables:
        lines = [f"**{table.title}**", "", _line(table.header), _line(["---"] * len(table.header))]
        lines += [_line([text.replace("\n", " ").replace("|", "\\|") for text in row]) for row in table.rows]
        parts.append("\n".join([*lines, "", *([table.note, ""] if table.note else [])]))
    return "\n".join(parts)


def lines(rows: Iterable[Row]) -> Iterator[tuple[Any, ...]]:
    """Every figure as one line, for CSV."""
    yield "method", "measure", "finding", "threshold", "figure", "value", "low", "high"
    for row in rows:
        for key, value in row.values.items():
            low, high = row.intervals.get(key, ("", ""))
            yield row.name, key.measure, key.finding, key.at, key.name, "" if value != value else value, low, high


def csv(rows: Iterable[Row]) -> str:
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines(rows))


def _key(column: Column, finding: str) -> Key:
    return Key(column.measure, finding, column.at, column.figures[0])


def _overall(row: Row, column: Column) -> str:
    """Where there is no mean over findings, what is pooled: counts, and measures of whole images."""
    return MEAN if _key(column, MEAN) in row.values else POOLED


def _first(rows: Sequence[Row], column: Column) -> list[Key]:
    """The keys of a column in the first row that has it, findings first."""
    for row in rows:
        keys = [key for key in row.values if key == _key(column, key.finding)]
        if keys:
            return sorted(keys, key=lambda key: (key.finding in (MEAN, POOLED), key.finding))
    return []


def _heading(column: Column, protocol: Protocol) -> str:
    return column.heading.replace("{rule}", protocol.rule)


def _has(row: Row, measure: str) -> bool:
    return any(key.measure == measure for key in row.values)


def _number(value: float | None, name: str) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if name in WHOLE else f"{value:.3f}"


def _difference(of: dict[str, float | None] | None) -> str:
    if of is None or of["difference"] is None or of["low"] is None or of["high"] is None:
        return "–"
    p = of["p_holm"] if of["p_holm"] is not None else math.nan
    return f"{of['difference']:+.3f} p={p:.3f}\n[{of['low']:+.3f}, {of['high']:+.3f}]"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(c in text for c in ',"\n') else text
