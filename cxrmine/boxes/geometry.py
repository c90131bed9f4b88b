"""Boxes as n×4 arrays of `x_min, y_min, x_max, y_max`: floats, half-open, so width is x_max - x_min and nothing adds 1.

Whether the unit is a pixel of the original image, of the network's input, or a fraction of the image is the caller's;
two boxes that meet here must be in the same one. Every function takes zero boxes. Sums are float64: a table's float32
coordinates come in, and a ratio that is exactly a threshold must not pass it by rounding.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def as_boxes(boxes: npt.ArrayLike) -> Floats:
    """n×4 float64; an empty list counts as 0×4."""
    array = np.asarray(boxes, dtype=np.float64)
    return array.reshape(0, 4) if array.size == 0 else array.reshape(-1, 4)


def area(boxes: npt.ArrayLike) -> Floats:
    """n×4 → n; an inverted box has none."""
    b = as_boxes(boxes)
    return np.maximum(b[:, 2] - b[:, 0], 0) * np.maximum(b[:, 3] - b[:, 1], 0)


def intersection(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Row by row: n×4 and n×4 → n."""
    return _overlap(as_boxes(a), as_boxes(b))


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Intersection over union, row by row: n×4 and n×4 → n."""
    shared = intersection(a, b)
    return _ratio(shared, area(a) + area(b) - shared)


def ior(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    """Intersection over the PREDICTED area (IoBB where the prediction is a box), row by row: n×4 and n×4 → n."""
    return _ratio(intersection(predicted, truth), area(predicted))


def intersection_matrix(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """All pairs: n×4 and m×4 → n×m."""
    return _overlap(as_boxes(a)[:, None], as_boxes(b)[None])


def iou_matrix(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """All pairs: n×4 and m×4 → n×m."""
    shared = intersection_matrix(a, b)
    return _ratio(shared, area(a)[:, None] + area(b)[None] - shared)


def union_overlap(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[float, float, float]:
    """(shared area, area of a, area of b) of the union of n boxes and the union of m boxes, exactly."""
    a, b = as_boxes(a), as_boxes(b)
    xs, ys = (np.unique(np.concatenate([a, b])[:, axis::2]) for axis in (0, 1))
    cells = np.outer(np.diff(ys), np.diff(xs))
    in_a, in_b = _covered(a, xs, ys), _covered(b, xs, ys)
    return float(cells[in_a & in_b].sum()), float(cells[in_a].sum()), float(cells[in_b].sum())


def union_overlaps(a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    """The same for n groups at once: n×k×4 and n×m×4 → (shared area, area of a, area of b), each n."""
    both = np.concatenate([a, b], axis=1)
    xs, ys = (np.sort(both[:, :, axis::2].reshape(len(both), 2 * both.shape[1]), axis=1) for axis in (0, 1))
    across, down = np.diff(xs, axis=1), np.diff(ys, axis=1)
    in_a, in_b = (_covered_cells(boxes, xs, ys) for boxes in (a, b))
    areas = (np.einsum("nyx,ny,nx->n", cells, down, across, optimize=False) for cells in (in_a & in_b, in_a, in_b))
    shared, of_a, of_b = areas
    return shared, of_a, of_b


def disjoint(boxes: npt.ArrayLike) -> Floats:
    """The same area without overlaps: the cells of the grid that the boxes' own edges draw."""
    b = as_boxes(boxes)
    if len(b) == 1:
        return b[area(b) > 0]
    xs, ys = np.unique(b[:, 0::2]), np.unique(b[:, 1::2])
    row, column = np.nonzero(_covered(b, xs, ys))
    return np.stack([xs[column], ys[row], xs[column + 1], ys[row + 1]], axis=1).reshape(-1, 4)


def clip(boxes: npt.ArrayLike, width: float, height: float) -> Floats:
    """Cut at the image's edges; a box wholly outside is left with no area, not dropped."""
    b = as_boxes(boxes)
    return np.stack(
        [b[:, 0].clip(0, width), b[:, 1].clip(0, height), b[:, 2].clip(0, width), b[:, 3].clip(0, height)], 1
    )


def middles(boxes: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """n×4: the first pixel whose middle lies in a box, and the first beyond it, of columns and of rows."""
    return np.ceil(as_boxes(boxes) - 0.5).astype(np.int64)


def scale(boxes: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Multiply the x by `x` and the y by `y`: two numbers, or one of each a row."""
    factors = np.stack(np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64)), -1)
    return as_boxes(boxes) * np.concatenate([factors, factors], -1)


def mean_box(boxes: npt.ArrayLike) -> Floats:
    """The mean of every coordinate, as 1×4; of no box, 0×4."""
    b = as_boxes(boxes)
    return b.mean(axis=0, keepdims=True) if len(b) else b


def typical_box(boxes: npt.ArrayLike) -> Floats:
    """The box with the highest mean IoU to the others (tie: the first), as 1×4; of no box, 0×4."""
    b = as_boxes(boxes)
    if len(b) == 0:
        return b
    # A box's IoU with itself adds the same 1 to every sum (0 for a box without area), so subtract what it adds.
    to_others = iou_matrix(b, b).sum(axis=1) - (area(b) > 0)
    return b[[int(np.argmax(to_others.round(12)))]]  # rounded: a tie must not be decided by the order of summation


def _covered(boxes: Floats, xs: Floats, ys: Floats) -> npt.NDArray[np.bool_]:
    """Which cells between the lines `xs` and `ys` (all edges of the boxes among them) some box covers."""
    covered = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), dtype=bool)
    columns, rows = np.searchsorted(xs, boxes[:, 0::2]), np.searchsorted(ys, boxes[:, 1::2])
    for (left, right), (top, bottom) in zip(columns, rows, strict=True):
        covered[top:bottom, left:right] = True
    return covered


def _covered_cells(boxes: Floats, xs: Floats, ys: Floats) -> npt.NDArray[np.bool_]:
    """n×rows×columns: the same for n groups of boxes, each with its own lines."""
    covered = np.zeros((len(boxes), ys.shape[1] - 1, xs.shape[1] - 1), dtype=bool)
    for k in range(boxes.shape[1]):
        box = boxes[:, k, :, None]
        across = (box[:, 0] <= xs[:, :-1]) & (box[:, 2] >= xs[:, 1:])
        down = (box[:, 1] <= ys[:, :-1]) & (box[:, 3] >= ys[:, 1:])
        covered |= down[:, :, None] & across[:, None, :]
    return covered


def _overlap(a: Floats, b: Floats) -> Floats:
    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    high = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return np.maximum(wide, 0) * np.maximum(high, 0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """0 where the whole is empty."""
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
