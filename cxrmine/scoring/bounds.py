"""Where the list of boxes stops: the AFP of a published method, or of a user's table, by finding and T."""

import csv
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.scoring import published
from cxrmine.scoring.localization import IOU_THRESHOLDS, Bounds

THRESHOLDS = [f"{t:g}" for t in IOU_THRESHOLDS]
WANG = "wang2017"
NEAR = 0.8  # how alike two words are of which one is the other misspelt


def read_bounds(asked: str) -> Bounds | None:
    """wang2017, PAPER:TABLE:METHOD, or a CSV of finding, threshold and afp; nothing asked, no bounds."""
    if not asked:
        return None
    if asked == WANG:
        asked = f"cai2018:2:{WANG}"
    if asked.count(":") == 2:
        table, _, method = asked.rpartition(":")
        found = published.bounds(table, method)
        if not found:
            raise UsageError(f"{table} has no AFP of {method}.", f"Say --bounds {WANG}, or name a CSV file.")
        return found
    if not Path(asked).suffix and not Path(asked).exists():
        raise UsageError(
            f"There are no bounds called {asked!r}.{did_you_mean(asked, [WANG])}",
            f"Say {WANG}, PAPER:TABLE:METHOD (cai2018:2:{WANG}), or name a CSV file.",
        )
    return _of_file(Path(asked))


def unbounded(bounds: Bounds, findings: Sequence[str]) -> list[str]:
    """The findings that have no bound: all of their boxes are taken. One that seems misspelt is refused."""
    free = [finding for finding in findings if finding not in bounds]
    for finding in free:
        if near := get_close_matches(finding, set(bounds) - set(findings), 1, cutoff=NEAR):
            raise CxrError(f"The bounds are of {near[0]}, and the truth of {finding}.", f"Call both {finding}.")
    if len(free) == len(findings):
        raise CxrError(
            f"The bounds are of none of the judged findings: {', '.join(findings)}.",
            f"They are of {', '.join(bounds)}.",
        )
    return free


def _of_file(path: Path) -> Bounds:
    limits: dict[str, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(row["finding"], f"{float(row['threshold']):g}", float(row["afp"])) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise CxrError(f"There is no table of bounds at {path}.", f"Say {WANG}, or name a CSV file.") from None
    except (OSError, KeyError, ValueError, TypeError):
        rows = []
    for finding, at, afp in rows:
        if at in limits.setdefault(finding, {}):
            raise CxrError(f"{path} has two bounds for {finding} at {at}.", "Leave one.")
        limits[finding][at] = afp
    if not limits:
        raise CxrError(f"{path} is no table of bounds.", "It is a CSV with finding, threshold and afp.")
    for finding, of in limits.items():
        for at, afp in of.items():
            if not finding or at not in THRESHOLDS or not afp >= 0:  # NaN is not
                raise CxrError(
                    f"{path} has a bound that says nothing: finding {finding!r}, threshold {at}, afp {afp:g}.",
                    f"Name a finding, a threshold of {', '.join(THRESHOLDS)}, and an AFP that is not negative.",
                )
    return limits
