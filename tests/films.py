"""DICOM films of every transfer syntax, made for tests."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
BASELINE, EXTENDED, LOSSLESS, LOSSLESS_SV1, JPEG_LS, NEAR_JPEG_LS, JPEG_2000_LOSSLESS, JPEG_2000 = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91)
)
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)


def header(pixels: np.ndarray, bits: int | None = None, **tags: object) -> Dataset:
    film = Dataset()
    film.Rows, film.Columns = pixels.shape[:2]
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.PixelRepresentation = int(pixels.dtype.kind == "i")
    film.BitsAllocated = pixels.itemsize * 8
    film.BitsStored = bits or film.BitsAllocated
    film.HighBit = film.BitsStored - 1
    film.SOPClassUID, film.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "2.25.1"
    if pixels.ndim == 3:
        film.SamplesPerPixel, film.PhotometricInterpretation, film.PlanarConfiguration = 3, "RGB", 0
    for name, value in tags.items():
        if isinstance(value, DataElement):
            film.add(value)
        else:
            setattr(film, name, value)
    return film


def written(film: Dataset, pixels: bytes, syntax: str = EXPLICIT) -> bytes:
    """The file: pixels as they are, or as the one piece of a compressed frame."""
    film.PixelData = pixels if syntax in NATIVE else encapsulate([pixels])
    film["PixelData"].VR = "OB" if syntax not in NATIVE else "OW"
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def dicom(pixels: np.ndarray, syntax: str = EXPLICIT, bits: int | None = None, near: int = 0, **tags: object) -> bytes:
    """A film of these pixels; near is how far JPEG-LS may be off, and how many times smaller lossy JPEG 2000 gets."""
    film = header(pixels, bits, **tags)
    if syntax in NATIVE:
        if syntax == BIG_ENDIAN:  # bytes of 8-bit pixels too, because they are written as words
            pixels = pixels.reshape(-1).view("<u2").astype(">u2")
        return written(film, pixels.tobytes(), syntax)
    return written(film, codestream(pixels, syntax, film.BitsStored, near), syntax)


def codestream(pixels: np.ndarray, syntax: str, bits: int, near: int = 0) -> bytes:
    if syntax == RLE:
        import rle

        shape = {"rows": pixels.shape[0], "columns": pixels.shape[1], "bits_allocated": 8 * pixels.itemsize}
        samples = 3 if pixels.ndim == 3 else 1
        return rle.encode_pixel_data(pixels.tobytes(), samples_per_pixel=samples, byteorder="<", **shape)
    if syntax in (JPEG_LS, NEAR_JPEG_LS):
        import jpeg_ls

        return bytes(jpeg_ls.encode_array(pixels, lossy_error=near))
    if syntax in (JPEG_2000_LOSSLESS, JPEG_2000):
        from openjpeg.utils import encode_array

        return bytes(encode_array(pixels, bits_stored=bits, **({"compression_ratios": [near]} if near else {})))
    if syntax == EXTENDED and bits > 8:
        return jpeg_of_twelve_bits(pixels)
    return _by_gdcm(pixels, syntax, bits)


def _by_gdcm(pixels: np.ndarray, syntax: str, bits: int) -> bytes:
    import gdcm

    kinds = gdcm.TransferSyntax
    kind = {
        BASELINE: kinds.JPEGBaselineProcess1,
        EXTENDED: kinds.JPEGExtendedProcess2_4,
        LOSSLESS: kinds.JPEGLosslessProcess14,
        LOSSLESS_SV1: kinds.JPEGLosslessProcess14_1,
    }[syntax]
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((pixels.shape[1], pixels.shape[0], 1))
    samples = 3 if pixels.ndim == 3 else 1
    image.SetPixelFormat(gdcm.PixelFormat(samples, 8 * pixels.itemsize, bits, bits - 1, 0))
    colours = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(colours(colours.RGB if samples == 3 else colours.MONOCHROME2))
    image.SetTransferSyntax(kinds(kinds.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(pixels.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(kinds(kind))
    image.thisown = False  # change frees it
    change.SetInput(image)
    assert change.Change()
    piece = change.GetOutput().GetDataElement().GetSequenceOfFragments().GetFragment(0)
    return piece.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


SYMBOLS = [0x00, 0xF0, *(run << 4 | length for run in range(16) for length in range(1, 15))]


def jpeg_of_twelve_bits(pixels: np.ndarray) -> bytes:
    """Extended sequential, every coefficient rounded to a whole number and no more. No package at hand writes it.

    Codes of one length: 5 bits for how long a DC difference is, 8 for a run of zeros and how long what follows it is.
    """
    bits = "".join(_twelve_bit_blocks(pixels))
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    of_five, of_eight = bytes([0] * 4 + [16] + [0] * 11), bytes([0] * 7 + [len(SYMBOLS)] + [0] * 8)
    head = [
        segment(0xDB, b"\x10" + struct.pack(">H", 1) * 64),
        segment(0xC1, struct.pack(">BHHB", 12, *pixels.shape, 1) + b"\1\x11\0"),
        segment(0xC4, b"\0" + of_five + bytes(range(16))),
        segment(0xC4, b"\x10" + of_eight + bytes(SYMBOLS)),
        segment(0xDA, b"\1\1\0\0\x3f\0"),
    ]
    return b"\xff\xd8" + b"".join(head) + data + b"\xff\xd9"


def _twelve_bit_blocks(pixels: np.ndarray) -> Iterator[str]:
    wave = np.arange(8)
    cosines = np.sqrt(np.where(wave == 0, 1, 2) / 8)[:, None] * np.cos((2 * wave + 1) * wave[:, None] * np.pi / 16)
    diagonals = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
    before = 0
    for top in range(0, pixels.shape[0], 8):
        for left in range(0, pixels.shape[1], 8):
            block = pixels[top : top + 8, left : left + 8].astype(float) - 2048
            values = np.rint(cosines @ block @ cosines.T).astype(int).reshape(-1)[diagonals].tolist()
            yield f"{abs(values[0] - before).bit_length():05b}" + _amplitude(values[0] - before)
            before, run = values[0], 0
            for value in values[1:]:
                if value == 0:
                    run += 1
                    continue
                yield f"{SYMBOLS.index(0xF0):08b}" * (run // 16)
                yield f"{SYMBOLS.index(run % 16 << 4 | abs(value).bit_length()):08b}" + _amplitude(value)
                run = 0
            if run:
                yield f"{SYMBOLS.index(0):08b}"


def _amplitude(value: int) -> str:
    length = abs(value).bit_length()
    return f"{value if value > 0 else value + (1 << length) - 1:0{length}b}" if length else ""


def every_kind(pixels: np.ndarray) -> dict[str, bytes]:
    """A film of 8 or 12 bits in each transfer syntax that holds it."""
    bits = 8 if pixels.dtype == np.uint8 else 12
    syntaxes: dict[str, tuple[str, dict[str, Any]]] = {
        "implicit": (IMPLICIT, {}), "explicit": (EXPLICIT, {}), "big-endian": (BIG_ENDIAN, {}),
        "deflated": (DEFLATED, {}), "rle": (RLE, {}), "extended": (EXTENDED, {}), "lossless": (LOSSLESS, {}),
        "lossless-sv1": (LOSSLESS_SV1, {}), "jpeg-ls": (JPEG_LS, {}), "near-jpeg-ls": (NEAR_JPEG_LS, {"near": 3}),
        "jpeg-2000-lossless": (JPEG_2000_LOSSLESS, {}), "jpeg-2000": (JPEG_2000, {"near": 4}),
    }  # fmt: skip
    if bits == 8:
        syntaxes["baseline"] = (BASELINE, {})
    return {name: dicom(pixels, syntax, bits, **more) for name, (syntax, more) in syntaxes.items()}


def data_set_at(data: bytes) -> int:
    (length,) = struct.unpack_from("<I", data, 140)  # of the meta header, its first element
    return 144 + length
