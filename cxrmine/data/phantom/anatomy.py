"""A person: a few numbers, the outlines that follow from them, and the soft tissue and air in a film's path.

Sides are the patient's: right is on the left of the film. Along a side, `u` runs outwards from the midline (1 at the
widest of the rib cage) and `v` downwards from the apex of the lung (1 at the dome of the diaphragm).
"""

from dataclasses import dataclass

import numpy as np

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
    rounded,
    stroke,
    unit,
)

RIGHT, LEFT = "right", "left"
SIGN = {RIGHT: -1.0, LEFT: 1.0}

LUNG = (
    (0.12, 0.25), (0.15, 0.12), (0.22, 0.037), (0.33, 0.0), (0.45, 0.022), (0.58, 0.085), (0.695, 0.185), (0.785, 0.31),
    (0.85, 0.46), (0.895, 0.63), (0.93, 0.8), (0.96, 0.96), (0.988, 1.12), (1.0, 1.19), (0.988, 1.185),
    (0.93, 1.11), (0.83, 1.05), (0.7, 1.01), (0.55, 0.99), (0.4, 1.0), (0.27, 1.03), (0.16, 1.04), (0.13, 0.85),
    (0.12, 0.5),
)  # fmt: skip
WALL = (*LUNG[4:13], (1.02, 1.3), (1.04, 1.45), (1.04, 1.7))  # inside of the ribs, from the apex down
HEART = (
    (-0.12, 0.0), (0.1, -0.01), (0.2, 0.06), (0.29, 0.14), (0.41, 0.245), (0.53, 0.39), (0.62, 0.56), (0.662, 0.73),
    (0.652, 0.87), (0.56, 0.965), (0.25, 1.0), (0.0, 0.99), (-0.14, 0.96), (-0.245, 0.87), (-0.312, 0.74),
    (-0.335, 0.58), (-0.318, 0.42), (-0.27, 0.28), (-0.19, 0.13),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """Lengths are fractions of the film, thicknesses centimetres of water."""

    female: bool
    age: int
    view: str  # PA: standing, arms forward; AP: lying or sitting in bed, poorer inspiration
    midline: float
    apex: float
    dome: float  # of the right hemidiaphragm
    left_drop: float  # how much lower the left dome stands
    half: float  # half the inner width of the rib cage
    ctr: float  # cardiothoracic ratio
    heart_height: float
    lean: float  # degrees
    girth: float  # soft tissue outside the ribs
    shoulder: float  # its height
    depth: float  # of the abdomen
    breast: float  # thickness
    rib_drop: float  # how far a rib falls from back to front
    knob: float  # radius of the aortic knob
    build: int  # seed of the lungs' own shape
    arms: float = 1.0  # how far the elbows are held out, relative to what is common
    raised: tuple[tuple[str, float], ...] = ()  # hemidiaphragms drawn up by volume loss


def new_person(rng: np.random.Generator) -> Person:
    """What stays the same in all films of a patient; the view and the inspiration come with `posed`."""
    female = bool(rng.random() < 0.45)
    age = int(np.clip(rng.normal(50, 16), 18, 92))
    return Person(
        female=female,
        age=age,
        view="PA",
        midline=0.5,
        apex=0.0,
        dome=0.0,
        left_drop=float(np.clip(rng.normal(0.022, 0.01), 0.0, 0.045)),
        half=float(np.clip(rng.normal(0.385, 0.018), 0.34, 0.425)) - 0.012 * female,
        ctr=float(np.clip(rng.normal(0.452, 0.024), 0.40, 0.50)),
        heart_height=float(np.clip(rng.normal(0.345, 0.02), 0.29, 0.39)),
        lean=0.0,
        girth=float(np.clip(rng.gamma(3.0, 0.016), 0.015, 0.11)),
        shoulder=float(rng.normal(0, 0.015)),
        depth=float(np.clip(rng.normal(21.5, 1.8), 17, 26)),
        breast=float(rng.uniform(1.2, 4.0)) if female else 0.0,
        rib_drop=float(np.clip(rng.normal(0.2, 0.035), 0.13, 0.28)),
        knob=float(np.clip(rng.normal(0.024 + 0.0003 * (age - 40), 0.004), 0.016, 0.048)),
        build=int(rng.integers(2**31)),
    )


def place(person: Person, xy: Points) -> Points:
    """Upright coordinates around the midline, put on the film: leant about its centre and shifted."""
    turn = np.deg2rad(person.lean)
    x, y = xy[:, 0], xy[:, 1] - 0.5
    return np.stack(
        [person.midline + x * np.cos(turn) - y * np.sin(turn), 0.5 + x * np.sin(turn) + y * np.cos(turn)], 1
    )


def dome_height(person: Person, side: str) -> float:
    """y of the top of a hemidiaphragm."""
    lower = person.left_drop if side == LEFT else 0.0
    return person.dome + lower - dict(person.raised).get(side, 0.0)


def upright(person: Person, side: str, uv: Points) -> Points:
    """Chest coordinates (u, v) of a side, in upright film lengths from the midline."""
    # only what is below the middle of the lung moves with its diaphragm
    base = person.dome + (dome_height(person, side) - person.dome) * np.clip((uv[:, 1] - 0.4) / 0.6, 0, 1)
    return np.stack([SIGN[side] * uv[:, 0] * person.half, person.apex + uv[:, 1] * (base - person.apex)], 1)


def chest(person: Person, side: str, uv: Points | tuple[tuple[float, float], ...]) -> Points:
    """Chest coordinates of a side on the film."""
    return place(person, upright(person, side, np.asarray(uv, float)))


def lung_outline(person: Person, side: str) -> Points:
    """The common shape, each of its points a little elsewhere in everyone; the two angles stay sharp."""
    own = np.random.default_rng([person.build, side == LEFT]).normal(0, 0.013, (len(LUNG), 2))
    own = (np.roll(own, -1, 0) + own + np.roll(own, 1, 0)) / 3
    own[12:16] = own[13]
    return closed_curve(chest(person, side, np.asarray(LUNG) + own))


def heart_outline(person: Person) -> Points:
    """The heart, its right third right of the midline; it stands on the left hemidiaphragm."""
    width = 2 * person.half * person.ctr
    bottom = person.dome + person.left_drop + 0.055
    shape = np.asarray(HEART, float) * [width, person.heart_height]
    shape[:, 1] += bottom - person.heart_height
    return closed_curve(place(person, shape))


def at(person: Person, *xy: tuple[float, float]) -> Points:
    """Upright points around the midline on the film."""
    return place(person, np.asarray(xy, float))


def trunk_outline(person: Person) -> Points:
    side_x, k, top = person.half + 0.03 + person.girth, person.half / 0.385, person.apex + person.shoulder
    right = [
        (0.105 * k, -0.1), (0.1 * k, top - 0.12), (0.12 * k, top - 0.065), (0.2 * k, top - 0.02),
        (0.3 * k, top + 0.005), (0.39 * k, top + 0.025), (0.47 * k, top + 0.07), (0.52 * k, top + 0.16),
        (0.5 * k, top + 0.27), (side_x + 0.02, top + 0.37), (side_x, top + 0.45), (side_x - 0.005, person.dome + 0.05),
        (side_x + 0.005, person.dome + 0.2), (side_x + 0.01, 1.1), (side_x + 0.01, 1.4), (side_x + 0.01, 1.7),
    ]  # fmt: skip
    both = right + [(-x, y) for x, y in right[::-1]]
    return place(person, open_curve(both, 6))


def arm_curves(person: Person) -> list[Points]:
    """The axes of the upper arms, from the shoulder joint down and out."""
    top = person.apex + person.shoulder
    reach = np.array((0.09, 0.16) if person.view == "PA" else (0.2, 0.34)) * person.arms
    return [
        open_curve(at(person, *((s * x, y) for x, y in ((0.44, top + 0.1), (0.44 + reach[0], top + 0.35),
                                                        (0.44 + reach[1], top + 0.62)))))
        for s in (-1, 1)
    ]  # fmt: skip


def body_thickness(person: Person, size: int) -> Array:
    """Centimetres of soft tissue along each ray if there were no air in the chest."""
    x, y = grid(size)
    top = person.apex + person.shoulder
    levels = [0.0, top - 0.04, top + 0.12, person.apex + 0.3, person.dome, person.dome + 0.12]
    depths = np.array([0.62, 0.68, 0.72, 0.85, 0.93, 1.03]) * person.depth
    depth = np.interp(y[:, 0], levels, depths).astype(np.float32)[:, None]
    trunk = np.sqrt(rounded(fill(size, trunk_outline(person)), 0.2))
    trunk *= np.float32(0.35) + np.float32(0.65) * np.sqrt(trunk)  # the flanks curve away
    # the liver is denser than the stomach and bowel opposite it
    belly = np.clip((y - np.float32(person.dome)) * 6, 0, 1) * np.tanh((np.float32(person.midline) - x) * 9)
    depth = depth + belly * np.float32(0.03 * person.depth)
    arms = np.sqrt(rounded(stroke(size, arm_curves(person), 0.15), 0.07)) * np.float32(0.6 * person.depth)
    thickness = blur(np.maximum(trunk * depth, arms), 0.004) + folds(person, size)
    if person.breast:
        thickness += breasts(person, size)
    return thickness


def breasts(person: Person, size: int) -> Array:
    """Thicker towards the fold below, where they end sharply."""
    x, y = grid(size)
    fall = 0.6 + 0.003 * person.age
    middle = person.apex + fall * (person.dome - person.apex)
    shapes = [ellipse((aside, middle), (0.165, 0.17), a) for aside, a in ((-0.275, -14), (0.275, 14))]
    canvas = fill(size, *(place(person, s) for s in shapes))
    ramp = np.clip((y - (middle - 0.17)) / 0.32, 0, 1) ** 1.6
    # towards the breastbone they flatten out, so that no edge crosses the heart
    lateral = np.clip((np.abs(x - np.float32(person.midline)) - np.float32(0.1)) * np.float32(7), 0, 1)
    return blur(rounded(canvas, 0.09), 0.003) * ramp * lateral * np.float32(1.3 * person.breast)


def folds(person: Person, size: int) -> Array:
    """The muscles before and behind the armpit, whose edges run from the arm down to the chest wall."""
    top, k, side = person.apex + person.shoulder, person.half / 0.385, person.half + 0.5 * person.girth
    canvas = np.zeros((size, size), np.uint8)
    for s in (-1, 1):
        front = ((0.22 * k, top + 0.09), (0.42 * k, top + 0.12), (0.47 * k, top + 0.17), (0.4 * k, top + 0.25),
                 (side - 0.06, top + 0.33), (0.27 * k, top + 0.3), (0.19 * k, top + 0.2))  # fmt: skip
        back = ((0.33 * k, top + 0.2), (0.45 * k, top + 0.2), (0.44 * k, top + 0.31), (side, top + 0.46),
                (side - 0.03, top + 0.62), (side - 0.07, top + 0.45))  # fmt: skip
        fill(size, closed_curve(at(person, *((s * x, y) for x, y in back))), value=150, canvas=canvas)
        fill(size, closed_curve(at(person, *((s * x, y) for x, y in front))), value=230, canvas=canvas)
    # above, they thin out under the collar bone
    fading = np.clip((grid(size)[1] - np.float32(top + 0.08)) * np.float32(7), 0, 1)
    return blur(unit(canvas), 0.004) * fading * np.float32(0.08 * person.depth)


def lung_masks(person: Person, size: int) -> dict[str, Bytes]:
    """Each lung's silhouette, the part behind the heart included."""
    return {side: fill(size, lung_outline(person, side)) for side in (RIGHT, LEFT)}


def lung_air(person: Person, size: int, lungs: dict[str, Bytes]) -> tuple[Array, Array]:
    """Centimetres of air (tissue displaced) along each ray before the heart takes its part, and behind the heart."""
    _, y = grid(size)
    span = person.dome - person.apex
    levels = [person.apex, person.apex + 0.25 * span, person.apex + 0.6 * span, person.dome + 0.1]
    depth = np.interp(y[:, 0], levels, np.array([0.31, 0.43, 0.49, 0.49]) * person.depth).astype(np.float32)[:, None]
    air, behind = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    for side, lung in lungs.items():
        air = np.maximum(air, rounded(lung, 0.032) * depth)
        # the recess behind the diaphragm, under its dome
        recess = chest(person, side, ((0.3, 0.9), (0.6, 0.9), (0.93, 0.9), (0.99, 1.16), (0.6, 1.12), (0.3, 1.12)))
        np.maximum(behind, blur(unit(fill(size, closed_curve(recess))), 0.015) * np.float32(1.8), out=behind)
    return air, behind


def heart_thickness(person: Person, size: int, heart: Bytes) -> Array:
    return blur(rounded(heart, 0.075), 0.0025) * np.float32(0.62 * person.depth)


def mediastinum(person: Person, size: int) -> tuple[Array, Array]:
    """Centimetres of great vessels that displace lung, and of air in the windpipe that displaces tissue."""
    top, carina = person.apex, person.apex + 0.36 * (person.dome - person.apex)
    k = person.half / 0.385
    # on the right the vena cava's straight border, then the ascending aorta; on the left the pulmonary artery's
    # segment; both run into the heart's borders
    wide, heart = 2 * person.half * person.ctr, person.dome + person.left_drop + 0.055 - person.heart_height
    middle = 0.5 * (carina + heart + 0.1)
    column = at(person, (-0.062 * k, top - 0.1), (0.06 * k, top - 0.1), (0.05 * k, top + 0.06),
                (0.056 * k, carina - 0.07), (0.062 * k, carina), (0.082 * k, min(middle, heart + 0.06)),
                (0.36 * wide, heart + 0.25 * person.heart_height), (0.2 * wide, person.dome), (0.0, person.dome + 0.1),
                (-0.05 * k, person.dome + 0.04), (-0.23 * wide, heart + 0.34 * person.heart_height),
                (-0.07 * k, max(middle, carina + 0.03)), (-0.066 * k, carina - 0.04),
                (-0.058 * k, top + 0.07))  # fmt: skip
    r = person.knob
    knob = place(person, ellipse((0.044 * k + 0.3 * r, carina - 0.045), (0.022 * k + 0.25 * r, 0.026 + 0.5 * r), -14))
    aorta = open_curve(at(person, (0.045, carina - 0.05), (0.05, carina + 0.1), (0.035, person.dome),
                          (0.02, person.dome + 0.08)))  # fmt: skip
    great = rounded(fill(size, closed_curve(column), knob), 0.03)
    tissue = blur(great, 0.0025) * np.float32(0.72 * person.depth) + unit(stroke(size, [aorta], 0.042)) * np.float32(1)
    windpipe = stroke(size, [open_curve(at(person, (0, -0.05), (0, top), (-0.007, carina - 0.01)))], 0.029)
    right = open_curve(at(person, (-0.007, carina - 0.012), (-0.03, carina + 0.02), (-0.06, carina + 0.05)))
    left = open_curve(at(person, (-0.004, carina - 0.01), (0.03, carina + 0.015), (0.075, carina + 0.035)))
    stroke(size, [right, left], 0.019, 150, windpipe)
    return tissue, blur(rounded(windpipe, 0.014), 0.0035) * np.float32(2.3)
