"""Pair by pair: the whole prediction of a pair against all its truth boxes (Ouyang et al. 2021)."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxrmine.boxes import regions
from cxrmine.boxes.geometry import area, disjoint, intersection, union_overlaps
from cxrmine.data.images import Fit, fit_geometry
from cxrmine.errors import CxrError
from cxrmine.scoring.figures import IOR_THRESHOLDS
from cxrmine.scoring.judged import Judged
from cxrmine.scoring.localization import IOU_THRESHOLDS, Columns
from cxrmine.scoring.protocols import Protocol

CELLS = 20_000_000  # of the grids that unions are measured on, held at a time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def pair_columns(
    judged: Judged, drawn: pa.Table | None, sizes: Floats, protocol: Protocol, fit: Fit = "stretch"
) -> Columns:
    """Whether each pair passes each threshold of IoU and of IoR."""
    overlap, inside = pair_overlaps(judged, drawn if protocol.region == "region" else None, sizes, fit)
    columns: Columns = {("iou", f"{t:g}"): protocol.passes(overlap, t) for t in IOU_THRESHOLDS}
    return columns | {("ior", f"{t:g}"): protocol.passes(inside, t) for t in IOR_THRESHOLDS}


def pair_overlaps(judged: Judged, drawn: pa.Table | None, sizes: Floats, fit: Fit) -> tuple[Floats, Floats]:
    """(IoU, IoR) of each judged pair: its whole prediction against all its truth boxes; 0 without a prediction.

    The prediction is the union of the pair's regions (`drawn`: region, region_height and region_width of every judged
    box), or of its boxes where a region is missing or not asked for. `sizes`: width and height of each pair's film.
    """
    shared, predicted, truth = _unions_of_boxes(judged)
    if drawn is not None and drawn["region"].null_count < len(drawn):
        for pair, rows in _rows_by_pair(judged):
            theirs = judged.truth[slice(*np.searchsorted(judged.truth_pair, [pair, pair + 1]))]
            overlap = _region_overlap(drawn.slice(rows.start, rows.stop - rows.start), theirs, sizes[pair], fit)
            if overlap is not None:
                shared[pair], predicted[pair], truth[pair] = overlap
    union = predicted + truth - shared
    return (
        np.divide(shared, union, out=np.zeros_like(shared), where=union > 0),
        np.divide(shared, predicted, out=np.zeros_like(shared), where=predicted > 0),
    )


def _unions_of_boxes(judged: Judged) -> tuple[Floats, Floats, Floats]:
    """(shared, predicted, truth) area of each pair, from the unions of its boxes; pairs of equal counts go together."""
    pairs = len(judged.pair_finding)
    result = np.zeros((3, pairs))
    boxes, truths = (np.bincount(of, minlength=pairs) for of in (judged.pair, judged.truth_pair))
    first_box, first_truth = np.cumsum(boxes) - boxes, np.cumsum(truths) - truths
    kind = boxes * (truths.max(initial=0) + 1) + truths
    for code in np.flatnonzero(np.bincount(kind)).tolist():
        alike = np.flatnonzero(kind == code)
        k, m = int(boxes[alike[0]]), int(truths[alike[0]])
        if k == m == 1:
            ours, theirs = judged.boxes[first_box[alike]], judged.truth[first_truth[alike]]
            result[:, alike] = intersection(ours, theirs), area(ours), area(theirs)
            continue
        for some in np.array_split(alike, max(1, len(alike) * (2 * (k + m)) ** 2 // CELLS)):
            ours = judged.boxes[first_box[some, None] + np.arange(k)]
            theirs = judged.truth[first_truth[some, None] + np.arange(m)]
            result[:, some] = union_overlaps(ours, theirs)
    return result[0], result[1], result[2]


def _region_overlap(rows: pa.Table, truth: Floats, size: Floats, fit: Fit) -> tuple[float, float, float] | None:
    """(shared, predicted, truth) area in the frame of the regions; None where a row has no region."""
    if rows["region"].null_count:
        return None
    frames = set(zip(rows["region_height"].to_pylist(), rows["region_width"].to_pylist(), strict=True))
    side, other_side = next(iter(frames))
    if len(frames) > 1 or side is None or side != other_side or not np.isfinite(size).all():
        raise CxrError("The regions of a pair are not in one square frame of known size.", "Mine the boxes again.")
    mask = np.zeros((side, side), dtype=bool, order="F")  # as run lengths go
    for rle in rows["region"]:
        mask |= regions.decode(rle.as_py(), side, side)
    width, height = (int(v) for v in size)
    geometry = fit_geometry(width, height, side, fit)
    film = geometry.to_input(np.array([[0.0, 0.0, width, height]]))  # what lies beside the film is no prediction
    inside = geometry.to_input(truth)
    everywhere = film[0].tolist() == [0, 0, side, side]
    predicted = float(np.count_nonzero(mask)) if everywhere else regions.area_inside(mask, film)
    return regions.area_inside(mask, inside), predicted, float(area(disjoint(inside)).sum())


def _rows_by_pair(judged: Judged) -> Iterator[tuple[int, slice]]:
    pairs, first, count = np.unique(judged.pair, return_index=True, return_counts=True)
    for pair, start, rows in zip(pairs.tolist(), first.tolist(), count.tolist(), strict=True):
        yield pair, slice(start, start + rows)
