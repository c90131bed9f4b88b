"""What is on a film and is no disease, though it goes with one: letters, tubes, lines, leads, clips, shutters."""

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrmine.data.phantom.anatomy import LEFT, RIGHT, SIGN, Person, at, chest, place
from cxrmine.data.phantom.canvas import Array, Bytes, Points, blur, ellipse, fill, open_curve, stroke, unit
from cxrmine.data.phantom.film import MAXIMUM


def choose(findings: set[str], view: str, sides: dict[str, str], rng: np.random.Generator) -> tuple[str, ...]:
    """Which devices a film shows, given its findings: the sick carry more of them."""
    bed = view == "AP"
    chance = {
        "letter": 0.85,
        "portable": 0.55 if bed else 0.0,
        "leads": 0.5 if bed else 0.04,
        "breathing tube": (0.16 + 0.2 * ("Pneumonia" in findings)) if bed else 0.0,
        "venous line": 0.3 if bed else 0.05,
        "feeding tube": 0.18 if bed else 0.01,
        "pacemaker": 0.22 if "Cardiomegaly" in findings else 0.02,
        "sternal wires": 0.25 if "Cardiomegaly" in findings else 0.04,
        "clips": 0.16 if findings & {"Mass", "Nodule"} else 0.04,
        "shutters": 0.35,
    }
    chosen = [name for name, p in chance.items() if rng.random() < p]
    if "Pneumothorax" in findings and rng.random() < 0.45:
        chosen.append(f"drain {sides['Pneumothorax']}")
    elif "Effusion" in findings and rng.random() < 0.15:
        chosen.append(f"drain {sides['Effusion']}")
    return tuple(chosen)


def absorb(devices: tuple[str, ...], person: Person, size: int, rng: np.random.Generator) -> Array | None:
    """What the devices add to the attenuation; None for none."""
    drawn = [DRAW[d](person, size, rng) for d in devices if d in DRAW]
    drawn += [drain(person, size, d.split()[1]) for d in devices if d.startswith("drain")]
    return np.sum(drawn, axis=0, dtype=np.float32) if drawn else None


def hollow(size: int, curve: Points, width: float, strength: float) -> Array:
    """A tube of plastic: two walls, and a stripe that is made to be seen."""
    canvas = stroke(size, [curve], width, 90)
    stroke(size, [curve], 0.55 * width, 30, canvas)
    stroke(size, [curve + 0.3 * width], 0.0022, 255, canvas)
    return blur(unit(canvas), 0.0006) * np.float32(strength)


def breathing_tube(person: Person, size: int, rng: np.random.Generator) -> Array:
    tip = person.apex + rng.uniform(0.2, 0.32) * (person.dome - person.apex)
    return hollow(size, open_curve(at(person, (0.012, -0.05), (0.004, 0.5 * tip), (-0.003, tip))), 0.017, 0.55)


def venous_line(person: Person, size: int, rng: np.random.Generator) -> Array:
    s = rng.choice([-1.0, 1.0])
    top, span = person.apex, person.dome - person.apex
    tip = top + rng.uniform(0.36, 0.52) * span
    curve = open_curve(at(person, (s * 0.3, top - 0.02 + rng.normal(0, 0.02)), (s * 0.2, top + 0.05),
                          (s * 0.09, top + 0.11), (-0.02, top + 0.16), (-0.043, top + 0.24),
                          (-0.045, tip)))  # fmt: skip
    return hollow(size, curve, 0.006, 0.5)


def feeding_tube(person: Person, size: int, rng: np.random.Generator) -> Array:
    curve = open_curve(at(person, (0.01, -0.05), (0.008, person.apex + 0.1), (0.012, person.dome - 0.1),
                          (0.06, person.dome + 0.06), (0.13, person.dome + 0.13),
                          (0.1, person.dome + 0.19)))  # fmt: skip
    return hollow(size, curve, 0.008, 0.5)


def drain(person: Person, size: int, side: str) -> Array:
    low = chest(person, side, ((1.12, 1.02), (0.95, 0.9), (0.78, 0.6), (0.55, 0.2)))
    return hollow(size, open_curve(low), 0.014, 0.5)


def pacemaker(person: Person, size: int, rng: np.random.Generator) -> Array:
    """On the left below the collar bone, its lead to the tip of the heart."""
    x, y = 0.29, person.apex + 0.14
    can = place(person, ellipse((x, y), (0.045, 0.05), 20))
    tip = (0.5 * 2 * person.half * person.ctr * 0.7, person.dome - 0.01)
    lead = open_curve(at(person, (x - 0.03, y - 0.04), (0.17, y - 0.05), (0.0, y + 0.02), (-0.055, y + 0.12),
                         (-0.06, person.dome - 0.13), (0.0, person.dome - 0.03), tip))  # fmt: skip
    body = fill(size, can, value=190)
    wire = stroke(size, [lead], 0.0028)
    return unit(body) * np.float32(1.9) + unit(wire) * np.float32(0.9)


def sternal_wires(person: Person, size: int, rng: np.random.Generator) -> Array:
    canvas = np.zeros((size, size), np.uint8)
    for y in np.linspace(person.apex + 0.12, person.dome - 0.06, int(rng.integers(4, 7))):
        loop = ellipse((rng.normal(0, 0.004), y), (0.017, 0.008), rng.normal(0, 10))
        tail = [(0.0, y), (0.008, y + 0.012)]
        stroke(size, [place(person, np.concatenate([loop, loop[:1]])), at(person, *tail)], 0.002, 255, canvas)
    return unit(canvas) * np.float32(1.0)


def clips(person: Person, size: int, rng: np.random.Generator) -> Array:
    side = rng.choice([RIGHT, LEFT])
    centre = chest(person, side, ((rng.uniform(0.25, 0.7), rng.uniform(0.2, 0.6)),))[0]
    starts = centre + rng.normal(0, 0.018, (int(rng.integers(2, 6)), 2))
    angle = rng.uniform(0, np.pi, len(starts))
    ends = starts + 0.013 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return unit(stroke(size, np.stack([starts, ends], 1), 0.0032)) * np.float32(1.2)


def leads(person: Person, size: int, rng: np.random.Generator) -> Array:
    """Electrodes on the skin with their snaps and wires."""
    snaps, wires = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    spots = [(-0.25, 0.14), (0.28, 0.14), (-0.28, 0.62), (0.3, 0.66), (0.05, 0.42)]
    exit_x = rng.uniform(-0.3, 0.3)
    for x, y in [spots[i] for i in rng.permutation(5)[: int(rng.integers(3, 5))]]:
        x, y = x + rng.normal(0, 0.04), y + rng.normal(0, 0.05)
        fill(size, place(person, ellipse((x, y), (0.014, 0.014))), value=110, canvas=snaps)
        fill(size, place(person, ellipse((x, y), (0.006, 0.006))), value=255, canvas=snaps)
        bow = rng.normal(0, 0.12)
        wire = at(person, (x, y), (x + 0.4 * (exit_x - x) + bow, 0.6 * y + 0.4), (exit_x + 0.2 * (x - exit_x), 1.05))
        stroke(size, [open_curve(wire, 12)], 0.0034, 170, wires)
    return unit(snaps) * np.float32(1.0) + blur(unit(wires), 0.0005) * np.float32(0.42)


DRAW = {
    "breathing tube": breathing_tube, "venous line": venous_line, "feeding tube": feeding_tube, "pacemaker": pacemaker,
    "sternal wires": sternal_wires, "clips": clips, "leads": leads,
}  # fmt: skip


def stamp(
    gray: NDArray[np.uint16], devices: tuple[str, ...], person: Person, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Letters and the shutters' edges, on the finished film."""
    size = len(gray)
    if "shutters" in devices:
        gray = shutters(gray, rng)
    ink = np.zeros((size, size), np.uint8)
    if "letter" in devices:
        side = LEFT if rng.random() < 0.7 else RIGHT
        x = 0.5 + SIGN[side] * rng.uniform(0.38, 0.44)
        write(ink, side[0].upper(), (x, rng.uniform(0.05, 0.12)), rng.uniform(0.03, 0.045), 2.2)
    if "portable" in devices:
        x = rng.choice([0.07, 0.83])
        write(
            ink,
            str(rng.choice(["PORTABLE", "AP PORTABLE", "SUPINE", "AP ERECT"])),
            (x, rng.uniform(0.03, 0.9)),
            0.015,
            1.4,
        )
    if not ink.any():
        return gray
    cover = unit(ink)
    return (gray * (1 - cover) + cover * np.float32(0.97 * MAXIMUM)).astype(np.uint16)


def write(ink: Bytes, text: str, xy: tuple[float, float], height: float, weight: float) -> None:
    """Text of a height that is a fraction of the film, its lower left corner at xy."""
    size = len(ink)
    thick = max(1, round(height * size * 0.07 * weight))
    scale = height * size / 22  # OpenCV's plain capitals are 22 pixels high
    cv2.putText(
        ink, text, (round(xy[0] * size), round(xy[1] * size)), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA
    )


def shutters(gray: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.uint16]:
    """The film's margin where the collimator stopped the beam: white, with a soft edge; some sides only."""
    size = len(gray)
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    margins = np.where(rng.random(4) < 0.5, rng.uniform(0.005, 0.03, 4), -0.1)
    soft = rng.uniform(0.002, 0.006)
    lit = [
        1 / (1 + np.exp(-(d - m) / np.float32(soft))) for d, m in zip((centres, 1 - centres) * 2, margins, strict=True)
    ]
    open_x, open_y = lit[0] * lit[1], lit[2] * lit[3]
    light = open_y[:, None] * open_x[None, :]
    white = np.float32(rng.uniform(0.85, 0.97) * MAXIMUM)
    return (gray * light + white * (1 - light)).astype(np.uint16)
