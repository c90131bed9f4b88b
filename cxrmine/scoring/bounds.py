"""Where the list of boxes stops: the AFP of a published method, or of a user's table, by finding and T."""

import csv
from pathlib import Path

from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring import published
from cxrmine.scoring.localization import Bounds


def read_bounds(asked: str) -> Bounds | None:
    """wang2017, PAPER:TABLE:METHOD, or a CSV of finding, threshold and afp; nothing asked, no bounds."""
    if not asked:
        return None
    if asked == "wang2017":
        asked = "cai2018:2:wang2017"
    if asked.count(":") == 2:
        table, _, method = asked.rpartition(":")
        found = published.bounds(table, method)
        if not found:
            raise UsageError(f"{table} has no AFP of {method}.", "Say --bounds wang2017, or name a CSV file.")
        return found
    return _of_file(Path(asked))


def _of_file(path: Path) -> Bounds:
    limits: dict[str, dict[str, float]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                limits.setdefault(row["finding"], {})[f"{float(row['threshold']):g}"] = float(row["afp"])
    except FileNotFoundError:
        raise CxrError(f"There is no table of bounds at {path}.", "Say wang2017, or name a CSV file.") from None
    except (KeyError, ValueError, TypeError):
        raise CxrError(f"{path} is no table of bounds.", "It is a CSV with finding, threshold and afp.") from None
    return limits
