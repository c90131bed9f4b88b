"""Drawing on square canvases in normalised coordinates: x right, y down, the film's sides at 0 and 1.

Everything is drawn from curves, so that a larger canvas is the same picture with more pixels.
"""

from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Points = NDArray[np.float64]

SHIFT = 4  # OpenCV draws at 1/16 of a pixel
ONE = 1 << SHIFT


@lru_cache(maxsize=4)
def grid(size: int) -> tuple[Array, Array]:
    """x of each column (1×size) and y of each row (size×1), at the pixels' centres."""
    centres: Array = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None, :], centres[:, None]


def closed_curve(points: Iterable[tuple[float, float]] | Points, steps: int = 8) -> Points:
    """A smooth closed curve through the points."""
    p = np.asarray(points, float)
    return _catmull_rom(np.concatenate([p[-1:], p, p[:2]]), steps)


def open_curve(points: Iterable[tuple[float, float]] | Points, steps: int = 8) -> Points:
    """A smooth curve from the first point to the last."""
    p = np.asarray(points, float)
    curve = _catmull_rom(np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]]), steps)
    return np.concatenate([curve, p[-1:]])


def _catmull_rom(p: Points, steps: int) -> Points:
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return curve.reshape(-1, 2)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0, steps: int = 40) -> Points:
    turn = np.deg2rad(degrees)
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray((circle(steps) * radii) @ spin + centre)


@lru_cache(maxsize=4)
def circle(steps: int) -> Points:
    angle = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def tube(curve: Points, width: float | Points) -> Points:
    """The outline of a band of the given width along the curve (or each of several: curves×points×2)."""
    tangent = np.gradient(curve, axis=-2)
    normal = np.stack([-tangent[..., 1], tangent[..., 0]], -1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    half = normal * (np.asarray(width, float)[..., None] / 2)
    return np.concatenate([curve + half, (curve - half)[..., ::-1, :]], axis=-2)


def fixed_point(curve: Points, size: int) -> NDArray[np.int32]:
    """The curve for OpenCV, whose pixel centres are whole numbers."""
    return np.round((curve * size - 0.5) * ONE).astype(np.int32)


def fill(size: int, *outlines: Points, value: int = 255, canvas: Bytes | None = None) -> Bytes:
    """Each outline filled, its edge antialiased; overlapping outlines are united."""
    if canvas is None:
        canvas = np.zeros((size, size), np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [fixed_point(outline, size)], value, cv2.LINE_AA, SHIFT)
    return canvas


def stroke(
    size: int, curves: Points | list[Points], width: float, value: float = 255, canvas: Bytes | None = None
) -> Bytes:
    """Lines of the given width (curves: a list, or an array N×points×2); one thinner than a pixel is drawn a pixel
    wide and fainter."""
    if canvas is None:
        canvas = np.zeros((size, size), np.uint8)
    thickness = max(1, round(width * size))
    ink = round(value * min(1.0, width * size / thickness))
    lines = (
        list(fixed_point(curves, size)) if isinstance(curves, np.ndarray) else [fixed_point(c, size) for c in curves]
    )
    cv2.polylines(canvas, lines, False, ink, thickness, cv2.LINE_AA, SHIFT)
    return canvas


def silhouette(size: int, outline: Points) -> NDArray[np.bool_]:
    """The pixels more than half covered by the outline; of one too thin for that, those it covers most."""
    cover = fill(size, outline)
    return cover > min(127, int(cover.max()) // 2)


def bounds(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The tight half-open box x_min, y_min, x_max, y_max of a mask; None for an empty one."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def unit(canvas: Bytes) -> Array:
    """0..255 as 0..1."""
    return cv2.multiply(canvas, 1 / 255, dtype=cv2.CV_32F)  # type: ignore[call-overload]


def rounded(canvas: Bytes, radius: float) -> Array:
    """Thickness 0..1 of a rounded solid with this silhouette: it grows like a circle's chord up to `radius` inside."""
    size = len(canvas)
    _, solid = cv2.threshold(canvas, 127, 255, cv2.THRESH_BINARY)
    inside = cv2.distanceTransform(solid, cv2.DIST_L2, 3)  # a side of the film is no surface: it has no zeros beyond
    inside = np.minimum(inside * np.float32(1 / (radius * size)), 1)
    chord = inside * (2 - inside)
    np.sqrt(chord, out=chord)
    return cv2.multiply(chord, canvas, scale=1 / 255, dtype=cv2.CV_32F)  # type: ignore[return-value]


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur, sigma as a fraction of the film; wide ones are done on a smaller canvas."""
    size = len(image)
    if sigma * size < 0.2:
        return image
    shrink = 1
    while sigma * size / shrink > 2 and size // (2 * shrink) >= 32:
        shrink *= 2
    small = image
    if shrink > 1:
        small = cv2.resize(image, (size // shrink,) * 2, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    small = cv2.GaussianBlur(small, (0, 0), sigma * size / shrink, borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return enlarged(small, size) if shrink > 1 else small


def enlarged(image: Array, size: int) -> Array:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def texture(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise of unit variance or so, with `cells` grains across the film whatever its size."""
    grains = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(grains, (size, size), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]
