"""Whether the bytes of a PNG or JPEG are whole, and the size they announce, before anything is decoded.

Decoders differ in what they do with damage: some releases of OpenCV fill the part that is missing with gray and only
write a warning to stderr. So damage is found here, whatever the decoder. Every chunk of a PNG has a checksum, and all
are compared (about 1 GB/s). A JPEG has none: that its last marker is there proves it was not cut off, and no more.
"""

import re
import struct
import zlib
from typing import NamedTuple

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
MOST_PIXELS = 120_000_000
MOST_WORK = 10 * MOST_PIXELS  # a progressive JPEG goes over all its pixels again in every scan
# In coded data, 00 is stuffing (in JPEG-LS 00 to 7F are data) and D0 to D7 are restarts.
NEXT_MARKER = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")
NO_FRAME = (0xC4, 0xC8, 0xCC)  # tables among the codes of frames
FRAME_LS, SCAN, END = 0xF7, 0xDA, 0xD9
CUT_OFF = "cut off before its end"
DAMAGED = "damaged: a checksum does not match"


class Unreadable(Exception):
    """An image that cannot be used, and why, in a few words without the path."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def refuse_too_large(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width} × {height} pixels, more than {MOST_PIXELS // 1_000_000} million")
    if width <= 0 or height <= 0:
        raise Unreadable(f"a size of {width} × {height} pixels")


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a whole, undamaged PNG."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise Unreadable(CUT_OFF if len(data) < 33 else "damaged: no PNG header")
    width, height = struct.unpack_from(">II", data, 16)
    refuse_too_large(width, height)
    view = memoryview(data)
    start = len(PNG_START)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[start + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise Unreadable(DAMAGED)
        if data[start + 4 : start + 8] == b"IEND":
            return width, height
        start = end
    raise Unreadable(CUT_OFF)


class JpegFrame(NamedTuple):
    """What a JPEG of any process, JPEG-LS too, says of itself."""

    width: int
    height: int
    bits: int
    components: int
    process: int  # the second byte of its frame's marker: C0 baseline, C1 extended, C3 lossless, F7 JPEG-LS
    by_plane: bool  # the first scan has one component


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG that has its end marker. A thumbnail's end marker inside a segment does not count."""
    frame = jpeg_frame(data)
    return frame.width, frame.height


def jpeg_frame(data: bytes) -> JpegFrame:
    """The frame header of a JPEG that has its end marker."""
    frame: tuple[int, int, int, int, int] | None = None
    scans, by_plane, start = 0, True, 2
    while marker := NEXT_MARKER.search(data, start):
        code = data[marker.start() + 1]
        if code == END and frame:
            return JpegFrame(*frame, by_plane)
        segment = marker.end()
        if segment + 3 > len(data) or code == END:
            break
        if (0xC0 <= code <= 0xCF and code not in NO_FRAME) or code == FRAME_LS:
            if segment + 8 > len(data):
                break
            bits, height, width, components = struct.unpack_from(">BHHB", data, segment + 2)
            refuse_too_large(width, height)
            frame = width, height, bits, components, code
        if code == SCAN and frame:
            scans += 1
            by_plane = data[segment + 2] == 1 if scans == 1 else by_plane
            if scans > frame[3] and scans * frame[0] * frame[1] > MOST_WORK:
                raise Unreadable(f"{scans} scans or more of {frame[0]} × {frame[1]} pixels")
        start = segment + struct.unpack_from(">H", data, segment)[0]
    raise Unreadable(CUT_OFF)
