"""From attenuation to a film: exposure, scatter, blur, quantum noise, and the film's curve to 12 bits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrmine.data.phantom.canvas import Array, Bytes, blur, grid

MAXIMUM = 4095  # 12 bits
QUANTA = 1.5e10  # that reach an unshielded film, all pixels together


@dataclass(frozen=True)
class Exposure:
    """How a film was taken and processed."""

    middle: float  # attenuation shown as mid-gray
    latitude: float  # attenuation from mid-gray to 73 % white: small is contrasty
    scatter: float  # scattered over direct radiation behind a thick body
    sharpness: float  # sigma of the blur, fraction of the film
    dose: float  # relative
    fog: float  # gray of a film's unshielded parts, 0 black


def new_exposure(rng: np.random.Generator, portable: bool, depth: float) -> Exposure:
    """Exposed for the thickness of the body. A portable film has no grid: more scatter, less contrast, more noise."""
    return Exposure(
        middle=depth * float(rng.normal(0.102 if portable else 0.108, 0.008)),
        latitude=float(np.clip(rng.normal(0.8 if portable else 0.74, 0.09), 0.54, 1.1)),
        scatter=float(rng.uniform(0.8, 1.4) if portable else rng.uniform(0.45, 0.8)),
        sharpness=float(rng.uniform(0.0008, 0.0013) if portable else rng.uniform(0.0005, 0.0009)),
        dose=float(rng.uniform(0.4, 0.9) if portable else rng.uniform(0.7, 1.6)),
        fog=float(max(0.0, rng.normal(0.02, 0.035))),
    )


def expose(attenuation: Array, exposure: Exposure, rng: np.random.Generator) -> NDArray[np.uint16]:
    """The film's gray values, 0 to 4095, bright where little radiation arrived."""
    size = len(attenuation)
    _, y = grid(size)
    primary = np.exp(-attenuation)
    # thin parts scatter little and lie under direct beam: what is scattered grows with the tissue passed
    scattered = blur(primary * np.minimum(attenuation * np.float32(0.25), 1), 0.07) * np.float32(exposure.scatter)
    heel = 1 + np.float32(0.12) * (y - np.float32(0.5))  # the tube's anode side is weaker
    arriving = blur((primary + scattered) * heel, exposure.sharpness)
    counts = arriving * np.float32(QUANTA * exposure.dose / size**2)
    # Poisson noise; at hundreds of quanta a pixel a normal draw has the same distribution and is five times as fast
    counts += np.sqrt(counts) * rng.standard_normal((size, size), dtype=np.float32)
    density = np.log(np.float32(QUANTA * exposure.dose / size**2) / np.maximum(counts, 1))
    steep = (density - np.float32(exposure.middle)) * np.float32(1 / exposure.latitude)
    gray = np.float32(1.0) / (1 + np.exp(-steep)) - np.float32(0.03)
    gray = np.maximum(gray, 0) * np.float32(1 - exposure.fog) + np.float32(exposure.fog)
    return np.clip(gray * MAXIMUM + np.float32(0.5), 0, MAXIMUM).astype(np.uint16)


def to_byte(gray: NDArray[np.uint16]) -> Bytes:
    return (gray >> 4).astype(np.uint8)
