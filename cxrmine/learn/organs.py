"""Lungs and heart: a U-Net that outlines them, the loss it learns by, and what it says about other films.

Ronneberger et al., "U-Net", MICCAI 2015; the loss is that of Fang et al. 2021, equation 2: with T an organ's mask and P
what the network says of each pixel, 0 to 1,

    dice = 2 Σ P T / (Σ P + Σ T)        loss = 1 - mean of dice over the organs that a film has a mask of

Departures from the first: convolutions are padded, so the outlines have the film's size; batch norm after each;
the way up is linear interpolation; four scales. In the loss both sums get SMOOTH pixels more, or else a film without an
organ would teach nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrmine.config import Recipe, Step

SMOOTH = 1.0  # pixels


class UNet(nn.Module):
    """Films (uint8 or float 0..255, N×1×S×S, of any S that halves three times) → logits N×organs×S×S."""

    def __init__(self, channels: Sequence[int], organs: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(twice(a, b) for a, b in pairwise((1, *channels)))
        up = list(pairwise(channels))
        self.up = nn.ModuleList(twice(fine + coarse, fine) for fine, coarse in up)
        self.outlines = nn.Conv2d(channels[0], organs, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = standardised(images.to(self.outlines.weight.dtype))
        fine = []
        for i, layers in enumerate(self.down):
            features = layers(F.max_pool2d(features, 2) if i else features)
            fine.append(features)
        for layers, beside in zip(reversed(self.up), fine[-2::-1], strict=True):
            larger = F.interpolate(features, size=beside.shape[2:], mode="bilinear", align_corners=False)
            features = layers(torch.cat([beside, larger], dim=1))
        return self.outlines(features)


def twice(wide: int, narrow: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with batch norm and ReLU."""

    def once(before: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(before, narrow, 3, padding=1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()

    return nn.Sequential(*once(wide), *once(narrow))


def standardised(films: Tensor) -> Tensor:
    """Each film by its own mean and deviation: scanners differ in both."""
    mean = films.mean((2, 3), keepdim=True)
    return (films - mean) / (films.std((2, 3), keepdim=True) + 1)


def dice(said: Tensor, true: Tensor, smooth: float = 0.0) -> Tensor:
    """Equation 2 of …×H×W against …×H×W; of two empty masks 1."""
    both = 2 * (said * true).sum((-2, -1)) + smooth
    each = said.sum((-2, -1)) + true.sum((-2, -1)) + smooth
    return torch.where(each > 0, both / torch.where(each > 0, each, 1), 1)


def iou(said: Tensor, true: Tensor) -> Tensor:
    """Of masks of 0 and 1, …×H×W; of two empty ones 1."""
    both = (said * true).sum((-2, -1))
    either = said.sum((-2, -1)) + true.sum((-2, -1)) - both
    return torch.where(either > 0, both / torch.where(either > 0, either, 1), 1)


def dice_loss(said: Tensor, true: Tensor, known: Tensor) -> Tensor:
    """Over the pairs N×C that are `known`, of N×C×H×W."""
    losses = 1 - dice(said, true, SMOOTH)
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


class OrganNet(nn.Module):
    """The objective of the recipe organs. Its findings are the organs."""

    def __init__(self, recipe: Recipe, prevalence: Tensor) -> None:
        super().__init__()
        self.recipe = recipe
        self.net = UNet(recipe.network.channels, len(prevalence))

    def begin(self, step: Step, before: Path | None = None) -> tuple[str, ...]:
        return ()

    def forward(self, images: Tensor, labels: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Films N×1×S×S, labels N×C (1 where there is a mask) and masks N×C×S×S of 0 and 1 → the loss."""
        logits = self.net(images)
        with torch.autocast(images.device.type, enabled=False):  # half precision cannot count a film's pixels
            return {"loss": dice_loss(logits.float().sigmoid(), masks.float(), labels == 1)}


def outlined(net: UNet, images: Tensor, size: int) -> Tensor:
    """Films N×1×S×S, uint8 or float, of any size → masks N×C×s×s, bool, at the size that the network learned."""
    if images.shape[-1] != size:
        images = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
    return net(images) > 0
