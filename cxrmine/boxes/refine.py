"""Self-refinement of a box by the region of a network's map (Ouyang 2021, section III-C)."""

import numpy as np
import numpy.typing as npt

from cxrmine.boxes.geometry import area, middles
from cxrmine.boxes.regions import area_inside

AGREE = 0.3  # the IoU of region and box from which on the box is refined

Mask = npt.NDArray[np.bool_]


def refine(region: Mask, box: npt.NDArray[np.float64]) -> Mask | None:
    """The part of a region H×W that lies in a box (4, in its pixels); None where they agree too little: it is kept.

    A pixel lies in a box when its middle does.
    """
    shared = area_inside(region, box)
    union = region.sum() + area(box)[0] - shared
    if not union or shared / union < AGREE:
        return None
    left, top, right, bottom = middles(box)[0].clip(0)
    inside = np.zeros_like(region)
    inside[top:bottom, left:right] = region[top:bottom, left:right]
    return inside if inside.any() else None


def around(region: Mask, within: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The box around a region, no larger than the box `within`."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    return np.concatenate([np.maximum(box[:2], within[:2]), np.minimum(box[2:], within[2:])])
