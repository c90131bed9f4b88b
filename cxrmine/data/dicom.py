"""DICOM films: their header, what is refused by it, and their pixels as 8 bits of gray.

Nothing that a header says in free text gets into a reason or a warning: it may name a person.
"""

import io
import logging
import re
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cxrmine.data.dicom_frames import BIG_ENDIAN, Form, read_words
from cxrmine.data.dicom_words import CHEST, ELSEWHERE, OTHER_MODALITIES, RADIOGRAPHS, VIEWS, WITHOUT_PIXELS
from cxrmine.data.encoded import CUT_OFF, Unreadable, refuse_too_large
from cxrmine.data.gray import Stored, to_gray

WANTED = (
    "SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "PatientID", "ImagerPixelSpacing", "PixelSpacing",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "VOILUTFunction", "WindowCenter",
    "WindowWidth",
)  # fmt: skip
NOT_AN_IMAGE = "not a PNG, JPEG or DICOM file"
DAMAGED_HEADER = "damaged: a DICOM header that cannot be read"
# Without a preamble: an element of group 2 or 8, its kind in two capitals or its length below 64 KiB.
BARE = re.compile(rb"(?s)[\x02\x08]\0[\0-\x1f]\0([A-Z]{2}..|..\0\0)|\0[\x02\x08]\0[\0-\x1f]([A-Z]{2}|\0\0)..")
PIXELS = 0x7FE00010
META_AT_MOST = 1 << 16
MOST_READS = 200_000  # of a header: each element takes one to three
LONGEST_VALUE = 4 << 20  # of what is wanted of a header; a large table of gray values has 128 KiB
INFLATED_AT_MOST = 512 << 20
HEADER_AT_MOST = 64 << 20  # of a deflated file, what comes before its pixels
DEFLATED, IMPLICIT, EXPLICIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


class Facts(NamedTuple):
    """What a header says of its film. Patient is the PatientID as it stands: whoever reads it replaces it, and it must
    never be written to an output."""

    width: int
    height: int
    view: str | None  # ViewPosition in capitals, where it is one of VIEWS
    patient: str | None
    spacing: tuple[float, float] | None  # mm from row to row and from column to column


class Opened(NamedTuple):
    tags: Any  # a pydicom Dataset of WANTED
    syntax: str
    kind: str  # its SOP class
    inflated: bytes | None  # what takes the file's place from its data set on, where that was deflated
    pixels_at: int | None


def is_dicom(data: bytes) -> bool:
    """DICM behind its preamble; or no preamble, and a first element of the groups that every DICOM file begins with."""
    return data[128:132] == b"DICM" or BARE.match(data) is not None


def dicom_size(data: bytes) -> tuple[int, int]:
    """Width and height of a film that its header does not rule out; pixels are left alone."""
    form, _ = _film(_open(io.BytesIO(data)))
    return form.width, form.height


def dicom_facts(source: Path | bytes) -> Facts:
    """From a file's header, without reading on to its pixels. Unreadable where the header rules the film out:

    objects without pixels; several frames; more than 120 million pixels; samples that are not of 8 or 16 bits, or are
    neither one nor three; any modality but CR, DX, RG, OT, SC, RF or none; and a body part that is clearly another.
    That is one with a word for a part elsewhere (ABDOMEN, SKULL, HAND, SPINE, ...) and none for the chest (CHEST,
    THORAX, TORAX, LUNG) in it; a part that is not given, or in words that are not known here, passes.
    """
    if isinstance(source, bytes):
        return _facts(io.BytesIO(source))
    try:
        if not source.is_file():  # opening a pipe would wait for ever
            raise Unreadable("not a regular file" if source.exists() else "no such file")
        with source.open("rb") as file:
            return _facts(file)
    except OSError as fault:
        raise Unreadable(f"not readable: {fault.strerror}") from None


def decode_dicom(data: bytes) -> np.ndarray:
    """H×W uint8, bones bright; gray.py says how. Three samples a pixel are read where they are all the same."""
    opened = _open(io.BytesIO(data), whole=True)
    form, stored = _film(opened)
    body = memoryview(data if opened.inflated is None else opened.inflated)
    with _Faults():
        words = read_words(body[opened.pixels_at :], form, opened.syntax)
        if words.signed:
            stored = stored._replace(signed=True)
        return to_gray(words.pixels, stored, opened.tags)


def _facts(file: BinaryIO) -> Facts:
    opened = _open(file)
    form, _ = _film(opened)
    tags = opened.tags
    view, patient = (_if_readable(tags, name) for name in ("ViewPosition", "PatientID"))
    spacing = _spacing(tags, "ImagerPixelSpacing") or _spacing(tags, "PixelSpacing")
    view = view.strip().upper()
    return Facts(form.width, form.height, view if view in VIEWS else None, patient or None, spacing)


# --- from the file to its tags


class _Counted:
    """A file that ends the reading of a header which has no end, or values beyond all use."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left, self.seek, self.tell = file, MOST_READS, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._left -= 1
        if self._left < 0 or not 0 <= size <= LONGEST_VALUE:
            raise Unreadable("damaged: a DICOM header of unlikely size")
        return self._file.read(size)


def _open(file: BinaryIO, whole: bool = False) -> Opened:
    """A deflated file is inflated with its pixels only where it is wanted whole."""
    with _Faults():
        head = file.read(META_AT_MOST)
        if not is_dicom(head):
            raise Unreadable(NOT_AN_IMAGE)
        syntax, kind, start = _meta(head, 132 if head[128:132] == b"DICM" else 0)
        syntax = syntax or _guess(head[start : start + 6])
        file.seek(start)
        inflated = _inflate(file, whole) if syntax == DEFLATED else None
        tags, pixels_at = _tags(file if inflated is None else io.BytesIO(inflated), syntax)
        if len(inflated or b"") >= HEADER_AT_MOST and (pixels_at is None or pixels_at + 16 > HEADER_AT_MOST):
            raise Unreadable("damaged: a DICOM header of unlikely size")
        kind = str(tags.get("SOPClassUID") or "") or kind
        known = kind.startswith("1.2.840.10008.") or ("Rows" in tags and "Columns" in tags)
        if head[128:132] != b"DICM" and not known:
            raise Unreadable(NOT_AN_IMAGE)
        return Opened(tags, syntax, kind, inflated, pixels_at)


def _meta(head: bytes, start: int) -> tuple[str, str, int]:
    """The transfer syntax and the SOP class, empty where not given, and where the data set begins."""
    syntax = sop_class = ""
    while head[start : start + 2] == b"\x02\0":
        element, kind, length = struct.unpack_from("<H2sH", head, start + 2)
        value = start + 8
        if not kind.isalpha():  # written without kinds, against the rule
            (length,) = struct.unpack_from("<I", head, start + 4)
        elif kind in (b"OB", b"OW", b"UN", b"UT", b"SQ"):
            (length,) = struct.unpack_from("<I", head, start + 8)
            value = start + 12
        text = head[value : value + length].decode("ascii", "replace").strip(" \0")
        syntax, sop_class = text if element == 0x0010 else syntax, text if element == 0x0002 else sop_class
        start = value + length
    return syntax, sop_class, start


def _guess(first: bytes) -> str:
    """How a data set is written whose file does not say so."""
    if first[:1] == b"\0":
        return BIG_ENDIAN
    return EXPLICIT if first[4:6].isalpha() and first[4:6].isupper() else IMPLICIT


def _inflate(file: BinaryIO, whole: bool) -> bytes:
    """The data set, or as much of it as a header may take."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    if not whole:
        return engine.decompress(file.read(HEADER_AT_MOST), HEADER_AT_MOST)
    inflated = engine.decompress(file.read(), INFLATED_AT_MOST)
    if len(inflated) >= INFLATED_AT_MOST:
        raise Unreadable(f"inflates to more than {INFLATED_AT_MOST >> 20} MiB")
    if not engine.eof:
        raise Unreadable(CUT_OFF)
    return inflated


def _tags(file: BinaryIO, syntax: str) -> tuple[Any, int | None]:
    """What is wanted of the header, and where the pixel element begins."""
    read_dataset, wanted = _reader()
    found = []

    def at_pixels(tag: int, kind: str | None, length: int) -> bool:
        if tag == PIXELS:
            found.append(tag)
        return tag >= PIXELS

    tags = read_dataset(
        _Counted(file), syntax == IMPLICIT, syntax != BIG_ENDIAN, stop_when=at_pixels, specific_tags=list(wanted)
    )
    return tags, file.tell() if found else None


@cache
def _reader() -> tuple[Any, tuple[int, ...]]:
    """pydicom's, told to keep to itself what it thinks of values: it would print them."""
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    return read_dataset, tuple(tag for name in WANTED if (tag := tag_for_keyword(name)) is not None)


# --- from its tags to what they mean


def _film(opened: Opened) -> tuple[Form, Stored]:
    """How the pixels lie and what they mean; Unreadable where this is no film of the chest."""
    tags = opened.tags
    with _Faults():
        if opened.pixels_at is None:
            others = [why for start, why in WITHOUT_PIXELS.items() if opened.kind.startswith(start)]
            raise Unreadable(others[0] if others else "a DICOM file without pixels, or cut off before them")
        _refuse_other_films(_text(tags, "Modality"), _text(tags, "BodyPartExamined"))
        if "Columns" not in tags or "Rows" not in tags:
            raise Unreadable("damaged: a DICOM header without rows and columns")
        width, height = _number(tags, "Columns", 0), _number(tags, "Rows", 0)
        refuse_too_large(width, height)
        if _number(tags, "NumberOfFrames", 1) > 1:
            raise Unreadable("a DICOM file of several frames")
        samples, allocated = _number(tags, "SamplesPerPixel", 1), _number(tags, "BitsAllocated", 0)
        stored = _number(tags, "BitsStored", allocated)
        photometric = _text(tags, "PhotometricInterpretation")
        if samples not in (1, 3) or "PALETTE" in photometric:
            raise Unreadable("in colour")
        if allocated not in (8, 16):
            raise Unreadable("not of 8 or 16 bits a pixel")
        if not 1 <= stored <= allocated:
            raise Unreadable("damaged: more bits stored than there are")
        high = _number(tags, "HighBit", stored - 1)
        high = high if stored - 1 <= high < allocated else stored - 1
        form = Form(width, height, samples, _number(tags, "PlanarConfiguration", 0) == 1, allocated, photometric)
        return form, Stored(stored, high, _number(tags, "PixelRepresentation", 0) == 1)


def _refuse_other_films(modality: str, part: str) -> None:
    modality = modality.strip().upper()
    if modality not in RADIOGRAPHS:
        known = modality if modality in OTHER_MODALITIES else "one that is not known here"
        raise Unreadable(f"no radiograph: its modality is {known}")
    part = part.upper()
    elsewhere = [word for word in re.findall("[A-Z]+", part) if word in ELSEWHERE]
    if elsewhere and not any(word in part for word in CHEST):
        raise Unreadable(f"not of the chest: its body part is {elsewhere[0]}")


def _number(tags: Any, name: str, otherwise: int) -> int:
    value = tags.get(name)
    if isinstance(value, list | tuple) or hasattr(value, "append"):
        value = value[0] if len(value) else None
    return otherwise if value is None or value == "" else int(value)


def _text(tags: Any, name: str) -> str:
    value = tags.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    return "\\".join(map(str, value))


def _if_readable(tags: Any, name: str) -> str:
    """What the pixels do not need: nothing where it is damaged."""
    try:
        return _text(tags, name)
    except Exception:
        return ""


def _spacing(tags: Any, name: str) -> tuple[float, float] | None:
    try:
        row, column = (float(value) for value in tags.get(name) or ())
    except Exception:
        return None
    return (row, column) if 0 < row < np.inf and 0 < column < np.inf else None


class _Faults:
    """Whatever pydicom raises on damage (its faults have no common base, and their words may hold values) as ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, fault: BaseException | None, trace: Any) -> None:
        if isinstance(fault, Exception) and not isinstance(fault, Unreadable):
            raise Unreadable(CUT_OFF if isinstance(fault, EOFError | struct.error) else DAMAGED_HEADER) from None
