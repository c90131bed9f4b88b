"""CXR-IRNet: the film weighed by attention over its scales, and features that lie outside lungs and heart set to zero.

Fang et al. 2021, who call it CXR-IRNet. By "the code" is meant the authors' public one.

    A = σ(conv3 [max X, mean X, max X5, mean X5, max X9, mean X9])   N×1×S×S: over channels; X5, X9: X through
    X' = A ⊗ X                                                       5×5 and 9×9 convolutions, 3 → 3, without bias
    Fg = backbone(X')                                                N×D×h×w
    Mg = 1 where lungs and heart cover at least `cut` of a cell      N×1×h×w
    Fl = Fg ⊗ Mg                                                     (3)
    logit_c = w_c · mean Fl + b_c        L = cross entropy           (1)
    map_c = w_c · Fl                     N×C×h×w, before ReLU, without the bias

attention = false and gate = false is CAM. The code passes Fg through a sigmoid before it is gated: `sigmoid`.

Departures. The text says that mask and features are summed as well as that they are multiplied: they are multiplied. A
cell's window is centred where the cell looks, which with DenseNet-121 is 1.5 pixels beside the tiles of adaptive
average pooling, with a ResNet half a cell. The organs are outlined at the size that their network learned, not at 224
pixels. The bias starts at the log odds of the finding's prevalence, as in CAM. The paper's boxes take their size from
the truth; ours are cut from maps like those of any other method. A film of which the organs hold no cell is seen whole:
with all its features at zero it would say nothing, and nobody would know.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrmine.config import Recipe, Step
from cxrmine.data.cells import windows
from cxrmine.learn.network import Backbone, pool
from cxrmine.learn.organs import UNet, outlined
from cxrmine.methods.cam import classification_loss

ROUNDING = 1e-5  # a sum of shares may be off by that; full is full, and half is half


class OrganWeighted(nn.Module):
    def __init__(self, recipe: Recipe, prevalence: Tensor) -> None:
        super().__init__()
        assert recipe.irnet is not None
        self.recipe, self.irnet = recipe, recipe.irnet
        self.backbone = Backbone(recipe.network)
        self.attention = ScaleAttention(recipe.network.input_channels) if self.irnet.attention else nn.Identity()
        self.head = nn.Linear(self.backbone.width, len(prevalence))
        nn.init.normal_(self.head.weight, std=0.01)
        with torch.no_grad():
            self.head.bias.copy_(torch.logit(prevalence))
        self.seen_whole = 0  # films that went through without an organ, but in training
        self.organs = UNet(self.irnet.organ_channels, len(self.irnet.organ_names)) if self.irnet.gate else None
        self.offset = self.backbone.cell_offsets()[1]

    @property
    def map_stride(self) -> float:
        return self.backbone.stride

    def cell_offset(self) -> float:
        return self.offset

    def begin(self, step: Step, before: Path | None = None) -> tuple[str, ...]:
        return ("organs.",) if self.organs else ()

    def take_organs(self, weights: Mapping[str, Tensor]) -> None:
        """Those of the run that irnet.organs names, for good."""
        assert self.organs is not None
        self.organs.load_state_dict({name.removeprefix("net."): value for name, value in weights.items()})

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Films N×1×S×S and targets N×C (1, 0, or NaN: not counted) → the loss and its parts."""
        logits = self.head(pool(self.features(images), self.recipe.network))
        return {"loss": classification_loss(logits, labels, self.recipe.train.balance), "logits": logits}

    @torch.no_grad()
    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films → logits N×C and maps N×1×C×h×w."""
        features = self.features(images)
        maps = F.conv2d(features, self.head.weight[:, :, None, None])
        return self.head(pool(features, self.recipe.network)), maps[:, None]

    def features(self, images: Tensor) -> Tensor:
        """Fl, or Fg without a gate."""
        features = self.backbone.features(self.attention(self.backbone.standardised(images)))
        if self.irnet.sigmoid:
            features = features.sigmoid()
        return features * self.gate(images, features.shape[2:]).to(features) if self.organs else features

    @torch.no_grad()
    def gate(self, images: Tensor, cells: torch.Size) -> Tensor:
        """Mg: N×1×h×w of 0 and 1."""
        assert self.organs is not None
        outlines = outlined(self.organs, images, self.irnet.organ_size)
        any_organ = outlines.any(1, keepdim=True).float()
        with torch.autocast(images.device.type, enabled=False):  # in half precision shares are too coarse
            share = covered(any_organ, cells, self.recipe.data.size, self.map_stride, self.offset)
        kept = share >= self.irnet.cut - ROUNDING
        nothing = ~kept.flatten(1).any(1)
        if not self.training:
            self.seen_whole += int((nothing & images.flatten(1).any(1)).sum())  # not those that only fill a batch
        return kept | nothing[:, None, None, None]


def about_organs(objective: nn.Module, films: str) -> str:
    """What to say where some films had no organ; empty where all had."""
    many = objective.seen_whole if isinstance(objective, OrganWeighted) else 0
    return (
        f"CAREFUL: in {many} {films} no organ was outlined, or less than a cell: they were seen whole." if many else ""
    )


class ScaleAttention(nn.Module):
    """The film N×3×S×S times one weight a pixel, from its channels' maximum and mean at three scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Conv2d(channels, channels, side, padding=side // 2, bias=False) for side in (5, 9)
        )
        self.join = nn.Conv2d(6, 1, 3, padding=1, bias=False)

    def forward(self, films: Tensor) -> Tensor:
        scales = (films, *(scale(films) for scale in self.scales))
        seen = [part for one in scales for part in (one.amax(1, keepdim=True), one.mean(1, keepdim=True))]
        return films * torch.sigmoid(self.join(torch.cat(seen, dim=1)))


def covered(masks: Tensor, cells: torch.Size, size: int, stride: float, offset: float) -> Tensor:
    """N×1×s×s of 0 and 1 → N×1×h×w: the share of each cell's window that they cover."""
    windowed = (windows(n, masks.shape[-1], size, stride, offset) for n in cells)
    down, across = (torch.from_numpy(weights).to(masks.device) for weights in windowed)
    return down @ masks @ across.T
