"""Whether the bytes of a PNG or JPEG are whole, and the size they announce, before anything is decoded.

Decoders differ in what they do with damage: some releases of OpenCV fill the part that is missing with gray and only
write a warning to stderr. So damage is found here, whatever the decoder. Every chunk of a PNG has a checksum, and all
are compared (about 1 GB/s). A JPEG has none: that its last marker is there proves it was not cut off, and no more.
"""

import re
import struct
import zlib

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
MOST_PIXELS = 120_000_000
NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in coded data, 00 is stuffing and D0 to D7 are restarts
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


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG that has its end marker. A thumbnail's end marker inside a segment does not count."""
    size = None
    start = 2
    while marker := NEXT_MARKER.search(data, start):
        code = data[marker.start() + 1]
        if code == 0xD9 and size:
            return size
        segment = marker.end()
        if segment + 2 > len(data) or code == 0xD9:
            break
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            if segment + 7 > len(data):
                break
            height, width = struct.unpack_from(">HH", data, segment + 3)
            refuse_too_large(width, height)
            size = width, height
        start = segment + struct.unpack_from(">H", data, segment)[0]
    raise Unreadable(CUT_OFF)
