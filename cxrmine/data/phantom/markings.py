"""What is seen inside the lungs: vessels that branch and taper away from the hila, fissure, fine grain."""

import numpy as np

from cxrmine.data.phantom.anatomy import LEFT, RIGHT, SIGN, Person, at, chest, place
from cxrmine.data.phantom.canvas import (
    Array,
    Points,
    blur,
    ellipse,
    enlarged,
    fill,
    open_curve,
    stroke,
    texture,
    tube,
    unit,
)

LEVELS = 4
# per trunk: the angle it leaves the hilum at (0 outwards, 90 down) and how far it runs, in chest half-widths
TRUNKS = ((-82, 0.8), (-62, 0.78), (-42, 0.72), (-22, 0.62), (0, 0.62), (22, 0.68), (40, 0.8), (55, 0.9), (68, 0.9),
          (82, 0.8))  # fmt: skip


def hilum(person: Person, side: str) -> tuple[float, float]:
    """Where the vessels of a lung come from, upright; the left one stands higher."""
    height = 0.44 if side == RIGHT else 0.40
    return SIGN[side] * 0.078 * person.half / 0.385, person.apex + height * (person.dome - person.apex)


def vessels(person: Person, size: int, rng: np.random.Generator) -> Array:
    """Centimetres of blood along each ray, for both lungs."""
    canvas = np.zeros((size, size), np.uint8)
    for side in (RIGHT, LEFT):
        by_level = tree(person, side, rng)
        for level in range(LEVELS - 1, -1, -1):
            # thinner in its outer half: a vessel tapers all along
            for half, taper in ((slice(2, None), 0.8), (slice(0, 4), 1.0)):
                caliber = taper * 0.64**level
                stroke(size, by_level[level][:, half], 0.0112 * caliber, 255 * caliber**0.8, canvas)
    return blur(unit(canvas), 0.0007) * np.float32(2.7) + roots(person, size, rng)


def roots(person: Person, size: int, rng: np.random.Generator) -> Array:
    """The hila: pulmonary arteries and veins seen together, some of them end-on."""
    canvas, spots = np.zeros((size // 2, size // 2), np.uint8), np.zeros((size, size), np.uint8)
    for side in (RIGHT, LEFT):
        x, y = hilum(person, side)
        s = SIGN[side]
        low = 0.15 if side == RIGHT else 0.1  # the left lower artery soon runs behind the heart
        down = open_curve(at(person, (x - s * 0.02, y - 0.04), (x + s * 0.03, y - 0.015), (x + s * 0.046, y + 0.04),
                             (x + s * 0.056, y + 0.6 * low), (x + s * 0.07, y + low)))  # fmt: skip
        up = open_curve(at(person, (x, y), (x + s * 0.018, y - 0.04), (x + s * 0.022, y - 0.1)))
        arteries = tube(down, np.linspace(0.036, 0.006, len(down))), tube(up, np.linspace(0.028, 0.006, len(up)))
        root = ellipse((x + s * 0.012, y - 0.005), (0.026, 0.048), s * 12)
        fill(size // 2, place(person, root), value=90, canvas=canvas)
        fill(size // 2, *arteries, canvas=canvas, value=160)
        ends = rng.normal(0, 1, (7, 2)) * [0.022, 0.05] + [x + s * 0.035, y + 0.01]
        radii = rng.uniform(0.0035, 0.0075, 7)
        for end, radius in zip(place(person, ends), radii, strict=True):
            stroke(size, [np.stack([end, end + 1e-4])], 2 * radius, 170, spots)
    return enlarged(blur(unit(canvas), 0.004), size) * np.float32(4.2) + blur(unit(spots), 0.0016) * np.float32(1.3)


def tree(person: Person, side: str, rng: np.random.Generator) -> list[Points]:
    """Curves of each level, N×points×2; every branch splits in two at its end and sends a smaller one off half way."""
    x, y = hilum(person, side)
    s, scale = SIGN[side], person.half
    angles = np.deg2rad([a for a, _ in TRUNKS]) + rng.normal(0, 0.08, len(TRUNKS))
    reach = np.array([r for _, r in TRUNKS]) * scale * rng.uniform(0.85, 1.1, len(TRUNKS))
    start = np.array([x, y]) + rng.normal(0, 0.006, (len(TRUNKS), 2))
    # the level ones begin behind the mediastinum's edge, all of them within the root
    start += np.stack([s * (0.012 - 0.03 * np.cos(angles)), 0.012 * np.sin(angles)], 1)
    reach += 0.02
    levels: list[Points] = []
    share = np.array([0.22, 0.24, 0.24, 0.22])
    for level in range(LEVELS):
        length = reach * share[level] * rng.uniform(0.75, 1.3, len(angles))
        bend = rng.normal(0, 0.3, len(angles))
        t = np.linspace(0, 1, 6)
        heading = angles[:, None] + bend[:, None] * (t - 0.3)
        steps = np.stack([s * np.cos(heading), np.sin(heading)], -1) * (length / 6)[:, None, None]
        curves = start[:, None, :] + np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, 1)], 1)
        levels.append(place(person, curves.reshape(-1, 2)).reshape(curves.shape))
        end, last = curves[:, -1], heading[:, -1]
        fork = rng.uniform(0.2, 0.45, len(angles))
        spread = rng.choice([-1.0, 1.0], len(angles))
        start = np.concatenate([end, end, curves[:, 3]])
        angles = np.concatenate([last + fork * 0.6, last - fork, last + spread * (0.5 + fork)])
        reach = np.concatenate([reach, reach * 0.9, reach * 0.6])
    return levels


def grain(size: int, rng: np.random.Generator) -> Array:
    """Small vessels and septa too many to draw, as a relative change of the lung's density."""
    return 0.5 * texture(rng, size, 50) + 0.7 * texture(rng, size, 160)


def fissure(person: Person, size: int) -> Array:
    """The horizontal fissure of the right lung, a hair line."""
    line = open_curve(chest(person, RIGHT, ((0.22, 0.52), (0.5, 0.5), (0.84, 0.54))))
    return blur(unit(stroke(size, [line], 0.0016, 200)), 0.0006) * np.float32(0.22)
