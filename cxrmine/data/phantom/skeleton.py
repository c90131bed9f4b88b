"""The bones: ribs, spine, collar bones, shoulder blades, upper arms. Thickness in centimetres of bone."""

import numpy as np

from cxrmine.data.phantom.anatomy import LEFT, RIGHT, SIGN, WALL, Person, arm_curves, at, chest, place, upright
from cxrmine.data.phantom.canvas import (
    Array,
    Points,
    blur,
    closed_curve,
    ellipse,
    fill,
    grid,
    open_curve,
    stroke,
    texture,
    tube,
    unit,
)

RIBS = 11


def bones(person: Person, size: int, rng: np.random.Generator) -> Array:
    """All bones along each ray; the trabeculae give them a faint grain."""
    thickness = ribs(person, size) + spine(person, size, rng) + shoulders(person, size)
    thickness *= 1 + np.float32(0.06) * texture(rng, size, 160)
    return blur(thickness, 0.0009)


def rib_curves(
    person: Person, side: str, numbers: Points, start: float | Points, end: float | Points, points: int
) -> Points:
    """Axes of ribs (ribs×points×2) between two angles on the ring that each is seen as from the front.

    On a tilted ring of half width W the angle t gives x = W sin t and y = drop (1 - cos t) / 2, so that ribs leave the
    spine nearly level, fall steeply at the side, and come back lower in front.
    """
    pitch = (person.dome - person.apex) / 9.0
    top = person.apex + (numbers - 1.2) * pitch
    drop = person.rib_drop * np.interp(numbers, [1, 3, 7, 11], [0.4, 0.85, 1.1, 1.1])
    wall = upright(person, side, np.asarray(WALL))
    reach = np.interp(top + 0.42 * drop, wall[:, 1], np.abs(wall[:, 0])) + 0.002
    reach[numbers == 1] *= 0.86
    t = np.deg2rad(
        np.linspace(np.broadcast_to(start, numbers.shape), np.broadcast_to(end, numbers.shape), points, axis=1)
    )
    x = np.maximum(reach[:, None] * np.sin(t) ** 0.9, 0.024)
    # the neck of the rib climbs a little before the ring's fall
    y = top[:, None] + drop[:, None] * (1 - np.cos(t)) / 2 - 0.012 * np.exp(-(((t - 0.55) / 0.35) ** 2))
    return place(person, np.stack([SIGN[side] * x, y], -1).reshape(-1, 2)).reshape(*x.shape, 2)


def ribs(person: Person, size: int) -> Array:
    """Back and front halves on their own canvases, so that they add up where they cross."""
    back, front, rims, flanks, walls = (np.zeros((size, size), np.uint8) for _ in range(5))
    width = 0.0245 * person.half / 0.385
    numbers, with_front = np.arange(1.0, RIBS + 1), np.arange(1.0, 9)
    ends = np.interp(with_front, [1, 2, 7, 8], [150, 148, 130, 122])
    for side in (RIGHT, LEFT):
        behind = tube(
            rib_curves(person, side, numbers, 5, 97, 26), width * np.interp(np.arange(26), [0, 7, 25], [0.7, 1.0, 0.8])
        )
        before = tube(
            rib_curves(person, side, with_front, 84, ends, 18), width * np.interp(np.arange(18), [0, 17], [0.8, 1.25])
        )
        fill(size, *behind[:9], value=200, canvas=back)
        fill(size, *behind[9:], value=90, canvas=back)  # these lie behind the liver, deep in scatter
        fill(size, *before, value=120, canvas=front)
        for outline, half, ink in ((behind, 26, 190), (before, 18, 130)):
            stroke(size, outline[:, :half], 0.0032, ink, rims)
            stroke(size, outline[:, half:], 0.0032, ink, rims)
        stroke(size, rib_curves(person, side, with_front, 72, 108, 10), 0.012, 190, flanks)
        stroke(size, [open_curve(chest(person, side, WALL))], 0.011, 220, walls)
    side_on = blur(unit(flanks) + unit(walls), 0.002)
    thickness = unit(back) * 0.44 + unit(front) * 0.5 + unit(rims) * 0.2 + side_on * np.float32(0.3)
    # towards the spine the ribs are thin and lie behind everything else: blurred and fainter
    aside = np.abs(grid(size)[0] - person.midline) / np.float32(0.3 * person.half)
    return thickness * np.minimum(np.float32(0.4) + np.float32(0.6) * aside**2, 1)


BODY = closed_curve([(-1, -1), (0, -0.92), (1, -1), (0.9, 0), (1, 1), (0, 0.92), (-1, 1), (-0.9, 0)], 4)
PROCESS = closed_curve([(0, -0.1), (0.005, 0.8), (0, 1.25), (-0.005, 0.8)], 4)


def spine(person: Person, size: int, rng: np.random.Generator) -> Array:
    """Bodies with denser rims, disc gaps between them, pedicles and spinous processes on top."""
    pitch = (person.dome - person.apex) / 9.0
    tall = 0.455 * pitch
    y = np.arange(person.apex - 4.2 * pitch, 1.05, pitch)
    x = rng.normal(0, 0.004) * np.sin(6 * y)
    half = np.interp(y, [0, person.apex, person.dome, 1], [0.036, 0.036, 0.041, 0.05])
    centres, across = np.stack([x, y], 1)[:, None], np.stack([half, np.full_like(half, tall)], 1)[:, None]
    bodies = centres + BODY * across
    pedicle = ellipse((0, 0), (0.0065, 0.009), steps=16)
    details = [centres + np.array([s * 0.62, -0.3]) * across + pedicle for s in (-1, 1)]
    details.append(centres + PROCESS * [1, tall])
    wings = centres + np.array([(-1.75, 0), (0, 0), (1.75, 0)]) * across + [(0, -0.012), (0, 0), (0, -0.012)]
    bodies, *details, wings = (
        place(person, group.reshape(-1, 2)).reshape(group.shape) for group in (bodies, *details, wings[:17])
    )
    solid = blur(unit(fill(size, *bodies, value=190)), 0.002)
    rims = np.zeros((size, size), np.uint8)
    for group in (bodies, *details):
        stroke(size, np.concatenate([group, group[:, :1]], 1), 0.003, 200, rims)
    transverse = blur(unit(stroke(size, wings, 0.014, 110)), 0.003)
    return solid * np.float32(0.6) + unit(rims) * np.float32(0.22) + transverse * np.float32(0.5)


def shoulders(person: Person, size: int) -> Array:
    """Collar bones over the apices, shoulder blades beside the ribs, the heads of the upper arms."""
    canvas, rims, blades = (np.zeros((size, size), np.uint8) for _ in range(3))
    top, k = person.apex + person.shoulder, person.half / 0.385
    shafts = arm_curves(person)
    lines: list[Points] = []
    for s, shaft in zip((-1, 1), shafts, strict=True):
        collar = open_curve(at(person, *((s * x * k, top + y) for x, y in (
            (0.045, 0.125), (0.1, 0.1), (0.18, 0.07), (0.27, 0.03), (0.35, 0.012), (0.42, 0.02)))))  # fmt: skip
        thick = np.interp(np.linspace(0, 1, len(collar)), [0, 0.05, 0.14, 0.5, 1], [0.012, 0.026, 0.025, 0.02, 0.026])
        bars = [tube(collar, thick)]
        blade = closed_curve(at(person, *((s * x * k, top + y) for x, y in (
            (0.29, 0.06), (0.4, 0.085), (0.425, 0.11), (0.415, 0.15), (0.4, 0.2), (0.375, 0.32), (0.355, 0.385),
            (0.335, 0.37), (0.315, 0.25)))))  # fmt: skip
        acromion = closed_curve(at(person, *((s * x * k, top + y) for x, y in (
            (0.31, 0.075), (0.38, 0.045), (0.45, 0.025), (0.475, 0.045), (0.44, 0.06), (0.38, 0.075)))), 5)  # fmt: skip
        coracoid = place(person, ellipse((s * 0.388 * k, top + 0.088), (0.02, 0.013), -s * 25))
        head = place(person, ellipse((s * 0.468 * k, top + 0.115), (0.04, 0.046), s * 15))
        fill(size, *bars, value=170, canvas=canvas)
        bars += [acromion, coracoid]
        fill(size, acromion, coracoid, value=60, canvas=canvas)
        fill(size, blade, value=70, canvas=blades)
        fill(size, head, tube(shaft, np.interp(np.linspace(0, 1, len(shaft)), [0, 0.3, 1], [0.06, 0.036, 0.034])),
             value=140, canvas=blades)  # fmt: skip
        lateral = open_curve(at(person, *((s * x * k, top + y) for x, y in (
            (0.425, 0.12), (0.41, 0.17), (0.392, 0.25), (0.358, 0.38)))))  # fmt: skip
        lines += [np.concatenate([p, p[:1]]) for p in (*bars, head)] + [lateral]
    stroke(size, lines, 0.003, 150, rims)
    return (unit(canvas) * 0.9 + blur(unit(blades), 0.002) * 0.85 + unit(rims) * 0.22).astype(np.float32)
