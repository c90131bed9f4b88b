"""The eight findings: where they occur, how large they are, and the outline each lesion has on the film.

Sizes and places follow the 984 boxes that radiologists drew on ChestX-ray14: the table holds the 10th, 25th, 50th,
75th and 90th percentile of those that lie on one side, as fractions of the film.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrmine.data.phantom.anatomy import LEFT, RIGHT, SIGN, Person, chest, heart_outline, lung_outline
from cxrmine.data.phantom.canvas import Points, circle, closed_curve, open_curve, silhouette, tube

FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax")
PERCENT = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Places:
    """Percentiles of a finding's boxes: distance of the centre from the middle, its height, width, height."""

    aside: tuple[float, ...]
    down: tuple[float, ...]
    width: tuple[float, ...]
    height: tuple[float, ...]
    likeness: float  # correlation of log width and log height


REAL = {
    "Atelectasis": Places(
        (0.114, 0.163, 0.211, 0.262, 0.299), (0.418, 0.494, 0.569, 0.652, 0.702),
        (0.098, 0.118, 0.160, 0.217, 0.258), (0.062, 0.080, 0.112, 0.176, 0.217), 0.35),
    "Effusion": Places(
        (0.202, 0.229, 0.285, 0.315, 0.354), (0.415, 0.474, 0.560, 0.646, 0.713),
        (0.098, 0.151, 0.198, 0.254, 0.290), (0.086, 0.161, 0.286, 0.452, 0.593), 0.3),
    "Infiltration": Places(
        (0.103, 0.149, 0.193, 0.222, 0.255), (0.389, 0.467, 0.529, 0.612, 0.676),
        (0.152, 0.182, 0.212, 0.239, 0.254), (0.141, 0.184, 0.238, 0.321, 0.423), 0.55),
    "Mass": Places(
        (0.082, 0.129, 0.199, 0.246, 0.289), (0.305, 0.363, 0.439, 0.526, 0.596),
        (0.073, 0.093, 0.115, 0.158, 0.259), (0.075, 0.098, 0.133, 0.198, 0.343), 0.84),
    "Nodule": Places(
        (0.126, 0.179, 0.243, 0.289, 0.327), (0.290, 0.353, 0.467, 0.606, 0.696),
        (0.047, 0.053, 0.069, 0.085, 0.098), (0.044, 0.055, 0.067, 0.078, 0.099), 0.86),
    "Pneumonia": Places(
        (0.131, 0.166, 0.197, 0.222, 0.259), (0.424, 0.484, 0.561, 0.631, 0.682),
        (0.157, 0.181, 0.214, 0.239, 0.266), (0.153, 0.186, 0.243, 0.354, 0.422), 0.63),
    "Pneumothorax": Places(
        (0.146, 0.174, 0.201, 0.233, 0.325), (0.145, 0.181, 0.252, 0.449, 0.617),
        (0.085, 0.127, 0.197, 0.249, 0.306), (0.082, 0.116, 0.200, 0.289, 0.522), 0.46),
}  # fmt: skip


@dataclass(frozen=True)
class Lesion:
    finding: str
    side: str
    severity: int  # 1 mild, 2 moderate, 3 severe
    outline: Points
    seed: int  # of its texture


@dataclass(frozen=True)
class Spot:
    """A box to draw a lesion into, by centre."""

    x: float
    y: float
    width: float
    height: float


def quantile(table: tuple[float, ...], share: float) -> float:
    """The value below which this share of the real ones lies, the tails cut off short."""
    low, high = table[0] - 0.5 * (table[1] - table[0]), table[-1] + 0.5 * (table[-1] - table[-2])
    return float(np.interp(share, PERCENT, (low, *table, high)))


def draw_size(finding: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Width and height as of a real box, and how large it is among them (0..1)."""
    real = REAL[finding]
    first, second = rng.standard_normal(2)
    second = real.likeness * first + math.sqrt(1 - real.likeness**2) * second
    wide, tall = (0.5 * (1 + math.erf(z / math.sqrt(2))) for z in (first, second))
    return quantile(real.width, wide), quantile(real.height, tall), (wide + tall) / 2


PROBES = np.concatenate([[(0.0, 0.0)], 0.3 * circle(12), 0.46 * circle(12)])


def inside(spot: Spot, lung: Points, heart: Points) -> float:
    """Which part of the spot's ellipse lies in the lung; what the heart hides counts half."""
    probes = PROBES * [spot.width, spot.height] + [spot.x, spot.y]
    return sum(holds(lung, p) * (1 - 0.5 * holds(heart, p)) for p in probes) / len(probes)


def holds(outline: Points, point: Points) -> bool:
    return bool(cv2.pointPolygonTest(outline.astype(np.float32), (float(point[0]), float(point[1])), False) >= 0)


def new_lesion(finding: str, person: Person, side: str, rng: np.random.Generator) -> Lesion:
    """A lesion of this finding on this side; of forty places the first that is in the lung, or else the best."""
    if finding == "Cardiomegaly":
        severity = 1 + int(np.digitize(person.ctr, (0.56, 0.605)))
        return Lesion(finding, LEFT, severity, heart_outline(person), int(rng.integers(2**31)))
    lung, heart = lung_outline(person, side), heart_outline(person)
    width, height, extent = draw_size(finding, rng)
    candidates: list[tuple[float, Spot]] = []
    for attempt in range(40):
        if attempt % 10 == 0:  # the height is given up last: else all low ones would move up, off the diaphragm
            down = quantile(REAL[finding].down, rng.random())
        x = person.midline + SIGN[side] * quantile(REAL[finding].aside, rng.random())
        spot = Spot(x, down, width, height)
        share = 1.0 if finding in ("Effusion", "Pneumothorax") else inside(spot, lung, heart)
        candidates.append((share, spot))
        if share > (0.85 if finding in ("Mass", "Nodule") else 0.64):
            break
    spot = max(candidates, key=lambda c: c[0])[1]
    severity = 1 + int(np.digitize(0.55 * extent + 0.45 * rng.random(), (0.38, 0.64)))
    outline = OUTLINES[finding](spot, person, side, rng)
    return Lesion(finding, side, severity, outline, int(rng.integers(2**31)))


def enlarged(person: Person, rng: np.random.Generator) -> Person:
    """The same person with an enlarged heart."""
    return replace(
        person,
        ctr=float(np.clip(rng.normal(0.59, 0.032), 0.53, 0.65)),
        heart_height=float(np.clip(rng.normal(0.36, 0.036), 0.3, 0.43)),
    )


def fitted(outline: Points, spot: Spot) -> Points:
    """The outline stretched to touch all four sides of the spot's box."""
    low, high = outline.min(0), outline.max(0)
    return (outline - (low + high) / 2) / (high - low) * [spot.width, spot.height] + [spot.x, spot.y]


def blob(spot: Spot, rng: np.random.Generator, rough: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 8):
        radius += rough * rng.normal() / wave**0.7 * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.45)
    return fitted(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), spot)


def nodule(spot: Spot, person: Person, side: str, rng: np.random.Generator) -> Points:
    return blob(spot, rng, 0.05)


def mass(spot: Spot, person: Person, side: str, rng: np.random.Generator) -> Points:
    return blob(spot, rng, 0.1)


def patch(spot: Spot, person: Person, side: str, rng: np.random.Generator) -> Points:
    return blob(spot, rng, 0.17)


def plate(spot: Spot, person: Person, side: str, rng: np.random.Generator) -> Points:
    """A band, thicker towards the hilum; the steeper its box the broader it is."""
    rise = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)
    line = open_curve(
        [(-1, -0.5 * rise), (-0.3, -0.1 * rise + rng.normal(0, 0.08)), (0.4, 0.25 * rise), (1, 0.5 * rise)]
    )
    medial, lateral = rng.uniform(0.35, 0.7), rng.uniform(0.15, 0.35)
    ends = (lateral, medial) if side == RIGHT else (medial, lateral)
    width = np.interp(line[:, 0], [-1, 1], ends) * np.sqrt(np.maximum(1.08 - line[:, 0] ** 2, 0.05))
    return fitted(closed_curve(tube(line, width)[::3], 3), spot)


def meniscus(spot: Spot, person: Person, side: str, rng: np.random.Generator) -> Points:
    """All that lies under a fluid level which climbs along the chest wall; the lung's own edge closes it below."""
    angle_xy = chest(person, side, ((1.0, 1.19),))[0]
    top = angle_xy[1] - 1.28 * spot.height - 0.015
    wall = angle_xy[0] + SIGN[side] * 0.05
    inner = angle_xy[0] - SIGN[side] * (1.25 * spot.width + 0.05)
    low = max(chest(person, side, ((0.55, 0.99),))[0][1], top)
    # concave: it falls fast along the wall, flattens, and ends on the diaphragm
    along = np.linspace(0, 1, 24)
    x = wall + (inner - wall) * along
    y = top + (low + 0.05 - top) * np.clip((along - 0.12) / 0.88, 0, 1) ** 0.62
    return np.concatenate([np.stack([x, y], 1), [(wall, low + 0.2)]])


def free_air(spot: Spot, person: Person, side: str, rng: np.random.Generator) -> Points:
    """Between the chest wall and the lung that has fallen away from it: over the apex, or lower down the side."""
    lung = lung_outline(person, side)
    apex = lung[:, 1].min()
    top = min(max(spot.y - spot.height / 2, apex), lung[:, 1].max() - 0.7 * spot.height)
    apical = top < apex + 0.19
    if apical:
        top = apex
    # the outline runs from the medial side over the apex and down the outer wall: the part within the spot's box
    ring = np.roll(lung, 12 - int(np.argmin(lung[:, 1])), axis=0)[: len(lung) * 2 // 3]
    aside = np.abs(ring[:, 0] - person.midline)
    low = top + 1.25 * spot.height
    here = (ring[:, 1] <= low) & (aside > aside[ring[:, 1] <= low].max() - 1.4 * spot.width)
    outer = ring[here & ((ring[:, 1] >= top) if apical else (ring[:, 1] >= top) & (aside > 0.5 * person.half))]
    along = np.linspace(0, 1, len(outer))
    # widest over the apex and thinning out down the side; away from the apex a lens
    gap = np.clip(1.25 * (1 - along) ** 0.8, 0, 1) * np.clip(along / 0.12, 0, 1) if apical else np.sin(np.pi * along)
    gap = gap * min(0.115, 0.015 + 0.2 * spot.height + 0.2 * spot.width) * rng.uniform(0.8, 1.15)
    inward = np.clip(np.abs(outer[:, 0] - person.midline) / person.half, 0, 1)
    fall = np.stack([-SIGN[side] * gap * inward**1.5, gap * (1 - inward**3) * apical], 1)
    seen = np.hypot(*fall.T) > 0.008  # a thinner slit of air is not seen
    return np.concatenate([outer[seen], (outer + fall)[seen][::-1]])


OUTLINES = {
    "Atelectasis": plate, "Effusion": meniscus, "Infiltration": patch, "Mass": mass, "Nodule": nodule,
    "Pneumonia": patch, "Pneumothorax": free_air,
}  # fmt: skip


def lesion_mask(lesion: Lesion, person: Person, size: int) -> NDArray[np.bool_]:
    """The pixels of a lesion: its outline, as far as it lies in the lung it is in."""
    mask = silhouette(size, lesion.outline)
    if lesion.finding == "Cardiomegaly":
        return mask
    within = mask & silhouette(size, lung_outline(person, lesion.side))
    if lesion.finding in ("Effusion", "Pneumothorax"):
        within = without_slivers(within)
    return within if within.any() else mask


def without_slivers(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is at least 1 % of the film thick: the hair lines a meniscus or a pleural line ends in are not outlined."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(2, round(0.011 * len(mask))),) * 2)
    thick = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    return thick if thick.any() else mask
