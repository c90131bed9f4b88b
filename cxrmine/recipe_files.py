"""Reading and writing recipes: TOML, a built-in name, `--set` overrides, and how two of them differ."""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cxrmine.config import Recipe
from cxrmine.errors import CxrError, did_you_mean
from cxrmine.method_keys import Section

PATHS = (
    ("data", "severity"),
    ("train", "start"),
    ("boxes", "source"),
    ("boxes", "listed"),
    ("irnet", "organs"),
)  # keys that name a file or a folder
NO_PATHS = ("", "dataset")


def builtin_recipes() -> list[str]:
    return sorted(f.name[:-5] for f in resources.files("cxrmine.recipes").iterdir() if f.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by its built-in name or from a file, with `section.key=value` overrides applied."""
    if name_or_path in builtin_recipes():
        text = resources.files("cxrmine.recipes").joinpath(f"{name_or_path}.toml").read_text()
    elif Path(name_or_path).is_file():
        text = read_text(Path(name_or_path))
    else:
        raise CxrError(
            f"There is no recipe named {name_or_path}, and no such file.",
            f"Built in: {', '.join(builtin_recipes())}.{did_you_mean(name_or_path, builtin_recipes())}",
        )
    values = parse_toml(text, name_or_path)
    values.pop("provenance", None)  # a run's own recipe.toml is a recipe, too
    for section, key in PATHS:
        node = values.get(section)
        if isinstance(node, dict) and isinstance(node.get(key), str) and node[key] not in NO_PATHS:
            node[key] = str(Path(name_or_path).parent / node[key])  # a path in a file is seen from that file
    for override in overrides:
        _apply(values, override)
    return validate_recipe(values, name_or_path)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise CxrError(f"{where} is not valid TOML: {fault}.", "Mend that line.") from None


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise CxrError(f"{path} is not a text file.", "Name a TOML file in UTF-8.") from None


def validate_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate_json(json.dumps(values, default=str))  # TOML has dates; no key takes one
    except ValidationError as faults:
        found = faults.errors()
        lines = [_fault_sentence(fault) for fault in found if not _is_echo(fault, found)]
        raise CxrError(f"Recipe {where}: " + " ".join(lines), "Mend the recipe, or the --set.") from None


def _is_echo(fault: Any, found: Sequence[Any]) -> bool:
    """A list whose items are at fault is reported as too short as well; the items' own faults say it all."""
    inside = any(len(other["loc"]) > len(fault["loc"]) and other["loc"][0] == fault["loc"][0] for other in found)
    return fault["type"] == "too_short" and inside


def _fault_sentence(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1])
        return f"there is no key {key}.{did_you_mean(str(fault['loc'][-1]), known)}"
    if fault["type"] == "missing":
        return f"the key {key} is missing."
    if fault["type"] == "value_error":  # our own checks name their keys
        return f"{fault['ctx']['error']}."
    if fault["type"] == "tuple_type" and fault["loc"][-1] != "phases":
        return f"{key} is a list: write [{fault['input']}] (got {fault['input']!r})."
    if fault["type"] in ("model_type", "tuple_type"):
        return f"{key} is a section, not a value (got {fault['input']!r})."
    return f"{key}: {fault['msg']} (got {fault['input']!r})."


def _known_keys(path: Sequence[int | str]) -> list[str]:
    model: Any = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = getattr(annotation, "__args__", (annotation,))[0]
    return list(model.model_fields)


def _apply(values: dict[str, Any], override: str) -> None:
    """`train.phases.0.lr=0.01` into the nested dictionary; the value is read as TOML, or else as a bare word."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise CxrError(f"--set {override} is not of the form key=value.", "For instance --set train.seed=1.")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    node: Any = values
    for part in path:
        node = node[_item(node, part, key)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise CxrError(f"--set {key}: {part} is a value, not a section.", "See the keys in docs/recipes.md.")
    if isinstance(node, list):
        node[_item(node, last, key)] = value
    else:
        node[last] = value


def _item(items: list[Any], part: str, key: str) -> int:
    if not (part.isascii() and part.isdigit() and int(part) < len(items)):
        raise CxrError(f"--set {key}: there is no item {part}.", f"It has {len(items)}, counted from 0.")
    return int(part)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def to_toml(recipe: Recipe, preface: str = "") -> str:
    """The resolved recipe, every value, as TOML."""
    values = {key: value for key, value in to_dict(recipe).items() if value is not None}
    lines = [f"# {line}".rstrip() for line in preface.splitlines()]
    lines += [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, content in values.items():
        if isinstance(content, dict):
            lines += ["", f"[{section}]", *(f"{k} = {_toml(v)}" for k, v in content.items() if k != "phases")]
            for phase in content.get("phases", ()):
                lines += ["", f"[[{section}.phases]]", *(f"{k} = {_toml(v)}" for k, v in phase.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def differences(one: Recipe, other: Recipe) -> list[str]:
    """`train.seed: 0 → 1` for every key in which two recipes differ."""

    def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for k, v in value.items():
                yield from flat(v, f"{key}.{k}" if key else k)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, v in enumerate(value):
                yield from flat(v, f"{key}.{i}")
        else:
            yield key, value

    a, b = dict(flat(to_dict(one))), dict(flat(to_dict(other)))
    return [
        f"{k}: {a.get(k, '(none)')} → {b.get(k, '(none)')}" for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)
    ]


def moved_paths(recipe: Recipe, to: Callable[[str], str]) -> Recipe:
    """A recipe whose keys that name files name them otherwise."""
    for section, key in PATHS:
        node: Section | None = getattr(recipe, section)
        if node is not None and getattr(node, key) not in NO_PATHS:
            recipe = recipe.model_copy(update={section: node.model_copy(update={key: to(getattr(node, key))})})
    return recipe


def load_overrides(recipe: Recipe, overrides: Sequence[str], only: Sequence[str]) -> Recipe:
    """A resolved recipe with some keys changed: those of the sections, or the keys, in `only`."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in only):
            raise CxrError(f"--set {override} cannot change a trained run.", f"Here {', '.join(only)} can change.")
    values = to_dict(recipe)
    for override in overrides:
        _apply(values, override)
    return validate_recipe(values, recipe.name)
