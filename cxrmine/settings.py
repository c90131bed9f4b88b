"""Where a value comes from when no flag is given: the environment, then cxrmine.toml in the working folder."""

import os
import tomllib
from functools import cache
from pathlib import Path

from cxrmine.errors import CxrError, UsageError

FILE = "cxrmine.toml"
KEYS = {
    "data": "the dataset's folder",
    "run": "the run's folder",
    "recipe": "a recipe's name or file",
    "boxes": "the boxes that score and refine read when none are named",
    "refine_run": "the folder that refine works in",
    "refine_recipe": "the recipe of refine's networks",
    "truth": "the truth that score compares with; by default the dataset's own boxes",
}
ENVIRONMENT = {"data": "CXRMINE_DATA", "run": "CXRMINE_RUN", "truth": "CXRMINE_DATA"}
INSTEAD = {"truth": "data"}  # the key of the file that stands in for another: a dataset is its own truth


@cache
def _file() -> dict[str, str]:
    path = Path(FILE)
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise CxrError(f"{path.resolve()} is not valid TOML: {fault}.", "Mend that line.") from None
    for key, value in values.items():
        if key not in KEYS or not isinstance(value, str):
            raise CxrError(
                f"{path.resolve()}: {key} = {value!r} is not a setting.",
                f"The keys are {', '.join(KEYS)}; all are text.",
            )
    return values


def setting(key: str, flag: str | Path | None, default: str | None = None) -> str:
    """Flag > environment > cxrmine.toml > default; a usage error where all are silent."""
    if flag is not None:
        return str(flag)
    variable = ENVIRONMENT.get(key)
    in_file = _file().get(key) or _file().get(INSTEAD.get(key, key))
    found = (os.environ.get(variable) if variable else None) or in_file or default
    if found is None:
        also = f", set {variable}" if variable else ""
        raise UsageError(f"No {key} is named ({KEYS[key]}).", f'Say --{key}{also}, or put {key} = "…" into {FILE}.')
    return found


def assignments(text: str, example: str) -> dict[str, str]:
    """`edema=Edema,mass=Mass` as a dictionary."""
    result: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{part.strip()!r} is not of the form name=value.", f"Write it like {example}.")
        if name in result:
            raise UsageError(f"{name} is given twice: {result[name]} and {value}.", "Give it once.")
        result[name] = value
    return result
