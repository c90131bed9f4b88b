"""Backbones, by timm at stride 32, 16 or 8, and the two ways to pool a feature map."""

import copy
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from cxrmine.config import SMALL_RESNET, Network
from cxrmine.errors import CxrError, did_you_mean


class Backbone(nn.Module):
    """Films (uint8 or float 0..255, N×1×S×S) → features (N×D×h×w), h = S / stride."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.body: Any = _body(network)
        self.width: int = self.body.num_features
        self.stride = network.stride
        stages = self.body.feature_info
        finer = [i for i, stage in enumerate(stages) if 2 * stage["reduction"] == stages[-1]["reduction"]]
        self.finer: int | None = finer[-1] if finer else None  # the last stage with twice the last one's resolution
        self.finer_width: int = stages[finer[-1]]["num_chs"] if finer else 0
        self.input_channels = network.input_channels
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))  # ImageNet's
        if network.input_channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("mean", 255 * mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * std.view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(self.standardised(images))

    def features(self, films: Tensor) -> Tensor:
        """Of standardised films."""
        return self.body.forward_features(films)

    def scales(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features of the last stage with twice the last one's resolution, and of the last."""
        return self._scales(self.standardised(images))

    def _scales(self, films: Tensor) -> tuple[Tensor, Tensor]:
        deep, (finer,) = self.body.forward_intermediates(films, indices=[-1 if self.finer is None else self.finer])
        return finer, deep

    def standardised(self, images: Tensor) -> Tensor:
        films = images.to(self.mean.dtype).expand(-1, self.input_channels, -1, -1)
        return (films - self.mean) / self.std

    @torch.no_grad()
    def refuse_other_maps(self, size: int, name: str) -> None:
        """Try one film: not every model of timm reads any size, or leaves a map of the stride it was asked for."""
        try:
            shape = tuple(self.eval()(torch.zeros(1, 1, size, size)).shape)
        except (AssertionError, RuntimeError, ValueError) as fault:
            why = str(fault).splitlines()[0]
            raise CxrError(
                f"{name} cannot read films of {size} pixels ({why}).", "Take another data.size, or a ResNet."
            ) from None
        cells = -(-size // self.stride)
        if shape != (1, self.width, cells, cells):
            raise CxrError(
                f"{name} leaves {shape[1:]} of a film of {size} pixels, not a map of {self.width} × {cells} × {cells}.",
                "Take a convolutional model, for instance a ResNet or a DenseNet.",
            )
        self.cell_offsets()
        self.train()

    @torch.no_grad()
    def cell_offsets(self) -> tuple[float, float]:
        """Where cell i of the two scales is centred: input pixel i × the scale's stride + this.

        0 where every layer is padded symmetrically (ResNets); 14 for DenseNets, whose 2×2 averages have their centre
        between two pixels. Measured on a copy whose kernels keep their middle: films that rise and that fall from left
        to right come out as the place a cell looks at, and their mean undoes what a max pool adds to the one.
        """
        probe = copy.deepcopy(self).cpu().eval()
        for name, parameter in probe.body.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") or parameter.ndim == 4 else 1.0)
            if parameter.ndim == 4:
                height, width = parameter.shape[2:]
                middle = parameter[:, :, (height - 1) // 2 : height // 2 + 1, (width - 1) // 2 : width // 2 + 1]
                middle.fill_(1 / middle[0].numel())
        side = 4 * self.stride
        ramp = torch.arange(side, dtype=torch.float32).expand(self.input_channels, side, side)
        finer, deep = probe._scales(torch.stack([torch.ones_like(ramp), ramp, side - 1 - ramp]))
        return _centre(finer, side), _centre(deep, side)


def _centre(features: Tensor, side: int) -> float:
    """Of the features of a film of ones, one that rises and one that falls: where a cell in the middle looks, less its
    number times the stride."""
    cells = features.shape[-1]
    cell = cells // 2
    one, rising, falling = features[:, :, cell, cell].sum(1).tolist()
    if not one:
        raise CxrError(
            "Where this backbone's cells lie on the film cannot be measured.", "Take a ResNet or a DenseNet."
        )
    centre = (rising / one + side - 1 - falling / one) / 2
    return round(2 * (centre - cell * side / cells)) / 2


def _body(network: Network) -> Any:
    if network.backbone == SMALL_RESNET:
        return ResNet(
            BasicBlock,  # type: ignore[arg-type]
            layers=network.layers,
            channels=network.channels,
            stem_width=network.channels[0] // 2,
            stem_type="deep",
            output_stride=network.stride,
            in_chans=network.input_channels,
            num_classes=0,
        )
    if not timm.is_model(network.backbone):
        raise CxrError(
            f"network.backbone = {network.backbone} is no model of timm.",
            f"For instance resnet18, resnet50, densenet121.{did_you_mean(network.backbone, timm.list_models())}",
        )
    options: dict[str, Any] = {"output_stride": network.stride} if network.stride != 32 else {}
    try:
        body = timm.create_model(
            network.backbone, pretrained=False, num_classes=0, in_chans=network.input_channels, **options
        )
    except (TypeError, NotImplementedError) as fault:
        raise CxrError(
            f"{network.backbone} cannot run at network.stride = {network.stride} ({fault}).",
            "Use stride 32, or a ResNet.",
        ) from None
    if network.weights == "imagenet":
        _load_imagenet(body, network)
    elif network.weights != "none":
        _load_file(body, Path(network.weights))
    return body


def _load_imagenet(body: Any, network: Network) -> None:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from timm.models import load_pretrained

    try:
        load_pretrained(body, num_classes=0, in_chans=network.input_channels)
    except (OSError, RuntimeError, HfHubHTTPError, LocalEntryNotFoundError):
        source = body.pretrained_cfg.get("hf_hub_id") or body.pretrained_cfg.get("url") or network.backbone
        raise CxrError(
            f"The ImageNet weights of {network.backbone} ({source}) could not be had: no network, or no such weights.",
            f"Bring the file model.safetensors of {source} and say --set network.weights=FILE, "
            "or train from scratch with --set network.weights=none.",
        ) from None


def _load_file(body: Any, path: Path) -> None:
    if not path.is_file():
        raise CxrError(f"network.weights: there is no file {path}.", "Give a safetensors file, imagenet or none.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as fault:
        raise CxrError(f"{path} is not a safetensors file ({fault}).", "Convert the weights to safetensors.") from None
    wanted = body.state_dict()
    state = {k: v for k, v in state.items() if not k.startswith(("fc.", "classifier.", "head."))}
    stem = body.pretrained_cfg.get("first_conv")
    first = state.get(f"{stem}.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 3 and wanted[f"{stem}.weight"].shape[1] == 1:
        state[f"{stem}.weight"] = state[f"{stem}.weight"].sum(1, keepdim=True)  # three equal channels become one
    missing = sorted(k for k in wanted if k not in state and not k.endswith("num_batches_tracked"))
    wrong = sorted(k for k in state if k not in wanted or state[k].shape != wanted[k].shape)
    if missing or wrong:
        raise CxrError(
            f"{path} does not fit this backbone: {len(missing)} tensors missing {missing[:2]}, "
            f"{len(wrong)} unknown or of another shape {wrong[:2]}.",
            "Use weights of the same backbone (torchvision's and timm's ResNets fit).",
        )
    body.load_state_dict(state, strict=False)


def between_cells(count: int, cells: int, step: float, first: float) -> Tensor:
    """count×cells: weights that read a row of cells at first, first + step, …, linearly; beyond the ends the end."""
    place = (first + step * torch.arange(count)).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def gap(features: Tensor) -> Tensor:
    """Global average: N×D×h×w → N×D."""
    return features.mean(dim=(2, 3))


def lse(features: Tensor, r: float) -> Tensor:
    """Log-sum-exp: (1/r) log mean exp(r x), between the average (r → 0) and the maximum (r → ∞)."""
    count = features.shape[2] * features.shape[3]
    return (torch.logsumexp(r * features.flatten(2), dim=2) - torch.log(torch.tensor(float(count)))) / r


def pool(features: Tensor, network: Network) -> Tensor:
    return gap(features) if network.pool == "gap" else lse(features, network.lse_r)
