"""Gray, uncompressed, single-frame DICOM to 8 bits."""

import io
import struct
from typing import Any

import numpy as np

from cxrmine.data.encoded import CUT_OFF, Unreadable, refuse_too_large


def is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def dicom_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header; pixels are left alone."""
    import pydicom

    try:
        header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        if "Columns" not in header or "Rows" not in header:
            raise Unreadable("damaged: a DICOM header without rows and columns")
        width, height = int(header.Columns), int(header.Rows)
        planes = int(header.get("NumberOfFrames") or 1) * int(header.get("SamplesPerPixel") or 1)
    except _faults() as fault:
        raise Unreadable(_sentence(fault)) from None
    refuse_too_large(width, height)
    if planes > 1:
        raise Unreadable("a DICOM film of several frames or colours")
    return width, height


def decode_dicom(data: bytes) -> np.ndarray:
    """H×W uint8, bones bright. A window's two ends become 0 and 255; without one, 8-bit films keep their values and
    others are spread from their darkest to their brightest pixel."""
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    dicom_size(data)
    try:
        film = pydicom.dcmread(io.BytesIO(data))
        values = apply_voi_lut(apply_modality_lut(film.pixel_array, film), film)
        # Where a window ends is best asked of the window: what it makes of the extreme values.
        ends = apply_voi_lut(apply_modality_lut(_extremes(film), film), film)
        windowed = "WindowWidth" in film or "VOILUTSequence" in film
        inverted = film.PhotometricInterpretation == "MONOCHROME1"
    except _faults() as fault:
        raise Unreadable(_sentence(fault)) from None
    if windowed:
        gray = spread(values, float(ends.min()), float(ends.max()))
    else:
        gray = values if values.dtype == np.uint8 else spread(values)
    return 255 - gray if inverted else gray


def _extremes(film: Any) -> np.ndarray:
    """The lowest and the highest value that this film can store, as a film of two pixels."""
    bits, signed = int(film.BitsStored), bool(film.PixelRepresentation)
    ends = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]
    return np.array([ends], dtype=np.int32 if signed else np.uint32)


def spread(values: np.ndarray, lowest: float | None = None, highest: float | None = None) -> np.ndarray:
    """Lowest (the darkest) to 0, highest (the brightest) to 255; a constant picture becomes all 0."""
    low = float(values.min()) if lowest is None else lowest
    high = float(values.max()) if highest is None else highest
    if high == low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _faults() -> tuple[type[Exception], ...]:
    """What pydicom raises on files that are cut off, damaged, or of a kind it cannot decode: it has no common base."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    own = (BytesLengthException, InvalidDicomError)
    return (*own, ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError,
            struct.error)  # fmt: skip


def _sentence(fault: BaseException) -> str:
    if isinstance(fault, EOFError | struct.error) or "bytes of pixel data" in str(fault):
        return CUT_OFF
    return f"a DICOM file that cannot be decoded ({str(fault).splitlines()[0][:120] or type(fault).__name__})"
