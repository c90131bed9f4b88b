"""Boxes → better boxes: a network learns them and refines each, a second one learns the refined, and mines again.

What it leaves in its folder: refiner (a run), refined.parquet, ham (a run). Every step that is done is not done again.
"""

import contextlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cxrmine import console
from cxrmine.boxes.shards import expand
from cxrmine.boxes.table import read_meta
from cxrmine.data.layouts import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import check_writable, locked
from cxrmine.learn.team import Team
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder
from cxrmine.stages import mine, train

REFINER, REFINED, FINAL = "refiner", "refined.parquet", "ham"


@dataclass(frozen=True)
class Refine:
    boxes: Path
    data: Path
    run: Path  # the folder that all is left in
    out: Path
    recipe: str = "ham"
    split: str = "train"
    overrides: tuple[str, ...] = ()  # of the recipe, for both networks
    device: str = "auto"
    batch_size: int = 32
    workers: int | None = None
    overwrite: bool = False
    fresh: bool = False


class Refined(NamedTuple):
    """What became of the boxes."""

    boxes: int
    kept: int  # of them, as they were
    changed: int
    mean_iou: float  # of the changed ones with themselves before
    mean_fill: float  # of the box before, the share that its new region fills


@dataclass(frozen=True)
class RefineResult:
    refined: Refined
    mined: mine.MineResult


def run(config: Refine) -> RefineResult:
    team = Team(config.device)
    _check(config)
    if team.main and config.fresh:
        _move_aside(config.run)
    team.exchange(None)
    with locked(config.run) if team.main else contextlib.nullcontext():
        _train(config, REFINER, config.boxes, "boxes.masks=boxes")
        with team.together():
            refined = _refine(config, team)
        if team.main:
            console.log(sentence(refined))
        used = ("boxes.masks=regions", "boxes.ranks=[]", "boxes.min_score=0", "boxes.annotated=1")
        _train(config, FINAL, config.run / REFINED, *used)
        again = mine.Mine(
            config.run / FINAL, config.data, config.out, config.split, device=config.device,
            batch_size=config.batch_size, workers=config.workers, overwrite=config.overwrite,
        )  # fmt: skip
        return RefineResult(refined, mine.run(again))


def summary(config: Refine, result: RefineResult) -> str:
    again = mine.Mine(config.run / FINAL, config.data, config.out, config.split)
    return f"{sentence(result.refined)}\n{mine.summary(again, result.mined)}"


def sentence(refined: Refined) -> str:
    said = f"{refined.boxes} boxes: {refined.kept} kept, {refined.changed} refined"
    if not refined.changed:
        return f"{said}."
    change = f"mean IoU with the box before {refined.mean_iou:.2f}, of which the region fills {refined.mean_fill:.0%}"
    return f"{said} ({change})."


def _check(config: Refine) -> None:
    expand(config.boxes)  # there is something
    if (method := load_recipe(config.recipe).method) != "ham":
        raise UsageError(
            f'The recipe {config.recipe} has method = "{method}", which does not learn from boxes.',
            "Take the recipe ham, or another with that method.",
        )
    load_recipe(config.recipe, (*config.overrides, _source(config.boxes)))
    if config.out.is_dir():
        raise UsageError(
            f"--out {config.out} is a folder.", f"Name a file, for instance {config.out / 'boxes.parquet'}."
        )
    if config.out.suffix != ".parquet" or config.out.name.endswith(".images.parquet"):
        raise UsageError(f"--out {config.out} is no name for a box table.", "It ends in .parquet.")
    if config.out.resolve() == (config.run / REFINED).resolve():
        raise UsageError(f"--out {config.out} is where the refined boxes lie.", "Choose another --out.")
    if config.out.exists() and not (config.overwrite or RunFolder(config.run / REFINER).finished):
        raise CxrError(f"{config.out} exists already.", "Choose another --out, or say --overwrite.")
    check_writable(config.out)
    open_dataset(config.data).select(config.split)  # there is something to mine in the end


def _move_aside(folder: Path) -> None:
    """runs/refine → runs/refine.1, or the first number that is free."""
    if folder.exists():
        with locked(folder):  # nobody works in it
            n = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.{n}"))
        console.log(f"What was in {folder} is now in {folder.name}.{n}.")


def _train(config: Refine, name: str, boxes: Path, *keys: str) -> None:
    overrides = (*config.overrides, _source(boxes), *keys)
    asked = train.Train(
        config.data, config.recipe, config.run / name, overrides, device=config.device, workers=config.workers
    )
    train.run(asked)


def _source(boxes: Path) -> str:
    return f"boxes.source={json.dumps(str(boxes))}"


def _refine(config: Refine, team: Team) -> Refined:
    """The boxes that the refiner learned from, as it sees them; or what is told of those that are there."""
    path = config.run / REFINED
    from cxrmine.stages.refiner import Refiner  # torch comes in here

    refiner = Refiner(config, team)
    if any(team.exchange(team.main and path.exists())):
        before = read_meta(path)
        if changed := [key for key in refiner.meta if before.get(key) != refiner.meta[key]]:
            raise CxrError(
                f"{path} was refined otherwise (its {', '.join(changed)} differ{'s' * (len(changed) == 1)}).",
                "Choose another --run, or remove it.",
            )
        return told(before)
    return refiner.run(path)


def told(meta: dict[str, Any]) -> Refined:
    return Refined(**meta["refined"])
