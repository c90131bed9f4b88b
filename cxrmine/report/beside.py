"""The rows of published tables that stand beside ours."""

from collections.abc import Sequence

from cxrmine.errors import CxrError, UsageError
from cxrmine.report.scores import Row, published_row, shows
from cxrmine.scoring import published
from cxrmine.scoring.protocols import Protocol


def references(tables: Sequence[str], rules: Protocol) -> list[published.Reference]:
    """Every method of the tables that are asked for, if the protocol's tables have a figure of it."""
    found: dict[str, published.Reference] = {}
    for table in tables:
        there = [r for r in published.against(table) if shows(Row(r.name, r.values, {}), rules)]
        if not there:
            raise UsageError(
                f"{table} prints none of the figures that protocol {rules.name} shows.",
                "Choose the protocol that has its measure, or leave --against out.",
            )
        found |= {reference.name: reference for reference in there}
    return list(found.values())


def beside(given: Sequence[published.Reference], findings: Sequence[str], rules: Protocol) -> list[Row]:
    """The published figures of the judged findings."""
    rows = [published_row(reference, findings) for reference in given]
    rows = [row for row in rows if shows(row, rules)]
    tables = (dict.fromkeys(one.name.rpartition(", ")[2] for one in some) for some in (given, rows))
    if without := [*next(tables).keys() - next(tables).keys()]:
        raise CxrError(
            f"{without[0]} has none of the findings that are judged: {', '.join(sorted(findings))}.",
            "Judge others with --finding, or leave --against out.",
        )
    return rows
