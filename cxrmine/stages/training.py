"""The half of `train` that needs torch: a run's data, and what the loop asks for: batches and a validation."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from cxrmine import console
from cxrmine.config import Recipe
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.learn.checkpoint import save_weights
from cxrmine.learn.inference import predict
from cxrmine.learn.loader import Batch, batches, steps_an_epoch, targets, training_groups
from cxrmine.learn.loop import Loop
from cxrmine.methods.registry import build
from cxrmine.runs import RunFolder, write_thresholds
from cxrmine.scoring.classification import auc, youden_threshold

VALIDATION_BATCH = 64  # fixed: the size of a batch must not move a threshold


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
    ) -> None:
        self.recipe, self.train, self.validation = recipe, train, validation
        self.folder, self.world, self.workers = folder, world, workers
        self.train_targets = targets(train.labels(), recipe.data)
        self.validation_targets = targets(validation.labels(), recipe.data)
        self.unreadable: dict[str, str] = {}
        self._refuse_small_batches()
        torch.manual_seed(recipe.train.seed)
        objective = build(recipe, prevalence(self.train_targets))
        self.objective = objective.to(world.device).to(memory_format=torch.channels_last)

    def run(self) -> None:
        main = self.world.is_main_process
        if main:
            parameters = sum(p.numel() for p in self.objective.parameters()) / 1e6
            self.log(
                f"{len(self.train)} training and {len(self.validation)} validation images, "
                f"{parameters:.2f} M parameters on {self.world.device}"
            )
        total = steps_an_epoch(len(self.train), self.recipe.train.batch_size)
        total *= sum(phase.epochs for phase in self.recipe.train.phases)
        with console.progress_bar(total, f"train {self.recipe.name}", "steps", shown=main) as bar:
            loop = Loop(
                self.objective, self.recipe, len(self.train), self.batches, self.validate, self.folder, self.world, bar
            )
            if loop.at.steps_done:
                self.log(f"goes on from step {loop.at.steps_done}")
            loop.run()
        _, probabilities, labels = self.evaluate()
        if main:
            findings = self.recipe.data.findings
            cuts = {f: youden_threshold(labels[:, c], probabilities[:, c]) for c, f in enumerate(findings)}
            write_thresholds(self.folder, cuts)
            save_weights(self.folder.weights, self.objective)
            self.log("done")

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Batch, Tensor]]:
        train = self.recipe.train
        world = self.world
        groups = training_groups(
            len(self.train), train.batch_size, train.seed, epoch, first, world.process_index, world.num_processes
        )
        for batch in batches(self.train, self.recipe.data, groups, self.workers):
            self._note_unreadable(batch)
            yield batch, self.train_targets[torch.from_numpy(batch.rows)]

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
        share = min(self.recipe.train.batch_size, len(self.train)) // self.world.num_processes
        if share < 2:
            raise CxrError(
                f"{len(self.train)} training images in batches of {self.recipe.train.batch_size} "
                f"over {self.world.num_processes} processes leave {share} a process; two are needed.",
                "Take more images, a larger train.batch_size, or fewer processes.",
            )

    def evaluate(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean cross entropy, probabilities and labels on the validation patients."""
        rows, logits = predict(
            self.objective, self.validation, self.recipe.data, VALIDATION_BATCH, self.workers, self.world
        )
        labels = self.validation_targets.numpy()[rows]
        known = ~np.isnan(labels)
        losses = np.logaddexp(0, logits) - np.where(known, labels, 0) * logits
        return float(losses[known].mean()), 1 / (1 + np.exp(-logits)), labels

    def validate(self) -> dict[str, Any]:
        loss, probabilities, labels = self.evaluate()
        areas = {f: auc(labels[:, c], probabilities[:, c]) for c, f in enumerate(self.recipe.data.findings)}
        known = [area for area in areas.values() if not np.isnan(area)]
        macro = float(np.mean(known)) if known else None
        self.log(f"validation loss {loss:.4f}, macro AUC {macro or float('nan'):.3f}", to_screen=False)
        return {"val_loss": loss, "macro_auc": macro, "auc": {f: None if np.isnan(a) else a for f, a in areas.items()}}

    def log(self, line: str, to_screen: bool = True) -> None:
        if self.world.is_main_process:
            with self.folder.log.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            if to_screen:
                console.log(line)


def prevalence(labels: Tensor) -> Tensor:
    """Share of positives a finding, among the labels that count; kept off 0 and 1, where log odds end."""
    positives, known = torch.nansum(labels, dim=0), (~torch.isnan(labels)).sum(dim=0)
    return (positives + 0.5) / (known + 1)
