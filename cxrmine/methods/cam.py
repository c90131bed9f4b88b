"""Class activation maps: multi-label classification, and what each pixel adds to each finding's logit.

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016; on chest films Wang et al., CVPR 2017.
The control that every later method must beat.

    X = backbone(image)               N×D×h×w
    logit_c = w_c · pool(X) + b_c     pool = global average (the paper) or log-sum-exp
    map_c = w_c · X                   N×C×h×w, before ReLU, without the bias: with gap its mean is the logit less b_c

Departures. The bias starts at the log odds of the finding's prevalence: rare findings would otherwise learn negative
maps first, only to say "absent". With pool = lse the map is the same product; its mean is then not the logit.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrmine.config import Recipe, Step
from cxrmine.learn.network import Backbone, pool


class Cam(nn.Module):
    def __init__(self, recipe: Recipe, prevalence: Tensor) -> None:
        super().__init__()
        self.recipe = recipe
        self.backbone = Backbone(recipe.network)
        self.head = nn.Linear(self.backbone.width, len(prevalence))
        nn.init.normal_(self.head.weight, std=0.01)
        with torch.no_grad():
            self.head.bias.copy_(torch.logit(prevalence))

    @property
    def map_stride(self) -> float:
        return self.backbone.stride

    def cell_offset(self) -> float:
        return self.backbone.cell_offsets()[1]

    def begin(self, step: Step, before: Path | None = None) -> tuple[str, ...]:
        return ()

    def forward(
        self, images: Tensor, labels: Tensor, cells: Tensor | None = None, where: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Films N×1×S×S and targets N×C (1, 0, or NaN: not counted) → the loss and its parts."""
        logits = self.head(pool(self.backbone(images), self.recipe.network))
        return {"loss": classification_loss(logits, labels, self.recipe.train.balance), "logits": logits}

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → logits N×C and maps N×1×C×h×w."""
        features = self.backbone(images)
        maps = F.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(pool(features, self.recipe.network)), maps[:, None]


def classification_loss(logits: Tensor, labels: Tensor, balance: str) -> Tensor:
    """Mean cross entropy over the labels that count.

    balance = batch (Wang 2017, equation 1): (P+N)/P for the positives and (P+N)/N for the negatives of the batch,
    halved so that a balanced batch weighs as without.
    """
    counted = ~torch.isnan(labels)
    targets = torch.where(counted, labels, torch.zeros_like(labels))
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weights = counted.to(losses.dtype)
    if balance == "batch":
        positives = (targets * weights).sum()
        total = weights.sum()
        rarity = torch.where(targets > 0, total / positives.clamp(min=1), total / (total - positives).clamp(min=1))
        weights = weights * rarity / 2
        return (losses * weights).sum() / total.clamp(min=1)
    return (losses * weights).sum() / weights.sum().clamp(min=1)
