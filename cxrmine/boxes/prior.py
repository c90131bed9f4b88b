"""Where a finding can be: maps gated by organs, and the share of a box that lies outside them.

The mask of a finding is the union of its organs, grown by a margin. Where none of them was outlined, or so little that
it holds no cell, a finding has no prior: its map stays as it is, and nothing is said of its boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrmine.config import Mine
from cxrmine.data.cells import covered, windows
from cxrmine.data.organs import ORGANS
from cxrmine.errors import UsageError

LUNGS = ("left_lung", "right_lung")
COVERED = 0.5 - 1e-5  # of a cell: less than half, but for rounding, and it lies outside
ROUNDING = 1e-3  # pixels: 0.29 × 100 is a reach of 29

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Prior:
    """`organs`: what is outlined, in its order. `of` and `margins`: by finding, from the recipe."""

    organs: tuple[str, ...]
    of: Mapping[str, tuple[str, ...]]
    margins: Mapping[str, float]

    def mask(self, outlines: Mask, finding: str) -> Mask | None:
        """C×s×s outlines of one film → s×s."""
        found: Mask = np.any(outlines[[self.organs.index(organ) for organ in self.of[finding]]], axis=0)
        if not found.any():
            return None
        reach = self.margins[finding] * found.shape[0] + ROUNDING
        if reach < 1:
            return found
        away = cv2.distanceTransform((~found).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(away <= reach)


def make_prior(mine: Mine, findings: Sequence[str], outlined: Sequence[str]) -> Prior:
    """From a recipe's section mine, for what a network outlines."""
    of = {}
    for finding in findings:
        names = mine.organs_of.get(finding, ORGANS)
        wanted = {organ for name in names for organ in (LUNGS if name == "lungs" else (name,))}
        missing = sorted(wanted - set(outlined)) if finding in mine.organs_of else []
        if missing:
            raise UsageError(
                f"mine.organs_of.{finding} names {', '.join(missing)}, which these organs are not.",
                f"The run outlines {', '.join(outlined)}: name some of these, or another run with --organs.",
            )
        of[finding] = tuple(organ for organ in outlined if organ in wanted)
    margins = {finding: mine.margin_of.get(finding, mine.margin) for finding in findings}
    return Prior(tuple(outlined), of, margins)


def held(mask: Mask, shape: tuple[int, ...], size: int, stride: float, offset: float) -> Mask:
    """The cells h×w of which the mask s×s covers half or more."""
    down, across = (windows(n, mask.shape[0], size, stride, offset) for n in shape)
    return np.asarray(down @ mask.astype(np.float32) @ across.T >= COVERED)


def gated(raw: NDArray[np.float32], mask: Mask, size: int, stride: float, offset: float) -> NDArray[np.float32]:
    """Maps …×h×w, 0 in the other cells."""
    return np.where(held(mask, raw.shape[-2:], size, stride, offset), raw, np.float32(0))


def outside(mask: Mask, boxes: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """The share of each box n×4, in input pixels, that lies outside the mask."""
    return np.clip(1 - covered(mask, boxes, size), 0, 1).round(6)  # a box inside has no part outside by rounding
