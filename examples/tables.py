"""What the scripts share that make a paper's tables: a seed's folder, figures by finding, what stands around them."""

import argparse
import json
import platform
import re
import shlex
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrmine import __version__
from cxrmine.config import Recipe
from cxrmine.cores import available
from cxrmine.errors import CxrError
from cxrmine.files import write_text
from cxrmine.recipe_files import to_toml
from cxrmine.scoring.figures import Key
from cxrmine.stages import mine, phantom, predict, train

IMAGES, SIZE = 3600, 256
LEFT_OUT = "Cardiomegaly"  # of a second mean: a fixed box finds any heart
MINUS = " − "
MEASURES = ("acc_afp", "iou", "ior", "auc", "top1")

Figures = dict[str, dict[str, Any]]  # finding → figure ("acc 0.3", "iou 0.1", "auc", …) → value, or its ends
Rows = dict[str, Figures]


def parser(says: str | None) -> argparse.ArgumentParser:
    """The arguments that every script takes."""
    made = argparse.ArgumentParser(description=says, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path)
    made.add_argument("--data", type=Path, help="a dataset in place of made-up films")
    made.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    made.add_argument("--device", default="auto")
    made.add_argument("--images", type=int, default=IMAGES, help="films that a seed makes")
    made.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of the recipes")
    return made


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def around(script: str, asked: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """What stands around the figures in the JSON. No path is in it."""
    typed = [re.sub("(^|=)/(.*/)?", r"\1", word.rstrip("/")) for word in words if Path(word) != asked.out]
    return {
        "command": shlex.join(["python", f"examples/{script}.py", "OUT", *typed]),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware(asked.device),
        "version": __version__,
        "made_up": asked.data is None,
        "seeds": asked.seeds,
    }


def rounded(document: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(document), parse_float=lambda text: round(float(text), 5))
    return result


def hardware(device: str) -> str:
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpus = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpus.read_text()) if cpus.is_file() else None
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, cores: {available()}, threads: {torch.get_num_threads()}"


@dataclass(frozen=True)
class Folder:
    """What one seed leaves in its folder. Every step does nothing where its result is there."""

    asked: argparse.Namespace
    seed: int

    @property
    def folder(self) -> Path:
        return self.asked.out / f"seed-{self.seed}"

    @property
    def data(self) -> Path:
        return self.asked.data or self.folder / "data"

    def films(self) -> None:
        if not self.data.exists():
            phantom.run(phantom.Phantom(self.data, self.asked.images, SIZE, "png", self.seed))
        made = json.loads((self.data / "phantom.json").read_text())
        if (made["images"], made["seed"]) != (self.asked.images, self.seed):
            raise CxrError(f"{self.data} has {made['images']} films of seed {made['seed']}.", "Choose another OUT.")

    def write(self, recipe: Recipe) -> Path:
        file = self.folder / "recipes" / f"{recipe.name}.toml"
        write_text(file, to_toml(recipe))
        return file

    def fit(self, recipe: Recipe, place: str) -> None:
        """The run of a recipe in runs/`place`."""
        file, run = self.write(recipe), self.folder / "runs" / place
        train.run(train.Train(self.data, str(file), run, device=self.asked.device))

    def mined(self, name: str, place: str, *changes: str, split: str = "boxed") -> Path:
        out, run = self.folder / "boxes" / f"{name}.parquet", self.folder / "runs" / place
        mine.run(mine.Mine(run, self.data, out, split, overrides=changes, device=self.asked.device))
        return out

    def predicted(self, name: str, place: str) -> Path:
        out, run = self.folder / "probabilities" / f"{name}.parquet", self.folder / "runs" / place
        predict.run(predict.Predict(run, self.data, out, "test", device=self.asked.device))
        return out


def by_finding(values: Mapping[Key, Any], shown: Container[str]) -> Figures:
    figures: Figures = {}
    for key, value in values.items():
        figure = f"{key.measure if key.name == 'share' else key.name} {key.at}".strip()
        if key.measure in MEASURES and figure in shown:
            figures.setdefault(key.finding, {})[figure] = value
    return figures


def mean_of(figures: Figures, but: str = "") -> dict[str, float]:
    """Of each figure, over the findings that have it."""
    over = [own for finding, own in figures.items() if finding != but]
    names = dict.fromkeys(figure for own in over for figure in own)
    return {name: float(np.mean([own[name] for own in over if name in own])) for name in names}


def minus(one: Figures, other: Figures) -> Figures:
    """Of the findings and figures that both have."""
    return {
        finding: {figure: value - other[finding][figure] for figure, value in own.items() if figure in other[finding]}
        for finding, own in one.items()
        if finding in other
    }
