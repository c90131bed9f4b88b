"""Boxes → better boxes: a network learns them and refines each, a second one learns the refined, and mines again.

What it leaves in its folder: refiner (a run), refined.parquet, ham (a run). Every step that is done is not done again.
"""

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cxrmine import console
from cxrmine.boxes.shards import expand
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import check_writable, locked
from cxrmine.learn.team import Team
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder
from cxrmine.stages import mine, train

REFINER, REFINED, FINAL = "refiner", "refined.parquet", "ham"
LEFT = (REFINER, REFINED, images_path(Path(REFINED)).name, FINAL)


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
    with locked(config.run) if team.main else contextlib.nullcontext():
        if team.main and config.fresh:
            _move_aside(config.run)
        team.exchange(None)
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
    """What can be known before two networks are trained."""
    boxes = [path.resolve() for path in expand(config.boxes)]
    if (method := load_recipe(config.recipe).method) != "ham":
        raise UsageError(
            f'The recipe {config.recipe} has method = "{method}", which does not learn from boxes.',
            "Take the recipe ham, or another with that method.",
        )
    for key in ("boxes.source", "boxes.masks"):
        if any(override.split("=")[0].strip() == key for override in config.overrides):
            raise UsageError(f"--set {key} is not for refine, which says that itself.", "Leave it out; name BOXES.")
    recipe = load_recipe(config.recipe, (*config.overrides, _source(config.boxes)))
    index = open_dataset(config.data)
    index.select(config.split)
    train.training_films(index.restrict(recipe.data.findings) if recipe.data.findings else index, recipe)
    if config.fresh and any(path.is_relative_to((config.run / name).resolve()) for path in boxes for name in LEFT):
        raise UsageError(f"--fresh would move {config.boxes} aside.", "Choose another --run, or copy these boxes.")
    _check_out(config, boxes)


def _check_out(config: Refine, boxes: Sequence[Path]) -> None:
    if config.out.is_dir():
        raise UsageError(
            f"--out {config.out} is a folder.", f"Name a file, for instance {config.out / 'boxes.parquet'}."
        )
    if config.out.suffix != ".parquet" or config.out.name.endswith(".images.parquet"):
        raise UsageError(f"--out {config.out} is no name for a box table.", "It ends in .parquet.")
    if config.out.resolve() in (*boxes, (config.run / REFINED).resolve()):
        raise UsageError(f"--out {config.out} is where boxes lie that are read.", "Choose another --out.")
    done = RunFolder(config.run / FINAL).finished and not config.fresh
    if config.out.exists() and not (config.overwrite or done):
        raise CxrError(f"{config.out} exists already.", "Choose another --out, or say --overwrite.")
    check_writable(config.out)


def _move_aside(folder: Path) -> None:
    """What refine left in runs/refine → runs/refine/1, or the first number that is free."""
    there = [folder / name for name in LEFT if (folder / name).exists()]
    if there:
        aside = next(path for n in itertools.count(1) if not (path := folder / str(n)).exists())
        aside.mkdir()
        for path in there:
            path.rename(aside / path.name)
        console.log(f"What refine had left in {folder} is now in {aside}.")


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
