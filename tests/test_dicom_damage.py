"""DICOM films that are damaged or made to do harm: refused with a reason, before they cost time or memory."""

import struct
import zlib

import numpy as np
import pytest

from cxrmine.data import apart
from cxrmine.data import dicom as reader
from cxrmine.data.images import Unreadable, decode_image
from tests import films
from tests.films import DEFLATED, JPEG_LS, RLE, data_set_at, dicom

EIGHT = (3 * np.arange(64) + np.arange(40)[:, None]).astype(np.uint8)


def why(data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        decode_image(data)
    return caught.value.why


@pytest.mark.parametrize("kind", films.every_kind(EIGHT))
def test_a_film_cut_off_anywhere_is_unreadable(kind: str) -> None:
    data = films.every_kind(EIGHT)[kind]
    for end in (1, 100, 131, 133, 200, 400, len(data) // 2, len(data) - 20):
        assert why(data[:end])
    assert why(data[: len(data) - 40]) == "cut off before its end"


def test_uncompressed_films_lack_nothing() -> None:
    data = dicom(EIGHT)
    assert why(data[:-1]) == "cut off before its end"
    short = films.written(films.header(EIGHT), EIGHT.tobytes()[:-2])
    assert why(short + b"\0" * 8) == "damaged: fewer pixels than its size needs"
    assert why(films.written(films.header(EIGHT), b""))


@pytest.mark.parametrize("kind", ["baseline", "extended", "lossless", "jpeg-ls", "jpeg-2000-lossless"])
def test_a_codestream_of_another_size_reaches_no_decoder(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = films.every_kind(EIGHT)[kind]
    monkeypatch.setattr(apart, "decode", lambda *_: pytest.fail("it was given to a decoder"))
    if kind == "jpeg-2000-lossless":
        place = data.index(b"\xff\x4f\xff\x51") + 8
        spoilt = data[:place] + struct.pack(">II", 60_000, 60_000) + data[place + 8 :]
        assert why(spoilt).startswith("damaged: 60000 × 60000 pixels in its codestream, 64 × 40")
        return
    marker = {"baseline": b"\xff\xc0", "extended": b"\xff\xc0", "lossless": b"\xff\xc3", "jpeg-ls": b"\xff\xf7"}[kind]
    place = data.index(marker) + 5
    assert why(data[:place] + struct.pack(">HH", 60_000, 60_000) + data[place + 4 :]).startswith("60000 × 60000")
    assert "64 × 41 pixels in its codestream" in why(data[:place] + struct.pack(">H", 41) + data[place + 2 :])


def test_a_deflated_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader.INFLATED_AT_MOST == 512 * 2**20
    monkeypatch.setattr(reader, "INFLATED_AT_MOST", 4 * 2**20)
    data = dicom(EIGHT, DEFLATED)
    engine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = engine.compress(bytes(6 * 2**20)) + engine.flush()
    assert len(bomb) < 2**16
    assert why(data[: data_set_at(data)] + bomb) == "inflates to more than 4 MiB"


def test_a_header_without_an_end() -> None:
    element = b"\x09\0\x01\0LO\0\0"
    assert why(dicom(EIGHT)[:132] + element * 300_000) == "damaged: a DICOM header of unlikely size"
    nested = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    start = data_set_at(dicom(EIGHT))
    assert why(dicom(EIGHT)[:start] + nested * 5_000)
    huge = b"\x28\0\x10\x30SQ\0\0" + struct.pack("<I", 5 << 20) + bytes(5 << 20)
    assert why(dicom(EIGHT)[:start] + huge) == "damaged: a DICOM header of unlikely size"


def test_runs_that_grow_beyond_the_frame() -> None:
    bomb = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * 100_000  # 128 of each: 12.8 million pixels
    film = films.header(EIGHT)
    assert (decode_image(films.written(film, bomb, RLE)) == 7).all()  # as far as the frame goes


def test_many_empty_pieces() -> None:
    data = dicom(EIGHT, JPEG_LS)
    start = data.index(b"\xfe\xff\x00\xe0")
    assert "more than 100000 pieces" in why(data[:start] + b"\xfe\xff\x00\xe0\0\0\0\0" * 100_002)
