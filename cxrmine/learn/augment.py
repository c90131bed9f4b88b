"""Augmentation on the batch, one draw an image; the same draw moves films and masks alike."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cxrmine.config import Augment


def draw(augment: Augment, seed: int, epoch: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Affine matrices (N×2×3, from output to input in [-1, 1] coordinates) and contrasts (N).

    Every draw depends on (seed, epoch, row) alone: not on the batch, the process or what was drawn before. So a run
    that resumes, or that is spread over processes, sees the same films.
    """
    matrices = np.empty((len(rows), 2, 3), np.float32)
    contrasts = np.empty(len(rows), np.float32)
    for i, row in enumerate(rows):
        u = np.random.default_rng((seed, epoch, int(row))).random(7) * 2 - 1
        angle = np.deg2rad(u[0] * augment.rotate)
        scale = 1 + u[1] * augment.zoom
        side = -1.0 if (u[2] + 1) / 2 < augment.flip else 1.0
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        matrices[i] = ((side * cos, -side * sin, 2 * u[3] * augment.shift), (sin, cos, 2 * u[4] * augment.shift))
        contrasts[i] = 1 + u[5] * augment.contrast
    return torch.from_numpy(matrices), torch.from_numpy(contrasts)


def warp(pixels: Tensor, matrices: Tensor, mode: str = "bilinear") -> Tensor:
    """Move N×C×H×W by N×2×3; what comes from outside is 0."""
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode=mode, padding_mode="zeros", align_corners=False)


def move_cells(cells: Tensor, matrices: Tensor, size: int, stride: float, offset: float) -> Tensor:
    """Move maps N×C×h×w as `matrices` move their films of `size` pixels: each cell takes the cell that lies nearest.

    Cell i is centred at pixel i × stride + offset, so a flip does not just turn their order round: pixel p goes to
    size - 1 - p. What comes from outside the film is 0; beyond the outermost cells the edge is repeated.
    """
    down, across = (torch.arange(n, device=cells.device) * stride + offset for n in cells.shape[2:])
    y, x = torch.meshgrid(*((2 * axis + 1) / size - 1 for axis in (down, across)), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # 3×hw, from -1 to 1
    from_x, from_y = ((matrices.to(places) @ places).unflatten(2, x.shape) + 1).unbind(1)  # N×h×w, from 0 to 2
    inside = (from_x >= 0) & (from_x < 2) & (from_y >= 0) & (from_y < 2)
    row, column = (
        (((place * size - 1) / 2 - offset) / stride).round().long().clamp(0, n - 1)
        for place, n in zip((from_y, from_x), cells.shape[2:], strict=True)
    )
    films = torch.arange(len(cells), device=cells.device)[:, None, None]
    return cells.permute(0, 2, 3, 1)[films, row, column].permute(0, 3, 1, 2) * inside[:, None]


def apply(images: Tensor, matrices: Tensor, contrasts: Tensor) -> Tensor:
    """uint8 N×1×H×W → float32 in 0..255, moved, and stretched about each film's mean."""
    moved = warp(images.float(), matrices)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (moved - mean) * contrasts.view(-1, 1, 1, 1)).clamp(0, 255)
