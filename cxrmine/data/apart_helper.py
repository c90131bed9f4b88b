"""The other side of apart.py: codestreams in, pixels out, until the input ends. A script that imports nothing of ours.

Each request is answered with P and the pixels, or with one letter: D, it could not be decoded; M, memory ran out; I,
the decoder is not there. All else ends this process: a crash, or SIGPROF after more seconds of work than it was told.
"""

import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

REQUEST = struct.Struct("<IIIBB")
MOST_MEMORY = 2 * 2**30
Decode = Callable[[bytes, int, int, int, int], "bytes | bytearray | None"]


def main() -> None:
    decoder, seconds = sys.argv[1], float(sys.argv[2])
    # A decoder that prints must not print among the answers.
    requests, answers, nowhere = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    for name in ("SIGINT", "SIGTERM"):  # meant for the parent, which may want to finish what it does
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    decode = load(decoder)
    limit()
    while len(request := requests.read(REQUEST.size)) == REQUEST.size:
        length, *shape = REQUEST.unpack(request)
        code = requests.read(length)
        clock(seconds)
        letter, pixels = attempt(decode, code, *shape)
        clock(0)
        answers.write(letter)
        answers.write(pixels)
        answers.flush()


def attempt(decode: "Decode | None", code: bytes, width: int, height: int, samples: int, bits: int) -> Any:
    """The letter, and the pixels or nothing."""
    if decode is None:
        return b"I", b""
    try:
        pixels = decode(code, width, height, samples, bits)
    except MemoryError:
        return b"M", b""
    except BaseException:  # decoders raise what they like (Rust's panics are no Exception)
        return b"D", b""
    whole = pixels is not None and len(pixels) == width * height * samples * (1 if bits <= 8 else 2)
    return (b"P", pixels) if whole else (b"D", b"")


def clock(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit() -> None:
    """No more memory than that, and no core dumps, where the platform can say so."""
    try:
        import resource
    except ImportError:
        return
    for what, most in ((resource.RLIMIT_AS, MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def load(decoder: str) -> "Decode | None":
    try:
        return {"rle": rle, "openjpeg": openjpeg, "jpegls": jpegls}.get(decoder, gdcm_jpeg)(decoder)
    except ImportError:
        return None


def rle(_: str) -> Decode:
    from rle import decode_pixel_data

    def decode(code: bytes, width: int, height: int, samples: int, bits: int) -> bytes:
        return bytes(decode_pixel_data(code, version=2, rows=height, columns=width, bits_allocated=8 * -(-bits // 8)))

    return decode


def openjpeg(_: str) -> Decode:
    from openjpeg import decode_pixel_data

    return lambda code, *_: bytes(decode_pixel_data(code, version=2))


def jpegls(_: str) -> Decode:
    from jpeg_ls import decode_pixel_data

    return lambda code, *_: decode_pixel_data(code)[0]


def gdcm_jpeg(process: str) -> Decode:
    import gdcm

    kinds = gdcm.TransferSyntax
    kind = kinds.JPEGLosslessProcess14_1 if process == "jpeg-lossless" else kinds.JPEGExtendedProcess2_4

    def decode(code: bytes, width: int, height: int, samples: int, bits: int) -> bytes | None:
        fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
        fragment.SetByteStringValue(code)
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        colours = gdcm.PhotometricInterpretation
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((width, height, 1))
        image.SetDataElement(element)
        image.SetPhotometricInterpretation(colours(colours.MONOCHROME2 if samples == 1 else colours.RGB))
        image.SetTransferSyntax(kinds(kind))
        image.SetPixelFormat(gdcm.PixelFormat(samples, 8 if bits <= 8 else 16, bits, bits - 1, 0))
        change = gdcm.ImageChangeTransferSyntax()  # Image.GetBuffer alone would not tell that decoding failed
        change.SetTransferSyntax(kinds(kinds.ImplicitVRLittleEndian))
        image.thisown = False  # change frees it
        change.SetInput(image)
        return change.GetOutput().GetBuffer().encode("utf-8", "surrogateescape") if change.Change() else None

    return decode


if __name__ == "__main__":
    main()
