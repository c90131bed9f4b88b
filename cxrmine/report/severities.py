"""What a person sees of reports that were read for severity."""

from pathlib import Path
from typing import Any

from cxrmine.report.checked import Sheet

WORDS = ("present", "possible", "denied", "mild", "moderate", "severe", "without a word")


def sheet(where: Path, d: dict[str, Any]) -> Sheet:
    """The table to show of the document of `severity`: findings that a report speaks of, counted in reports."""
    rows = [
        (finding, *(f"{of[word]:,}" for word in WORDS)) for finding, of in d["findings"].items() if any(of.values())
    ]
    read, silent = d["reports"]["read"], d["reports"]["without_a_finding"]
    notes = [
        "mild, moderate, severe, without a word: of those that have it present",
        f"reports read: {read:,}, of them {silent:,} without a word of any finding",
        *(f"{of['reason']}: {of['count']:,} ({'; '.join(of['examples'])})" for of in d["dropped"]),
    ]
    return Sheet(f"{where}: {d['form']}, reports by finding", ("finding", *WORDS), tuple(rows), "\n".join(notes))
