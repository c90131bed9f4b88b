"""Hierarchical attention mining: a map of each finding, inside a map of anything abnormal, inside a foreground.

Ouyang et al., "Learning Hierarchical Attention for Weakly-Supervised Chest X-Ray Abnormality Localization and
Diagnosis", IEEE TMI 40 (2021). FAB is its foreground attention block. By "the code" is meant the authors' public one.

    X = backbone(image)                                             N×D×h×w, stride 8
    F = conv3([X, conv2(FAB(conv1(X)))])                            N×channels×h×w
    logit_c = w_c · LSE(F), and v · LSE(F) for "any finding"
    M^c = ReLU(w_c · F),  M^p = ReLU(v · F)                    (1)  of finding c, and the positive map
    T(M) = σ(α (M̂ - β)), M̂: M brought to 0..1                  (2)
    L_bound = mean over present c of 1 - Σ min(M^p, M^c) T(M^c) / Σ M^c             (3)
    M^u = max over present c of M^c                            (4)
    L_union = 1 - Σ min(M^p, M^u) T(M^p) / Σ M^p               (5)
    L_amse = mean over boxed c of Σ (T(M^c) - G^c)² / (Σ T(M^c) + Σ G^c)            (6)  G: 1 inside the boxes
    L = L_ab + z L_amse + λ1 L_pn + λ2 L_bound + λ3 L_union    (7)  L_ab, L_pn: cross entropy of findings, and of any

With foreground = "none" and positive, bound, union = false this is CAM (without its bias; ham.bias has one).

What the paper leaves open is taken from the code: the FAB's layers and its scale, which starts at 0; heads without a
bias; batch norm after each new convolution, ReLU after the last, dropout; min and max over the map as normalisation;
a map that is zero everywhere has lost nothing to bound or union.

Departures:
- Where the code differs from the paper the paper is followed, and ham's keys marked (code) choose otherwise.
- Bound and union are means over the images with a finding, the box loss over those with boxes: others add nothing.
- A map comes to input size between the places that its cells look at, not stretched from corner to corner.
- foreground = "none" is the backbone alone, without the three convolutions; the paper does not say.
- Mining cuts the normalised map at input size: at β + ln(t / (1 - t)) / α, where the soft mask is t. The paper's 0.999
  is 0.469. The same cells are above it as with the soft mask first, and boxes keep an order among them.
- Of several processes, each sums a finding's errors (average = "finding") over its own films.
- Findings that nobody judged (NaN) count as absent from the union; "any finding" is unknown where that hangs on them.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from cxrmine.config import Recipe, Step
from cxrmine.learn.network import Backbone, between_cells, pool
from cxrmine.learn.parallel import mean_over_processes
from cxrmine.method_keys import HierarchicalAttention
from cxrmine.methods.cam import classification_loss

EMPTY = 1e-5  # what the sum of a map is at least taken for


class HierarchicalMiner(nn.Module):
    def __init__(self, recipe: Recipe, prevalence: Tensor) -> None:
        super().__init__()
        assert recipe.ham is not None
        self.recipe, self.ham = recipe, recipe.ham
        self.backbone = Backbone(recipe.network)
        self.encoder = Encoder(self.ham, self.backbone.width) if self.ham.foreground != "none" else nn.Identity()
        width = self.backbone.width if self.ham.foreground == "none" else self.ham.channels
        self.finding_head = head(width, prevalence, self.ham.bias)
        if self.ham.positive:
            self.positive_head = head(width, 1 - torch.prod(1 - prevalence, 0, keepdim=True), self.ham.bias)
        self.offset = self.backbone.cell_offsets()[1]

    @property
    def map_stride(self) -> float:
        return self.backbone.stride

    def cell_offset(self) -> float:
        return self.offset

    def begin(self, step: Step, before: Path | None = None) -> tuple[str, ...]:
        return ()

    def forward(
        self, images: Tensor, labels: Tensor, masks: Tensor | None = None, of: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Films N×1×S×S and targets N×C → the loss and its parts.

        `masks` (P×S×S) has 1 where a box is; `of` (P×2) names each mask's film and finding.
        """
        ham = self.ham
        features = self.encoder(self.backbone(images))
        pooled = pool(features, self.recipe.network)
        logits = self.finding_head(pooled)
        findings = classification_loss(logits, labels, self.recipe.train.balance)
        parts = {"loss": findings, "logits": logits, "findings": findings}
        maps = self.attention(features, self.finding_head)  # N×C×h×w
        if ham.positive:
            parts["positive"] = classification_loss(self.positive_head(pooled), any_finding(labels), "none")
            parts["loss"] = parts["loss"] + ham.positive_weight * parts["positive"]
        if ham.bound or ham.union:
            positive, present = self.attention(features, self.positive_head), labels == 1
            if ham.bound:
                lost = outside(maps, positive, self.mask(maps))
                parts["bound"] = mean_over(lost, present, ham.average)
                parts["loss"] = parts["loss"] + ham.bound_weight * parts["bound"]
            if ham.union:
                union = torch.where(present[:, :, None, None], maps, 0).amax(1, keepdim=True)
                lost = outside(positive, union, self.mask(positive))
                parts["union"] = mean_over(lost, present.any(1, keepdim=True), ham.average)
                parts["loss"] = parts["loss"] + ham.union_weight * parts["union"]
        if masks is not None and of is not None:
            parts["boxes"] = self.box_loss(maps[of[:, 0], of[:, 1]], masks.float(), of, labels.shape)
            parts["loss"] = parts["loss"] + ham.box_weight * parts["boxes"]
        return parts

    def attention(self, features: Tensor, of: nn.Linear) -> Tensor:
        """Equation 1; in full precision, as α magnifies what is lost."""
        weights = of.weight.detach() if self.ham.detach_heads else of.weight
        with torch.autocast(features.device.type, enabled=False):
            return nn.functional.conv2d(features.float(), weights[:, :, None, None]).relu()

    def mask(self, maps: Tensor) -> Tensor:
        """Equation 2, for the bound and union losses."""
        if self.ham.soft_mask == "raw":
            return soft_mask(maps, self.ham.alpha, self.ham.raw_beta)
        return soft_mask(normalised(maps, self.ham.normalise), self.ham.alpha, self.ham.beta)

    def at_input(self, maps: Tensor) -> Tensor:
        """Soft masks P×S×S of maps P×h×w, for the box loss."""
        ham, size = self.ham, self.recipe.data.size
        if ham.soft_first:
            return raised(soft_mask(normalised(maps, ham.normalise), ham.alpha, ham.beta), size, self)
        return soft_mask(normalised(raised(maps, size, self), ham.normalise), ham.alpha, ham.beta)

    def box_loss(self, maps: Tensor, masks: Tensor, of: Tensor, shape: torch.Size) -> Tensor:
        """Equation 6, or the plain mean square: of the maps P×h×w of the pairs that have boxes; `shape`: N and C."""
        seen = self.at_input(maps)
        error = (seen - masks).square().sum((1, 2))
        pixels = torch.full_like(error, masks.shape[1] * masks.shape[2])
        whole = (seen + masks).sum((1, 2)) if self.ham.box_loss == "amse" else pixels
        at = (of[:, 0], of[:, 1])
        errors, wholes = (error.new_zeros(shape).index_put(at, values) for values in (error, whole))
        boxed = wholes > 0
        if self.ham.average == "finding":  # all errors of a finding over all its sums
            errors, wholes, boxed = errors.sum(0, keepdim=True), wholes.sum(0, keepdim=True), boxed.any(0, keepdim=True)
        return mean_over(errors / wholes.clamp(min=EMPTY), boxed, "image")

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → logits N×C and maps N×1×C×h×w, which mining divides by their maximum."""
        features = self.encoder(self.backbone(images))
        maps = self.attention(features, self.finding_head)
        if self.ham.normalise == "minmax":
            maps = maps - maps.amin((2, 3), keepdim=True)
        return self.finding_head(pool(features, self.recipe.network)), maps[:, None]


class Encoder(nn.Module):
    """The foreground block between its convolutions, beside the backbone's features."""

    def __init__(self, ham: HierarchicalAttention, width: int) -> None:
        super().__init__()
        inner = max(1, width // 4)
        self.before = convolution(width, inner)
        self.block = ForegroundBlock(inner, ham.foreground, ham.reduction)
        self.after = convolution(inner, inner)
        self.join = nn.Sequential(convolution(width + inner, ham.channels), nn.ReLU(), nn.Dropout2d(ham.dropout))

    def forward(self, features: Tensor) -> Tensor:
        return self.join(torch.cat([features, self.after(self.block(self.before(features)))], dim=1))


class ForegroundBlock(nn.Module):
    """Weights for the channels, then one map of places, added to the input; which: channel, position or both."""

    def __init__(self, width: int, which: str, reduction: int) -> None:
        super().__init__()
        narrow = max(1, width // reduction)
        self.weigh: nn.Module | None = None
        if which != "position":
            self.look = nn.Conv2d(width, 1, 1, bias=False)
            self.mix = nn.Conv2d(width, width, 1, bias=False)
            wide = (nn.Linear(width, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, width, bias=False))
            self.weigh = nn.Sequential(*wide, nn.Sigmoid())
        self.gate: nn.Module | None = None
        if which != "channel":
            self.flatten = nn.Conv2d(width, 1, 1, bias=False)
            self.gate = nn.Sequential(convolution(1, 1), nn.Sigmoid())
        self.scale = nn.Parameter(torch.zeros(1))
        as_the_code_begins(self)

    def forward(self, features: Tensor) -> Tensor:
        found = features
        if self.weigh:
            places = self.look(features).flatten(2).softmax(2)  # N×1×hw
            summary = (features.flatten(2) @ places.mT).squeeze(2)  # N×width
            found = self.mix(features) * self.weigh(summary)[:, :, None, None]
        if self.gate:
            found = self.flatten(found)  # N×1×h×w
            found = found * self.gate(found)
        return features + self.scale * found


def convolution(wide: int, narrow: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(wide, narrow, 3, padding=1, bias=False), nn.BatchNorm2d(narrow))
    as_the_code_begins(layers)
    return layers


def as_the_code_begins(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def head(width: int, prevalence: Tensor, bias: bool) -> nn.Linear:
    layer = nn.Linear(width, len(prevalence), bias=bias)
    nn.init.uniform_(layer.weight, -(width**-0.5), width**-0.5)
    if bias:
        with torch.no_grad():
            layer.bias.copy_(torch.logit(prevalence))
    return layer


def any_finding(labels: Tensor) -> Tensor:
    """N×C of 1, 0 and NaN → N×1: 1 where one is, NaN where none is and one is unknown."""
    known = torch.nan_to_num(labels, nan=0.0).amax(1, keepdim=True)
    unknown = (known != 1) & torch.isnan(labels).any(1, keepdim=True)
    return torch.where(unknown, torch.nan, known)


def normalised(maps: Tensor, how: str) -> Tensor:
    """Maps …×h×w, none negative, each by its own: (M - min) / (max - min), where a flat one is 0; or M / max."""
    low = maps.amin((-2, -1), keepdim=True) if how == "minmax" else torch.zeros_like(maps[..., :1, :1])
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / torch.where(span > 0, span, 1)


def soft_mask(maps: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.sigmoid(alpha * (maps - beta))


def outside(inner: Tensor, outer: Tensor, mask: Tensor) -> Tensor:
    """Equations 3 and 5: the share of each map N×C×h×w that is not in the other, where the mask lets it count."""
    whole = inner.sum((2, 3))
    return (whole - (torch.minimum(inner, outer) * mask).sum((2, 3))) / whole.clamp(min=EMPTY)


def mean_over(losses: Tensor, chosen: Tensor, first: str) -> Tensor:
    """Mean of the chosen of N×C: over each image's, then over the images that have one; first = finding: transposed.

    Of several processes: over the images of all of them, so that one without such images does not thin out the others'.
    """
    axis = 1 if first == "image" else 0
    count = chosen.sum(axis)
    each = torch.where(chosen, losses, 0).sum(axis) / count.clamp(min=1)
    having = mean_over_processes((count > 0).sum().to(losses.dtype))
    return each.sum() / torch.where(having > 0, having, 1)


def raised(maps: Tensor, size: int, lie: HierarchicalMiner) -> Tensor:
    """P×h×w → P×S×S, linearly between the places that cells look at; in full precision, too."""
    stride = lie.map_stride
    down, across = (between_cells(size, n, 1 / stride, -lie.offset / stride).to(maps) for n in maps.shape[1:])
    with torch.autocast(maps.device.type, enabled=False):
        return down @ maps @ across.T
