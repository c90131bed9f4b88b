"""The run folder: what training leaves behind, without torch. (Weights and step marks are learn/checkpoint's.)"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrmine import __version__
from cxrmine.config import Recipe
from cxrmine.errors import CxrError
from cxrmine.files import sha256, write_text
from cxrmine.recipe_files import parse_toml, read_text, to_toml, validate_recipe


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

    def round_weights(self, t: int) -> Path:
        """The weights of round t; 0: those that the rounds began with."""
        return self.path / "rounds" / f"{t}.safetensors"

    def round_thresholds(self, t: int) -> Path:
        return self.path / "rounds" / f"{t}.thresholds.json"

    def masks(self, t: int) -> Path:
        """What is left of the training films' maps after round t."""
        return self.path / "rounds" / f"{t}.masks.parquet"

    def iteration(self, t: int) -> "RunFolder":
        """A run of its own, with the weights after iteration t; 0: those that the first one began with."""
        return RunFolder(self.path / "iterations" / str(t))

    def seeds(self, finding: int) -> Path:
        """Of an iteration: the films whose maps it learned, of the finding with this number; their maps lie beside."""
        return self.path / f"seeds-{finding:02}.parquet"

    def start(self, recipe: Recipe) -> "RunFolder | None":
        """The run that this one begins with: train.start, as seen from this folder."""
        return RunFolder(Path(os.path.normpath(self.path / recipe.train.start))) if recipe.train.start else None

    def gate(self, recipe: Recipe) -> "RunFolder | None":
        """The run that outlines organs for this one: irnet.organs, as seen from this folder."""
        organs = recipe.irnet.organs if recipe.irnet and recipe.irnet.gate else ""
        return RunFolder(Path(os.path.normpath(self.path / organs))) if organs else None

    def severity(self, recipe: Recipe) -> str:
        """The file of severities that this run learns from: data.severity, as seen from this folder; "" where none is
        named."""
        named = recipe.data.severity
        return os.path.normpath(self.path / named) if named else ""

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


def write_recipe(
    folder: RunFolder,
    recipe: Recipe,
    dataset: str,
    boxes: str = "",
    made_by: Sequence[str] | None = (),
    severity: str = "",
) -> None:
    """`dataset`: its fingerprint; `boxes`: sha256 of the files of boxes to learn from; `made_by`: of whose weights,
    None where nobody knows whom these have seen; `severity`: sha256 of the file of severities."""
    record = f'\n[provenance]\ndataset = "{dataset}"\nversion = "{__version__}"\n'
    record += f'boxes = "{boxes}"\n' if boxes else ""
    record += f'severity = "{severity}"\n' if severity else ""
    start = folder.start(recipe)
    gate = folder.gate(recipe)
    record += f'organs = "{sha256(gate.weights)}"\n' if gate else ""
    before = [*([sha256(start.weights), *starts(start)] if start else ()), *(made_by or ())]
    record += f"starts = {json.dumps(list(dict.fromkeys(before)))}\n" if before else ""
    record += "strangers = true\n" if made_by is None or (start and strangers(start)) else ""
    write_text(folder.recipe, to_toml(recipe) + record)


def starts(folder: RunFolder) -> list[str]:
    """sha256 of the weights that this run began with, that mined the boxes it learned from, and so on before those."""
    return [str(weights) for weights in _provenance(folder).get("starts", [])]


def boxes_sha256(folder: RunFolder) -> str:
    """Of the files of boxes that this run learned from; empty where there were none."""
    return str(_provenance(folder).get("boxes", ""))


def severity_sha256(folder: RunFolder) -> str:
    """Of the file of severities that this run learned from; empty where there was none."""
    return str(_provenance(folder).get("severity", ""))


def organs_sha256(folder: RunFolder) -> str:
    """Of the weights that outline organs for this run; empty where none do."""
    return str(_provenance(folder).get("organs", ""))


def strangers(folder: RunFolder) -> bool:
    """Whether a network that it descends from may have seen patients who are not in its table of patients."""
    return bool(_provenance(folder).get("strangers", False))


def _provenance(folder: RunFolder) -> dict[str, Any]:
    if not folder.recipe.is_file():
        return {}
    found = parse_toml(read_text(folder.recipe), str(folder.recipe)).get("provenance", {})
    return found if isinstance(found, dict) else {}


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
    return Run(folder, recipe, dataset, sha256(folder.weights), read_thresholds(folder.thresholds, recipe))


def open_finder(path: Path) -> Run:
    """The same of a run that knows findings."""
    run = open_run(path)
    if run.recipe.method == "organs":
        raise CxrError(
            f"The run in {path} outlines organs, and knows no findings.",
            f"Name another with --run; this one goes with cxrmine mine --organs {path}.",
        )
    return run


def open_organs(path: Path, cure: str) -> Run:
    """The same of a run that outlines organs; `cure`: what to do where it is none."""
    try:
        run = open_run(path)
    except CxrError as fault:
        raise CxrError(fault.what, cure) from None
    if run.recipe.method != "organs":
        raise CxrError(f"The run in {path} is of method {run.recipe.method}, and outlines no organs.", cure)
    return run


def read_thresholds(path: Path, recipe: Recipe) -> dict[str, float]:
    try:
        cuts = json.loads(read_text(path))
    except json.JSONDecodeError:
        cuts = None
    whole = isinstance(cuts, dict) and set(cuts) == set(recipe.data.findings)
    if not whole or not all(isinstance(cut, int | float) and 0 <= cut <= 1 for cut in cuts.values()):
        raise CxrError(
            f"{path} does not hold a number from 0 to 1 for each of the run's findings.",
            "Mend it, or train again with --fresh.",
        )
    return {finding: float(cut) for finding, cut in cuts.items()}


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
