"""A run and a dataset → ranked boxes. A shard that is whole is not mined again, a broken one leaves nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxrmine import __version__, console
from cxrmine.boxes.extract import WAYS
from cxrmine.boxes.maps import index_path, maps_path, refuse_other_shards
from cxrmine.boxes.prior import make_prior
from cxrmine.boxes.shards import shard_path
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.config import Recipe
from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.data.organs import ORGANS
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.files import check_writable, sha256
from cxrmine.learn.team import Team
from cxrmine.recipe_files import load_overrides, moved_paths, to_dict
from cxrmine.runs import Run, open_finder, open_organs, starts, strangers
from cxrmine.scoring.leakage import seen_images, seen_others

ORGAN_KEYS = tuple(f"mine.{key}" for key in ("organ_way", "outside", "organs_of", "margin", "margin_of"))
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
    organs: Path | None = None  # a run of the recipe organs
    shard: tuple[int, int] = (1, 1)
    device: str = "auto"
    batch_size: int = 32
    workers: int | None = None
    overwrite: bool = False


class Round(NamedTuple):
    """What one of several rounds did."""

    erased: float  # share of a map's cells, mean over the pairs
    peaks: int  # boxes whose highest pixel lies in a cell that this round was the first to erase


@dataclass(frozen=True)
class MineResult:
    out: Path
    already_done: bool
    images: int = 0
    pairs: int = 0
    boxes: int = 0
    without_box: int = 0
    unreadable: int = 0
    outside: int = 0  # boxes that were dropped because they lie outside the organs
    without_organs: int = 0  # pairs of which no organ was outlined, or less than a cell of the map
    rounds: tuple[Round, ...] = ()  # where there is more than one
    not_there: tuple[str, ...] = ()  # findings that no image of the whole split has; with findings = labelled


def run(config: Mine) -> MineResult:
    team = Team(config.device)
    with team.together():
        return _run(config, team)


def _run(config: Mine, team: Team) -> MineResult:
    shard, shards = config.shard
    out = shard_path(config.out, shard, shards) if shards > 1 else config.out
    if team.main:
        _check_places(config, out)
    opened = open_finder(config.run)
    recipe = _recipe(config, opened.recipe)
    index = _images_to_mine(config, recipe)
    chosen = index.select(config.split)
    meta = provenance(config.split, config.shard, recipe, opened, index) | {
        "findings": config.findings,
        "seen": seen_images(opened.folder.patients, chosen.table["patient_id"]),
    }
    if rounds := _rounds_sha256(opened, recipe):
        meta["rounds_sha256"] = rounds
    organs = _organs(config, recipe)
    meta["organs_sha256"] = organs.weights_sha256 if organs else ""
    part = shard_of(chosen, shard, shards)
    if any(team.exchange(team.main and _is_done(out, meta, config))):
        return MineResult(out, already_done=True, images=len(part))
    for path in (out, *_maps_of(config)) if team.main else ():
        check_writable(path)
    from cxrmine.stages.miner import Miner  # torch comes in here, once the input is known to be good

    result = Miner(config, recipe, opened, organs, part, len(chosen), team).run(out, meta)
    return replace(result, not_there=_not_there(config, recipe, chosen))


def summary(config: Mine, result: MineResult) -> str:
    if result.already_done:
        return f"{result.out} is mined already."
    said = (
        f"{result.boxes} boxes of {result.pairs} pairs in {result.images} images → {result.out}"
        f" ({result.without_box} pairs without a box, {result.unreadable} images unreadable)"
    )
    if not result.pairs and result.images:  # of more shards than images some are empty
        why = {
            "labelled": "no image has a label of the run's findings; --findings predicted takes what the network sees",
            "predicted": "no probability is above the run's threshold; --findings all takes every pair",
        }.get(config.findings, "no image could be read")
        return f"{said}\nThe table has no boxes: {why}."
    lines = [said]
    for t, (erased, peaks) in enumerate(result.rounds, start=1):
        lines.append(f"Round {t} erased {erased:.1%} of a map and holds the peak of {peaks} boxes.")
    if result.rounds and (outside := result.boxes - sum(peaks for _, peaks in result.rounds)):
        lines.append(f"No round erased the peak of the other {outside} boxes.")
    if result.outside:
        lines.append(f"{result.outside} more boxes lie outside the organs and were dropped.")
    if result.without_organs:
        lines.append(
            f"Of {result.without_organs} pairs no organ was outlined, or less than a cell: their boxes are as without "
            "--organs."
        )
    if result.not_there:
        lines.append(f"No image of the split has {', '.join(result.not_there)}.")
    return "\n".join(lines)


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


def _recipe(config: Mine, trained: Recipe) -> Recipe:
    """The run's recipe as it is to mine: a run that has rounds replays as many, or fewer."""
    changeable = ("mine", "data.max_unreadable")
    try:
        recipe = load_overrides(trained, config.overrides, changeable)
    except CxrError:
        fixed = load_overrides(trained, (*config.overrides, "mine.fixed_weights=true"), changeable)
        raise CxrError(
            f"The run in {config.run} was trained without rounds, and {fixed.mine.rounds} are asked for.",
            "Say --set mine.fixed_weights=true to erase with its final weights, or train the recipe am.",
        ) from None
    there = trained.trained_rounds
    if there and recipe.mine.rounds > there and not recipe.mine.fixed_weights:
        raise CxrError(
            f"The run in {config.run} has {there} rounds, and {recipe.mine.rounds} are asked for.",
            f"Say --rounds {there} or fewer, or train anew elsewhere with --set mine.rounds={recipe.mine.rounds}.",
        )
    if recipe.mine.way not in WAYS:
        raise UsageError(
            f"mine.way = {recipe.mine.way} is not known.{did_you_mean(recipe.mine.way, list(WAYS))}",
            f"The ways are {', '.join(WAYS)}.",
        )
    return recipe


def _organs(config: Mine, recipe: Recipe) -> Run | None:
    """The run that outlines organs."""
    if config.organs is None:
        if idle := _set(config, ORGAN_KEYS):
            raise UsageError(f"--set {idle} does nothing without organs.", "Name their run with --organs.")
        return None
    if recipe.mine.organ_way != "drop" and (idle := _set(config, ("mine.outside",))):
        raise UsageError(f"--set {idle} does nothing here.", "It is for --set mine.organ_way=drop.")
    cure = "Name a run of the recipe organs; one is trained by cxrmine train --recipe organs."
    if not config.organs.is_dir():
        raise UsageError(f"--organs {config.organs} is no run.", cure)
    opened = open_organs(config.organs, cure)
    outlined = opened.recipe.data.findings
    make_prior(recipe.mine, recipe.data.findings, outlined)
    if opened.recipe.data.fit != recipe.data.fit:
        console.log(f"CAREFUL: organs were learned on films with data.fit = {opened.recipe.data.fit}.")
    unknown = [organ for organ in ORGANS if organ not in outlined]
    if unknown and set(recipe.data.findings) - set(recipe.mine.organs_of):
        console.log(f"CAREFUL: {config.organs} outlines no {', '.join(unknown)}: what lies there counts as outside.")
    return opened


def _set(config: Mine, keys: tuple[str, ...]) -> str:
    """The first --set of one of these keys, or of an item of one."""
    named = [(override, override.partition("=")[0].strip()) for override in config.overrides]
    return next((override for override, key in named if key.startswith(keys)), "")


def replayed_rounds(recipe: Recipe, trained: Recipe) -> int:
    """From round 1 on, how many of a run's rounds are used with their weights; 0: the final weights are."""
    return recipe.mine.rounds if trained.trained_rounds and not recipe.mine.fixed_weights else 0


def _rounds_sha256(opened: Run, recipe: Recipe) -> list[str]:
    """Of the weights of each round that is replayed, which must be there."""
    folder, rounds = opened.folder, range(1, replayed_rounds(recipe, opened.recipe) + 1)
    files = [folder.round_weights(t) for t in rounds] + [folder.round_thresholds(t) for t in rounds[-1:]]
    if missing := [path for path in files if not path.is_file()]:
        raise CxrError(
            f"{missing[0]} is missing.",
            "Copy it from where the run was trained, erase with --set mine.fixed_weights=true, or train again.",
        )
    return [sha256(folder.round_weights(t)) for t in rounds]


def _not_there(config: Mine, recipe: Recipe, chosen: Index) -> tuple[str, ...]:
    if config.findings != "labelled":
        return ()
    present = (chosen.labels(recipe.data.findings) == 1).any(axis=0)
    return tuple(finding for finding, there in zip(recipe.data.findings, present, strict=True) if not there)


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
    told = to_dict(moved_paths(recipe, lambda path: Path(path).name))  # of a file the name alone: no path in a table
    told["network"]["weights"] = Path(recipe.network.weights).name
    return {
        "recipe": told,
        "weights_sha256": opened.weights_sha256,
        "starts": starts(opened.folder),
        "seen_others": strangers(opened.folder) or seen_others(opened.folder.patients, index.table),
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
