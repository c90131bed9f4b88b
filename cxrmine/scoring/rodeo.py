"""RoDeO: Robust Detection Outcome (Meissen, Müller, Kaissis, Rueckert; MIDL 2023).

In each image all boxes meet all truth boxes, of whatever finding. The Hungarian matching takes as many pairs as there
are boxes or truth boxes, whichever are fewer, at the least sum of −GIoU − w·[same finding]. Of the matched pairs:

    localization     mean of exp(−ln 2 · d²); d: the distance of the centres in units of the truth box's sides
    shape            mean IoU of the two boxes when moved onto one corner
    classification   Matthews correlation of the two one-hot findings, 0 where it is negative

Each is multiplied by matched / (matched + over + missed); over and missed are the boxes and truth boxes left alone.
The total is the harmonic mean of the three, with 10⁻⁶ added to each as the authors' code does. A finding's own scores
are those of the pairs matched to its truth boxes, of its boxes left over and of its truth boxes missed.

The correlation is of n·F yes-or-no values of which n are yes on either side. So with a share p of right findings it is
(F·p − 1) / (F − 1): how much better than chance. Of a single finding it is not defined, and all matches are right: then
classification is 1, times the same factor. The authors' code refuses a single finding.

w is how well the findings of whole images are predicted: the Matthews correlation of "has a box" and "has a truth box"
over all pairs of image and finding, 0 where it is negative. That is the paper's definition and the default of the
authors' package (rodeometric 0.0.1, with which these scores agree to 10⁻⁹); `class_weight` sets it, 0 matches by place
alone. Where nothing is matched all scores are 0; the package says so too, but per finding it fails there.
"""

from itertools import permutations
from math import perm, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from cxrmine.scoring.judged import UNKNOWN, Absent, Cover, Judged

EPSILON = 1e-6
MOST_WAYS = 128  # of matching that are all tried at once; more are left to the Hungarian algorithm
AT_ONCE = 2**21  # sums of costs

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def rodeo_of(judged: Judged, absent: Absent, cover: Cover, class_weight: float | None = None) -> dict[str, Any]:
    """RoDeO of the boxes of judged and of absent pairs: {"all": …, "findings": {"Mass": …}}.

    On an image with truth an absent pair's box may be matched with another finding's; elsewhere it is one too many.
    Boxes of unknown pairs are left out, and so are these pairs where w is found.
    """
    beside = np.full((len(absent.finding), 4), np.nan)
    beside[absent.beside] = absent.boxes
    scores = rodeo(
        np.concatenate([judged.boxes, beside]),
        np.concatenate([judged.finding, absent.finding]).astype(np.int64),
        np.concatenate([judged.pair_image[judged.pair], absent.image]).astype(np.int64),
        judged.truth,
        judged.pair_finding[judged.truth_pair],
        judged.pair_image[judged.truth_pair],
        len(judged.findings),
        class_weight,
        int((cover.state != UNKNOWN).sum()),
    )
    by_finding = scores.pop("findings")
    return {"all": scores, "findings": dict(zip(judged.findings, by_finding, strict=True))}


def rodeo(
    boxes: Floats,
    box_finding: Ints,
    box_image: Ints,
    truth: Floats,
    truth_finding: Ints,
    truth_image: Ints,
    findings: int,
    class_weight: float | None = None,
    pairs: int | None = None,
) -> dict[str, Any]:
    """total, localization, shape, classification, matched, over, missed of all boxes, and under `findings` of each.

    Coordinates of boxes on images without truth are not read. `pairs`, of image and finding, are those that w is found
    on; by default every image that appears, with all findings.
    """
    weight = class_weight
    if weight is None:
        weight = image_level(box_finding, box_image, truth_finding, truth_image, findings, pairs)
    box, true = _matched(boxes, box_finding, box_image, truth, truth_finding, truth_image, weight)
    of = truth_finding[true]

    def count(finding: Ints, worth: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        return np.bincount(finding, weights=worth, minlength=findings)

    sums = [count(of, worth) for worth in (_nearness(boxes[box], truth[true]), _shape(boxes[box], truth[true]))]
    right = count(of, box_finding[box] == of)
    matched, over = count(of), count(box_finding) - count(box_finding[box])
    columns = np.stack([*sums, right, matched, over, count(truth_finding) - matched])
    return {
        **_outcome(columns.sum(axis=1), findings),
        "class_weight": float(weight),
        "findings": [_outcome(column, findings) for column in columns.T],
    }


def image_level(
    box_finding: Ints, box_image: Ints, truth_finding: Ints, truth_image: Ints, findings: int, pairs: int | None = None
) -> float:
    """w: the Matthews correlation, not below 0, of the findings predicted and true of each image."""
    if pairs is None:
        pairs = len(np.union1d(box_image, truth_image)) * findings
    predicted, true = np.unique(box_image * findings + box_finding), np.unique(truth_image * findings + truth_finding)
    p, t = len(predicted), len(true)
    both = len(np.intersect1d(predicted, true, assume_unique=True))
    spread = p * (pairs - p) * t * (pairs - t)
    return max(0.0, (both * pairs - p * t) / sqrt(spread)) if spread > 0 else 0.0


def _outcome(sums: Floats, findings: int) -> dict[str, Any]:
    """The scores from the sums (nearness, shape, right) of the matched pairs and the three counts."""
    near, shape, right, *counts = sums.tolist()
    matched, over, missed = (int(n) for n in counts)
    by_chance = 1 / findings if findings > 1 else 0
    scores = [0.0, 0.0, 0.0]
    if matched:
        corrected = max(0.0, (right / matched - by_chance) / (1 - by_chance)) * matched
        scores = [part / (matched + over + missed) for part in (near, shape, corrected)]
    total = 3 / sum(1 / (score + EPSILON) for score in scores) if matched else 0.0
    names = ("total", "localization", "shape", "classification", "matched", "over", "missed")
    return dict(zip(names, (total, *scores, matched, over, missed), strict=True))


def _nearness(boxes: Floats, truth: Floats) -> Floats:
    apart = (boxes[:, :2] + boxes[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2 / (truth[:, 2:] - truth[:, :2])
    return np.exp2(-(apart**2).sum(axis=1))


def _shape(boxes: Floats, truth: Floats) -> Floats:
    a, b = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    shared = np.minimum(a, b).prod(axis=1)
    return shared / (a.prod(axis=1) + b.prod(axis=1) - shared)


def _matched(
    boxes: Floats,
    box_finding: Ints,
    box_image: Ints,
    truth: Floats,
    truth_finding: Ints,
    truth_image: Ints,
    weight: float,
) -> tuple[Ints, Ints]:
    """The matched boxes and, beside each, its truth box. Images with as many boxes and truth boxes go together."""
    images = np.intersect1d(box_image, truth_image)
    box_order, first_box, many_boxes = _runs(box_image, images)
    truth_order, first_truth, many_truths = _runs(truth_image, images)
    taken = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for n, m in np.unique(np.stack([many_boxes, many_truths]), axis=1).T.tolist():
        same = np.flatnonzero((many_boxes == n) & (many_truths == m))
        step = max(1, AT_ONCE // (n * m))
        for members in np.split(same, range(step, len(same), step)):
            b = box_order[first_box[members, None] + np.arange(n)]
            t = truth_order[first_truth[members, None] + np.arange(m)]
            alike = box_finding[b][:, :, None] == truth_finding[t][:, None]
            box, true = _cheapest(-_giou(boxes[b][:, :, None], truth[t][:, None]) - weight * alike)
            taken.append((np.take_along_axis(b, box, 1).ravel(), np.take_along_axis(t, true, 1).ravel()))
    box, true = (np.concatenate(parts) for parts in zip(*taken, strict=True))
    return box, true


def _runs(image: Ints, images: Ints) -> tuple[Ints, Ints, Ints]:
    """(the order by image, where in it each of `images` starts, how many it has)"""
    order = np.argsort(image, kind="stable")
    first, last = (np.searchsorted(image[order], images, side) for side in ("left", "right"))
    return order, first, last - first


def _giou(a: Floats, b: Floats) -> Floats:
    """Generalised IoU of boxes in the last axis."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    shared = np.maximum(low[..., 2:] - high[..., :2], 0).prod(axis=-1)
    around = (high[..., 2:] - low[..., :2]).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return shared / union - (around - union) / around


def _cheapest(cost: Floats) -> tuple[Ints, Ints]:
    """G×n×m → rows and columns, both G×min(n, m), of each image's cheapest matching; of equal ones the first."""
    images, n, m = cost.shape
    if n < m:
        columns, rows = _cheapest(cost.transpose(0, 2, 1))
        return rows, columns
    columns = np.broadcast_to(np.arange(m), (images, m))
    if perm(n, m) <= MOST_WAYS:
        ways = np.array(list(permutations(range(n), m)))
        step = max(1, AT_ONCE // len(ways))
        best = [
            np.sum([part[:, ways[:, j], j] for j in range(m)], axis=0).argmin(axis=1)
            for part in np.split(cost, range(step, images, step))
        ]
        return ways[np.concatenate(best)], columns
    from scipy.optimize import linear_sum_assignment  # here: slow to import, and most data never come here

    assigned = [linear_sum_assignment(of_image.T)[1] for of_image in cost]
    return np.array(assigned, dtype=np.int64).reshape(images, m), columns
