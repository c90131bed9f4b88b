"""A run and a dataset → ranked boxes. A shard that is whole is not mined again, a broken one leaves nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxrmine import __version__
from cxrmine.boxes.extract import WAYS
from cxrmine.boxes.maps import index_path, maps_path, refuse_other_shards
from cxrmine.boxes.shards import shard_path
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.config import Recipe
from cxrmine.data.index import Index
from cxrmine.data.layouts import open_dataset
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.files import check_writable
from cxrmine.recipe_files import load_overrides, to_dict
from cxrmine.runs import Run, open_run

WHICH = ("labelled", "predicted", "all")


@dataclass(frozen=True)
class Mine:
    run: Path
    data: Path
    out: Path
    split: str = "train"
    findings: str = "labelled"
    overrides: tuple[str, ...] = ()  # mine.key=value
    maps: Path | None = None
    shard: tuple[int, int] = (1, 1)
    device: str = "auto"
    batch_size: int = 32
    workers: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class MineResult:
    out: Path
    already_done: bool
    images: int = 0
    pairs: int = 0
    boxes: int = 0
    without_box: int = 0
    unreadable: int = 0


def run(config: Mine) -> MineResult:
    shard, shards = config.shard
    out = shard_path(config.out, shard, shards) if shards > 1 else config.out
    _check_places(config, out)
    opened = open_run(config.run)
    recipe = load_overrides(opened.recipe, config.overrides, only=("mine", "data.max_unreadable"))
    _refuse_other_rounds(config, opened.recipe, recipe)
    index = _images_to_mine(config, recipe)
    if recipe.mine.way not in WAYS:
        raise UsageError(
            f"mine.way = {recipe.mine.way} is not known.{did_you_mean(recipe.mine.way, list(WAYS))}",
            f"The ways are {', '.join(WAYS)}.",
        )
    meta = provenance(config.split, config.shard, recipe, opened, index) | {"findings": config.findings}
    chosen = index.select(config.split)
    index = shard_of(chosen, shard, shards)
    if _is_done(out, meta, config):
        return MineResult(out, already_done=True, images=len(index))
    for path in (out, *_maps_of(config)):
        check_writable(path)
    from cxrmine.stages.miner import Miner  # torch comes in here, once the input is known to be good

    return Miner(config, recipe, opened, index, len(chosen)).run(out, meta)


def summary(config: Mine, result: MineResult) -> str:
    if result.already_done:
        return f"{result.out} is mined already."
    said = (
        f"{result.boxes} boxes of {result.pairs} pairs in {result.images} images → {result.out}"
        f" ({result.without_box} pairs without a box, {result.unreadable} images unreadable)"
    )
    if result.pairs or not result.images:  # of more shards than images some are empty
        return said
    why = {
        "labelled": "no image has a label of the run's findings; --findings predicted takes what the network sees",
        "predicted": "no probability is above the run's threshold; --findings all takes every pair",
    }.get(config.findings, "no image could be read")
    return f"{said}\nThe table has no boxes: {why}."


def _check_places(config: Mine, out: Path) -> None:
    for path in (config.out, out):
        if path.is_dir():
            raise UsageError(f"--out {path} is a folder.", f"Name a file, for instance {path / 'boxes.parquet'}.")
    if out.suffix != ".parquet" or out.name.endswith(".images.parquet"):
        raise UsageError(
            f"--out {config.out} is no name for a box table.",
            "It ends in .parquet, and not in .images.parquet, which is the table beside it.",
        )
    if config.maps and config.maps.exists() and not config.maps.is_dir():
        raise UsageError(f"--maps {config.maps} is a file.", "Name a folder.")


def _maps_of(config: Mine) -> tuple[Path, ...]:
    """The two files of this shard's maps, where they are wanted."""
    if not config.maps:
        return ()
    array = maps_path(config.maps, *config.shard)
    return array, index_path(array)


def _refuse_other_rounds(config: Mine, trained: Recipe, recipe: Recipe) -> None:
    """A run that has rounds replays as many as it has, or fewer; one that has none erases with fixed weights."""
    rounds, there = recipe.mine.rounds, trained.trained_rounds
    if there and rounds > there and not recipe.mine.fixed_weights:
        raise CxrError(
            f"The run in {config.run} has {there} rounds, and {rounds} are asked for.",
            f"Say --rounds {there} or fewer, or train more: cxrmine train --set mine.rounds={rounds}.",
        )


def _images_to_mine(config: Mine, recipe: Recipe) -> Index:
    if config.findings not in WHICH:
        raise UsageError(
            f"--findings {config.findings} is not known.{did_you_mean(config.findings, WHICH)}",
            f"It is one of {', '.join(WHICH)}.",
        )
    index = open_dataset(config.data)
    unknown = [f for f in recipe.data.findings if f not in index.findings]
    if unknown and config.findings == "labelled":
        raise CxrError(
            f"The run in {config.run} knows {', '.join(unknown)}, which the labels of {config.data} do not.",
            "Mine with --findings predicted or all, or with a run that was trained on this dataset's findings.",
        )
    return index


def provenance(split: str, shard: tuple[int, int], recipe: Recipe, opened: Run, index: Index) -> dict[str, Any]:
    """What a table says about its making, for the metadata key `cxrmine`."""
    told = to_dict(recipe)
    told["network"]["weights"] = Path(recipe.network.weights).name  # of a file the name alone: no path in a table
    told["train"]["start"] = Path(recipe.train.start).name
    return {
        "recipe": told,
        "weights_sha256": opened.weights_sha256,
        "dataset": index.fingerprint,
        "trained_on": opened.dataset,
        "split": split,
        "version": __version__,
        "shard": list(shard),
    }


def shard_of(index: Index, shard: int, shards: int) -> Index:
    """The images of one shard. An index is sorted by image_id, so shards read one after another are the whole."""
    place = np.arange(len(index)) * shards // len(index)
    return index.filter(place == shard - 1)


def _is_done(out: Path, meta: dict[str, Any], config: Mine) -> bool:
    """Whether every file is there. One that was made otherwise is refused, whole or not: it may be somebody's work."""
    if config.maps:
        refuse_other_shards(config.maps, config.shard[1])
    if config.overwrite:
        return False
    tables = {out: "--out", images_path(out): "--out", **dict.fromkeys(_maps_of(config)[1:], "--maps")}
    for path, option in tables.items():
        before = read_meta(path) if path.exists() else meta
        changed = [key for key in meta if before.get(key) != meta[key]]
        if changed:
            raise CxrError(
                f"{path} exists and was mined otherwise (its {', '.join(changed)} differ{'s' * (len(changed) == 1)}).",
                f"Choose another {option}, or say --overwrite.",
            )
    return all(path.exists() for path in (out, images_path(out), *_maps_of(config)))
