"""What a person may say of how a dataset is to be read, beside where it lies."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args

from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, did_you_mean

FILE = "cxrmine-data.toml"
Views = Literal["frontal", "all"]


@dataclass(frozen=True)
class Reading:
    """columns: what a table calls image, findings, split, patient and so on; ours → theirs.
    views: frontal leaves out films that the dataset says are lateral. vocabulary: findings are named as there.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    views: Views = "frontal"
    vocabulary: str = ""


def with_own(reading: Reading, tree: Tree) -> Reading:
    """`reading`, and where it is silent what the dataset's own file says."""
    if not tree.has(FILE):
        return reading
    where = f"{tree}/{FILE}"
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
    default = Reading()
    silent = {name: said[name] for name in known if name in said and getattr(reading, name) == getattr(default, name)}
    return replace(reading, **silent)
