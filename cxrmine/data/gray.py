"""From stored values to 8 bits of gray: the modality and the window of a DICOM film, and the spread of a deep one."""

from typing import Any, NamedTuple

import numpy as np

from cxrmine.data.encoded import Unreadable

BLOCK = 1 << 20  # pixels looked up at once: an index takes eight bytes each


class Stored(NamedTuple):
    """What the bits of a pixel mean."""

    bits: int
    high: int  # the uppermost of them, counted from 0
    signed: bool


def to_gray(words: np.ndarray, stored: Stored, tags: Any) -> np.ndarray:
    """H×W uint8, bones bright, from H×W stored words of 8 or 16 bits.

    First the modality LUT, or else the rescale slope and intercept. Then the first VOI LUT, or else the first window; a
    LUT goes before a window, as in pydicom. The window's ends (LINEAR, LINEAR_EXACT, SIGMOID) or the darkest and the
    brightest entry of the LUT become 0 and 255. Without either, unsigned 8-bit films that are not rescaled keep their
    values and others are spread from their darkest to their brightest pixel. MONOCHROME1 is inverted at the end.
    Padding (PixelPaddingValue, to PixelPaddingRangeLimit) is black whatever the rest does, and no part of the spread.
    A window without a width, and padding that no stored value can have, count as not there.
    """
    values = stored_values(stored, words.itemsize)
    padded = _padding(values, stored, tags)
    mapped = _modality(values, tags)
    shown = _voi(mapped, tags)
    if shown is None:
        if words.dtype == np.uint8 and stored == Stored(8, 7, False) and (mapped == values).all():
            shown = values.astype(np.uint8)
        else:
            ends = mapped[_present(words, len(values)) & ~padded]
            shown = spread(mapped, float(ends.min()), float(ends.max())) if ends.size else np.zeros(len(values), "u1")
    if tags.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = 255 - shown
    shown[padded] = 0
    return _looked_up(shown, words)


def stored_values(stored: Stored, bytes_a_word: int) -> np.ndarray:
    """What every word that a pixel can be stands for. Bits beside those stored, old overlays for instance, are cut."""
    words = np.arange(1 << (8 * bytes_a_word), dtype=np.int64)
    values = (words >> (stored.high + 1 - stored.bits)) & ((1 << stored.bits) - 1)
    return values - ((values >> (stored.bits - 1)) << stored.bits) if stored.signed else values


def spread(values: np.ndarray, lowest: float | None = None, highest: float | None = None) -> np.ndarray:
    """Lowest (the darkest) to 0, highest (the brightest) to 255; a constant picture becomes all 0."""
    low = float(values.min()) if lowest is None else lowest
    high = float(values.max()) if highest is None else highest
    if high == low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _present(words: np.ndarray, count: int) -> np.ndarray:
    there = np.zeros(count, bool)
    flat = words.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        there[flat[start : start + BLOCK]] = True
    return there


def _looked_up(table: np.ndarray, words: np.ndarray) -> np.ndarray:
    flat, gray = words.reshape(-1), np.empty(words.size, np.uint8)
    for start in range(0, flat.size, BLOCK):
        gray[start : start + BLOCK] = table[flat[start : start + BLOCK]]
    return gray.reshape(words.shape)


def _padding(values: np.ndarray, stored: Stored, tags: Any) -> np.ndarray:
    ends = [_first(tags.get(name)) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return np.zeros(len(values), bool)
    value, limit = (_as_stored(int(ends[0] if end is None else end), stored) for end in ends)
    return (values >= min(value, limit)) & (values <= max(value, limit))


def _as_stored(value: int, stored: Stored) -> int:
    """16 bits that were written as the other of signed and unsigned."""
    if stored.signed:
        return value - 2**16 if value >= 2**15 else value
    return value + 2**16 if value < 0 else value


def _modality(values: np.ndarray, tags: Any) -> np.ndarray:
    if sequence := tags.get("ModalityLUTSequence"):
        return _lut(values, sequence[0])
    slope, intercept = _first(tags.get("RescaleSlope")), _first(tags.get("RescaleIntercept"))
    mapped = values * float(1 if slope is None else slope) + float(0 if intercept is None else intercept)
    if not (np.abs(mapped) < 1e30).all():
        raise Unreadable("damaged: a rescaling beyond all numbers")
    return mapped


def _voi(values: np.ndarray, tags: Any) -> np.ndarray | None:
    """0 to 255; None where the header has neither LUT nor window."""
    if sequence := tags.get("VOILUTSequence"):
        return spread(_lut(values, sequence[0]), *_ends(sequence[0]))
    centre, width = _first(tags.get("WindowCenter")), _first(tags.get("WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(tags.get("VOILUTFunction") or "LINEAR").strip().upper()
    shown = window(values, float(centre), float(width), function)
    return None if shown is None else np.rint(255 * shown).astype(np.uint8)


def window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray | None:
    """0 to 1, as PS3.3 C.11.2.1.2 and .3 say; None where there can be no such window."""
    if not (
        np.isfinite([centre, width]).all() and width >= (1 if function not in ("LINEAR_EXACT", "SIGMOID") else 1e-9)
    ):
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _lut(values: np.ndarray, item: Any) -> np.ndarray:
    """Values below the first that is mapped have its entry, those above the last that one's."""
    entries, first = _entries(item), int(item.LUTDescriptor[1])
    if first >= 2**15 and values.min() < 0:
        first -= 2**16
    return entries[np.clip(np.rint(values) - first, 0, len(entries) - 1).astype(np.int64)].astype(np.float64)


def _ends(item: Any) -> tuple[float, float]:
    entries = _entries(item)
    return float(entries.min()), float(entries.max())


def _entries(item: Any) -> np.ndarray:
    """Of 8 or 16 bits, whatever the descriptor's third number says: many a writer has it wrong."""
    count, data = int(item.LUTDescriptor[0]) % 2**16 or 2**16, item["LUTData"].value
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        data = np.frombuffer(data, ("<u2" if item.original_encoding[1] is not False else ">u2") if wide else "u1")
    entries = np.asarray(data, dtype=np.int64).reshape(-1)[:count]
    if count < 1 or len(entries) < count:
        raise Unreadable("damaged: a table of gray values is too short")
    return entries


def _first(value: Any) -> Any:
    """Of a value, of several the first, of none None."""
    if value is None or isinstance(value, str | bytes | int | float):
        return None if value == "" else value
    return value[0] if len(value) else None
