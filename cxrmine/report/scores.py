"""Scores as tables: on a terminal and in Markdown; as CSV with a line a figure; and as the JSON document."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cxrmine import __version__
from cxrmine.scoring.comparison import Differences, differences
from cxrmine.scoring.figures import MEAN, POOLED, Figures, Key, nested
from cxrmine.scoring.localization import THIRDS
from cxrmine.scoring.protocols import Column, Protocol
from cxrmine.scoring.published import Reference
from cxrmine.scoring.scores import Scores

SCHEMA_VERSION = 1
SIZE_AT = ("0.1", "0.3", "0.5")
WHOLE = {"detected", "true", "truth"}
BY_BOOTSTRAP = (
    "Difference [95 % interval] and p by bootstrap over patients; p by Holm over the findings, the mean's as it is."
)
BY_DELONG = (
    "Difference [95 % interval] and p by DeLong's paired test; p by Holm over the findings; the mean is not tested."
)


class Table(NamedTuple):
    """What console.table takes: a first column of names, and cells of one or two lines."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""  # below
    above: str = ""  # what the figures are


class Row(NamedTuple):
    """One method, with or without intervals and counts: figures by key; of all judged pairs, or of one severity."""

    name: str
    values: dict[Key, float]
    intervals: dict[Key, tuple[float, float]]
    severity: str = ""

    @classmethod
    def of(cls, name: str, figures: Figures) -> "Row":
        counts: dict[Key, float] = {**figures.counts}
        return cls(name, figures.values | counts, figures.intervals)


def rows_of(methods: Iterable[tuple[str, Figures]]) -> list[Row]:
    return [Row.of(name, figures) for name, figures in methods]


def published_row(reference: Reference, findings: Sequence[str]) -> Row:
    """What a paper prints of these findings, with the mean over them: its own is of the findings that it had.

    Where it prints nothing by finding, and where it had the same ones, its means stay as they are printed.
    """
    theirs = {key.finding for key in reference.values} - {MEAN, POOLED}
    if not theirs or theirs == set(findings):
        return Row(reference.name, reference.values, {})
    values = {key: value for key, value in reference.values.items() if key.finding in findings}
    groups: dict[Key, list[float]] = {}
    for key, value in values.items():
        if key._replace(finding=MEAN) in reference.values:
            groups.setdefault(key._replace(finding=MEAN), []).append(value)
    return Row(reference.name, {key: sum(group) / len(group) for key, group in groups.items()} | values, {})


def as_maxboxacc2(row: Row) -> Row:
    """BoxAcc at the cut that was mined, where the maps' row has the best of all cuts."""

    def named(of: dict[Key, Any]) -> dict[Key, Any]:
        return of | {key._replace(measure="maxboxacc2"): v for key, v in of.items() if key.measure == "boxacc"}

    return row._replace(values=named(row.values), intervals=named(row.intervals))


def summary(what: str, rows: Sequence[Row], protocol: Protocol, notes: Sequence[str] = ()) -> Table:
    """A row a method, a column as the protocol has it, mean over findings (or all pooled, where it is so defined)."""
    columns, overall = protocol.columns, stands_for(rows, protocol)
    there = [row for row in rows if shows(row, protocol, overall)]
    body = [[row.name, *(cell(row, column, overall) for column in columns)] for row in there]
    without = [row.name for row in rows if not shows(row, protocol, overall)]
    said = [*notes, *([f"Without a figure in this table: {', '.join(without)}."] if without else [])]
    title = f"{what}, {_over(rows, columns[0], overall)}"
    return Table(title, ["", *(heading(c, protocol) for c in columns)], body, "\n".join(said), protocol.sentence())


def by_finding(rows: Sequence[Row], protocol: Protocol) -> Iterator[Table]:
    """A table a column of the protocol: a row a finding, a column a method."""
    for column in protocol.columns:
        keys = {key for row in rows for key in row.values if key == _key(column, key.finding)}
        findings = _findings(sorted(keys, key=_by_name))
        there = [row for row in rows if any(_key(column, f) in row.values for f in findings)]
        body = [[finding, *(cell(row, column, finding) for row in there)] for finding in findings]
        if body:
            yield Table(f"{heading(column, protocol)}, by finding", ["finding", *(row.name for row in there)], body)


def by_size(rows: Sequence[Row], edges: Sequence[float], protocol: Protocol) -> Table:
    """Acc of small, middle and large truth boxes: thirds of all judged ones by their area."""
    columns = [Column("by_size", t, (third,), f"{third} {protocol.rule} {t}") for t in SIZE_AT for third in THIRDS]
    body = [[row.name, *(cell(row, column, MEAN) for column in columns)] for row in rows if _has(row, "by_size")]
    small, middle = edges
    note = f"Thirds of the truth boxes by area: small up to {small:,.0f} square pixels, middle up to {middle:,.0f}."
    return Table("Acc by the truth's size, mean over findings", ["", *(c.heading for c in columns)], body, note)


def compared(differences: dict[str, Differences], first: str, protocol: Protocol, note: str) -> Iterator[Table]:
    """How every other prediction differs from the first: a row a finding, the first figure of every column."""
    for name, by_key in differences.items():
        columns = [c for c in protocol.columns if any(key._replace(finding="") == _key(c, "") for key in by_key)]
        keys = [_key(column, "") for column in columns]
        findings = _findings(key for key in by_key if key._replace(finding="") in keys)
        body = [[f, *(_difference(by_key.get(key._replace(finding=f))) for key in keys)] for f in findings]
        header = ["finding", *(heading(c, protocol).replace(" (AFP)", "") for c in columns)]
        if body:
            yield Table(f"Difference: {name} minus {first}", header, body, note)


def shows(row: Row, protocol: Protocol, finding: str | None = None) -> bool:
    """Whether a row has a figure in any column of a protocol: of that finding, or of any."""
    wanted = {_key(column, "") for column in protocol.columns}
    return any(
        key._replace(finding="") in wanted and finding in (None, key.finding) and value == value
        for key, value in row.values.items()
    )


def has_intervals(rows: Sequence[Row], protocol: Protocol) -> bool:
    """Whether any cell of a protocol's tables has one."""
    wanted = {_key(column, "") for column in protocol.columns}
    return any(
        key._replace(finding="") in wanted and low == low for row in rows for key, (low, _) in row.intervals.items()
    )


def cell(row: Row, column: Column, finding: str) -> str:
    """0.444 (1.65), and under it the interval of the first figure: [0.39, 0.49]"""
    keys = [Key(column.measure, finding, column.at, name) for name in column.figures]
    main = _number(row.values.get(keys[0]), column.figures[0])
    if len(keys) > 1 and (second := row.values.get(keys[1], math.nan)) == second:
        main += f" ({second:.2f})"
    low, high = row.intervals.get(keys[0], (math.nan, math.nan))
    return main if math.isnan(low) else f"{main}\n[{low:.3f}, {high:.3f}]"


def markdown(tables: Iterable[Table]) -> str:
    """The same tables for a paper's supplement or a web page: one line a row."""
    parts = []
    for table in tables:
        lines = [f"**{table.title}**", "", *([table.above, ""] if table.above else [])]
        lines += [_line(table.header), _line(["---"] + ["---:"] * (len(table.header) - 1))]
        lines += [_line([text.replace("\n", " ") for text in row]) for row in table.rows]
        lines += ["", *(f"- {said}" for said in table.note.splitlines()), *([""] if table.note else [])]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def lines(rows: Sequence[Row]) -> Iterator[tuple[Any, ...]]:
    """Every figure as one line, for CSV; empty where there is none. A last column where some are of one severity."""
    by_severity = any(row.severity for row in rows)
    header = ("method", "measure", "finding", "threshold", "figure", "value", "low", "high")
    yield (*header, "severity") if by_severity else header
    for row in rows:
        for key, value in row.values.items():
            numbers = (value, *row.intervals.get(key, (math.nan, math.nan)))
            told = ("" if number != number else number for number in numbers)
            line = (row.name, key.measure, key.finding, key.at, key.name, *told)
            yield (*line, row.severity) if by_severity else line


def csv(rows: Sequence[Row]) -> str:
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines(rows))


def differing(predicted: Mapping[str, Scores]) -> dict[str, Differences]:
    """How every further prediction differs from the first."""
    figures = [(name, scores.figures) for name, scores in predicted.items()]
    return {name: differences(figures[0][1], other) for name, other in figures[1:]}


def published(references: Iterable[Reference], rows: Iterable[Row]) -> dict[str, Any]:
    """What the JSON holds of published figures; `rows` are theirs."""
    differs = {reference.name: reference.differs for reference in references}
    return {row.name: {"differs": differs[row.name], **nested(row.values)} for row in rows}


def document(
    rules: Protocol,
    predicted: Mapping[str, Scores],
    controls: Mapping[str, Scores],
    compared: Mapping[str, Differences],
    leak: Mapping[str, int],
    drawn: tuple[int, int],
) -> dict[str, Any]:
    """The JSON, the first prediction's figures at the top, others beside; `drawn`: the bootstrap's samples and seed."""
    documents = {name: scores.document() for name, scores in predicted.items()}
    name = next(iter(documents), "")
    first = documents.pop(name, {})
    samples, seed = drawn
    return {
        **{"schema": SCHEMA_VERSION, "kind": "boxes", "version": __version__},
        **{"method": name, "protocol": rules.describe()},
        **{"counts": first.get("counts", {}), "leakage": leak, **first},
        "bootstrap": {"samples": samples, "seed": seed, "unit": "patient", "interval": "percentile, 95 %"},
        **{"others": documents, "controls": {n: s.document() for n, s in controls.items()}},
        "differences": {name: nested(by_key) for name, by_key in compared.items()},
    }


def _key(column: Column, finding: str) -> Key:
    return Key(column.measure, finding, column.at, column.figures[0])


def _findings(keys: Iterable[Key]) -> list[str]:
    """The findings, and last their mean and what is pooled, unless there is one finding only."""
    found = list(dict.fromkeys(key.finding for key in keys))
    return found if len({*found} - {MEAN, POOLED}) > 1 else [f for f in found if f not in (MEAN, POOLED)]


def stands_for(rows: Sequence[Row], protocol: Protocol) -> str:
    """What stands for all findings in a table: the only one, their mean, or all pooled where a column has no mean."""
    only = {finding for column in protocol.columns for finding in _findings(_first(rows, column))}
    if len(only) == 1:
        return only.pop()
    bare = [c for c in protocol.columns if not any(_key(c, MEAN) in row.values for row in rows)]
    return POOLED if any(_key(c, POOLED) in row.values for c in bare for row in rows) else MEAN


def _over(rows: Sequence[Row], column: Column, overall: str) -> str:
    findings = {key.finding for key in _first(rows, column)} - {MEAN, POOLED}
    words = {MEAN: f"mean over {len(findings)} findings", POOLED: f"{len(findings)} findings pooled"}
    return words.get(overall, overall)


def _first(rows: Sequence[Row], column: Column) -> list[Key]:
    """The keys of a column in the first row that has it, findings first."""
    for row in rows:
        keys = [key for key in row.values if key == _key(column, key.finding)]
        if keys:
            return sorted(keys, key=_by_name)
    return []


def _by_name(key: Key) -> tuple[bool, str]:
    return key.finding in (MEAN, POOLED), key.finding


def heading(column: Column, protocol: Protocol) -> str:
    return column.heading.replace("{rule}", protocol.rule)


def _has(row: Row, measure: str) -> bool:
    return any(key.measure == measure for key in row.values)


def _number(value: float | None, name: str) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if name in WHOLE else f"{value:.3f}"


def _difference(of: dict[str, float | None] | None) -> str:
    """+0.120 p=0.004, and under it the interval; the difference alone where it was not tested."""
    by, low, high, p = (of.get(name) for name in ("difference", "low", "high", "p_holm")) if of else (None,) * 4
    if by is None:
        return "–"
    said = "" if p is None else " p<0.001" if p < 0.0005 else f" p={p:.3f}"
    return f"{by:+.3f}{said}" + ("" if low is None or high is None else f"\n[{low:+.3f}, {high:+.3f}]")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(c in text for c in ',"\n') else text
