"""Attention-guided curriculum learning: severe films first, and the maps of confident films are learned again.

Tang et al., "Attention-Guided Curriculum Learning for Weakly Supervised Classification and Localization of Thoracic
Diseases on Chest Radiographs", MLMI 2018. An iteration (stages/seeds.py runs it):

1. Curriculum (section 2.2). For each finding a two-way network, fine-tuned from the multi-label one: severe films, then
   moderate ones too, then mild ones, each time with as many normal films. Equation 1 is its map,
       H_c = Σ_d w_c(d) f_d    w_c: the weights of `present`
2. Seeds (section 2.3). S1: severe and moderate films of the finding. S2: films that have it, with P(present) > t.
   Those of the iterations before stay seeds.
3. Attention. The multi-label network learns its labels and, on seeds, their maps:
       Loss = Loss_cls + λ Σ_c 1_c Loss_reg    Loss_reg = Σ_d Σ_xy smoothL1(Ĥ_c − H_c)    (equations 2 to 4)

AGL is 2 and 3 without 1: seeds and maps are the multi-label network's own, and there is no S1.

Decisions and departures.
- The terms of equation 2 do not depend on d. regression = map takes it as printed: D equal terms. regression = channels
  compares what each channel adds, w_c(d) f_d, which the seeds then need kept of every channel.
- Loss_cls is the sum over the findings of a film, averaged over the batch, as the layer of the paper's framework has
  it; λ is a weight beside that. Cells that augmentation moves in from outside the film teach nothing.
- t is not printed; 0.9 is ours. The network of an iteration begins with the weights of the one before.
- A finding of which no film's severity is known has no network of its own: its seeds are those of AGL.
- Networks of findings share nothing but their start, as in the paper: an iteration trains C of them, and sees every
  film of known severity once a stage and finding. They are gone once their seeds are found.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrmine.config import Recipe, Step
from cxrmine.learn.network import Backbone, pool
from cxrmine.methods.cam import classification_loss

ABSENT, PRESENT = 0, 1  # of a two-way network


class SeverityCurriculum(nn.Module):
    """The multi-label network; before its first iteration it is the paper's baseline."""

    def __init__(self, recipe: Recipe, prevalence: Tensor) -> None:
        super().__init__()
        assert recipe.agcl is not None
        self.recipe, self.agcl = recipe, recipe.agcl
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
        self,
        images: Tensor,
        labels: Tensor,
        maps: Tensor | None = None,
        inside: Tensor | None = None,
        of: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Films N×1×S×S and targets N×C → the loss and its parts.

        The maps of seeds, P×1×h×w or P×D×h×w, are of the film and the finding that `of` (P×2) says; cells count where
        `inside` (P×1×h×w) is 1.
        """
        features = self.backbone(images)
        logits = self.head(pool(features, self.recipe.network))
        loss = classification_loss(logits, labels, self.recipe.train.balance) * labels.shape[1]
        if maps is None or inside is None or of is None:
            return {"loss": loss, "logits": logits}
        film, finding = of.unbind(1)
        own = seed_maps(features[film], self.head.weight[finding], self.agcl.regression)
        repeated = 1 if self.agcl.regression == "channels" else features.shape[1]
        regression = smooth_l1((own - maps) * inside).sum() * repeated / len(images)
        weight = torch.full_like(loss, self.agcl.weight)
        if self.agcl.balance == "loss":
            weight = weight * loss.detach() / regression.detach().clamp(min=1e-12)
        return {"loss": loss + weight * regression, "logits": logits, "classification": loss, "regression": regression}

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → logits N×C and maps N×1×C×h×w."""
        features = self.backbone(images)
        maps = F.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(pool(features, self.recipe.network)), maps[:, None]

    @torch.no_grad()
    def grade(self, images: Tensor, finding: int) -> tuple[Tensor, Tensor]:
        """Films → P(finding) N, and its maps as seeds keep them. (AGL)"""
        features = self.backbone(images)
        logits = self.head(pool(features, self.recipe.network))[:, finding]
        return logits.sigmoid(), seed_maps(features, self.head.weight[None, finding], self.agcl.regression)


class TwoWay(nn.Module):
    """The network of one finding: the multi-label one's features, and a fresh layer of two outputs with a softmax."""

    def __init__(self, network: SeverityCurriculum) -> None:
        super().__init__()
        self.recipe, self.regression = network.recipe, network.agcl.regression
        self.backbone = Backbone(network.recipe.network.model_copy(update={"weights": "none"}))
        self.backbone.load_state_dict(network.backbone.state_dict())
        self.head = nn.Linear(self.backbone.width, 2)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Films N×1×S×S and whether each has the finding (N×1) → softmax cross entropy."""
        logits = self.logits(self.backbone(images))
        return {"loss": F.cross_entropy(logits, labels[:, 0].long()), "logits": logits}

    def logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(pool(features, self.recipe.network))
        return logits

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → log odds N×1 and maps N×1×1×h×w."""
        features = self.backbone(images)
        logits = self.logits(features)
        maps = F.conv2d(features, self.head.weight[PRESENT, None, :, None, None])
        return (logits[:, PRESENT] - logits[:, ABSENT])[:, None], maps[:, None]

    @torch.no_grad()
    def grade(self, images: Tensor, finding: int = 0) -> tuple[Tensor, Tensor]:
        """Films → P(present) N, and maps as seeds keep them."""
        features = self.backbone(images)
        likely = self.logits(features).softmax(dim=1)[:, PRESENT]
        return likely, seed_maps(features, self.head.weight[None, PRESENT], self.regression)


def seed_maps(features: Tensor, weights: Tensor, regression: str) -> Tensor:
    """Equation 1 of films P×D×h×w, by weights P×D, or 1×D for all: the sum P×1×h×w, or its terms P×D×h×w."""
    terms = features * weights[:, :, None, None]
    return terms if regression == "channels" else terms.sum(dim=1, keepdim=True)


def smooth_l1(z: Tensor) -> Tensor:
    """Equation 3."""
    return F.smooth_l1_loss(z, torch.zeros_like(z), reduction="none", beta=1.0)
