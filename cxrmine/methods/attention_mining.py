"""Iterative attention mining: erase what a finding's map shows most, and learn to see what else there is.

Cai et al., "Iterative Attention Mining for Weakly Supervised Thoracic Disease Pattern Localization in Chest X-Rays",
MICCAI 2018. AM, KP and MSA are its attention mining, knowledge preservation and multi-scale aggregation.

    X = [up(r(X_k)), r'(X_(k-1))]          MSA: the last stage at twice its resolution, which is that of the 3rd
                                                (of a network with stride 8 or 16: that of an earlier one)  N×D×h×w
    X̂^c = X ⊙ M^c                          (1)  M^c: 0 where finding c is erased                      N×C×h×w
    L^c = CE(σ(w_c · g(X̂^c) + b_c), y^c)    (2)  g: the average of all cells, the erased zeros included
    L_cls = mean over c of L^c               (3)
    L^k = ‖g(X_A(k)) − g(X_B(k))‖ / (N − n)  (4)  A: the network before the rounds; B: this one; the N − n films that
    L_KP = mean over k of L^k                (5)  are not erased; k: 3rd and 4th stage, MSA, logits
    L = L_cls + λ L_KP                       (6)
    H_t^c = (X ⊙ M_(t-1)^c) w_c              (7)  w_c · X here; boxes/erase.py multiplies by the mask
    H_f                                      (8)  boxes/erase.py

Training: phases of kind base (the backbone with a head of its own), plain (with MSA), then mine.rounds of kind round.
Round t learns with the masks M_(t-1), which the weights of round t - 1 gave on films as they are. Mining replays the
rounds: H_t from the weights of round t. With msa = "none" and no rounds this is CAM.

Departures, where the paper is silent or where it says otherwise:
- A bias, which starts at the log odds of the finding's prevalence; batch norm and ReLU after each new convolution.
- `up` interpolates between the places that cells really look at: for a ResNet new cell j is old cell j/2. A
  deconvolution begins as that interpolation of a ResNet's cells.
- Masks are normalised maps cut at 0.5 where normalised means ReLU, then division by the maximum (boxes/erase.py).
- Findings that a film does not have keep masks of ones, unless am.erase_absent says otherwise.
- Equation 4 is read as printed: one norm over the matrix of films × channels. am.kp_norm = "image" takes it by film.
- With several processes, batch norm and equation 4 see each process's own films.
- network.pool = "lse" puts log-sum-exp in the place of g in equation 2, erased cells counting as zeros there, too.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cxrmine.config import Network, Recipe, Step
from cxrmine.errors import CxrError
from cxrmine.learn.checkpoint import load_weights
from cxrmine.learn.network import Backbone, between_cells, gap, pool
from cxrmine.method_keys import AttentionMining
from cxrmine.methods.cam import classification_loss


class Layers(NamedTuple):
    """What equation 5 calls K, of N films."""

    finer: Tensor  # N×D×h×w, the 3rd stage of a network with stride 32
    last: Tensor
    aggregated: Tensor | None  # without MSA there is none
    logits: Tensor  # N×C, nothing erased

    def averages(self) -> list[Tensor]:
        maps = [gap(layer) for layer in (self.finer, self.last, self.aggregated) if layer is not None]
        return [*maps, self.logits]


class AttentionMiner(nn.Module):
    def __init__(self, recipe: Recipe, prevalence: Tensor) -> None:
        super().__init__()
        assert recipe.am is not None
        self.recipe, self.am = recipe, recipe.am
        self.backbone = Backbone(recipe.network)
        self.head = linear(self.backbone.width, prevalence)  # the plain network's
        if self.am.msa != "none":
            self.msa = Aggregation(self.am, self.backbone)
            self.msa_head = linear(sum(self.am.msa_channels), prevalence)
        self.before: list[AttentionMiner] = []  # network A; in a list, so that it is no part of the weights
        self.begin(recipe.schedule[-1])

    @property
    def map_stride(self) -> float:
        return self.backbone.stride if self.plain else self.backbone.stride / 2

    def cell_offset(self) -> float:
        finer, deep = self.backbone.cell_offsets()
        return deep if self.plain else finer

    def begin(self, step: Step, before: Path | None = None) -> tuple[str, ...]:
        """Prepare for a phase; where kp = full, `before` has the weights of network A. → the part that is not used."""
        self.plain = step.phase.kind == "base" or self.am.msa == "none"
        self.before = []
        if before and self.am.kp == "full":
            self.before = [copy.deepcopy(self).requires_grad_(False)]
            load_weights(before, self.before[0])
        return ("msa",) if self.plain else ("head",)

    def forward(
        self, images: Tensor, labels: Tensor, erased: Tensor | None = None, where: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Films N×1×S×S and targets N×C → the loss and its parts.

        `where` (N) is true of the films that are erased: where `erased` (N×C×h×w) is 1.
        """
        layers, features = self.layers(images)
        logits = layers.logits
        if erased is not None and where is not None:
            kept = (1 - erased[where]).expand(-1, -1, *features.shape[2:])
            pooled = pool_erased(features[where], kept, self.recipe.network)
            logits = logits.masked_scatter(where[:, None].expand_as(logits), self.classify(pooled).to(logits.dtype))
        loss = classification_loss(logits, labels, self.recipe.train.balance)
        if not self.before or where is None or where.all():
            return {"loss": loss, "logits": logits}
        apart = preservation(*self.averages_of_both(images, layers, ~where), self.am.kp_norm)
        weight = torch.full_like(loss, self.am.kp_weight)
        if self.am.kp_balance == "loss":
            weight = weight * loss.detach() / apart.detach().clamp(min=1e-12)
        return {"loss": loss + weight * apart, "logits": logits, "classification": loss, "preservation": apart}

    def layers(self, images: Tensor) -> tuple[Layers, Tensor]:
        """Every layer that knowledge preservation looks at, and X, which the logits are pooled from."""
        finer, last = self.backbone.scales(images)
        aggregated = None if self.plain else self.msa(finer, last)
        features = last if aggregated is None else aggregated
        logits = self.top()(pool(features, self.recipe.network))
        return Layers(finer, last, aggregated, logits), features

    def averages_of_both(self, images: Tensor, now: Layers, which: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        network_a = self.before[0].eval()
        with torch.no_grad():
            then, _ = network_a.layers(images[which])
        return [average[which] for average in now.averages()], then.averages()

    def top(self) -> nn.Linear:
        return self.head if self.plain else self.msa_head

    def classify(self, pooled: Tensor) -> Tensor:
        """N×C×D, of each finding its own features → logits N×C."""
        return (pooled * self.top().weight).sum(2) + self.top().bias

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → logits N×C and maps N×1×C×h×w, nothing erased."""
        layers, features = self.layers(images)
        maps = nn.functional.conv2d(features, self.top().weight[:, :, None, None])
        return layers.logits, maps[:, None]


class Aggregation(nn.Module):
    """MSA: the last stage, reduced and brought to twice its resolution, beside the stage that has it, reduced."""

    def __init__(self, am: AttentionMining, backbone: Backbone) -> None:
        super().__init__()
        if backbone.finer is None:
            raise CxrError(
                "This backbone has no stage with twice the resolution of its last.",
                "Say am.msa = none, or take a ResNet or a DenseNet.",
            )
        deep, finer = am.msa_channels
        self.reduce_deep = reduction(backbone.width, deep)
        self.reduce_finer = reduction(backbone.finer_width, finer)
        self.up: nn.Module | None = None
        if am.msa == "deconv":
            up = nn.ConvTranspose2d(deep, deep, 3, stride=2, padding=1, output_padding=1, bias=False)
            nn.init.zeros_(up.weight)
            with torch.no_grad():  # begins as bilinear interpolation of each channel
                tent = torch.tensor([0.5, 1.0, 0.5])
                up.weight[range(deep), range(deep)] = torch.outer(tent, tent)
            self.up = nn.Sequential(up, nn.BatchNorm2d(deep), nn.ReLU())
        finer_offset, deep_offset = backbone.cell_offsets()
        self.shift = (finer_offset - deep_offset) / backbone.stride  # of a deep cell

    def forward(self, finer: Tensor, deep: Tensor) -> Tensor:
        reduced = self.reduce_deep(deep)
        height, width = finer.shape[-2:]  # where that is odd, a deconvolution makes one more
        raised = self.up(reduced)[..., :height, :width] if self.up else self.interpolate(reduced, (height, width))
        return torch.cat([raised, self.reduce_finer(finer)], dim=1)

    def interpolate(self, cells: Tensor, size: Sequence[int]) -> Tensor:
        down, across = (
            between_cells(n, m, 1 / 2, self.shift).to(cells) for n, m in zip(size, cells.shape[-2:], strict=True)
        )
        return down @ cells @ across.T


class Replay(nn.Module):
    """The network of every round, one after another on the same films."""

    def __init__(self, rounds: Sequence[AttentionMiner]) -> None:
        super().__init__()
        self.rounds = nn.ModuleList(rounds)
        self.map_stride, self.offset = rounds[-1].map_stride, rounds[-1].cell_offset()

    def cell_offset(self) -> float:
        return self.offset

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → logits of the last round N×C and maps of each N×T×C×h×w, nothing erased."""
        seen: list[tuple[Tensor, Tensor]] = [network.infer(images) for network in self.rounds]  # type: ignore[operator]
        return seen[-1][0], torch.cat([maps for _, maps in seen], dim=1)


def linear(width: int, prevalence: Tensor) -> nn.Linear:
    """A head whose bias says how common each finding is."""
    head = nn.Linear(width, len(prevalence))
    nn.init.normal_(head.weight, std=0.01)
    with torch.no_grad():
        head.bias.copy_(torch.logit(prevalence))
    return head


def reduction(wide: int, narrow: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU())


def pool_erased(features: Tensor, kept: Tensor, network: Network) -> Tensor:
    """Equation 1 and g: features N×D×h×w and masks N×C×h×w (1: kept) → what each finding's branch sees, N×C×D."""
    kept = kept.to(features.dtype)
    if network.pool == "gap":  # one product for all findings, without N×C×D×h×w in between
        cells = features.flatten(2)
        return kept.flatten(2) @ cells.mT / cells.shape[2]
    return torch.stack([pool(features * mask[:, None], network) for mask in kept.unbind(1)], dim=1)


def preservation(now: Sequence[Tensor], before: Sequence[Tensor], norm: str) -> Tensor:
    """Equations 4 and 5: of each layer the averages M×D of network B and of network A."""
    apart = [b - a for b, a in zip(now, before, strict=True)]
    if norm == "batch":
        return torch.stack([d.norm() / len(d) for d in apart]).mean()
    return torch.stack([d.norm(dim=1).mean() for d in apart]).mean()
