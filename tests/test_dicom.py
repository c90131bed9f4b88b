"""DICOM films: every transfer syntax to the right pixels, what a header tells, and what is refused by it."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from cxrmine.data import dicom as reader
from cxrmine.data.dicom import Facts, dicom_facts
from cxrmine.data.gray import stored_values
from cxrmine.data.images import Unreadable, decode_image, image_size, read_image
from tests import films
from tests.films import DEFLATED, EXPLICIT, JPEG_2000_LOSSLESS, JPEG_LS, LOSSLESS, LOSSLESS_SV1, RLE, data_set_at, dicom

ROWS, COLUMNS = np.mgrid[:40, :64]
EIGHT = (3 * COLUMNS + ROWS).astype(np.uint8)  # 0..228
TWELVE = (60 * COLUMNS + 8 * ROWS).astype(np.uint16)  # 0..4092
OFF_BY = {"near-jpeg-ls": 3, "jpeg-2000": 2, "extended": 2, "baseline": 2}  # of 255 or of 4095
EXACT = (RLE, LOSSLESS, LOSSLESS_SV1, JPEG_LS, JPEG_2000_LOSSLESS)
SHIPPED = Path(pydicom.data.__file__).parent / "test_files"


def why(data: bytes | Path) -> str:
    with pytest.raises(Unreadable) as caught:
        read_image(data) if isinstance(data, Path) else decode_image(data)
    return caught.value.why


# --- pixels


@pytest.mark.parametrize("kind", films.every_kind(EIGHT))
def test_eight_bits(kind: str) -> None:
    film = decode_image(films.every_kind(EIGHT)[kind])
    assert film.shape == (40, 64)
    assert np.abs(film.astype(int) - EIGHT).max() <= OFF_BY.get(kind, 0)


@pytest.mark.parametrize("kind", films.every_kind(TWELVE))
def test_twelve_bits(kind: str) -> None:
    pixels = stored_pixels(films.every_kind(TWELVE)[kind])
    assert np.abs(pixels - TWELVE.astype(int)).max() <= OFF_BY.get(kind, 0)


def stored_pixels(data: bytes) -> np.ndarray:
    """Before they become gray."""
    opened = reader._open(io.BytesIO(data))
    form, stored = reader._film(opened)
    words = reader.read_words(memoryview(opened.inflated or data)[opened.pixels_at :], form, opened.syntax)
    return stored_values(stored._replace(signed=stored.signed or words.signed), words.pixels.itemsize)[words.pixels]


@pytest.mark.parametrize("syntax", [*films.NATIVE, *EXACT])
@pytest.mark.parametrize(("bits", "signed"), [(10, 0), (14, 0), (16, 0), (16, 1), (12, 1)])
def test_odd_sizes_of_other_depths(syntax: str, bits: int, signed: int) -> None:
    half = 2 ** (bits - 1)
    values = np.random.default_rng(bits).integers(-half if signed else 0, half if signed else 2 * half, (33, 41))
    values[0, :2] = -half * signed, half - 1 if signed else 2 * half - 1
    whole = values.astype(np.int16 if signed else np.uint16)
    if signed and syntax in (LOSSLESS, LOSSLESS_SV1, JPEG_LS, RLE):  # they know no sign: the words as they are
        words = whole.view(np.uint16) & np.uint16(2**bits - 1)
        data = dicom(words, syntax, bits, PixelRepresentation=1)
    else:
        data = dicom(whole, syntax, bits)
    assert (stored_pixels(data) == values).all()
    assert image_size_of(data) == (41, 33)


def image_size_of(data: bytes) -> tuple[int, int]:
    facts = dicom_facts(data)
    return facts.width, facts.height


@pytest.mark.parametrize("syntax", [EXPLICIT, films.BIG_ENDIAN, DEFLATED, *EXACT])
def test_three_equal_channels_are_gray_and_others_colour(syntax: str) -> None:
    gray = np.repeat(EIGHT[:, :, None], 3, axis=2)
    colour = gray.copy()
    colour[:, :, 1] //= 2
    tags = {"PlanarConfiguration": 1} if syntax == RLE else {}
    assert (decode_image(dicom(gray, syntax, **tags)) == EIGHT).all()
    assert why(dicom(colour, syntax, **tags)) == "in colour"
    if syntax in (EXPLICIT, RLE):
        planes = np.ascontiguousarray(np.moveaxis(gray, 2, 0)).reshape(gray.shape)
        other = gray if syntax == RLE else planes
        turned = dicom(other, syntax, PlanarConfiguration=0 if syntax == RLE else 1)
        assert (decode_image(turned) == EIGHT).all()


def test_a_frame_in_several_pieces_with_a_table_of_offsets() -> None:
    film = films.header(EIGHT)
    code = films.codestream(EIGHT, JPEG_2000_LOSSLESS, 8)
    whole = films.written(film, code, JPEG_2000_LOSSLESS)
    pieces = [struct.pack("<I", 0), code[:100], code[100:300], code[300:]]
    pieces[3] += b"\0" * (len(pieces[3]) % 2)
    items = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(piece)) + piece for piece in pieces)
    start = whole.index(b"\xfe\xff\x00\xe0")
    assert (decode_image(whole[:start] + items + b"\xfe\xff\xdd\xe0\0\0\0\0") == EIGHT).all()
    assert why(whole[:start] + items[:-2]) == "cut off before its end"


def test_a_jp2_file_in_place_of_a_codestream() -> None:
    from openjpeg.utils import encode_array

    boxed = bytes(encode_array(EIGHT, codec_format=1))
    assert boxed[4:8] == b"jP  "
    assert (decode_image(films.written(films.header(EIGHT), boxed, JPEG_2000_LOSSLESS)) == EIGHT).all()


SOUND = (
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "examples_overlay.dcm", "image_dfl.dcm",
)  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_shipped_films_have_the_pixels_that_pydicom_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_refuse_other_films", lambda *_: None)  # most are CT or MR
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pydicom.dcmread(SHIPPED / name).pixel_array
    assert (stored_pixels((SHIPPED / name).read_bytes()) == theirs).all()


def test_every_shipped_file_is_read_or_refused() -> None:
    read, refused = {}, {}
    for path in sorted(path for path in SHIPPED.rglob("*") if path.is_file()):
        try:
            read[path.name] = read_image(path).shape
        except Unreadable as fault:
            refused[path.name] = fault.why
    assert read == {
        "JPEGLSNearLossless_08.dcm": (45, 10), "JPEGLSNearLossless_16.dcm": (50, 10), "image_dfl.dcm": (512, 512),
    }  # fmt: skip
    assert refused["reportsi.dcm"] == "a structured report, not a film"
    assert refused["DICOMDIR"] == "a DICOM directory (DICOMDIR), not a film"
    assert refused["README.txt"] == refused["test1.json"] == "not a PNG, JPEG or DICOM file"
    assert refused["CT_small.dcm"] == "no radiograph: its modality is CT"
    assert refused["6154"] == "not of the chest: its body part is CSPINE"
    assert refused["SC_rgb_jpeg_dcmtk.dcm"] == "in colour"
    assert refused["SC_rgb_rle_2frame.dcm"] == "a DICOM file of several frames"


# --- headers


def test_facts(tmp_path: Path) -> None:
    tags = {"ViewPosition": " pa", "PatientID": " p-17", "PixelSpacing": [0.2, 0.3]}
    assert dicom_facts(dicom(EIGHT, **tags)) == Facts(64, 40, "PA", " p-17", (0.2, 0.3))
    assert dicom_facts(dicom(EIGHT, ImagerPixelSpacing=[0.1, 0.15], **tags)).spacing == (0.1, 0.15)
    assert dicom_facts(dicom(EIGHT)) == Facts(64, 40, None, None, None)
    assert dicom_facts(dicom(EIGHT, ViewPosition="", PatientID="", PixelSpacing=[0, 1])) == Facts(64, 40, *[None] * 3)
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom(EIGHT, **tags))
    assert dicom_facts(path) == Facts(64, 40, "PA", " p-17", (0.2, 0.3))
    with pytest.raises(Unreadable, match="no such file"):
        dicom_facts(tmp_path / "b.dcm")


def test_facts_need_no_pixels(tmp_path: Path) -> None:
    """A file of 500 MB on paper, of which only the header is there."""
    data = dicom(EIGHT, PatientID="7")
    start = data.index(b"\xe0\x7f\x10\x00")
    path = tmp_path / "a.dcm"
    path.write_bytes(data[:start] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 500_000_000))
    assert dicom_facts(path).patient == "7"
    assert image_size(path) == (64, 40)
    assert why(path) == "cut off before its end"


def test_without_a_preamble() -> None:
    for syntax in (films.IMPLICIT, EXPLICIT):
        data = dicom(EIGHT, syntax)
        assert (decode_image(data[132:]) == EIGHT).all()  # its meta header is there
        data_set = data[data.index(b"\x08\x00\x16\x00") :]
        assert (decode_image(data_set) == EIGHT).all()  # nothing but elements
    for text in (
        b"hello, this is a text of some length\n" * 9,
        b"\x08\0 and then nothing of the kind" * 9,
        b"\x02\0\0\0",
    ):
        assert why(text) == "not a PNG, JPEG or DICOM file"


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "OT", "SC", "RF", "", None, " dx "])
@pytest.mark.parametrize(
    "part", ["CHEST", "THORAX", "CHEST PA", "PORT CHEST", "CHEST/ABDOMEN", "", None, "RIBS", "x ray"]
)
def test_films_that_pass(modality: str | None, part: str | None) -> None:
    height, width = EIGHT.shape[:2]
    facts = dicom_facts(dicom(EIGHT, Modality=modality, BodyPartExamined=part))
    assert (facts.width, facts.height) == (width, height)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, "no radiograph: its modality is CT"),
        ({"Modality": "MG"}, "no radiograph: its modality is MG"),
        ({"Modality": "DOE^JANE"}, "no radiograph: its modality is one that is not known here"),
        ({"BodyPartExamined": "ABDOMEN"}, "not of the chest: its body part is ABDOMEN"),
        ({"BodyPartExamined": "left hand"}, "not of the chest: its body part is HAND"),
        ({"BodyPartExamined": "DOE SKULL"}, "not of the chest: its body part is SKULL"),
        ({"NumberOfFrames": 2}, "a DICOM file of several frames"),
        ({"SamplesPerPixel": 2}, "in colour"),
        ({"SamplesPerPixel": 4}, "in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "not of 8 or 16 bits a pixel"),
        ({"BitsStored": 9}, "damaged: more bits stored than there are"),
        ({"Rows": 60_000, "Columns": 60_000}, "60000 × 60000 pixels, more than 120 million"),
        ({"Rows": 0}, "a size of 64 × 0 pixels"),
    ],
)
def test_films_that_are_refused_by_their_header(tags: dict[str, object], reason: str) -> None:
    data = dicom(EIGHT, **tags)
    assert why(data) == reason
    with pytest.raises(Unreadable) as caught:
        dicom_facts(data)
    assert caught.value.why == reason


def test_one_frame_by_name_is_one_frame() -> None:
    assert (decode_image(dicom(EIGHT, NumberOfFrames=1)) == EIGHT).all()


def test_objects_without_pixels_say_what_they_are() -> None:
    for kind, reason in (("11.1", "a presentation state"), ("88.33", "a structured report"), ("1.1", "without pixels")):
        film = films.header(EIGHT, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{kind}")
        data = films.written(film, EIGHT.tobytes())
        assert reason in why(data[: data.index(b"\xe0\x7f\x10\x00")])


def test_no_reason_or_warning_names_a_person(capfd: pytest.CaptureFixture[str]) -> None:
    secret = "ROE^RICHARD"
    spoilt = {
        "PatientName": secret, "PatientID": secret, "Modality": secret, "BodyPartExamined": f"{secret} HAND",
        "ViewPosition": secret, "StudyDate": secret, "VOILUTFunction": secret, "SpecificCharacterSet": secret,
        "PhotometricInterpretation": secret,
    }  # fmt: skip
    data = [dicom(EIGHT, **{n: v for n, v in spoilt.items() if n != absent}) for absent in (None, *spoilt)]
    reasons = set()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        reader._reader.cache_clear()  # in a process of its own, its filters come last and so first
        for film in data:
            for place in (*range(300, data_set_at(film) + 400, 5), 0):
                damaged = bytearray(film)
                damaged[place] ^= 0x55
                try:
                    decode_image(bytes(damaged))
                except Unreadable as fault:
                    reasons.add(fault.why)
    said = [*reasons, *(str(one.message) for one in heard), *capfd.readouterr()]
    assert len(reasons) > 3
    assert not [text for text in said if "ROE" in text.upper() or "RICHARD" in text.upper()]
