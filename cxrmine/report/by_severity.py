"""The figures of mild, moderate and severe findings as tables: a row a method and severity."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cxrmine.report.scores import Row, Table, by_finding, cell, has_intervals, heading, shows, stands_for
from cxrmine.scoring import areas
from cxrmine.scoring.by_severity import BY
from cxrmine.scoring.figures import MEAN, POOLED, Key
from cxrmine.scoring.protocols import OVERALL, Column, Protocol
from cxrmine.scoring.scores import Scores

COUNTS = {"findings": "findings", "judged_pairs": "pairs", "truth_boxes": "truth boxes", "positives": "films"}
OTHERS = {MEAN: POOLED, POOLED: MEAN}


class Part(NamedTuple):
    row: Row
    counts: Mapping[str, int]


def of_boxes(scores: Mapping[str, Scores]) -> list[Part]:
    return [
        Part(Row.of(name, part.figures)._replace(severity=word), part.counts)
        for name, of in scores.items()
        for word, part in of.by_severity.items()
    ]


def of_areas(document: Mapping[str, Any]) -> list[Part]:
    return [
        Part(Row(name, *areas.keyed(part), word), part["counts"])
        for name, of in areas.by_method(document).items()
        for word, part in of.get("by", {}).get(BY, {}).items()
    ]


def tables(parts: Sequence[Part], rows: Sequence[Row], protocol: Protocol, told: Mapping[str, Any]) -> dict[str, Table]:
    """By kind and number: severity, severity_findings:N. `rows`: what the table of all pairs shows."""
    overall, there = stands_for(rows, protocol), {part.row.name for part in parts if shows(part.row, protocol)}
    without = [row.name for row in rows if row.name not in there and shows(row, protocol)]
    parts = [part for part in parts if part.row.name in there]
    columns = [*_columns(parts, protocol, overall)]
    counts = [
        name
        for name in COUNTS
        if all(name in part.counts for part in parts) and (name != "findings" or overall in OTHERS)
    ]
    body = [
        [_name(part.row), *(f"{part.counts[name]:,}" for name in counts), *(cell(part.row, *at) for at, _ in columns)]
        for part in parts
    ]
    header = ["", *(COUNTS[name] for name in counts), *(text for _, text in columns)]
    over = {MEAN: "mean over findings", POOLED: "findings pooled"}.get(overall, overall)
    said = [*notes(parts, told, protocol), *([f"Not split: {', '.join(without)}."] if without else [])]
    found = {"severity": Table(f"By severity, {over}", header, body, "\n".join(said))}
    named = [part.row._replace(name=_name(part.row)) for part in parts]
    for n, table in enumerate(by_finding(named, protocol)):
        found[f"severity_findings:{n}"] = table._replace(title=f"{table.title} and severity")
    return found


def notes(parts: Sequence[Part], told: Mapping[str, Any], protocol: Protocol) -> Iterator[str]:
    """`told`: which file says how severe findings are, and of how many pairs, or films."""
    boxes = "pairs" in told
    counts = dict(told["pairs" if boxes else "films"])
    total, unknown = sum(counts.values()), counts.pop("unknown", 0)
    what = "judged pairs" if boxes else "films with a finding, each counted once a finding,"
    said = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    nobody = f"; of {unknown:,} nobody says how severe" if unknown else ""
    yield f"{told['file']}: of {total:,} {what} {said}{nobody}."
    if boxes:
        yield "A mean is over the findings with pairs of that severity. Boxes of other pairs are left out, not false."
        yield f"Measures of all images ({', '.join(sorted(OVERALL))}) are not split."
    else:
        yield "Films of that severity against all without the finding; a mean is over the findings that have both."
    if has_intervals([part.row for part in parts], protocol):
        yield "In brackets: 95 % intervals, made as those above." if boxes else "In brackets: DeLong's 95 % interval."


def _columns(parts: Sequence[Part], protocol: Protocol, overall: str) -> Iterator[tuple[tuple[Column, str], str]]:
    """((column, what stands for all findings), heading); where a figure has both, the mean and the pooled one."""
    rows = [part.row for part in parts]
    for column in protocol.columns:
        yield (column, overall), heading(column, protocol)
        other = OTHERS.get(overall, "")
        if any(Key(column.measure, other, column.at, column.figures[0]) in row.values for row in rows):
            yield (column, other), f"{heading(column, protocol)}, {other}"


def _name(row: Row) -> str:
    return f"{row.name}, {row.severity}"
