"""Gray values of DICOM films, worked out by hand: bits, rescaling, tables, windows, padding, inversion."""

from collections.abc import Callable

import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from cxrmine.data.gray import Stored, stored_values, window
from cxrmine.data.images import decode_image
from tests.films import BIG_ENDIAN, EXPLICIT, IMPLICIT, dicom

DEEP = np.array([[1000, 1255], [1510, 2275]], np.uint16)  # 255 apart, but for the last


def gray(pixels: np.ndarray, **tags: object) -> list[list[int]]:
    return decode_image(dicom(pixels, **tags)).tolist()  # type: ignore[arg-type]


def table(first: int, entries: list[int], bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.LUTData = np.array(entries, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


# --- bits


def test_twelve_bits_are_spread_from_darkest_to_brightest() -> None:
    assert gray(DEEP, bits=12) == [[0, 51], [102, 255]]  # a fifth of 1275, two fifths, all


def test_eight_bits_keep_their_values_unless_they_are_rescaled_or_signed() -> None:
    eight = np.array([[10, 20, 110]], np.uint8)
    assert gray(eight) == [[10, 20, 110]]
    assert gray(eight, RescaleSlope=1, RescaleIntercept=0) == [[10, 20, 110]]
    assert gray(eight, RescaleSlope=2, RescaleIntercept=5) == [[0, 26, 255]]  # a tenth of 255 is 25.5, to even 26
    assert gray(eight.astype(np.int8)) == [[0, 26, 255]]
    assert gray(eight, bits=7) == [[0, 26, 255]]


@pytest.mark.parametrize("bits", range(10, 17))
def test_signed_and_unsigned_of_every_depth(bits: int) -> None:
    top = 2**bits - 1
    assert gray(np.array([[0, top // 5, top]], np.uint16), bits=bits)[0][::2] == [0, 255]
    half = 2 ** (bits - 1)
    signed = np.array([[-half, 0, half - 1]], np.int16)
    dark, middle, bright = gray(signed, bits=bits)[0]
    assert (dark, bright) == (0, 255)
    assert middle in (127, 128)


def test_bits_beside_those_stored_are_no_part_of_the_value() -> None:
    overlay = np.array([[0x1000, 0x0800, 0x1FFF]], np.uint16)  # a bit of an old overlay over 12 bits
    assert gray(overlay, bits=12) == [[0, 128, 255]]
    raised = np.array([[0x0000, 0x8000, 0xFFF0]], np.uint16)  # 12 bits at the top of 16
    assert gray(raised, bits=12, HighBit=15) == [[0, 128, 255]]
    assert stored_values(Stored(4, 3, True), 1)[:18].tolist() == [*range(8), *range(-8, 0), 0, 1]
    assert stored_values(Stored(2, 3, False), 1)[:9].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]


# --- modality


def test_rescaling() -> None:
    assert gray(DEEP, bits=12, RescaleSlope=-1, RescaleIntercept=4095) == [[255, 204], [153, 0]]
    # values of 0, 510, 1020 and 2550 in a window from 0 to 1020
    window_of = {"WindowCenter": 510.5, "WindowWidth": 1021}
    assert gray(DEEP, bits=12, RescaleSlope=2, RescaleIntercept=-2000, **window_of) == [[0, 128], [255, 255]]
    assert gray(DEEP, bits=12, RescaleIntercept=-1000, WindowCenter=128, WindowWidth=256) == [[0, 255], [255, 255]]


def test_a_modality_table_goes_before_a_slope() -> None:
    pixels = np.array([[0, 1, 2, 3, 4, 9]], np.uint16)
    of_three = {"ModalityLUTSequence": [table(1, [100, 50, 200])]}  # 0 and 1 → 100, 2 → 50, 3 and more → 200
    assert gray(pixels, **of_three) == [[85, 85, 0, 255, 255, 255]]
    assert gray(pixels, RescaleSlope=-1, RescaleIntercept=0, **of_three) == [[85, 85, 0, 255, 255, 255]]


# --- windows


def test_linear_windows_by_hand() -> None:
    everything = {"WindowCenter": 2048, "WindowWidth": 4096}
    assert gray(DEEP, bits=12, **everything) == np.rint(DEEP * 255.0 / 4095).tolist()
    # 256 values wide around 1383: from 1382.5 - 127.5 = 1255 to 1510
    assert gray(DEEP, bits=12, WindowCenter=1383, WindowWidth=256) == [[0, 0], [255, 255]]
    assert gray(DEEP, bits=12, WindowCenter=1383, WindowWidth=256, RescaleSlope=1, RescaleIntercept=0)[0] == [0, 0]
    assert gray(DEEP, bits=12, WindowCenter=1500, WindowWidth=1) == [[0, 0], [255, 255]]


def test_exact_and_sigmoid_windows_by_hand() -> None:
    values = np.array([0.0, 50.0, 75.0, 100.0, 125.0, 150.0])
    assert window(values, 100, 100, "LINEAR_EXACT").tolist() == [0, 0, 0.25, 0.5, 0.75, 1]  # type: ignore[union-attr]
    assert window(values, 100.5, 101, "LINEAR").tolist() == [0, 0, 0.25, 0.5, 0.75, 1]  # type: ignore[union-attr]
    curve = window(values, 100, 100, "SIGMOID")
    assert curve == pytest.approx([1 / (1 + np.e**power) for power in (4, 2, 1, 0, -1, -2)])
    pixels = np.array([[50, 100, 150]], np.uint16)
    assert gray(pixels, WindowCenter=100, WindowWidth=100, VOILUTFunction="SIGMOID") == [[30, 128, 225]]
    assert gray(pixels, WindowCenter=100, WindowWidth=100, VOILUTFunction="LINEAR_EXACT") == [[0, 128, 255]]


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_those_of_pydicom(function: str) -> None:
    values = np.arange(4096, dtype=np.uint16)
    film = Dataset()
    film.PhotometricInterpretation, film.BitsStored, film.PixelRepresentation = "MONOCHROME2", 12, 0
    film.VOILUTFunction, film.WindowCenter, film.WindowWidth = function, 1234.5, 777
    assert 4095 * window(values, 1234.5, 777, function) == pytest.approx(apply_windowing(values, film), abs=1e-6)  # type: ignore[operator]


def test_the_first_of_several_windows_and_none_that_cannot_be_one() -> None:
    assert gray(DEEP, bits=12, WindowCenter=[1383, 2048], WindowWidth=[256, 4096]) == [[0, 0], [255, 255]]
    for centre, width in ((1383, 0), (1383, -5), (None, 256), (1383, None)):
        assert gray(DEEP, bits=12, WindowCenter=centre, WindowWidth=width) == [[0, 51], [102, 255]]
    assert gray(DEEP, bits=12, WindowCenter=1383, WindowWidth=256, VOILUTFunction="ODD") == [[0, 0], [255, 255]]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_table_goes_before_a_window(syntax: str) -> None:
    pixels = np.array([[0, 1, 2, 3, 4, 9]], np.uint16)
    tables = [table(1, [0, 4000, 1000], bits=12), table(0, [0, 1])]
    tags = {"VOILUTSequence": tables, "WindowCenter": 2, "WindowWidth": 2}
    assert gray(pixels, syntax=syntax, **tags) == [[0, 0, 255, 64, 64, 64]]


def test_a_table_of_bytes_of_many_entries_and_of_a_signed_film() -> None:
    # 65534 is -2, written as unsigned
    item = table(65534, [0, 51, 102, 255], bits=8)
    item.LUTData = bytes([0, 51, 102, 255])
    assert gray(np.array([[-5, -2, -1, 0, 1, 7]], np.int16), VOILUTSequence=[item]) == [[0, 0, 51, 102, 255, 255]]
    long = table(0, list(range(4096)), bits=12)
    assert gray(DEEP, bits=12, VOILUTSequence=[long]) == np.rint(DEEP * 255.0 / 4095).tolist()


# --- inversion and padding


@pytest.mark.parametrize(
    "tags",
    [{}, {"WindowCenter": 1500, "WindowWidth": 700}, {"RescaleSlope": -2, "RescaleIntercept": 7},
     {"VOILUTSequence": "table"}, {"VOILUTFunction": "SIGMOID", "WindowCenter": 1500, "WindowWidth": 700}],
)  # fmt: skip
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
def test_monochrome1_is_the_inverse_of_its_twin(tags: dict[str, object], syntax: str) -> None:
    if "VOILUTSequence" in tags:
        tags = {"VOILUTSequence": [table(1000, [5, 9, 700, 400], bits=12)]}
        if syntax == BIG_ENDIAN:
            tags["VOILUTSequence"][0].LUTData = np.array([5, 9, 700, 400], ">u2").tobytes()  # type: ignore[index]
    twin = np.array(gray(DEEP, bits=12, syntax=syntax, **tags))
    turned = np.array(gray(DEEP, bits=12, syntax=syntax, PhotometricInterpretation="MONOCHROME1", **tags))
    assert (turned == 255 - twin).all()
    assert twin.max() > twin.min()


PADDED = np.array([[0, 1000, 1255, 2275, 0]], np.uint16)


def test_padding_is_black_and_no_part_of_the_spread() -> None:
    assert gray(PADDED, bits=12) == [[0, 112, 141, 255, 0]]  # 1000 / 2275 × 255 = 112.1
    assert gray(PADDED, bits=12, PixelPaddingValue=0) == [[0, 0, 51, 255, 0]]
    turned = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0}
    assert gray(PADDED, bits=12, **turned) == [[0, 255, 204, 0, 0]]
    assert gray(PADDED, bits=12, WindowCenter=2048, WindowWidth=4096, **turned)[0][::4] == [0, 0]
    assert gray(PADDED.astype(np.uint8), **turned) == [[0, 255 - 1000 % 256, 255 - 1255 % 256, 255 - 2275 % 256, 0]]


def test_padding_at_the_bright_end_over_a_range_and_signed() -> None:
    white = np.array([[1000, 1255, 2275, 4095]], np.uint16)
    assert gray(white, bits=12, PixelPaddingValue=4095) == [[0, 51, 255, 0]]
    two = np.array([[1000, 1255, 2275, 4090, 4095]], np.uint16)
    assert gray(two, bits=12, PixelPaddingValue=4095, PixelPaddingRangeLimit=4090) == [[0, 51, 255, 0, 0]]
    signed = np.array([[-2000, 0, 51, 255]], np.int16)
    assert gray(signed, PixelPaddingValue=-2000) == [[0, 0, 51, 255]]
    unsigned = DataElement("PixelPaddingValue", "US", 65536 - 2000)
    assert gray(signed, PixelPaddingValue=unsigned) == [[0, 0, 51, 255]]
    assert gray(DEEP, bits=12, PixelPaddingValue=65535) == [[0, 51], [102, 255]]  # no stored value can be that
    assert gray(np.zeros((1, 3), np.uint16), PixelPaddingValue=0) == [[0, 0, 0]]


# --- nonsense


@pytest.mark.parametrize(
    "spoil",
    [
        lambda item: item.__setattr__("LUTDescriptor", [9, 0, 16]),
        lambda item: item.__delattr__("LUTData"),
        lambda item: item.__delattr__("LUTDescriptor"),
    ],
)
def test_a_spoilt_table_is_unreadable(spoil: Callable[[Dataset], None]) -> None:
    from cxrmine.data.images import Unreadable

    item = table(0, [1, 2, 3])
    spoil(item)
    with pytest.raises(Unreadable, match="damaged"):
        gray(DEEP, VOILUTSequence=[item])
