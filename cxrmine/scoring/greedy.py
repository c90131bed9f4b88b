"""One box, one truth box: the matching of COCO, for all pairs and thresholds at once.

Within a pair the boxes choose from the most confident on (ties: the order of their ranks); each takes the truth box
that is still free, passes, and has the highest IoU (ties: the later one). A box that took one is true, any other false.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cxrmine.scoring.judged import Judged, Matches

COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # as COCO makes them: 0.9 is 0.8999999999999999
RSNA_IOUS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
UInts = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


def true_positives(judged: Judged, matches: Matches, thresholds: Sequence[float], strict: bool = False) -> Bools:
    """T×N: which boxes are true at IoU ≥ T, or where `strict` > T."""
    order = confident_first(judged)
    pair = judged.pair[order]
    each = np.bincount(pair)
    place = np.arange(len(order)) - np.repeat(np.cumsum(each) - each, each)  # of each box in its pair
    several = (np.bincount(judged.truth_pair, minlength=len(judged.pair_finding)) > 1)[pair]
    true = np.zeros((len(thresholds), len(order)), dtype=bool)
    _one_truth(order[~several], place[~several], matches, thresholds, strict, true)
    _several_truths(order[several], place[several], matches, len(judged.truth), thresholds, strict, true)
    return true


def confident_first(judged: Judged) -> Ints:
    """The boxes sorted by pair, in a pair by confidence; equal ones stay as they are."""
    return np.argsort(judged.pair.astype(np.uint64) << 32 | falling_key(judged.confidence), kind="stable")


def falling_key(confidence: npt.NDArray) -> UInts:
    """Whole numbers below 2³² that sort as confidences (as float32) do, the highest first."""
    bits = (confidence.astype(np.float32) + np.float32(0)).view(np.uint32)  # −0 + 0 is 0
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (~rising).astype(np.uint64)


def passes(values: Floats, threshold: float, strict: bool) -> Bools:
    return values > threshold if strict else values >= min(threshold, 1 - 1e-10)  # as COCO: two equal boxes pass 1


def _one_truth(
    boxes: Ints, place: Ints, matches: Matches, thresholds: Sequence[float], strict: bool, true: Bools
) -> None:
    """The first box that passes takes the only truth: none before it in the pair has an IoU that does."""
    overlap = matches.best[boxes]
    before = np.where(place > 0, np.roll(_highest_so_far(overlap, place), 1), -1)
    for row, threshold in zip(true, thresholds, strict=True):
        row[boxes[passes(overlap, threshold, strict) & ~passes(before, threshold, strict)]] = True


def _highest_so_far(values: Floats, place: Ints) -> Floats:
    """Of each box and those before it in its pair: over 2 boxes, 4, 8, …"""
    highest, reach = values, 1
    while reach <= place.max(initial=0):
        earlier = np.where(place >= reach, np.roll(highest, reach), -1)
        highest, reach = np.maximum(highest, earlier), 2 * reach
    return highest


def _several_truths(
    boxes: Ints, place: Ints, matches: Matches, truths: int, thresholds: Sequence[float], strict: bool, true: Bools
) -> None:
    """All first boxes of their pairs choose, then all second ones, …"""
    starts, ends = (np.searchsorted(matches.box, boxes, side=side) for side in ("left", "right"))
    free = np.ones((len(thresholds), truths), dtype=bool)
    by_place = np.argsort(place, kind="stable")
    rounds = np.split(by_place, np.flatnonzero(np.diff(place[by_place])) + 1) if len(boxes) else []
    for at in rounds:
        each = ends[at] - starts[at]
        first = np.cumsum(each) - each
        row = np.arange(each.sum()) + np.repeat(starts[at] - first, each)  # of matches: this round's boxes and theirs
        overlap, truth = matches.iou[row], matches.truth[row]
        passed = np.stack([passes(overlap, t, strict) for t in thresholds]) & free[:, truth]
        value = np.where(passed, overlap, -1)
        best = np.repeat(np.maximum.reduceat(value, first, axis=1), each, axis=1)
        last = np.where(passed & (value == best), np.arange(len(row)), -1)
        chosen = np.maximum.reduceat(last, first, axis=1)  # T×boxes of this round
        threshold, box = np.nonzero(chosen >= 0)
        free[threshold, truth[chosen[threshold, box]]] = False
        true[threshold, boxes[at[box]]] = True
