"""A dataset and a recipe → a run folder. Started again on the same folder, it goes on where it stopped."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.config import Recipe, differences, load_recipe
from cxrmine.data.index import Index
from cxrmine.data.layouts import open_dataset
from cxrmine.errors import CxrError
from cxrmine.files import atomic, locked
from cxrmine.runs import RunFolder, read_recipe, write_recipe


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
    auc: dict[str, float]

    @property
    def macro_auc(self) -> float:
        known = [value for value in self.auc.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")


def run(config: Train) -> TrainResult:
    recipe = load_recipe(config.recipe, config.overrides)
    dataset = open_dataset(config.data)
    index = dataset.restrict(recipe.data.findings) if recipe.data.findings else dataset
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"findings": index.findings})})
    train = _readable(index.select(",".join(("train", *recipe.train.include))), recipe)
    validation = _readable(index.select("val"), recipe)
    # Only now torch, which takes seconds to import: a typo is answered at once.
    from cxrmine.learn import parallel
    from cxrmine.stages.training import Training

    world = parallel.accelerator(config.device)
    folder = RunFolder(config.run)
    with locked(config.run) if world.is_main_process else contextlib.nullcontext("") as dead_owner:
        if world.is_main_process:
            if dead_owner:
                console.log(f"{folder.path}: took over the lock of {dead_owner}, which is gone.")
            _claim(folder, recipe, dataset.fingerprint, config.fresh)
            _write_patients(folder, train, validation)
        world.wait_for_everyone()
        already_done = folder.finished
        if not already_done:
            Training(recipe, train, validation, folder, world, parallel.workers(config.workers)).run()
            world.wait_for_everyone()
        return _result(folder, len(train), already_done)


def _claim(folder: RunFolder, recipe: Recipe, fingerprint: str, fresh: bool) -> None:
    """Make the folder this run's, or refuse."""
    if fresh:
        _move_aside(folder)
    if not folder.recipe.is_file():
        write_recipe(folder, recipe, fingerprint)
        return
    before, dataset = read_recipe(folder)
    changed = differences(before, recipe)
    if dataset != fingerprint:
        changed.append(f"the dataset: {dataset[:12]} → {fingerprint[:12]}")
    if changed:
        raise CxrError(
            f"{folder.path} holds a run with another recipe: {'; '.join(changed)}.",
            "Choose another folder with --run, or say --fresh to move that run aside.",
        )


def _move_aside(folder: RunFolder) -> None:
    """runs/cam → runs/cam.1, or the first number that is free. The lock stays with this process."""
    if not folder.recipe.is_file():
        return
    n = 1
    while folder.path.with_name(f"{folder.path.name}.{n}").exists():
        n += 1
    aside = folder.path.with_name(f"{folder.path.name}.{n}")
    aside.mkdir()
    for entry in sorted(folder.path.iterdir()):
        if entry.name != ".lock":
            entry.rename(aside / entry.name)
    console.log(f"The run that was in {folder.path} is now in {aside}.")


def _readable(index: Index, recipe: Recipe) -> Index:
    """The images whose file is there; an error when too many are not."""
    present, missing = index.present()
    if missing and missing.count > recipe.data.max_unreadable * len(index):
        raise CxrError(
            f"{missing.count} of {len(index)} images are listed but not there, for instance {missing.examples[0]}.",
            "Add them, see all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
        )
    if missing:
        console.log(f"skipped: {missing.count} images are listed but not there, for instance {missing.examples[0]}")
    return present


def _write_patients(folder: RunFolder, train: Index, validation: Index) -> None:
    """Who was trained and validated on, so that a leak is found without the dataset."""
    seen = dict.fromkeys(sorted(set(train.table.column("patient_id").to_pylist())), "train")
    for patient in sorted(set(validation.table.column("patient_id").to_pylist())):
        seen.setdefault(patient, "val")
    table = pa.table({"patient_id": list(seen), "split": list(seen.values())})
    with atomic(folder.patients) as temporary:
        pq.write_table(table, temporary)


def _result(folder: RunFolder, images: int, already_done: bool) -> TrainResult:
    last: dict[str, Any] = {}
    if folder.metrics.is_file():
        for line in folder.metrics.read_text().splitlines():
            last = json.loads(line) if '"macro_auc"' in line else last
    areas = {f: float("nan") if a is None else a for f, a in last.get("auc", {}).items()}
    return TrainResult(folder.path, already_done, images, areas)
