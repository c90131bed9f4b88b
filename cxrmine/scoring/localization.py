"""What each judged pair adds to the papers' measures of boxes: truth boxes hit, false boxes, first boxes.

A box passes T when its overlap with some truth box of its pair is above T (at T, where the protocol says so). Acc is
truth boxes hit over truth boxes; a box that passes with none is false, and a second box on a truth already hit is not.
Every figure is a ratio of two sums over pairs, so the same columns give its value, its interval and its differences.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cxrmine.boxes.geometry import area
from cxrmine.scoring.judged import Judged, Matches
from cxrmine.scoring.protocols import Protocol

IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
IOBB_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
BOXACC_THRESHOLDS = (0.3, 0.5, 0.7)
THIRDS = ("small", "middle", "large")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bounds = Mapping[str, Mapping[str, float]]  # finding → T ("0.3") → largest AFP
Columns = dict[tuple[str, str], npt.NDArray]  # (what, "T" or "") → P: what each pair adds


def box_columns(
    judged: Judged, matches: Matches, protocol: Protocol, images: Ints, bounds: Bounds | None = None
) -> Columns:
    """Columns of acc_afp by IoU and by IoBB, iobb, top1, truth_iou, centre and Acc by the truth's size.

    With bounds, the list of boxes (rank 1 of all images, then rank 2, …) is taken up to the one that would bring AFP
    by IoU above; `images` is AFP's denominator by finding, and used for nothing else.
    """
    pairs = len(judged.pair_finding)
    columns: Columns = {
        ("one", ""): np.ones(pairs, np.int64),
        ("truth", ""): np.bincount(judged.truth_pair, minlength=pairs),
        ("boxes", ""): np.bincount(judged.pair, minlength=pairs),
    }
    order = _list_order(judged, protocol) if bounds is not None else None
    third = size_third(judged)
    for t in IOU_THRESHOLDS:
        key = f"{t:g}"
        false = ~protocol.passes(matches.best, t)
        taken = np.ones(len(false), dtype=bool)
        if bounds is not None and order is not None:
            limits = np.array([bounds.get(name, {}).get(key, np.inf) for name in judged.findings])
            taken[order] = _within(false[order], judged.finding[order], limits * images)
        hit = _hit(judged, matches, protocol.passes(matches.iou, t) & taken[matches.box])
        columns |= _per_pair(judged, key, "", hit, false & taken, taken)
        for k, name in enumerate(THIRDS):
            columns[f"hit {name}", key] = np.bincount(judged.truth_pair[hit & (third == k)], minlength=pairs)
    for k, name in enumerate(THIRDS):
        columns[f"truth {name}", ""] = np.bincount(judged.truth_pair[third == k], minlength=pairs)
    for t in IOBB_THRESHOLDS:
        hit = _hit(judged, matches, protocol.passes(matches.ior, t))
        false = ~protocol.passes(matches.best_ior, t)
        columns |= _per_pair(judged, f"{t:g}", "_iobb", hit, false, np.ones(len(false), dtype=bool))
    for t in BOXACC_THRESHOLDS:  # with ≥, whatever the protocol
        columns["any", f"{t:g}"] = np.zeros(pairs, np.int64)
        columns["any", f"{t:g}"][judged.pair[matches.best >= t]] = 1
    columns["any", "mean"] = np.mean([columns["any", f"{t:g}"] for t in BOXACC_THRESHOLDS], axis=0)
    columns["true_iobb", "0.25"] = columns["boxes", ""] - columns["false_iobb", "0.25"]
    columns |= _first_boxes(judged, matches)
    columns["truth missing", ""] = columns["truth", ""] * columns["missing", ""]
    return columns


def size_third(judged: Judged) -> Ints:
    """0, 1 or 2 of each truth box: which third of all judged truth boxes its area is in; equal areas are together."""
    sizes = area(judged.truth)
    return np.searchsorted(size_edges(judged), sizes, side="left") if len(sizes) else np.empty(0, np.int64)


def size_edges(judged: Judged) -> Floats:
    """The largest area that is small, and the largest that is middle, in square pixels of the film."""
    sizes = np.sort(area(judged.truth))
    return sizes[[(len(sizes) - 1) // 3, 2 * (len(sizes) - 1) // 3]] if len(sizes) else np.empty(0)


def _hit(judged: Judged, matches: Matches, passes: Bools) -> Bools:
    """Which truth boxes some box passes with."""
    hit = np.zeros(len(judged.truth), dtype=bool)
    hit[matches.truth[passes]] = True
    return hit


def _per_pair(judged: Judged, key: str, kind: str, hit: Bools, false: Bools, taken: Bools) -> Columns:
    pairs = len(judged.pair_finding)
    return {
        (f"hit{kind}", key): np.bincount(judged.truth_pair[hit], minlength=pairs),
        (f"false{kind}", key): np.bincount(judged.pair[false], minlength=pairs),
        (f"taken{kind}", key): np.bincount(judged.pair[taken], minlength=pairs),
    }


def _first_boxes(judged: Judged, matches: Matches) -> Columns:
    """Of each pair's first box: its IoU with the best truth box, the sum of its IoUs with all of them, its centre.

    A pair without a box counts 0.
    """
    pairs = len(judged.pair_finding)
    first = judged.first
    pair = judged.pair[first]
    top1, centre, missing = np.zeros(pairs), np.zeros(pairs, np.int64), np.ones(pairs, np.int64)
    top1[pair], missing[pair] = matches.best[first], 0
    is_first = np.zeros(len(judged.pair), dtype=bool)
    is_first[first] = True
    rows = np.flatnonzero(is_first[matches.box])
    inside = centre_inside(judged.boxes[matches.box[rows]], judged.truth[matches.truth[rows]])
    centre[judged.pair[matches.box[rows[inside]]]] = 1
    with_each = np.bincount(judged.pair[matches.box[rows]], weights=matches.iou[rows], minlength=pairs)
    return {("top1", ""): top1, ("truth iou", ""): with_each, ("centre", ""): centre, ("missing", ""): missing}


def centre_inside(boxes: Floats, truth: Floats) -> Bools:
    """Row by row: whether a box's centre lies in the half-open truth box."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.all((middle >= truth[:, :2]) & (middle < truth[:, 2:]), axis=1)


def _list_order(judged: Judged, protocol: Protocol) -> Ints:
    """The list B of each finding: rank 1 of all images, then rank 2, …; inside a rank by image or by score."""
    inside = -judged.score if protocol.order == "score" else judged.pair
    return np.lexsort([judged.pair, inside, judged.rank, judged.finding])


def _within(false: Bools, finding: Ints, most_false: Floats) -> Bools:
    """Which boxes of the list come before the one that brings their finding's false ones above its limit."""
    so_far = np.cumsum(false)
    starts = np.searchsorted(finding, np.arange(len(most_false)))
    before = np.concatenate([[0], so_far])[starts]
    return so_far - before[finding] <= most_false[finding] + 1e-9
