"""The stored words of a DICOM film's one frame, in every common transfer syntax.

Baseline and 8-bit extended JPEG are decoded by OpenCV, as JPEG files are. The rest goes to other processes (apart.py),
because damage crashes its decoders: gdcm (12-bit and lossless JPEG), CharLS (JPEG-LS), OpenJPEG (JPEG 2000), and one
for RLE. A codestream has a header of its own. It is read here first, and what announces another size than the DICOM
header goes to no decoder.
"""

import struct
from typing import NamedTuple

import cv2
import numpy as np

from cxrmine.data import apart
from cxrmine.data.encoded import CUT_OFF, FRAME_LS, Unreadable, jpeg_frame

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91))
RLE = "1.2.840.10008.1.2.5"
UNDEFINED = 0xFFFFFFFF
ITEM, ITEMS_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MOST_FRAGMENTS = 100_000
LONGEST = 2**29  # bytes of a codestream
LOSSLESS = 0xC3
NEARLY_GRAY = 64  # channels may differ by a 64th of the range: what lossy compression does to gray
COLOURS = ("RGB", "YBR_RCT", "YBR_ICT")
DAMAGED = "damaged: its pixels cannot be decoded"


class Form(NamedTuple):
    """How the header says that the pixels lie."""

    width: int
    height: int
    samples: int
    by_plane: bool
    allocated: int  # bits a sample
    photometric: str


class Words(NamedTuple):
    pixels: np.ndarray  # H×W uint8 or uint16
    signed: bool  # the codestream says that they are, whatever the header says


def read_words(data: memoryview, form: Form, syntax: str) -> Words:
    """From the bytes of the pixel element and what follows it."""
    value, length, kind = _element(data, syntax == BIG_ENDIAN)
    if syntax in NATIVE:
        if length == UNDEFINED:
            raise Unreadable("damaged: pixels in pieces that should be in one")
        return Words(_one_plane(_native(value, length, kind, form, syntax == BIG_ENDIAN), form), False)
    if length != UNDEFINED:
        raise Unreadable("damaged: pixels in one piece that should be in several")
    if syntax not in (*JPEG, *JPEG_LS, *JPEG_2000, RLE):
        raise Unreadable("pixels in a transfer syntax that is not known here")
    code = _codestream(value)
    if syntax == RLE:
        return Words(_one_plane(_rle(code, form), form), False)
    if syntax in JPEG_2000:
        return _jpeg_2000(code, form)
    return Words(_one_plane(_jpeg(code, form), form), False)


def _element(data: memoryview, big_endian: bool) -> tuple[memoryview, int, bytes]:
    """The value onwards, its length, and its value representation (nothing where the file leaves it out)."""
    kind, order = bytes(data[4:6]), "><"[not big_endian]
    if kind in (b"OB", b"OW", b"UN") and bytes(data[6:8]) == b"\0\0":
        return data[12:], struct.unpack_from(order + "I", data, 8)[0], kind
    return data[8:], struct.unpack_from(order + "I", data, 4)[0], b""


# --- uncompressed


def _native(value: memoryview, length: int, kind: bytes, form: Form, big_endian: bool) -> np.ndarray:
    if form.samples == 3 and form.photometric != "RGB":
        raise Unreadable("in colour")
    count = form.width * form.height * form.samples
    size = count * form.allocated // 8
    if len(value) < size:
        raise Unreadable(CUT_OFF)
    if length < size:
        raise Unreadable("damaged: fewer pixels than its size needs")
    if form.allocated == 16:
        return np.frombuffer(value, ">u2" if big_endian else "<u2", count)
    pixels = np.frombuffer(value, np.uint8, min(size + size % 2, len(value)))
    if big_endian and kind == b"OW":  # bytes lie in words, the later one first
        pixels = np.append(pixels, np.zeros(pixels.size % 2, np.uint8)).reshape(-1, 2)[:, ::-1].reshape(-1)
    return pixels[:count]


def _one_plane(pixels: np.ndarray, form: Form) -> np.ndarray:
    """H×W from as many samples as there are, in planes or not: of three that are all the same, one."""
    if form.samples == 1:
        return pixels.reshape(form.height, form.width)
    planes = pixels.reshape(3, -1) if form.by_plane else pixels.reshape(-1, 3).T
    first, *others = (np.ascontiguousarray(plane).astype(f"u{pixels.itemsize}") for plane in planes)
    most = 2 ** (8 * pixels.itemsize) // NEARLY_GRAY
    if any(int(cv2.absdiff(first, other).max()) > most for other in others):
        raise Unreadable("in colour")
    return first.reshape(form.height, form.width)


# --- compressed


def _codestream(value: memoryview) -> bytes:
    """All pieces of the one frame, without the table of offsets that is the first piece."""
    pieces, start = [], 0
    while (tag := bytes(value[start : start + 4])) == ITEM and start + 8 <= len(value):
        (length,) = struct.unpack_from("<I", value, start + 4)
        if start + 8 + length > len(value):
            raise Unreadable(CUT_OFF)
        pieces.append(value[start + 8 : start + 8 + length])
        start += 8 + length
        if len(pieces) > MOST_FRAGMENTS or start > LONGEST:
            raise Unreadable(f"damaged: more than {MOST_FRAGMENTS} pieces, or {LONGEST >> 20} MiB")
    if tag != ITEMS_END:
        raise Unreadable(CUT_OFF if len(tag) < 4 or start + 8 > len(value) else "damaged: pixels in odd pieces")
    return b"".join(pieces[1:])


def _rle(code: bytes, form: Form) -> np.ndarray:
    if form.samples == 3 and form.photometric != "RGB":
        raise Unreadable("in colour")
    if len(code) < 64 or struct.unpack_from("<I", code)[0] != form.samples * form.allocated // 8:
        raise Unreadable(DAMAGED)
    pixels = apart.decode("rle", code, form.width, form.height, form.samples, form.allocated)
    return _laid_out(pixels, True, form)


def _jpeg(code: bytes, form: Form) -> np.ndarray:
    if not code.startswith(b"\xff\xd8"):
        raise Unreadable("damaged: no JPEG where its header says there is one")
    frame = jpeg_frame(code)
    _same_size(frame.width, frame.height, frame.components, form)
    if not 2 <= frame.bits <= 16:
        raise Unreadable(DAMAGED)
    if frame.process in (0xC0, 0xC1, 0xC2) and frame.bits == 8:
        how = cv2.IMREAD_GRAYSCALE if frame.components == 1 else cv2.IMREAD_COLOR
        try:
            picture = cv2.imdecode(np.frombuffer(code, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            picture = None
        if picture is None or picture.shape[:2] != (form.height, form.width):
            raise Unreadable(DAMAGED)
        return _laid_out(picture.reshape(-1), False, form)
    if form.samples == 3 and form.photometric != "RGB":
        raise Unreadable("in colour")
    if frame.process == FRAME_LS:
        pixels = apart.decode("jpegls", code, form.width, form.height, form.samples, frame.bits)
        return _laid_out(pixels, frame.by_plane, form)
    decoder: apart.Decoder = "jpeg-lossless" if frame.process == LOSSLESS else "jpeg"
    pixels = apart.decode(decoder, code, form.width, form.height, form.samples, frame.bits)
    return _laid_out(pixels, False, form)


def _laid_out(pixels: np.ndarray, by_plane: bool, form: Form) -> np.ndarray:
    """Three samples in the order that the header says, whatever the decoder's."""
    if form.samples == 1 or by_plane == form.by_plane:
        return pixels
    return (pixels.reshape(3, -1) if by_plane else pixels.reshape(-1, 3)).T.reshape(-1)


def _jpeg_2000(code: bytes, form: Form) -> Words:
    if form.samples == 3 and form.photometric not in COLOURS:
        raise Unreadable("in colour")
    code = _without_boxes(code)
    if len(code) < 42 or code[:4] != b"\xff\x4f\xff\x51":
        raise Unreadable("damaged: no JPEG 2000 where its header says there is one")
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", code, 8)
    (components,) = struct.unpack_from(">H", code, 40)
    _same_size(right - left, bottom - top, components, form)
    parts = [code[42 + 3 * n : 45 + 3 * n] for n in range(components)]
    bits = (parts[0][0] & 0x7F) + 1
    if any(part != parts[0] for part in parts) or parts[0][1:] != b"\1\1" or bits > 16:
        raise Unreadable(DAMAGED)
    if not tile_width or not tile_height or -(-right // tile_width) * -(-bottom // tile_height) > 2**16:
        raise Unreadable(DAMAGED)
    if not code.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise Unreadable(CUT_OFF)
    pixels = apart.decode("openjpeg", code, form.width, form.height, form.samples, bits)
    return Words(_one_plane(_laid_out(pixels, False, form), form), bool(parts[0][0] & 0x80))


def _without_boxes(code: bytes) -> bytes:
    """The codestream alone of a JP2 file: DICOM wants none, and some writers put one there."""
    start = 0
    while code[4:8] == b"jP  " and start + 8 <= len(code):
        length, kind = struct.unpack_from(">I4s", code, start)
        if kind == b"jp2c":
            return code[start + 8 :]
        start += max(8, length)
    return code


def _same_size(width: int, height: int, components: int, form: Form) -> None:
    if (width, height) != (form.width, form.height):
        raise Unreadable(
            f"damaged: {width} × {height} pixels in its codestream, {form.width} × {form.height} in its header"
        )
    if components != form.samples:
        raise Unreadable("damaged: another number of colours in its codestream than in its header")
