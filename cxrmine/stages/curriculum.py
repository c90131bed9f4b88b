"""The two-way network of one finding: what it sees at each stage of the curriculum, and its training.

A stage (a phase of kind finding) has the films whose finding is at least as severe as its key says, or just that severe
(agcl.stages = alone), and as many films without any finding. Which normal films, and the order, follow from the seed,
the iteration, the finding, the stage and the epoch.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from cxrmine import console
from cxrmine.config import Phase, Recipe, Step
from cxrmine.data.index import Index
from cxrmine.data.severities import LEVELS
from cxrmine.learn.guides import Guide
from cxrmine.learn.loader import Batch, batches, steps_an_epoch
from cxrmine.learn.loop import Loop
from cxrmine.methods.severity_curriculum import TwoWay
from cxrmine.runs import RunFolder
from cxrmine.stages.validation import OfFindings

CURRICULUM = 2  # tells these random orders from those of the epochs and of the rounds
VALIDATION = 3


class Stage(NamedTuple):
    phase: Phase
    films: np.ndarray  # rows that have the finding


class Films(NamedTuple):
    """Of one finding: all films, which have it, how severe it is, and which have no finding at all."""

    of: Index
    present: np.ndarray
    severity: np.ndarray
    normal: np.ndarray  # rows


def stages_of(recipe: Recipe, films: Films, fewest: int = 2) -> list[Stage]:
    """The stages that have films, the severe ones first; none where the severity of no film is known, or no film is
    normal. `fewest`: films that a step needs."""
    assert recipe.agcl is not None
    if not len(films.normal) or not films.severity[films.present].any():
        return []
    found = []
    for phase in recipe.train.phases:
        if phase.kind == "finding":
            level = LEVELS.get(phase.severity, 0)
            alone = phase.severity and recipe.agcl.stages == "alone"
            chosen = films.severity == level if alone else films.severity >= level
            rows = np.flatnonzero(films.present & chosen)
            if 2 * len(rows) >= fewest:
                found.append(Stage(phase.model_copy(update={"kind": "plain"}), rows))
    return found


def order_of(stage: Stage, normal: np.ndarray, key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The films of an epoch in their order, and which have the finding: all of the stage, and as many normal ones, no
    one twice before every one came once."""
    rng = np.random.default_rng(key)
    turns = [rng.permutation(normal) for _ in range(0, len(stage.films), len(normal))]
    others = np.concatenate(turns)[: len(stage.films)]
    rows = np.concatenate([stage.films, others])
    order = rng.permutation(len(rows))
    return rows[order], order < len(stage.films)


class Curriculum:
    """The course of one finding in one iteration."""

    def __init__(
        self,
        recipe: Recipe,
        films: Films,
        validation: Films,
        stages: list[Stage],
        key: tuple[int, int],
        folder: RunFolder,
        world: Accelerator,
        workers: int,
        unreadable: Callable[[Batch], None],
    ) -> None:
        """key: iteration, finding. `unreadable` is told of every batch."""
        phases = tuple(stage.phase for stage in stages)
        train = recipe.train.model_copy(update={"phases": phases, "start": ""})
        self.recipe = recipe.model_copy(update={"train": train})
        self.films, self.stages, self.key = films, stages, key
        self.folder, self.world, self.workers, self.unreadable = folder, world, workers, unreadable
        self.validation = validation

    def train(self, network: TwoWay) -> None:
        finding = self.recipe.data.findings[self.key[1]]
        only = self.recipe.model_copy(update={"data": self.recipe.data.model_copy(update={"findings": (finding,)})})
        index = balanced(self.validation, self.recipe.train.seed).restrict([finding])
        self.measured = OfFindings(network, only, index, self.workers, self.world) if len(index) else None
        many = [steps_an_epoch(2 * len(stage.films), self.recipe.train.batch_size) for stage in self.stages]
        total = sum(steps * stage.phase.epochs for steps, stage in zip(many, self.stages, strict=True))
        label = f"iteration {self.key[0]}, {finding}"
        with console.progress_bar(total, label, "steps", self.world.is_main_process) as bar:
            Loop(network, self.recipe, self, self.folder, self.world, bar).run()

    def films_of(self, step: Step) -> int:
        return 2 * len(self._stage(step).films)

    def _stage(self, step: Step) -> Stage:
        return next(stage for stage in self.stages if stage.phase == step.phase)

    def begin(self, step: Step) -> tuple[str, ...]:
        return ()

    def batches(self, step: Step, epoch: int, first: int) -> Iterator[tuple[Batch, Tensor, Guide | None]]:
        stage = self._stage(step)
        key = (self.recipe.train.seed, *self.key, self.stages.index(stage), epoch, CURRICULUM)
        rows, present = order_of(stage, self.films.normal, key)
        size = min(self.recipe.train.batch_size, len(rows))
        rank, processes = self.world.process_index, self.world.num_processes
        whole = range(first * size, len(rows) + 1 - size, size)
        groups = [rows[start : start + size][rank::processes] for start in whole]
        has = np.zeros(len(self.films.of), np.float32)
        has[rows[present]] = 1
        for batch in batches(self.films.of, self.recipe.data, groups, self.workers):
            self.unreadable(batch)
            yield batch, torch.from_numpy(has[batch.rows])[:, None], None

    def validate(self) -> dict[str, Any]:
        return self.measured.measure() if self.measured else {"val_loss": math.inf}

    def end(self, step: Step) -> None:
        return


def balanced(films: Films, seed: int) -> Index:
    """The films that have the finding, and as many normal ones, as far as there are."""
    keep = films.present.copy()
    drawn = np.random.default_rng((seed, VALIDATION)).permutation(films.normal)
    keep[drawn[: np.count_nonzero(films.present)]] = True
    return films.of.filter(keep)
