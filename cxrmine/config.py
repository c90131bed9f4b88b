"""Recipes: a TOML file that holds everything that makes a run repeatable. Strict: an unknown key is an error."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxrmine.errors import CxrError, did_you_mean

SMALL_RESNET = "small-resnet"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    findings: tuple[str, ...] = Field((), description="Findings to learn, in this order; empty: all of the dataset.")
    size: int = Field(512, ge=32, le=4096, description="Side of the network's input in pixels.")
    fit: Literal["stretch", "pad"] = Field("stretch", description="How a film that is not square becomes square.")
    uncertain: Literal["ignore", "ones", "zeros"] = Field("ignore", description="What an uncertain label counts as.")
    unmentioned: Literal["zeros", "ignore"] = Field("zeros", description="What a finding nobody mentioned counts as.")
    max_unreadable: float = Field(0.01, ge=0, le=1, description="Share of unreadable images above which to stop.")

    @model_validator(mode="after")
    def _findings_differ(self) -> Self:
        if len(set(self.findings)) < len(self.findings):
            raise ValueError("data.findings names a finding twice")
        return self


class Network(Section):
    backbone: str = Field("resnet50", description=f"A timm model, or {SMALL_RESNET} with the two keys below.")
    layers: tuple[int, int, int, int] = Field((1, 1, 1, 1), description=f"{SMALL_RESNET}: residual blocks a stage.")
    channels: tuple[int, int, int, int] = Field((32, 64, 96, 128), description=f"{SMALL_RESNET}: channels a stage.")
    stride: Literal[8, 16, 32] = Field(32, description="Input pixels a cell of the last feature map.")
    pool: Literal["gap", "lse"] = Field("gap", description="Global average, or log-sum-exp, pooling.")
    lse_r: float = Field(6.0, gt=0, description="Sharpness of log-sum-exp pooling.")
    weights: str = Field("imagenet", description="imagenet, none, or a safetensors file of the backbone.")
    input_channels: Literal[1, 3] = Field(3, description="1: the gray film; 3: the film three times.")

    @model_validator(mode="after")
    def _small_resnet_is_whole(self) -> Self:
        if self.backbone == SMALL_RESNET and self.weights == "imagenet":
            raise ValueError(f'network.backbone = "{SMALL_RESNET}" has no network.weights = "imagenet"; say "none"')
        return self


class Augment(Section):
    flip: float = Field(0.5, ge=0, le=1, description="Chance of a left-right flip.")
    shift: float = Field(0.0, ge=0, le=0.5, description="Largest shift, as a share of the side.")
    zoom: float = Field(0.0, ge=0, lt=1, description="Largest change of scale: 0.1 is 0.9 to 1.1.")
    rotate: float = Field(0.0, ge=0, le=180, description="Largest rotation in degrees.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Largest change of contrast: 0.2 is 0.8 to 1.2.")


class Phase(Section):
    name: str = Field(description="Shown in logs.")
    epochs: int = Field(ge=1, description="Epochs; with until = level, the most there may be.")
    until: Literal["epochs", "level"] = Field("epochs", description="level: stop when validation loss levels off.")
    patience: int = Field(3, ge=1, description="Epochs without a lower validation loss that count as level.")
    lr: float = Field(gt=0, description="Learning rate.")
    schedule: Literal["constant", "step", "cosine"] = Field("constant", description="How the rate changes.")
    step_epochs: int = Field(10, ge=1, description="schedule = step: divide by 10 every so many epochs.")
    warmup: float = Field(0.0, ge=0, lt=1, description="Share of the phase in which the rate rises from 0.")
    frozen: tuple[str, ...] = Field((), description="Parts that do not learn, by the start of their names.")

    @model_validator(mode="after")
    def _level_has_no_fixed_end(self) -> Self:
        if self.until == "level" and self.schedule == "cosine":
            raise ValueError('until = "level" has no fixed end, which schedule = "cosine" needs')
        return self


class Train(Section):
    seed: int = Field(0, ge=0, lt=2**31, description="Seeds the weights, the order, the augmentation and dropout.")
    include: tuple[Literal["boxed"], ...] = Field((), description="Splits trained on beside train.")
    batch_size: int = Field(64, ge=2, description="Images a step, over all processes.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Which optimizer.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    balance: Literal["none", "batch"] = Field(
        "none", description="batch: positives and negatives of a batch weigh by their rarity (Wang 2017)."
    )
    clip: float = Field(0.0, ge=0, description="Largest gradient norm; 0: no limit.")
    save_every: int = Field(200, ge=1, description="Steps from one resume mark to the next.")
    phases: tuple[Phase, ...] = Field(min_length=1, description="Run one after another.")


class Mine(Section):
    rounds: int = Field(1, ge=1, le=20, description="Rounds of erasure; 1: the plain map.")
    top: int = Field(3, ge=1, description="Most boxes a pair.")
    way: str = Field("components", description="How boxes are cut from a map: see docs/methods.md.")
    cuts: tuple[float, ...] = Field((), description="Intensities to cut at, 0 to 1; empty: the way's own.")
    align: Literal["centres", "resize"] = Field("centres", description="Where a map's cells lie on the film.")

    @model_validator(mode="after")
    def _cuts_are_intensities(self) -> Self:
        if any(not 0 < cut < 1 for cut in self.cuts):
            raise ValueError("mine.cuts must lie between 0 and 1")
        return self


class Recipe(Section):
    name: str = Field(description="Short name; recorded in every box table.")
    method: Literal["cam"] = Field(description="The file of methods/ that learns.")
    data: Data = Data()
    network: Network = Network()
    augment: Augment = Augment()
    train: Train
    mine: Mine = Mine()


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
    if fault["type"] in ("model_type", "tuple_type"):
        return f"{key} is a section, not a value (got {fault['input']!r})."
    return f"{key}: {fault['msg']} (got {fault['input']!r})."


def _known_keys(path: Sequence[int | str]) -> list[str]:
    model: Any = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = getattr(annotation, "__args__", (annotation,))[0]
        model = inner
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
    values = to_dict(recipe)
    lines = [f"# {line}".rstrip() for line in preface.splitlines()]
    lines += [f"{key} = {_toml(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, content in values.items():
        if isinstance(content, dict):
            lines += ["", f"[{section}]", *(f"{k} = {_toml(v)}" for k, v in content.items() if k != "phases")]
            for phase in content.get("phases", ()):
                lines += ["", f"[[{section}.phases]]", *(f"{k} = {_toml(v)}" for k, v in phase.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
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
