"""How much of a mask lies in a cell of a map, or in a box: both are windows on the pixels of the network's input."""

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


def parts(starts: NDArray[np.floating], ends: NDArray[np.floating], pixels: int, size: int) -> Weights:
    """n × pixels: how much of each interval, in input pixels of one axis of `size`, each of a mask's `pixels` makes up.

    Rows add up to 1. What of an interval lies beyond the input does not count; where all of it does, the row is 0.
    """
    edges = np.arange(pixels + 1) * (size / pixels)
    starts, ends = (np.asarray(side, float)[:, None] for side in (starts, ends))
    inside = np.maximum(np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1]), 0)
    whole = inside.sum(axis=1, keepdims=True)
    return (inside / np.where(whole > 0, whole, 1)).astype(np.float32)


def windows(cells: int, pixels: int, size: int, stride: float, offset: float) -> Weights:
    """cells × pixels, for windows of one stride about the place that each cell looks at (i × stride + offset)."""
    centres = np.arange(cells) * stride + offset + 0.5
    return parts(centres - stride / 2, centres + stride / 2, pixels, size)


def covered(mask: NDArray[np.bool_], boxes: NDArray[np.floating], size: int) -> Weights:
    """n: the share of each box n×4, in input pixels, that the mask s×s covers."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    across = parts(boxes[:, 0], boxes[:, 2], mask.shape[1], size)
    down = parts(boxes[:, 1], boxes[:, 3], mask.shape[0], size)
    return np.einsum("ny,yx,nx->n", down, mask.astype(np.float32), across)
