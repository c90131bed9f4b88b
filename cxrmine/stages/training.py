"""The half of `train` that needs torch: a run's data, and what the loop asks for: batches and a validation."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from cxrmine import console
from cxrmine.config import Recipe, Step
from cxrmine.data.index import Index
from cxrmine.data.outlines import Outlines
from cxrmine.data.severities import LEVELS, Severities, severities_of
from cxrmine.errors import CxrError
from cxrmine.files import write_json
from cxrmine.learn.checkpoint import save_weights
from cxrmine.learn.guides import Drawn, Guide, Outlined
from cxrmine.learn.loader import Batch, batches, steps_an_epoch, targets, training_groups
from cxrmine.learn.loop import Loop
from cxrmine.learn.organs import OrganNet
from cxrmine.methods.organ_weighted import OrganWeighted, about_organs
from cxrmine.methods.registry import build
from cxrmine.runs import Run, RunFolder, open_run
from cxrmine.stages.rounds import Rounds
from cxrmine.stages.seeds import Iterations
from cxrmine.stages.teaching import Teaching
from cxrmine.stages.validation import OfFindings, OfOrgans, Validation


class Training:
    """The data of one run, and the two things the loop asks of it: batches and a validation."""

    def __init__(
        self,
        recipe: Recipe,
        train: Index,
        validation: Index,
        folder: RunFolder,
        world: Accelerator,
        workers: int,
        teaching: Teaching | None = None,
        severities: Severities | None = None,
    ) -> None:
        self.recipe, self.train, self.validation, self.teaching = recipe, train, validation, teaching
        self.severities = severities
        self.folder, self.world, self.workers = folder, world, workers
        self.taught = taught_rows(recipe, train)
        self.train_targets = targets(train.labels(), recipe.data)
        self.unreadable: dict[str, str] = {}
        self._refuse_small_batches()
        torch.manual_seed(recipe.train.seed)
        objective = build(recipe, prevalence(self.train_targets[self.taught]))
        start = folder.start(recipe)
        if start and not folder.state.is_file():
            begin_with(objective, open_run(start.path), recipe)
        gate = folder.gate(recipe)
        if isinstance(objective, OrganWeighted) and gate and not folder.state.is_file():
            objective.take_organs(load_file(gate.weights))
        self.objective = objective.to(world.device).to(memory_format=torch.channels_last)
        self.measured: Validation
        if isinstance(objective, OrganNet):
            self.measured = OfOrgans(objective, recipe, validation, workers, world)
        else:
            self.measured = OfFindings(objective, recipe, validation, workers, world)
        self.outlines = Outlines(train, recipe.data.size) if isinstance(objective, OrganNet) else None
        self.rounds = Rounds(recipe, train, self.taught, folder, world, workers) if recipe.trained_rounds else None
        self.iterations: Iterations | None = None
        if recipe.agcl and severities:
            films = (train, severities), (validation, severities_of(validation, folder.severity(recipe)))
            self.iterations = Iterations(recipe, *films, folder, world, workers, self._note_unreadable, self.log)

    def run(self) -> None:
        main = self.world.is_main_process
        if main:
            parameters = sum(p.numel() for p in self.objective.parameters()) / 1e6
            self.log(
                f"{len(self.train)} training and {len(self.validation)} validation images, "
                f"{parameters:.2f} M parameters on {self.world.device}"
            )
            for learned_from in (self.teaching, self.severities):
                for note in learned_from.notes if learned_from else ():
                    self.log(note)
            for finding in np.array(self.recipe.data.findings)[~(self.train_targets == 1).any(dim=0).numpy()]:
                self.log(f"No training image has {finding}: nothing is learned of it.")
        total = steps_an_epoch(len(self.taught), self.recipe.train.batch_size)
        total *= sum(step.phase.epochs for step in self.recipe.schedule)
        with console.progress_bar(total, f"train {self.recipe.name}", "steps", shown=main) as bar:
            loop = Loop(self.objective, self.recipe, self, self.folder, self.world, bar)
            if loop.at.steps_done:
                self.log(f"goes on from step {loop.at.steps_done}")
            loop.run()
        if isinstance(self.objective, OrganWeighted):
            self.objective.seen_whole = 0  # now once for every validation film
        self._save(self.folder.weights, self.folder.thresholds)
        if said := about_organs(self.objective, f"of {len(self.validation)} validation images"):
            self.log(said)
        self.log("done")

    def films_of(self, step: Step) -> int:
        return len(self.taught)

    def begin(self, step: Step) -> tuple[str, ...] | None:
        """Before a phase: a round needs the masks of the round before, and the network that it must not forget; an
        iteration needs its seeds, and nothing is left to learn where there are no new ones."""
        if self.iterations and step.round:
            there = step.round > 1 or self.folder.iteration(0).finished
            self.world.wait_for_everyone()  # all look before one writes
            if not there:
                self._keep(self.iterations.keep(0))
            return () if self.iterations.begin(step.round, self.objective) else None
        first = self.folder.round_weights(0)
        if step.round:
            if self.world.is_main_process and not first.is_file():
                save_weights(first, self.objective)
            self.world.wait_for_everyone()  # whether the file was there or not: others may look later than we write
        unused = self.objective.begin(step, first if step.round else None)
        if self.rounds and step.round:
            self.rounds.begin(step.round, self.objective)
        return unused

    def end(self, step: Step) -> None:
        if self.iterations and step.round:
            self._keep(self.iterations.keep(step.round))
        elif step.round:
            self._save(self.folder.round_weights(step.round), self.folder.round_thresholds(step.round))

    def _keep(self, place: RunFolder) -> None:
        self._save(place.weights, place.thresholds)

    def _save(self, weights: Path, thresholds: Path) -> None:
        cuts = self.measured.thresholds()
        if self.world.is_main_process:
            write_json(thresholds, cuts)
            save_weights(weights, self.objective)
        self.world.wait_for_everyone()  # all read them for the next round's masks

    def batches(self, step: Step, epoch: int, first: int) -> Iterator[tuple[Batch, Tensor, Guide | None]]:
        rank, processes = self.world.process_index, self.world.num_processes
        if step.round and self.rounds:
            films = list(self.rounds.groups(epoch, first))
            groups = [np.concatenate(both)[rank::processes] for both in films]
        else:
            train = self.recipe.train
            places = training_groups(len(self.taught), train.batch_size, train.seed, epoch, first, rank, processes)
            groups = [self.taught[group] for group in places]
        for i, batch in enumerate(batches(self.train, self.recipe.data, groups, self.workers)):
            self._note_unreadable(batch)
            guide: Guide | None = None
            if step.round and self.rounds:
                guide = self.rounds.guide(batch.rows, films[i][0])
            elif step.round and self.iterations:
                guide = self.iterations.guide(batch.rows)
            elif self.teaching:
                guide = Drawn(*map(torch.from_numpy, self.teaching.masks(batch.rows, batch.geometries)))
            elif self.outlines:
                guide = Outlined(torch.from_numpy(self.outlines.of(batch.rows, batch.geometries)))
            yield batch, self._targets(step, batch.rows), guide

    def _targets(self, step: Step, rows: np.ndarray) -> Tensor:
        """1, 0, or NaN for what does not count: also what is present and not as severe as the phase asks for."""
        found = self.train_targets[torch.from_numpy(rows)]
        if not step.phase.severity or not self.severities:
            return found
        milder = torch.from_numpy(self.severities.values[rows] < LEVELS[step.phase.severity])
        return found.masked_fill(milder & (found == 1), torch.nan)

    def _note_unreadable(self, batch: Batch) -> None:
        for row, why in batch.unreadable:
            image_id = self.train.table.column("image_id")[row].as_py()
            if image_id not in self.unreadable:
                self.unreadable[image_id] = why
                self.log(f"unreadable, skipped: {image_id}: {why}")
        limit = self.recipe.data.max_unreadable * len(self.train)
        if len(self.unreadable) > limit:
            image_id, why = next(iter(self.unreadable.items()))
            raise CxrError(
                f"{len(self.unreadable)} of {len(self.train)} training images cannot be read, "
                f"the first is {image_id} ({why}).",
                "See all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
            )
        if len(batch.rows) < 2:  # a batch norm needs two; the loss of one film would be noise anyway
            raise CxrError(
                "A training batch has fewer than two readable images.",
                "See cxrmine check, or take a larger train.batch_size.",
            )

    def _refuse_small_batches(self) -> None:
        share = min(self.recipe.train.batch_size, len(self.taught)) // self.world.num_processes
        if share < 2:
            raise CxrError(
                f"{len(self.taught)} training images in batches of {self.recipe.train.batch_size} "
                f"over {self.world.num_processes} processes leave {share} a process; two are needed.",
                "Take more images, a larger train.batch_size, or fewer processes.",
            )

    def validate(self) -> dict[str, Any]:
        measured = self.measured.measure()
        means = [
            f"{name.replace('_', ' ')} {value:.4f}" for name, value in measured.items() if isinstance(value, float)
        ]
        self.log(f"on validation patients {', '.join(means)}", to_screen=False)
        return measured

    def log(self, line: str, to_screen: bool = True) -> None:
        if self.world.is_main_process:
            with self.folder.log.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            if to_screen:
                console.log(line)


def taught_rows(recipe: Recipe, train: Index) -> np.ndarray:
    """The rows that every phase learns from; attention mining takes those of train.include in its rounds only."""
    if recipe.method == "am" and recipe.train.include:
        return np.flatnonzero(pc.equal(train.table["split"], "train").to_numpy())
    return np.arange(len(train))


def begin_with(objective: torch.nn.Module, start: Run, recipe: Recipe) -> None:
    """Take the weights of a finished run; what it does not have stays as it is."""
    if start.recipe.data.findings != recipe.data.findings:
        raise CxrError(
            f"The run in {start.folder.path} learned other findings, or the same in another order.",
            "train.start needs a run with the same data.findings.",
        )
    weights, own = load_file(start.folder.weights), objective.state_dict()
    shared = weights.keys() & own.keys()
    other = [name for name in shared if weights[name].shape != own[name].shape]
    other += [name for name in weights.keys() ^ own.keys() if name.startswith("backbone.")]
    if other:
        raise CxrError(
            f"The run in {start.folder.path} has another network ({min(other)} differs).",
            "train.start needs a run with the same backbone.",
        )
    objective.load_state_dict({name: weights[name] for name in shared}, strict=False)


def prevalence(labels: Tensor) -> Tensor:
    """Share of positives a finding, among the labels that count; kept off 0 and 1, where log odds end."""
    positives, known = torch.nansum(labels, dim=0), (~torch.isnan(labels)).sum(dim=0)
    return (positives + 0.5) / (known + 1)
