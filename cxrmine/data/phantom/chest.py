"""A whole chest: what each ray from the tube to the film passes through, in units of attenuation."""

from dataclasses import dataclass

import numpy as np

from cxrmine.data.phantom import anatomy, markings, skeleton
from cxrmine.data.phantom.anatomy import LEFT, RIGHT, Person
from cxrmine.data.phantom.canvas import Array, Bytes, blur, ellipse, enlarged, fill, rounded, texture, unit

SOFT = np.float32(0.19)  # attenuation of a centimetre of soft tissue at a chest film's beam
BONE = np.float32(0.48)  # of a centimetre of bone, beyond the tissue it replaces


@dataclass(frozen=True)
class Change:
    """What the findings do to the lungs."""

    tissue: Array  # centimetres in place of air
    free_air: Array  # 0..1, in the pleural space
    line: Array  # centimetres: pleural lines and the like, drawn over everything


@dataclass(frozen=True)
class Chest:
    attenuation: Array
    organs: dict[str, Bytes]  # silhouettes, 0 or 255


def organs(person: Person, size: int) -> tuple[dict[str, Bytes], Bytes]:
    """Silhouettes of both lungs, as far as the heart leaves them, and of the heart."""
    heart = fill(size, anatomy.heart_outline(person))
    return anatomy.lung_masks(person, size), heart


def build(person: Person, size: int, rng: np.random.Generator, change: Change | None) -> Chest:
    body_rng, bone_rng, vessel_rng = rng.spawn(3)
    lungs, heart = organs(person, size)
    lung = unit(np.maximum(lungs[RIGHT], lungs[LEFT]))
    blood = markings.vessels(person, size, vessel_rng) + markings.fissure(person, size)
    grain = markings.grain(size, vessel_rng)
    vessels_tissue, windpipe = anatomy.mediastinum(person, size)

    air, behind = anatomy.lung_air(person, size, lungs)
    if change is not None:
        # no vessels in free air; those within airless tissue do not stand out from it
        blood = blood * (1 - change.free_air) * (1 - np.minimum(change.tissue * np.float32(0.12), np.float32(0.7)))
        grain = grain * (1 - change.free_air)
        air = air * (1 + np.float32(0.2) * change.free_air)
    air -= anatomy.heart_thickness(person, size, heart) + vessels_tissue
    shade = blur(unit(heart), 0.01)
    air = np.maximum(air, behind)
    air *= 1 - np.float32(0.018) * grain * lung
    air -= blood * lung * np.minimum(air * np.float32(0.25), 1)  # where the heart leaves no air no vessel shows
    if change is not None:
        air -= change.tissue
    # half the pixels are enough for what has no sharp edge
    body = anatomy.body_thickness(person, size // 2) * (1 + np.float32(0.012) * texture(body_rng, size // 2, 9))
    tissue = enlarged(body - bowel_gas(person, size // 2, body_rng), size) - np.maximum(air, 0) - windpipe
    # what the heart scatters drowns the bones behind it
    bone = skeleton.bones(person, size, bone_rng) * (1 - np.float32(0.72) * shade)
    if change is not None:
        tissue += change.line
    np.maximum(tissue, 0, out=tissue)
    attenuation = tissue * SOFT + bone * np.minimum(tissue * np.float32(0.25), 1) * BONE
    return Chest(attenuation, {**{f"{s}_lung": visible(m, heart) for s, m in lungs.items()}, "heart": solid(heart)})


def solid(canvas: Bytes) -> Bytes:
    return np.where(canvas > 127, 255, 0).astype(np.uint8)


def visible(lung: Bytes, heart: Bytes) -> Bytes:
    """A lung's mask stops at the heart, as readers outline it."""
    return np.where((lung > 127) & (heart <= 127), 255, 0).astype(np.uint8)


def bowel_gas(person: Person, size: int, rng: np.random.Generator) -> Array:
    """The stomach's bubble under the left dome and some gas in the colon, in centimetres."""
    below = anatomy.dome_height(person, LEFT)
    stomach = (float(rng.uniform(0.1, 0.24)), below + float(rng.uniform(0.05, 0.09)))
    shapes = [ellipse(stomach, (float(rng.uniform(0.03, 0.075)), float(rng.uniform(0.015, 0.035))), rng.normal(0, 12))]
    for _ in range(int(rng.integers(0, 5))):
        centre = (float(rng.normal(0.12, 0.1)), below + float(rng.uniform(0.1, 0.28)))
        shapes.append(
            ellipse(centre, (float(rng.uniform(0.01, 0.04)), float(rng.uniform(0.01, 0.025))), rng.normal(0, 40))
        )
    canvas = fill(size, *(anatomy.place(person, s) for s in shapes))
    gas = blur(rounded(canvas, 0.03), 0.004) * (1 + np.float32(0.3) * texture(rng, size, 40))
    return gas * np.float32(rng.uniform(0.5, 4.0))
