"""The run folder: what training leaves behind, without torch. (Weights and step marks are learn/checkpoint's.)"""

import json
from dataclasses import dataclass
from pathlib import Path

from cxrmine import __version__
from cxrmine.config import Recipe, parse_toml, read_text, to_toml, validate_recipe
from cxrmine.errors import CxrError
from cxrmine.files import sha256, write_json, write_text


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        return self.path / "state.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def thresholds(self) -> Path:
        return self.path / "thresholds.json"

    @property
    def patients(self) -> Path:
        return self.path / "patients.parquet"

    @property
    def finished(self) -> bool:
        return self.weights.is_file() and self.thresholds.is_file()


@dataclass(frozen=True)
class Run:
    """A finished run, opened for inference."""

    folder: RunFolder
    recipe: Recipe  # data.findings filled in
    dataset: str  # fingerprint of what it was trained on
    weights_sha256: str
    thresholds: dict[str, float]


def write_recipe(folder: RunFolder, recipe: Recipe, dataset: str) -> None:
    record = f'\n[provenance]\ndataset = "{dataset}"\nversion = "{__version__}"\n'
    write_text(folder.recipe, to_toml(recipe) + record)


def read_recipe(folder: RunFolder) -> tuple[Recipe, str]:
    """The resolved recipe of a run, and the fingerprint of its dataset."""
    if not folder.recipe.is_file():
        raise CxrError(f"{folder.path} is not a run: it has no recipe.toml.", "Train one: cxrmine train --run FOLDER.")
    values = parse_toml(read_text(folder.recipe), str(folder.recipe))
    provenance = values.pop("provenance", None)
    dataset = provenance.get("dataset") if isinstance(provenance, dict) else None
    if not isinstance(dataset, str):
        raise CxrError(f"{folder.recipe} does not say what it was trained on.", "Train again with --fresh.")
    return validate_recipe(values, str(folder.recipe)), dataset


def open_run(path: Path) -> Run:
    folder = RunFolder(path)
    if not path.is_dir():
        raise CxrError(f"There is no run in {path}.", "Train one: cxrmine train, or name another with --run.")
    recipe, dataset = read_recipe(folder)
    if not folder.finished:
        raise CxrError(f"The run in {path} is not finished.", f"Go on with it: cxrmine train --run {path}.")
    return Run(folder, recipe, dataset, sha256(folder.weights), read_thresholds(folder, recipe))


def read_thresholds(folder: RunFolder, recipe: Recipe) -> dict[str, float]:
    try:
        cuts = json.loads(read_text(folder.thresholds))
    except json.JSONDecodeError:
        cuts = None
    whole = isinstance(cuts, dict) and set(cuts) == set(recipe.data.findings)
    if not whole or not all(isinstance(cut, int | float) and 0 <= cut <= 1 for cut in cuts.values()):
        raise CxrError(
            f"{folder.thresholds} does not hold a number from 0 to 1 for each of the run's findings.",
            "Mend it, or train again with --fresh.",
        )
    return {finding: float(cut) for finding, cut in cuts.items()}


def write_thresholds(folder: RunFolder, thresholds: dict[str, float]) -> None:
    write_json(folder.thresholds, thresholds)


class Metrics:
    """metrics.jsonl: appended line by line; cut back to the step mark when a run goes on, so no line stands twice."""

    def __init__(self, folder: RunFolder, length: int, writes: bool) -> None:
        self.path, self.writes = folder.metrics, writes
        if writes:
            if self.length < length:
                raise CxrError(
                    f"{self.path} is shorter than when this run was stopped.",
                    "Put it back, or start again with --fresh.",
                )
            with self.path.open("ab") as file:
                file.truncate(length)

    def add(self, **values: object) -> None:
        if self.writes:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0
