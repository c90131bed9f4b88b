"""Pair by pair: the whole prediction of a pair against all its truth boxes (Ouyang et al. 2021)."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxrmine.boxes import regions
from cxrmine.boxes.geometry import area, disjoint, intersection, union_overlap
from cxrmine.data.images import Fit, fit_geometry
from cxrmine.errors import CxrError
from cxrmine.scoring.localization import Judged
from cxrmine.scoring.protocols import Protocol

IOR_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
FRAME = ["region_height", "region_width", "image_width", "image_height"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def pair_overlaps(
    judged: Judged, table: pa.Table, source: Literal["region", "boxes"], fit: Fit
) -> tuple[Floats, Floats]:
    """(IoU, IoR) of each judged pair: its whole prediction against all its truth boxes; 0 without a prediction.

    The prediction is the union of the pair's regions, or of its boxes where a region is missing or not asked for.
    """
    shared, predicted, truth = _unions_of_boxes(judged)
    if source == "region" and table["region"].null_count < len(table):
        for pair, rows in _rows_by_pair(judged):
            overlap = _region_overlap(table.take(pa.array(rows)), judged.truth[judged.truth_pair == pair], fit)
            if overlap is not None:
                shared[pair], predicted[pair], truth[pair] = overlap
    union = predicted + truth - shared
    return (
        np.divide(shared, union, out=np.zeros_like(shared), where=union > 0),
        np.divide(shared, predicted, out=np.zeros_like(shared), where=predicted > 0),
    )


def shares(
    judged: Judged, values: Floats, thresholds: tuple[float, ...], protocol: Protocol
) -> dict[str, dict[str, float]]:
    """By finding, the share of pairs that pass each threshold."""
    return {
        name: {f"{t:g}": float(protocol.passes(values[judged.pair_finding == f], t).mean()) for t in thresholds}
        for f, name in enumerate(judged.findings)
    }


def _unions_of_boxes(judged: Judged) -> tuple[Floats, Floats, Floats]:
    """(shared, predicted, truth) area of each pair, from the unions of its boxes."""
    pairs = len(judged.pair_finding)
    hulls = [_hulls(b, p, pairs) for b, p in ((judged.boxes, judged.pair), (judged.truth, judged.truth_pair))]
    (ours, simple), (theirs, simple_truth) = hulls
    predicted, truth = area(ours), area(theirs)
    shared = intersection(ours, theirs)
    for pair in np.flatnonzero(~(simple & simple_truth)):
        rows = slice(*np.searchsorted(judged.pair, [pair, pair + 1]))
        truths = slice(*np.searchsorted(judged.truth_pair, [pair, pair + 1]))
        shared[pair], predicted[pair], truth[pair] = union_overlap(judged.boxes[rows], judged.truth[truths])
    return shared, predicted, truth


def _hulls(boxes: Floats, pair: Ints, pairs: int) -> tuple[Floats, Bools]:
    """Each pair's smallest enclosing box, and whether it is one of its boxes: then it is their union too."""
    hulls, simple = np.zeros((pairs, 4)), np.ones(pairs, dtype=bool)
    if len(boxes):
        present, first = np.unique(pair, return_index=True)
        low, high = np.minimum.reduceat(boxes[:, :2], first), np.maximum.reduceat(boxes[:, 2:], first)
        hulls[present] = np.concatenate([low, high], axis=1)
        simple[present] = np.maximum.reduceat(area(boxes), first) >= area(hulls[present])
    return hulls, simple


def _region_overlap(rows: pa.Table, truth: Floats, fit: Fit) -> tuple[float, float, float] | None:
    """(shared, predicted, truth) area in the frame of the regions; None where a row has no region."""
    if rows["region"].null_count:
        return None
    frames = {tuple(row.values()) for row in rows.select(FRAME).to_pylist()}
    side, other_side, width, height = next(iter(frames))
    if len(frames) > 1 or None in (side, width, height) or side != other_side:
        pair = f"{rows['image_id'][0].as_py()}, {rows['finding'][0].as_py()}"
        raise CxrError(f"The regions of {pair} are not in one square frame of known size.", "Mine the boxes again.")
    mask = np.zeros((side, side), dtype=bool, order="F")  # as run lengths go
    for rle in rows["region"]:
        mask |= regions.decode(rle.as_py(), side, side)
    geometry = fit_geometry(width, height, side, fit)
    film = geometry.to_input(np.array([[0.0, 0.0, width, height]]))  # what lies beside the film is no prediction
    inside = geometry.to_input(truth)
    return regions.area_inside(mask, inside), regions.area_inside(mask, film), float(area(disjoint(inside)).sum())


def _rows_by_pair(judged: Judged) -> Iterator[tuple[int, Ints]]:
    if len(judged.row) == 0:  # which np.split would make into one part
        return
    pairs, first = np.unique(judged.pair, return_index=True)
    for pair, rows in zip(pairs, np.split(judged.row, first[1:]), strict=True):
        yield int(pair), rows
