"""The bones: ribs, spine, collar bones, shoulder blades, upper arms. Thickness in centimetres of bone."""

import numpy as np

from cxrmine.data.phantom.anatomy import LEFT, RIGHT, SIGN, WALL, Person, arm_curves, at, chest, place, upright
from cxrmine.data.phantom.canvas import (
    Array,
    Bytes,
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
    """Back and front halves on their own canvases, so that they add up where they cross; cortices as lines."""
    back, front, rims, crossing = (np.zeros((size, size), np.uint8) for _ in range(4))
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
        fill(size, *behind, value=190, canvas=back)
        fill(size, *before, value=130, canvas=front)
        for outline, half, ink, canvas in ((behind, 26, 230, rims), (before, 18, 150, crossing)):
            stroke(size, outline[:, :half], 0.0032, ink, canvas)
            stroke(size, outline[:, half:], 0.0032, ink, canvas)
    thickness = unit(back) * np.float32(0.52) + unit(front) * np.float32(0.36)
    thickness += unit(rims) * np.float32(0.5) + unit(crossing) * np.float32(0.22)
    # towards the spine the ribs are thin and lie behind everything else: blurred and fainter
    aside = np.abs(grid(size)[0] - person.midline) / np.float32(0.3 * person.half)
    thickness *= np.minimum(np.float32(0.4) + np.float32(0.6) * aside**2, 1)
    deep = np.clip((grid(size)[1] - np.float32(person.dome)) * np.float32(12), 0, 1)  # behind the belly
    thickness *= 1 - np.float32(0.45) * deep
    return thickness + flanks(person, size, numbers)


def flanks(person: Person, size: int, numbers: Points) -> Array:
    """Where ribs turn along the rays: both cortices of each, every other rib on its own canvas, so that they stack."""
    canvases = [np.zeros((size, size), np.uint8) for _ in range(2)]
    band = np.zeros((size, size), np.uint8)
    shell = 0.0052 * person.half / 0.385
    for side in (RIGHT, LEFT):
        curves = rib_curves(person, side, numbers, 50, np.interp(numbers, [8, 11], [128, 100]), 16)
        for parity, canvas in enumerate(canvases):
            some = curves[parity::2]
            for x, ink in ((shell, 255), (-shell, 210)):
                stroke(size, some + np.array([SIGN[side] * x, 0]), 0.0034, ink, canvas)
        stroke(size, curves[:, 4:12], 0.011, 120, band)
        wall = open_curve(chest(person, side, WALL))
        for x, ink in ((0.001, 255), (0.014, 170)):  # the envelope of all ribs, inside and outside
            stroke(size, [wall + np.array([SIGN[side] * x, 0])], 0.0045, ink, band)
    # the ring is tangent to the rays at its widest only
    edge = np.abs(grid(size)[0] - np.float32(person.midline)) / np.float32(person.half)
    turned = np.clip((edge - np.float32(0.72)) * np.float32(5), 0, 1)
    turned = turned * np.clip((np.float32(person.dome + 0.3) - grid(size)[1]) * np.float32(6), 0, 1)
    return (
        (unit(canvases[0]) + unit(canvases[1])) * np.float32(0.65) + blur(unit(band), 0.0012) * np.float32(0.8)
    ) * turned


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
    for group, ink in ((bodies, 150), (details[0], 110), (details[1], 110), (details[2], 220)):
        stroke(size, np.concatenate([group, group[:, :1]], 1), 0.0028, ink, rims)
    transverse = blur(unit(stroke(size, wings, 0.014, 110)), 0.003)
    # from the arch of the aorta down all the vessels lie before it, then the heart, then the belly
    span = person.dome - person.apex
    clear = np.interp(grid(size)[1], [person.apex + 0.25 * span, person.apex + 0.5 * span], [1, 0.5])
    bone = solid * np.float32(0.6) + unit(rims) * np.float32(0.7) + transverse * np.float32(0.5)
    return bone * clear.astype(np.float32)


def shoulders(person: Person, size: int) -> Array:
    """Collar bones over the apices, shoulder blades beside the ribs, the heads of the upper arms."""
    collars, blades, rims = (np.zeros((size, size), np.uint8) for _ in range(3))
    k = person.half / 0.385
    for s, shaft in zip((-1.0, 1.0), arm_curves(person), strict=True):
        head = place(person, ellipse((s * 0.468 * k, person.apex + person.shoulder + 0.115), (0.04, 0.046), s * 15))
        arm = tube(shaft, np.interp(np.linspace(0, 1, len(shaft)), [0, 0.3, 1], [0.062, 0.036, 0.034]))
        blade, acromion, coracoid, ridge = scapula(person, s)
        outlined(rims, [head, arm], 190)
        outlined(rims, [blade, acromion], 120)
        fill(size, head, arm, value=140, canvas=blades)
        fill(size, blade, value=60, canvas=blades)
        fill(size, acromion, coracoid, value=110, canvas=blades)
        stroke(size, [coracoid, ridge], 0.003, 90, rims)
        collar, thick = clavicle(person, s)
        bar = tube(collar, thick)
        fill(size, bar, value=170, canvas=collars)
        stroke(size, [np.concatenate([bar, bar[:1]])], 0.0034, 200, rims)
    flat = unit(collars) + blur(unit(blades), 0.002) * np.float32(0.85)
    return flat + blur(unit(rims), 0.0008) * np.float32(0.95)


def outlined(canvas: Bytes, parts: list[Points], ink: int) -> None:
    """The cortex around the union of the parts, and none where they overlap."""
    own = stroke(len(canvas), [np.concatenate([p, p[:1]]) for p in parts], 0.008, ink)
    fill(len(canvas), *parts, value=0, canvas=own)
    np.maximum(canvas, own, out=canvas)


def clavicle(person: Person, s: float) -> tuple[Points, Points]:
    """Its axis, shaped like an S, and how thick it is along it."""
    top, k = person.apex + person.shoulder, person.half / 0.385
    axis = open_curve(at(person, *((s * x * k, top + y) for x, y in (
        (0.045, 0.125), (0.1, 0.1), (0.18, 0.07), (0.27, 0.03), (0.35, 0.012), (0.42, 0.02)))))  # fmt: skip
    ends = np.interp(np.linspace(0, 1, len(axis)), [0, 0.05, 0.14, 0.5, 1], [0.012, 0.026, 0.025, 0.019, 0.024])
    return axis, ends


def scapula(person: Person, s: float) -> tuple[Points, Points, Points, Points]:
    """The blade, the acromion, the coracoid seen end-on, and the ridge across the blade."""
    top, k = person.apex + person.shoulder, person.half / 0.385

    def points(*xy: tuple[float, float]) -> Points:
        return at(person, *((s * x * k, top + y) for x, y in xy))

    blade = closed_curve(points(
        (0.3, 0.075), (0.36, 0.07), (0.415, 0.08), (0.43, 0.11), (0.423, 0.145), (0.402, 0.165), (0.398, 0.22),
        (0.388, 0.29), (0.367, 0.36), (0.35, 0.372), (0.335, 0.345), (0.318, 0.25), (0.302, 0.15)))  # fmt: skip
    acromion = closed_curve(points(
        (0.335, 0.085), (0.38, 0.05), (0.45, 0.028), (0.475, 0.045), (0.445, 0.065), (0.385, 0.085)), 5)  # fmt: skip
    coracoid = place(person, ellipse((s * 0.385 * k, top + 0.098), (0.019, 0.012), -s * 25))
    return blade, acromion, coracoid, open_curve(points((0.3, 0.13), (0.34, 0.1), (0.39, 0.075)))
