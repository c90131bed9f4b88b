"""What a run is measured by on its validation patients: one file for what a network says of findings, and of organs."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from cxrmine.config import Recipe
from cxrmine.data.index import Index
from cxrmine.data.outlines import Outlines
from cxrmine.learn.inference import Maps, predict
from cxrmine.learn.loader import batches, inference_groups, targets
from cxrmine.learn.organs import SMOOTH, OrganNet, dice, iou
from cxrmine.scoring.classification import auc, youden_threshold

BATCH = 64  # fixed: the size of a batch must not move a threshold
EVEN = 0.5


class Validation(Protocol):
    def measure(self) -> dict[str, Any]:
        """{"val_loss": …, and figures by finding}"""
        ...

    def thresholds(self) -> dict[str, float]:
        """The probability from which a finding counts as present."""
        ...


class OfFindings:
    def __init__(self, objective: Maps, recipe: Recipe, index: Index, workers: int, world: Accelerator) -> None:
        self.objective, self.recipe, self.index, self.workers, self.world = objective, recipe, index, workers, world
        self.targets = targets(index.labels(), recipe.data).numpy()

    def measure(self) -> dict[str, Any]:
        loss, probabilities, labels = self._evaluate()
        areas = {f: auc(labels[:, c], probabilities[:, c]) for c, f in enumerate(self.recipe.data.findings)}
        return {"val_loss": loss, "macro_auc": _mean(areas.values()), "auc": _without_nan(areas)}

    def thresholds(self) -> dict[str, float]:
        """Youden's."""
        _, probabilities, labels = self._evaluate()
        findings = self.recipe.data.findings
        return {f: youden_threshold(labels[:, c], probabilities[:, c]) for c, f in enumerate(findings)}

    def _evaluate(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Mean cross entropy, probabilities and labels on the validation patients."""
        rows, logits = predict(self.objective, self.index, self.recipe.data, BATCH, self.workers, self.world)
        labels = self.targets[rows]
        known = ~np.isnan(labels)
        losses = np.logaddexp(0, logits) - np.where(known, labels, 0) * logits
        return float(losses[known].mean()), 1 / (1 + np.exp(-logits)), labels


class OfOrgans:
    def __init__(self, objective: OrganNet, recipe: Recipe, index: Index, workers: int, world: Accelerator) -> None:
        self.objective, self.recipe, self.index, self.workers, self.world = objective, recipe, index, workers, world
        self.outlines = Outlines(index, recipe.data.size)
        self.known = torch.from_numpy(index.labels() == 1)

    def measure(self) -> dict[str, Any]:
        """Means over the films that have a mask; the loss of one film alone, averaged."""
        organs = self.recipe.data.findings
        figures = self._figures()
        of = {name: figures[:, :, k] for k, name in enumerate(("val_loss", "dice", "iou"))}
        means = {name: {f: _mean(of[name][:, c].tolist()) for c, f in enumerate(organs)} for name in ("dice", "iou")}
        return {"val_loss": float(np.nanmean(of["val_loss"])), "macro_dice": _mean(means["dice"].values()), **means}

    def thresholds(self) -> dict[str, float]:
        return dict.fromkeys(self.recipe.data.findings, EVEN)

    def _figures(self) -> np.ndarray:
        """Of every film that could be read and every organ: loss, Dice, IoU; NaN without a mask."""
        self.objective.eval()
        groups = inference_groups(len(self.index), BATCH, self.world.process_index, self.world.num_processes)
        found = []
        for batch in batches(self.index, self.recipe.data, groups, self.workers):
            if len(batch.rows):
                masks = torch.from_numpy(self.outlines.of(batch.rows, batch.geometries))
                found.append(self._of_batch(batch.images, masks, self.known[torch.from_numpy(batch.rows)]))
        if self.world.num_processes > 1:
            found = gather_object(found)
        return np.concatenate(found)

    @torch.inference_mode()
    def _of_batch(self, images: Tensor, masks: Tensor, known: Tensor) -> np.ndarray:
        """N×C×3."""
        device = self.world.device
        with self.world.autocast():
            logits = self.objective.net(images.to(device)).float()
        true = masks.to(device).float()
        said = (logits > 0).float()
        figures = torch.stack([1 - dice(logits.sigmoid(), true, SMOOTH), dice(said, true), iou(said, true)], dim=2)
        figures[~known.to(device)] = torch.nan
        return figures.cpu().numpy()


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}
