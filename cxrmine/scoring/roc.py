"""ROC curves of image-level probabilities: every corner of the curve whose area `classification.auc` counts.

An image is called positive where its probability is at or above a threshold. Those that tie are called together, so a
tie between a positive and a negative is a slope, and the trapezoids under the points are the area with ties half.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.scoring.areas import judged_images, numbers
from cxrmine.scoring.probabilities import Probabilities, aligned

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Points(NamedTuple):
    """From (0, 0), where nothing is called positive and the threshold is infinite, to (1, 1)."""

    false: Ints  # negatives at or above each threshold
    true: Ints  # positives at or above it
    thresholds: Floats

    @property
    def rates(self) -> tuple[Floats, Floats]:
        """(false positive rate, true positive rate)"""
        return self.false / self.false[-1], self.true / self.true[-1]

    @property
    def area(self) -> float:
        """Of the trapezoids under the points: whole numbers until the one division."""
        twice = int((np.diff(self.false) * (self.true[1:] + self.true[:-1])).sum())
        return twice / (2 * int(self.false[-1]) * int(self.true[-1]))


class Curve(NamedTuple):
    method: str
    finding: str
    points: Points | None  # None: its labelled images are not of two classes


def points(labels: np.ndarray, probabilities: Floats) -> Points | None:
    """The corners of a curve; None where there are no positives or no negatives among labels 1 and 0.

    Points on the straight line between their neighbours are left out, decided in whole numbers: the curve is the same.
    """
    positive, negative = (np.sort(probabilities[labels == label]) for label in (1, 0))
    if not len(positive) or not len(negative):
        return None
    cuts = np.unique(np.concatenate([positive, negative]))[::-1]
    true, false = (len(of) - np.searchsorted(of, cuts, side="left") for of in (positive, negative))
    right, up = np.diff(false, prepend=0), np.diff(true, prepend=0)
    turns = right[:-1] * up[1:] != up[:-1] * right[1:]
    keep = np.append(turns, True)
    first = np.zeros(1, np.int64)
    return Points(
        np.concatenate([first, false[keep]]),
        np.concatenate([first, true[keep]]),
        np.concatenate([[np.inf], cuts[keep]]),
    )


def curves(
    methods: Sequence[tuple[str, Probabilities]],
    index: Index,
    splits: str | None = None,
    findings: Sequence[str] | None = None,
) -> list[Curve]:
    """A curve a method and finding of which `areas.document` has an area, on the same images and labels."""
    judged = judged_images(methods, index, splits)
    asked = tuple(findings or index.findings)
    labels = judged.labels(asked)
    found = []
    for name, probabilities in methods:
        table = aligned(probabilities.table, judged.table["image_id"])
        for c, finding in enumerate(asked):
            if finding in table.column_names:
                values = numbers(table, finding)
                there = np.isfinite(values)
                found.append(Curve(name, finding, points(labels[there, c], values[there])))
    if not any(curve.points for curve in found):
        raise CxrError(
            "There is no ROC curve to write: no finding has both positives and negatives among the judged images.",
            "Score another split or other findings, or leave --roc out.",
        )
    return found


def left_out(found: Sequence[Curve]) -> Mapping[str, list[str]]:
    """Findings without a curve, by method."""
    without: dict[str, list[str]] = {}
    for curve in found:
        if curve.points is None:
            without.setdefault(curve.method, []).append(curve.finding)
    return without
