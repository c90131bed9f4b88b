"""Regions as COCO's compressed run lengths: the bytes that pycocotools writes, without its compiled part.

Runs go down the columns, first a run of zeros (perhaps empty). From the fourth number on, each is stored as its
difference from the one two before. A number is written in groups of five bits, low first; bit 6 says that more follow.
"""

import numpy as np
import numpy.typing as npt

from cxrmine.boxes.geometry import disjoint
from cxrmine.errors import CxrError

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def encode(mask: npt.ArrayLike) -> bytes:
    """H×W bool → COCO RLE."""
    mask = np.asarray(mask, dtype=bool)
    return encode_crop(mask, 0, 0, mask.shape)


def encode_crop(crop: Mask, x: int, y: int, size: tuple[int, int]) -> bytes:
    """The RLE of a region whose pixels all lie in `crop`, placed at (x, y) of a frame of `size` (height, width)."""
    height, width = size
    # Each column between two rows of nothing: a run starts and ends where the value changes.
    padded = np.zeros((crop.shape[1], crop.shape[0] + 2), dtype=bool)
    padded[:, 1:-1] = crop.T
    column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), crop.shape[0] + 1)
    edges = (column + x) * height + row + y
    # A run that ends at the foot of one column and goes on at the head of the next is one run.
    again = edges[1:] == edges[:-1]
    if again.any():
        edges = edges[~(np.append(again, False) | np.append(False, again))]
    ends = np.concatenate([[0], edges, [height * width]])
    counts = ends[1:] - ends[:-1]
    return _compress(counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts)


def decode(rle: bytes, height: int, width: int) -> Mask:
    """COCO RLE → H×W bool."""
    counts = run_lengths(rle)
    if (counts < 0).any() or counts.sum() != height * width:
        raise CxrError(
            f"A region's run lengths do not fill {height}×{width} pixels.", "The table is damaged; make it anew."
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def pixels(rle: bytes) -> int:
    """How many pixels a region has."""
    return int(run_lengths(rle)[1::2].sum())


def area_inside(mask: Mask, boxes: npt.ArrayLike) -> float:
    """How much of a region lies in the union of boxes given in its own frame; a pixel counts by its covered part."""
    total = 0.0
    for left, top, right, bottom in np.clip(disjoint(boxes), 0, [mask.shape[1], mask.shape[0]] * 2):
        x, y = np.arange(int(left), np.ceil(right)), np.arange(int(top), np.ceil(bottom))
        across = np.minimum(x + 1, right) - np.maximum(x, left)
        down = np.minimum(y + 1, bottom) - np.maximum(y, top)
        total += float(down @ mask[int(top) : int(top) + len(y), int(left) : int(left) + len(x)] @ across)
    return total


def run_lengths(rle: bytes) -> Ints:
    """Zeros, ones, zeros, … down the columns."""
    groups = np.frombuffer(rle, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or (groups < 0).any() or (groups > 63).any() or groups[-1] & 0x20:
        raise CxrError("A region is not a COCO run-length code.", "The table is damaged; make it anew.")
    last = np.flatnonzero(groups & 0x20 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    if place.max() > 9:  # 50 bits: more than any frame has pixels
        raise CxrError("A region has a run longer than any image.", "The table is damaged; make it anew.")
    counts = np.add.reduceat((groups & 0x1F) << 5 * place, first)
    counts -= np.where(groups[last] & 0x10, np.int64(1) << 5 * (place[last] + 1), 0)
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


def _compress(counts: Ints) -> bytes:
    stored = counts.copy()
    stored[3:] -= counts[1:-2]
    # One row a number, one column a group of five bits; a group is the last once only the sign is left above it.
    bits = int(np.maximum(stored, ~stored).max()).bit_length() + 1
    shifted = stored[:, None] >> 5 * np.arange(-(-bits // 5))
    low = shifted & 0x1F
    more = shifted >> 5 != -(low >> 4)
    used = np.ones(more.shape, dtype=bool)
    used[:, 1:] = np.logical_and.accumulate(more[:, :-1], axis=1)
    return (low + 48 + 32 * more)[used].astype(np.uint8).tobytes()
