"""A film from its file to the network's input, and the one object that maps boxes between the two."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from cxrmine.data.dicom import decode_dicom, dicom_size, is_dicom
from cxrmine.data.encoded import JPEG_START, PNG_START, Unreadable, jpeg_size, png_size
from cxrmine.data.gray import spread
from cxrmine.data.headerless import decode_headerless, headerless_size, is_headerless
from cxrmine.data.tree import read_file

Fit = Literal["stretch", "pad", "crop"]
CROPPED = 8 / 7  # fit = crop: the side of the square whose middle is the input, as 256 is to 224

# A film that cannot be read is reported by us, once, with its path; OpenCV's own lines have none.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: Path) -> np.ndarray:
    """H×W uint8 gray of a PNG, JPEG or DICOM file or of a raw film of JSRT, told apart by their content.

    16-bit films are spread from their darkest to their brightest pixel; colour becomes its luminance; alpha is dropped.
    An EXIF orientation is not applied: boxes and maps are in the pixels as stored.
    """
    return decode_image(_read(path))


def decode_image(data: bytes) -> np.ndarray:
    """The same from bytes that are already in memory."""
    size = _header_reader(data)
    if size is dicom_size:
        return decode_dicom(data)
    if size is headerless_size:
        return decode_headerless(data)
    width, height = size(data)
    # libjpeg gives the luminance itself; a PNG is taken as it is, because its 16 bits must not be cut to 8.
    how = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION if size is jpeg_size else cv2.IMREAD_UNCHANGED
    return _gray8(stored_pixels(data, width, height, how))


def stored_pixels(data: bytes, width: int, height: int, how: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    """What OpenCV makes of a PNG or JPEG that is whole and announces this size."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        picture = None
    if picture is None or picture.shape[:2] != (height, width):
        raise Unreadable("damaged: its pixels cannot be decoded")
    return picture


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as the file's header has them; a PNG or JPEG is proved whole on the way."""
    return encoded_size(_read(path))


def encoded_size(data: bytes) -> tuple[int, int]:
    """The same from bytes that are already in memory."""
    return _header_reader(data)(data)


def _header_reader(data: bytes) -> Callable[[bytes], tuple[int, int]]:
    """The function that reads the size from this kind of file."""
    if data.startswith(PNG_START):
        return png_size
    if data.startswith(JPEG_START):
        return jpeg_size
    if is_dicom(data):
        return dicom_size
    if is_headerless(data):
        return headerless_size
    raise Unreadable("not a PNG, JPEG or DICOM file")


def _read(path: Path) -> bytes:
    content = read_file(path)
    if isinstance(content, Unreadable):
        raise content
    return content


def _gray8(picture: np.ndarray) -> np.ndarray:
    if picture.ndim == 3:  # OpenCV's weights add up to 1: R = G = B comes out unchanged
        code = cv2.COLOR_BGRA2GRAY if picture.shape[2] == 4 else cv2.COLOR_BGR2GRAY
        picture = cv2.cvtColor(picture, code)
    return picture if picture.dtype == np.uint8 else spread(picture)


@dataclass(frozen=True)
class Geometry:
    """Where a film lies in the square input: input = original × scale + offset, for edges of pixels, not centres.

    A box that covers columns 3 to 4 of the film is 3.0..5.0 before and (3.0..5.0) × scale_x + offset_x after.
    """

    width: int
    height: int
    size: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_input(self, boxes: np.ndarray) -> np.ndarray:
        """n×4 boxes of the original film, in pixels of the input."""
        return _corners(boxes) * self._scale() + self._offset()

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """n×4 boxes of the input, in pixels of the original film; what reaches beyond the film is cut off."""
        mapped = (_corners(boxes) - self._offset()) / self._scale()
        return np.clip(mapped, 0.0, [self.width, self.height] * 2)

    def film(self) -> tuple[slice, slice]:
        """The rows and columns of the input that show the film; the rest is padding."""
        edges = np.rint(self.to_input(np.array([[0, 0, self.width, self.height]]))[0])
        left, top, right, bottom = np.clip(edges, 0, self.size).astype(int)
        return slice(top, bottom), slice(left, right)

    def _scale(self) -> np.ndarray:
        return np.array([self.scale_x, self.scale_y] * 2)

    def _offset(self) -> np.ndarray:
        return np.array([self.offset_x, self.offset_y] * 2)


def _corners(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def fit_geometry(width: int, height: int, size: int, fit: Fit) -> Geometry:
    """stretch: each axis by its own factor. pad: one factor, centred, on whole pixels. crop: stretched, its middle."""
    if fit == "stretch":
        return Geometry(width, height, size, size / width, size / height, 0.0, 0.0)
    if fit == "crop":
        whole = needed(size, fit)
        beyond = (size - whole) / 2
        return Geometry(width, height, size, whole / width, whole / height, beyond, beyond)
    inner_width, inner_height = (max(1, round(side * size / max(width, height))) for side in (width, height))
    left, top = (size - inner_width) // 2, (size - inner_height) // 2
    return Geometry(width, height, size, inner_width / width, inner_height / height, float(left), float(top))


def needed(size: int, fit: Fit) -> int:
    """The side of a whole film in pixels of an input of `size`."""
    return size + 2 * round(size * (CROPPED - 1) / 2) if fit == "crop" else size


def prepare(pixels: np.ndarray, size: int, fit: Fit) -> tuple[np.ndarray, Geometry]:
    """size×size uint8 from an H×W film, and the geometry between them."""
    height, width = pixels.shape
    geometry = fit_geometry(width, height, size, fit)
    return place(pixels, geometry), geometry


def place(pixels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A film of any resolution where `geometry` has it in the square; the rest is black."""
    size = geometry.size
    inner_width, inner_height = round(geometry.width * geometry.scale_x), round(geometry.height * geometry.scale_y)
    inner = _resize(pixels, inner_width, inner_height)
    if (inner_height, inner_width) == (size, size):
        return inner
    left, top = int(geometry.offset_x), int(geometry.offset_y)
    if left < 0:
        return np.ascontiguousarray(inner[-top : size - top, -left : size - left])
    square = np.zeros((size, size), pixels.dtype)
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def _resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """An axis that shrinks is averaged and one that grows is interpolated, so that neither aliases."""
    smaller = min(width, pixels.shape[1]), min(height, pixels.shape[0])
    if smaller != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return pixels
