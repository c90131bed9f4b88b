"""Image-level figures: the area under the ROC curve, DeLong's interval and test, and Youden's threshold.

Labels are 1 and 0; whatever has another label is left out. An area without positives or without negatives is NaN.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Z_95 = NormalDist().inv_cdf(0.975)


class Placements(NamedTuple):
    """Where each score lies among those of the other label, as whole numbers: so equal curves differ by exactly 0.

    Over twice the number of the others they are DeLong's structural components; their mean is the area.
    """

    positives: npt.NDArray[np.int64]  # of each positive: twice the negatives below it, plus those that tie
    negatives: npt.NDArray[np.int64]  # of each negative: twice the positives above it, plus those that tie


class Delong(NamedTuple):
    auc: float
    variance: float  # of `auc`; NaN where there are not two positives and two negatives


class Difference(NamedTuple):
    difference: float
    low: float
    high: float
    p: float


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """P(score of a positive > score of a negative), ties counted half; NaN where one of the two is missing."""
    return _area(placements(labels, scores))


def delong(labels: np.ndarray, scores: np.ndarray) -> Delong:
    """The area and DeLong's variance of it (DeLong 1988), by ranks in O(n log n) (Sun and Xu 2014)."""
    placed = placements(labels, scores)
    return Delong(_area(placed), _variance(placed))


def auc_interval(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float, float]:
    """The area and its 95 % interval: the plain normal one with DeLong's variance, clipped to 0..1.

    An area of 1 or 0 has no variance, so its interval is (1, 1) or (0, 0): that says that every pair is in order, not
    how sure one may be of it. With a single positive or negative there is no variance, and the interval is NaN.
    """
    area, variance = delong(labels, scores)
    low, high = area + Z_95 * math.sqrt(variance) * np.array([-1, 1])
    return area, float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))


def delong_test(labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> Difference:
    """AUC of `a` minus AUC of `b` on the same images, its 95 % interval (clipped to -1..1) and two-sided p.

    Paired, normal approximation. Scores that place every image alike differ by 0 with p = 1. Where the variance is 0
    though the areas differ (1 against 0.5, say) the approximation says nothing: p is NaN, the interval a point.
    """
    first, second = placements(labels, a), placements(labels, b)
    apart = Placements(first.positives - second.positives, first.negatives - second.negatives)
    difference, variance = _area(apart), _variance(apart)
    if not math.isnan(difference) and not apart.positives.any() and not apart.negatives.any():
        return Difference(0.0, 0.0, 0.0, 1.0)
    low, high = np.clip(difference + Z_95 * math.sqrt(variance) * np.array([-1, 1]), -1, 1)
    p = math.erfc(abs(difference) / math.sqrt(2 * variance)) if variance else math.nan
    return Difference(difference, float(low), float(high), p)


def placements(labels: np.ndarray, scores: np.ndarray) -> Placements:
    """In the order of the positives and of the negatives, so those of two scores can be subtracted."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    return Placements(_below(positive, negative), 2 * len(positive) - _below(negative, positive))


def _below(scores: np.ndarray, others: np.ndarray) -> npt.NDArray[np.int64]:
    """For each score twice the number of others below it, plus the number of those that tie with it."""
    others = np.sort(others)
    return np.searchsorted(others, scores, side="left") + np.searchsorted(others, scores, side="right")


def _area(placed: Placements) -> float:
    pairs = len(placed.positives) * len(placed.negatives)
    return float(placed.positives.sum() / (2 * pairs)) if pairs else math.nan


def _variance(placed: Placements) -> float:
    m, n = map(len, placed)
    if m < 2 or n < 2:
        return math.nan
    return float(placed.positives.var(ddof=1) / (4 * n**2 * m) + placed.negatives.var(ddof=1) / (4 * m**2 * n))


def youden_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The highest cut that makes sensitivity + specificity of `probability >= cut` largest; 0.5 where none can be."""
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    if not len(positive) or not len(negative):
        return 0.5
    cuts = np.unique(probabilities[(labels == 0) | (labels == 1)])[::-1]
    sensitivity = 1 - np.searchsorted(np.sort(positive), cuts, side="left") / len(positive)
    specificity = np.searchsorted(np.sort(negative), cuts, side="left") / len(negative)
    return float(cuts[np.argmax(sensitivity + specificity)])
