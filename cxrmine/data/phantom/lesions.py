"""Drawing lesions: tissue in place of air, air in place of lung."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cxrmine.data.phantom.anatomy import SIGN, Person
from cxrmine.data.phantom.canvas import (
    Array,
    Points,
    blur,
    bounds,
    fill,
    grid,
    open_curve,
    rounded,
    silhouette,
    stroke,
    texture,
    unit,
)
from cxrmine.data.phantom.chest import Change
from cxrmine.data.phantom.findings import Lesion, lesion_mask
from cxrmine.data.phantom.markings import hilum

# centimetres of tissue at the thickest place, by severity
THICKNESS = {
    "Atelectasis": (3.2, 4.9, 6.6), "Effusion": (5.8, 9.6, 13.5), "Infiltration": (2.2, 3.4, 4.8),
    "Mass": (3.8, 5.6, 7.8), "Nodule": (2.8, 4.2, 5.6), "Pneumonia": (2.9, 4.5, 6.4),
}  # fmt: skip


def draw(lesions: Iterable[Lesion], person: Person, size: int) -> tuple[Change, list[NDArray[np.bool_]]]:
    """What all lesions change together, and the pixels of each."""
    tissue, air, line = (np.zeros((size, size), np.float32) for _ in range(3))
    masks = []
    for lesion in lesions:
        mask = lesion_mask(lesion, person, size)
        masks.append(mask)
        box = bounds(mask)
        if box is None or lesion.finding == "Cardiomegaly":  # an enlarged heart is drawn as the heart
            continue
        rng = np.random.default_rng(lesion.seed)
        if lesion.finding == "Pneumothorax":
            air = np.maximum(air, blur(mask.astype(np.float32), 0.0015))
            line += pleural_line(lesion, person, size)
            continue
        half = 0.5 * min(box[2] - box[0], box[3] - box[1]) / size
        if lesion.finding == "Effusion":  # it also fills the recess behind the diaphragm, below the lung's edge
            mask = silhouette(size, lesion.outline)
        shape = SHAPES[lesion.finding](lesion, mask, half, person, rng)
        tissue += shape * np.float32(THICKNESS[lesion.finding][lesion.severity - 1])
    return Change(tissue, air, line), masks


def as_bytes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


def ball(lesion: Lesion, mask: NDArray[np.bool_], half: float, person: Person, rng: np.random.Generator) -> Array:
    grain = 1 + np.float32(0.08) * texture(rng, len(mask), 90)
    solid = rounded(as_bytes(mask), half) ** np.float32(0.7)  # fuller than a ball: a mass has an edge
    return blur(solid, 0.0015 + 0.03 * half) * grain


def patches(lesion: Lesion, mask: NDArray[np.bool_], half: float, person: Person, rng: np.random.Generator) -> Array:
    """Ill-defined: soft edges and islands of unequal density."""
    size = len(mask)
    soft = blur(rounded(as_bytes(mask), 0.8 * half) ** 2, 0.03 * half) * mask
    islands = 0.62 + 0.42 * texture(rng, size, 24) + 0.28 * texture(rng, size, 64)
    return soft * np.clip(islands, 0.12, 1.5)


def consolidation(
    lesion: Lesion, mask: NDArray[np.bool_], half: float, person: Person, rng: np.random.Generator
) -> Array:
    """Confluent towards its middle, with the bronchi still open in it as dark branching lines."""
    size = len(mask)
    core = blur(rounded(as_bytes(mask), 0.8 * half) ** 2, 0.03 * half) * mask
    uneven = np.clip(0.85 + 0.28 * texture(rng, size, 20) + 0.16 * texture(rng, size, 64), 0.2, 1.4)
    bronchi = blur(unit(stroke(size, bronchograms(lesion, person, rng), 0.0045)), 0.0018)
    return core * uneven * (1 - np.float32(0.45) * bronchi)


def bronchograms(lesion: Lesion, person: Person, rng: np.random.Generator) -> list[Points]:
    """From the hilum's side of the lesion fanning out into it."""
    low, high = lesion.outline.min(0), lesion.outline.max(0)
    centre, extent = (low + high) / 2, float(np.min(high - low))
    x, y = hilum(person, lesion.side)
    heading = np.arctan2(centre[1] - y, centre[0] - person.midline - x)
    start = centre - 0.4 * extent * np.array([np.cos(heading), np.sin(heading)])
    lines = []
    for spread in rng.normal(0, 0.5, 4):
        turn = heading + spread
        middle = start + 0.35 * extent * np.array([np.cos(turn), np.sin(turn)])
        end = middle + 0.3 * extent * np.array([np.cos(turn + 0.4 * spread), np.sin(turn + 0.4 * spread)])
        lines.append(open_curve([tuple(start), tuple(middle), tuple(end)]))
    return lines


def collapse(lesion: Lesion, mask: NDArray[np.bool_], half: float, person: Person, rng: np.random.Generator) -> Array:
    """Airless lung: dense, rather sharp, with a few strands beside the band."""
    uneven = np.clip(0.9 + 0.2 * texture(rng, len(mask), 40), 0.4, 1.3)
    return blur(rounded(as_bytes(mask), 0.35 * half), 0.0025) * uneven


def fluid(lesion: Lesion, mask: NDArray[np.bool_], half: float, person: Person, rng: np.random.Generator) -> Array:
    """Deeper the farther below its surface, and towards the side."""
    size = len(mask)
    x, _ = grid(size)
    box = bounds(mask)
    assert box is not None
    depth = max(0.22 * (box[3] - box[1]) / size, 0.03)
    # rows below the surface, per column
    below = np.cumsum(mask, axis=0, dtype=np.float32) / np.float32(size * depth)
    aside = np.clip(SIGN[lesion.side] * (x - np.float32(person.midline)) / np.float32(person.half), 0, 1)
    return blur(np.minimum(below, 1) * (np.float32(0.65) + np.float32(0.35) * aside) * mask, 0.003)


def pleural_line(lesion: Lesion, person: Person, size: int) -> Array:
    """The thin edge of the lung that has fallen away: the inner half of the outline."""
    inner = lesion.outline[len(lesion.outline) // 2 :]
    inside = blur(unit(fill(size, lesion.outline)), 0.002)
    edge = blur(unit(stroke(size, [inner], 0.0028)), 0.0006)
    return edge * np.minimum(inside * 2, 1) * np.float32(0.6 + 0.15 * lesion.severity)


SHAPES = {
    "Atelectasis": collapse, "Effusion": fluid, "Infiltration": patches, "Mass": ball, "Nodule": ball,
    "Pneumonia": consolidation,
}  # fmt: skip
