"""From a final map to ranked boxes.

The map comes at the size of the network's input, 0..1; boxes leave in its pixels. A cut keeps `map >= cut`, on the
map's own scale. Components are 8-connected. Cuts around one peak cannot box a second lesion, hence several ways.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxrmine.boxes.regions import encode_crop
from cxrmine.errors import CxrError

Map = npt.NDArray[np.float32]
Align = Literal["centres", "resize"]
STRIP = 64  # rows
COMPONENTS_CUTS = (0.3,)


class Cut(NamedTuple):
    """The boxes of one pair, best first."""

    boxes: npt.NDArray[np.float32]  # n×4
    scores: npt.NDArray[np.float32]  # n, the map's mean inside the box
    thresholds: npt.NDArray[np.float32]  # n, where it was cut
    regions: list[bytes]  # n, COCO RLE in the frame of the map
    peaks: npt.NDArray[np.int64]  # n×2, x and y of each region's highest pixel

    def kept(self, which: npt.NDArray[np.bool_]) -> "Cut":
        """Without the others."""
        regions = [region for region, keep in zip(self.regions, which, strict=True) if keep]
        return Cut(self.boxes[which], self.scores[which], self.thresholds[which], regions, self.peaks[which])


class Candidate(NamedTuple):
    box: tuple[int, int, int, int]
    threshold: float
    seed: tuple[int, int]  # (x, y) of a pixel of the region
    group: int = 0  # boxes of one group share a lesion; `top` takes from every group in turn


def peak(final: Map, cuts: Sequence[float] = (0.35, 0.5, 0.65), min_area: float = 0.0) -> list[Candidate]:
    """A box a cut: the component that contains the global maximum (the first in row order)."""
    y, x = divmod(int(np.argmax(final)), final.shape[1])
    return [c for c in _around(final, (x, y), cuts) if _covers(c.box, final.shape, min_area)]


def components(final: Map, cuts: Sequence[float] = COMPONENTS_CUTS, min_area: float = 0.0005) -> list[Candidate]:
    """Every component of every cut whose box covers at least `min_area` of the image; each a lesion of its own."""
    found: list[Candidate] = []
    for cut in cuts:
        for box, seed in component_boxes(final >= np.float32(cut)):
            if _covers(box, final.shape, min_area):
                found.append(Candidate(box, cut, seed, group=len(found)))
    return found


def wang(final: Map, cuts: Sequence[float] = (60 / 255, 180 / 255), min_area: float = 0.0) -> list[Candidate]:
    """Wang et al. 2017: every component at 60 and at 180 of 255, however small."""
    return components(final, cuts, min_area)


def nested(final: Map, cuts: Sequence[float] = (0.35, 0.5, 0.65), min_area: float = 0.0005) -> list[Candidate]:
    """Every component of the lowest cut, and inside each the boxes of the higher cuts around its own maximum."""
    lowest, *higher = sorted(cuts)
    found: list[Candidate] = []
    for group, (box, seed) in enumerate(component_boxes(final >= np.float32(lowest))):
        if not _covers(box, final.shape, min_area):
            continue
        left, top, right, bottom = box
        region = _region(final, Candidate(box, lowest, seed))
        inside = np.where(region, final[top:bottom, left:right], np.float32(0))
        y, x = divmod(int(np.argmax(inside)), inside.shape[1])
        found.append(Candidate(box, lowest, seed, group))
        for c in _around(inside, (x, y), higher):
            shifted = (c.box[0] + left, c.box[1] + top, c.box[2] + left, c.box[3] + top)
            found.append(Candidate(shifted, c.threshold, (x + left, y + top), group))
    return found


Way = Callable[..., list[Candidate]]
WAYS: dict[str, Way] = {"peak": peak, "components": components, "wang": wang, "nested": nested}


def extract(
    final: npt.ArrayLike,
    way: str = "peak",
    top: int = 3,
    cuts: Sequence[float] | None = None,
    min_area: float | None = None,
    regions: bool = True,
) -> Cut:
    """At most `top` boxes (0: all), best first: by the highest value in the region, then by score.

    Cuts around one peak share its height, so there the ranking is the paper's, by the mean inside the box. Between
    lesions that mean would put a speck just above the cut before a large lesion with a high peak. Further ties: the
    larger box, then the upper, then the left one. A box that two cuts share is kept once, with the cut named first.
    Where a way tells lesions apart, `top` takes every lesion's best box before any second one. `cuts` and `min_area`
    default to the way's own.
    """
    final = np.ascontiguousarray(final, dtype=np.float32)
    highest = final.max(initial=0)
    if not np.isfinite(highest):
        raise CxrError(
            "A final map holds NaN or infinite values.", "The weights diverged: train again, at a lower rate."
        )
    options = {"cuts": cuts, "min_area": min_area}
    chosen = {name: value for name, value in options.items() if value is not None}
    candidates = _way(way)(final, **chosen) if highest > 0 else []
    once = list({c.box: c for c in reversed(candidates)}.values())[::-1]
    kept = _ranked(final, once, top)
    return Cut(
        boxes=np.array([c.box for c, *_ in kept], dtype=np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in kept], dtype=np.float32),
        thresholds=np.array([c.threshold for c, *_ in kept], dtype=np.float32),
        regions=[encode_crop(_region(final, c), *c.box[:2], final.shape) for c, *_ in kept] if regions else [],
        peaks=np.array([place for *_, place in kept], dtype=np.int64).reshape(-1, 2),
    )


def to_input(
    small: npt.ArrayLike,
    size: tuple[int, int],
    stride: float | None = None,
    align: Align = "centres",
    offset: float = 0.0,
) -> Map:
    """h×w at network resolution → `size` (height, width) of the input, bilinearly.

    A strided convolution with symmetric padding has the centre of its cell i at input pixel i·stride (continuous
    i·stride + 0.5), not in the middle of the i-th tile. `centres` interpolates between those points, moved by `offset`
    pixels where a backbone pads otherwise; `resize` is the plain resizing of the papers, which moves every box by
    (stride - 1) / 2 pixels to the lower right. Beyond the outermost cells the edge is repeated. `stride` defaults to
    size over cells.
    """
    small = np.asarray(small, dtype=np.float32)
    height, width = size
    if align == "resize":
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    rows, columns = small.shape
    left, right, part = _between_cells(width, columns, stride or width / columns, offset)
    wide = np.take(small, left, axis=1)
    wide += part * (np.take(small, right, axis=1) - wide)
    upper, _, part = _between_cells(height, rows, stride or height / rows, offset)
    step = np.take(wide, np.minimum(np.arange(rows) + 1, rows - 1), axis=0) - wide
    final = np.empty(size, dtype=np.float32)
    # In strips: temporaries of the whole size cost five times more, all of it page faults.
    for top in range(0, height, STRIP):
        strip = slice(top, top + STRIP)
        final[strip] = wide[upper[strip]] + part[strip, None] * step[upper[strip]]
    return final


def nearest_cells(
    pixels: npt.ArrayLike,
    size: int,
    cells: int,
    stride: float | None = None,
    align: Align = "centres",
    offset: float = 0.0,
) -> npt.NDArray[np.int64]:
    """The cell whose centre is nearest to each pixel of one side, as `to_input` lays them; of two the first."""
    if align == "resize":
        stride = size / cells
        offset = (stride - 1) / 2
    place = (np.asarray(pixels) - offset) / (stride or size / cells)
    return np.clip(np.ceil(place - 0.5), 0, cells - 1).astype(np.int64)


def on_film(raw: Map, rows: slice, columns: slice, stride: float, offset: float) -> Map:
    """Maps …×h×w without the cells that look at padding: a peak there must not set the scale of the others."""
    down, across = (np.arange(n) * stride + offset for n in raw.shape[-2:])
    seen = np.outer((down >= rows.start) & (down < rows.stop), (across >= columns.start) & (across < columns.stop))
    return np.where(seen, raw, np.float32(0))


def component_boxes(above: npt.NDArray[np.bool_]) -> list[tuple[tuple[int, int, int, int], tuple[int, int]]]:
    """Box and one pixel (x, y) of every 8-connected component.

    Contours are several times faster than labelling. A contour without a parent is the outer border of a component;
    one with a parent is the border of a hole. A component inside a hole has no parent in this mode.
    """
    contours, hierarchy = cv2.findContours(above.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour, parent in zip(contours, hierarchy[0, :, 3] if len(contours) else (), strict=True):
        if parent < 0:
            x, y, w, h = cv2.boundingRect(contour)
            found.append(((x, y, x + w, y + h), (int(contour[0, 0, 0]), int(contour[0, 0, 1]))))
    return found


def _way(name: str) -> Way:
    if name not in WAYS:
        near = get_close_matches(name, WAYS, 1, cutoff=0)
        raise CxrError(
            f"There is no way of boxing called {name!r}.", f"Did you mean {near[0]!r}? Known: {', '.join(WAYS)}."
        )
    return WAYS[name]


def _around(final: Map, seed: tuple[int, int], cuts: Sequence[float]) -> list[Candidate]:
    found = []
    for cut in cuts:
        above = (final >= np.float32(cut)).view(np.uint8)
        if above[seed[1], seed[0]]:
            *_, (x, y, w, h) = cv2.floodFill(above, None, seed, 2, flags=8)
            found.append(Candidate((x, y, x + w, y + h), cut, seed))
    return found


def _covers(box: tuple[int, int, int, int], shape: tuple[int, ...], fraction: float) -> bool:
    return (box[2] - box[0]) * (box[3] - box[1]) >= fraction * shape[0] * shape[1]


def _region(final: Map, candidate: Candidate) -> npt.NDArray[np.bool_]:
    """The candidate's component inside its box: others may reach into the box, so fill from its own pixel."""
    left, top, right, bottom = candidate.box
    above = (final[top:bottom, left:right] >= np.float32(candidate.threshold)).view(np.uint8)
    cv2.floodFill(above, None, (candidate.seed[0] - left, candidate.seed[1] - top), 2, flags=8)
    return above == 2


def _highest(final: Map, candidate: Candidate) -> tuple[float, tuple[int, int]]:
    """The highest value of a region, and the first pixel (x, y) that has it."""
    left, top, right, bottom = candidate.box
    inside = final[top:bottom, left:right] * _region(final, candidate)
    y, x = divmod(int(np.argmax(inside)), right - left)
    return float(inside[y, x]), (left + x, top + y)


def _ranked(final: Map, candidates: list[Candidate], top: int) -> list[tuple[Candidate, float, tuple[int, int]]]:
    """Candidates with their scores and the places of their highest pixels, best first."""
    scored = []
    for c in candidates:
        left, up, right, down = c.box
        score = float(final[up:down, left:right].mean())
        highest, place = _highest(final, c)
        order = (-highest, -score, -(right - left) * (down - up), up, left)
        scored.append((order, (c, score, place)))
    scored.sort(key=lambda both: both[0])
    ranked = [one for _, one in scored]
    if not 0 < top < len(ranked):
        return ranked
    seen: dict[int, int] = {}
    turns = []
    for c, *_ in ranked:
        turns.append(seen.get(c.group, 0))
        seen[c.group] = turns[-1] + 1
    taken = sorted(np.argsort(turns, kind="stable")[:top])
    return [ranked[i] for i in taken]


@lru_cache(maxsize=16)
def _between_cells(size: int, cells: int, stride: float, offset: float) -> tuple[npt.NDArray, npt.NDArray, Map]:
    """For every input pixel the two cells it lies between, and how far from the first to the second."""
    place = np.clip((np.arange(size) - offset) / stride, 0, cells - 1)
    low = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    high = np.minimum(low + 1, cells - 1)
    return low, high, (place - low).astype(np.float32)
