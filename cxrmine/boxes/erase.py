"""Erasing a map's strongest region round by round, and filling it in again (Cai et al. 2018, section 3.2).

Maps are h×w float32 at network resolution, one finding of one image. A mask is h×w bool: True is kept, False is erased.
Round t sees the raw map times the mask of the round before, and masks are cumulative.

With the same weights in every round and no normalisation, equation 8 is the first map again: what is erased is what is
filled in. The gain comes from normalising each round's map, and from weights that change between the rounds.

Departure: the paper says only "normalized to [0, 1]". Here that is ReLU and division by the maximum; min-max would
lift erased pixels above 0 wherever a map has negative values.
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxrmine.errors import CxrError

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
THRESHOLD = 0.5


class Erasure(NamedTuple):
    maps: Map  # T×h×w, H_1 … H_T, each normalised
    masks: Mask  # T×h×w, M_1 … M_T: masks[t] is what round t + 2 would see


def normalise(raw: npt.ArrayLike) -> Map:
    """ReLU, then divide by the maximum; a map with nothing positive becomes all zero."""
    positive = np.maximum(np.asarray(raw, dtype=np.float32), 0)
    peak = positive.max(initial=0)
    if not np.isfinite(peak):
        raise CxrError(
            "A class map holds NaN or infinite values.", "The weights diverged: train again, at a lower rate."
        )
    return positive / peak if peak > 0 else positive


def peak_component(normalised: Map, threshold: float = THRESHOLD) -> Mask:
    """The 8-connected component of `normalised >= threshold` that contains the global maximum.

    Of several maxima the first in row order counts. A map that is all zero, or all below the threshold, has none.
    """
    above = normalised >= threshold
    row, column = divmod(int(np.argmax(normalised)), normalised.shape[1])
    if normalised[row, column] <= 0 or not above[row, column]:
        return np.zeros(normalised.shape, dtype=bool)
    filled = above.view(np.uint8)
    cv2.floodFill(filled, None, (column, row), 2, flags=8)
    return filled == 2


def next_mask(normalised: Map, mask: Mask, threshold: float = THRESHOLD) -> Mask:
    """M_t from H_t and M_(t-1), whichever weights H_t came from."""
    return mask & ~peak_component(normalised, threshold)


def erase(raw: npt.ArrayLike, threshold: float = THRESHOLD) -> Erasure:
    """T×h×w, the map that each round's weights give of features with nothing erased → what the rounds see and erase.

    raw[t]·M is the map of the erased features, the map being linear (equation 7).
    """
    raw = np.asarray(raw, dtype=np.float32)
    maps = np.empty(raw.shape, dtype=np.float32)
    masks = np.empty(raw.shape, dtype=bool)
    mask = np.ones(raw.shape[1:], dtype=bool)
    for t in range(len(raw)):
        maps[t] = normalise(raw[t] * mask)
        masks[t] = mask = next_mask(maps[t], mask, threshold)
    return Erasure(maps, masks)


def aggregate(maps: npt.ArrayLike, masks: npt.ArrayLike) -> Map:
    """Equation 8: the mean over rounds t of H_t + sum over t' < t of H_t' where the cumulative mask of t' has erased.

    The fill-in of round t' appears in every later round, so it counts T - t' times.
    """
    maps, masks = np.asarray(maps, dtype=np.float32), np.asarray(masks, dtype=bool)
    rounds = len(maps)
    final = maps.sum(axis=0)
    for t in range(rounds - 1):
        final += (rounds - 1 - t) * (maps[t] * ~masks[t])
    return final / np.float32(rounds)
