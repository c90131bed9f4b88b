"""What a person may say of how a dataset is to be read, beside where it lies: by flags, or in the dataset's folder."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.settings import assignments

FILE = "cxrmine-data.toml"
Views = Literal["frontal", "all"]
EXAMPLE = "image=filename,findings=labels"
# All that a layout may let be named; which of it a layout takes, its COLUMNS say.
OURS = (
    "table", "labels", "image", "path", "findings", "split", "patient", "view", "finding", "reader",
    "x_min", "y_min", "x_max", "y_max", "x", "y", "width", "height",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """columns: what a table calls image, findings, split, patient and so on; ours → theirs.
    views: frontal, which is also what is meant where nothing is said, leaves out films that the dataset says are
    lateral. vocabulary: findings are named as there.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    views: Views | None = None
    vocabulary: str = ""


def from_flags(columns: str = "", views: str = "", vocabulary: str = "") -> Reading:
    """`image=filename,findings=Mass,Nodule`: what has no = belongs to the name before it."""
    told = assignments(re.sub(r",(?=[^,=]*(,|$))", "|", columns), EXAMPLE) if columns else {}
    for name in told:
        if name not in OURS:
            raise UsageError(
                f"--columns: there is no column {name!r} to be named.{did_you_mean(name, OURS)}",
                f"Write ours=theirs, like {EXAMPLE}; ours are {', '.join(OURS)}.",
            )
    for known in get_args(Views):
        if views == known:
            return Reading(told, known, vocabulary)
    if views:
        raise UsageError(f"--views {views} is not known.{did_you_mean(views, get_args(Views))}", "Say frontal or all.")
    return Reading(told, None, vocabulary)


def with_own(reading: Reading, tree: Tree) -> Reading:
    """`reading`, and where it is silent what the dataset's own file says."""
    if not tree.has(FILE):
        return reading
    said = _own(tree, f"{tree}/{FILE}")
    return Reading(
        {**said.get("columns", {}), **reading.columns},
        reading.views or said.get("views"),
        reading.vocabulary or said.get("vocabulary", ""),
    )


def _own(tree: Tree, where: str) -> dict:
    try:
        said = tomllib.loads(tree.text(FILE))
    except tomllib.TOMLDecodeError as fault:
        raise CxrError(f"{where} is not valid TOML: {fault}.", "Mend that line.") from None
    known = [entry.name for entry in fields(Reading)]
    for key in said:
        if key not in known:
            raise CxrError(
                f"{where}: there is no key {key}.{did_you_mean(key, known)}", f"The keys are {', '.join(known)}."
            )
    columns = said.get("columns", {})
    texts = [*columns.values(), *columns] if isinstance(columns, dict) else [None]
    if not all(isinstance(text, str) for text in [*texts, said.get("views", ""), said.get("vocabulary", "")]):
        raise CxrError(f"{where} has a value that is not text.", 'Write image = "filename" under [columns].')
    if said.get("views", "all") not in get_args(Views):
        raise CxrError(f"{where}: views = {said['views']!r} is not known.", "Say frontal or all.")
    return said


def refuse_untaken(reading: Reading, takes: Sequence[str], layout: str) -> None:
    """A name that is told and would change nothing."""
    for name in reading.columns:
        if name not in takes:
            what = f"{layout} does not let {name!r} be named, and it is told (--columns, or [columns] in {FILE})."
            cure = f"It takes {', '.join(takes)}." if takes else "Its columns are known: tell none."
            raise CxrError(f"{what}{did_you_mean(name, takes)}", cure)
