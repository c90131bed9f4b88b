"""A dataset and a recipe → a run folder. Started again on the same folder, it goes on where it stopped."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.boxes.door import read_table
from cxrmine.config import Recipe
from cxrmine.cores import threads
from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index, in_share
from cxrmine.data.organs import with_masks
from cxrmine.data.severities import Severities, severities_of
from cxrmine.errors import CxrError
from cxrmine.files import atomic, locked, move_aside, sha256
from cxrmine.recipe_files import differences, load_recipe, moved_paths, to_dict, validate_recipe
from cxrmine.runs import (
    RunFolder,
    boxes_sha256,
    open_organs,
    open_run,
    organs_sha256,
    read_recipe,
    severity_sha256,
    write_recipe,
)
from cxrmine.stages.teaching import Teaching, makers, teach, with_listed


@dataclass(frozen=True)
class Train:
    data: Path
    recipe: str
    run: Path
    overrides: tuple[str, ...] = ()
    fresh: bool = False
    device: str = "auto"
    workers: int | None = None


@dataclass(frozen=True)
class TrainResult:
    run: Path
    already_done: bool
    images: int
    measured: dict[str, dict[str, float]]  # on validation patients: auc, or dice and iou of organs; by finding

    @property
    def findings(self) -> list[str]:
        return list(next(iter(self.measured.values()), {}))

    def mean(self, name: str) -> float:
        known = [value for value in self.measured[name].values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")


def run(config: Train) -> TrainResult:
    asked = load_recipe(config.recipe, config.overrides)
    if asked.train.start:
        open_run(Path(asked.train.start))
    asked = with_organs(asked)
    dataset = open_dataset(config.data)
    if asked.method == "organs":
        dataset = with_masks(dataset)
    index = dataset.restrict(asked.data.findings) if asked.data.findings else dataset
    train, teaching = training_films(index, asked)
    recipe = _resolved(asked, index, config.run)
    severities = graded(recipe, train, config.run)
    validation = index.select("val")
    _refuse_many_missing(train, recipe)
    _refuse_many_missing(validation, recipe)
    folder = RunFolder(config.run)
    if folder.finished and not config.fresh:
        _refuse_another(folder, recipe, dataset.fingerprint, teaching, severities)
        return _result(folder, len(train), already_done=True)
    # Only now torch, which takes seconds to import: a typo is answered at once.
    from cxrmine.learn import parallel
    from cxrmine.stages.training import Training

    world = parallel.accelerator(config.device)
    training = Training(recipe, train, validation, folder, world, threads(config.workers), teaching, severities)
    with locked(config.run) if world.is_main_process else contextlib.nullcontext("") as dead_owner:
        if world.is_main_process:
            if dead_owner:
                console.log(f"{folder.path}: took over the lock of {dead_owner}, which is gone.")
            if config.fresh and folder.recipe.is_file():
                console.log(f"The run that was in {folder.path} is now in {move_aside(folder.path)}.")
            if folder.recipe.is_file():
                _refuse_another(folder, recipe, dataset.fingerprint, teaching, severities)
            else:
                made_by = makers(teaching, dataset.fingerprint) if teaching else []
                if made_by is None:
                    console.log("CAREFUL: whom the network has seen that mined these boxes is not known.")
                seen = [train, dataset.select("train")] if made_by else [train]
                _write_patients(folder, seen, validation, folder.start(recipe))
                boxes, severity = (learned.sha256 if learned else "" for learned in (teaching, severities))
                write_recipe(folder, recipe, dataset.fingerprint, boxes, made_by, severity)
        world.wait_for_everyone()
        training.run()
        world.wait_for_everyone()
        return _result(folder, len(train), already_done=False)


def _resolved(asked: Recipe, index: Index, run: Path) -> Recipe:
    """With the findings of the dataset; paths as seen from the run, so that all can be moved together."""
    recipe = moved_paths(asked, lambda path: os.path.relpath(path, run))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"findings": index.findings})})
    return validate_recipe(to_dict(recipe), asked.name)


def graded(recipe: Recipe, train: Index, run: Path) -> Severities | None:
    """How severe the findings of the training films are, where a recipe asks for it."""
    asked = [phase.name for phase in recipe.train.phases if phase.severity]
    if not recipe.agcl and not asked:
        return None
    found = severities_of(train, RunFolder(run).severity(recipe))
    if asked and not found.values.any():
        if not recipe.agcl:
            raise CxrError(
                f"Phase {asked[0]} counts findings by their severity, and of no training film it is known.",
                "Make a table of the reports: cxrmine severity REPORTS --out FILE, and say --set data.severity=FILE.",
            )
        console.log("No severity is known: it learns without the curriculum, as the recipe agl does.")
    return found


def with_organs(recipe: Recipe) -> Recipe:
    """What the network that outlines organs is like, filled in from its run."""
    if recipe.irnet is None or not recipe.irnet.gate:
        return recipe
    if not Path(recipe.irnet.organs).is_dir():
        raise CxrError(
            f"irnet.organs: there is no run in {recipe.irnet.organs}.",
            "Train one: cxrmine train --recipe organs, name another with --set irnet.organs=RUN, or say "
            "--set irnet.gate=false.",
        )
    cure = "Train one: cxrmine train --recipe organs, name another with --set irnet.organs=RUN, or say "
    organs = open_organs(Path(recipe.irnet.organs), f"{cure}--set irnet.gate=false.").recipe
    if organs.data.fit != recipe.data.fit:
        console.log(f"CAREFUL: it outlines organs of films with data.fit = {organs.data.fit}, not {recipe.data.fit}.")
    found = {
        "organ_size": organs.data.size,
        "organ_channels": organs.network.channels,
        "organ_names": organs.data.findings,
    }
    return recipe.model_copy(update={"irnet": recipe.irnet.model_copy(update=found)})


def training_films(index: Index, recipe: Recipe) -> tuple[Index, Teaching | None]:
    """The films that a recipe trains on, and the boxes that it learns from."""
    joined: tuple[str, ...] = ()
    if recipe.boxes and recipe.boxes.listed:
        index, said = with_listed(index, recipe.boxes)
        joined = (said,)
    train = to_train_on(index, recipe)
    teaching = teach(recipe, index, train)
    return train, replace(teaching, notes=(*joined, *teaching.notes)) if teaching else None


def to_train_on(index: Index, recipe: Recipe) -> Index:
    """The images of train, of train.share's patients alone, and of train.include; without those that validate."""
    index = index.filter(_in_share(index, recipe))
    chosen = index.select(",".join(("train", *recipe.train.include)))
    validates = pc.equal(chosen.table["split"], "val").to_numpy()
    if validates.any():
        console.log(f"{validates.sum()} images of {', '.join(recipe.train.include)} validate, and are not trained on.")
    return chosen.filter(~validates)


def _in_share(index: Index, recipe: Recipe) -> np.ndarray:
    """All but the films of training patients beyond train.share; who has boxed films in training is never beyond."""
    patients = index.table["patient_id"]
    trains = pc.equal(index.table["split"], "train").to_numpy()
    boxed = set(patients.filter(pa.array(trains & index.table["boxed"].to_numpy())).to_pylist())
    here = {p: p in boxed or in_share("trained", p, recipe.train.share) for p in set(patients.to_pylist())}
    return np.array([here[p] for p in patients.to_pylist()], bool) | ~trains


def _refuse_another(
    folder: RunFolder, recipe: Recipe, fingerprint: str, teaching: Teaching | None, severities: Severities | None
) -> None:
    """A folder goes on with the recipe, the dataset, the boxes and the severities it began with."""
    before, dataset = read_recipe(folder)
    changed = differences(before, recipe)
    if boxes_sha256(folder) != (teaching.sha256 if teaching else "") and not changed:
        changed.append("the boxes that it learns from have changed")
    if severity_sha256(folder) != (severities.sha256 if severities else "") and not changed:
        changed.append("the severities that it learns from have changed")
    gate = folder.gate(recipe)
    if organs_sha256(folder) != (sha256(gate.weights) if gate else "") and not changed:
        changed.append("the run that outlines its organs has changed")
    if dataset != fingerprint:
        changed.append(f"the dataset: {dataset[:12]} → {fingerprint[:12]}")
    if changed:
        raise CxrError(
            f"{folder.path} holds a run with another recipe: {'; '.join(changed)}.",
            "Choose another folder with --run, or say --fresh to move that run aside.",
        )


def _refuse_many_missing(index: Index, recipe: Recipe) -> None:
    """A few images without a file are skipped when their turn comes; more than the recipe allows are an error."""
    _, missing = index.present()
    if missing and missing.count > recipe.data.max_unreadable * len(index):
        in_archives = "" if not (index.tree and index.tree.packed_away()) else "cxrmine pack reads films in archives. "
        raise CxrError(
            f"{missing.count} of {len(index)} images are listed but not there, for instance {missing.examples[0]}.",
            f"{in_archives}Add them, see all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
        )


def _write_patients(folder: RunFolder, trained: Sequence[Index], validation: Index, start: RunFolder | None) -> None:
    """Who was trained and validated on, also by the run it starts from, so that a leak is found without the dataset."""
    seen = dict.fromkeys(sorted({p for index in trained for p in index.table["patient_id"].to_pylist()}), "train")
    for patient in sorted(set(validation.table.column("patient_id").to_pylist())):
        seen.setdefault(patient, "val")
    if start:
        before = read_table(start.patients)
        for patient, split in zip(before["patient_id"].to_pylist(), before["split"].to_pylist(), strict=True):
            seen[patient] = min(seen.get(patient, split), split)  # "train" comes before "val"
    table = pa.table({"patient_id": list(seen), "split": list(seen.values())})
    with atomic(folder.patients) as temporary:
        pq.write_table(table, temporary)


def _result(folder: RunFolder, images: int, already_done: bool) -> TrainResult:
    last: dict[str, Any] = {}
    if folder.metrics.is_file():
        for line in folder.metrics.read_text().splitlines():
            last = json.loads(line) if '"val_loss"' in line else last
    by_finding = {name: values for name, values in last.items() if isinstance(values, dict)}
    measured = {
        name: {f: float("nan") if value is None else value for f, value in values.items()}
        for name, values in by_finding.items()
    }
    return TrainResult(folder.path, already_done, images, measured)
