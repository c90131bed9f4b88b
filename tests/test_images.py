"""Reading films of every kind, refusing damaged ones, and the geometry that maps boxes to the network's input."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmine.data.encoded import jpeg_size, png_size
from cxrmine.data.images import Unreadable, decode_image, fit_geometry, image_size, needed, prepare, read_image
from cxrmine.data.organs import fitted_mask

FILMS = Path(__file__).parents[2] / "shared" / "data" / "images"
needs_real_films = pytest.mark.skipif(not FILMS.is_dir(), reason="the published NIH films are not on this machine")
RAMP = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)  # 40 high, 60 wide, 0..98


def encoded(ending: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(ending, pixels, options)[1].tobytes()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG put together by hand, for kinds that OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def why(path_or_bytes: Path | bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        read_image(path_or_bytes) if isinstance(path_or_bytes, Path) else decode_image(path_or_bytes)
    return caught.value.why


# --- kinds


@needs_real_films
@pytest.mark.parametrize(
    ("name", "size", "mean"),
    [
        ("00000001_000.png", 1024, 128.1),
        ("00000001_000_512px.png", 512, 128.1),
        ("00001054_002.png", 1024, 160.7),  # RGBA
        ("00022215_012.png", 1024, 127.2),
    ],
)
def test_real_films(name: str, size: int, mean: float) -> None:
    film = read_image(FILMS / name)
    assert film.dtype == np.uint8
    assert film.shape == (size, size)
    assert image_size(FILMS / name) == (size, size)
    assert film.mean() == pytest.approx(mean, abs=0.1)


@needs_real_films
def test_a_real_film_in_rgba_is_its_red_channel() -> None:
    stored = cv2.imread(str(FILMS / "00001054_002.png"), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (1024, 1024, 4)
    assert (read_image(FILMS / "00001054_002.png") == stored[:, :, 2]).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gray_in_any_number_of_channels_comes_out_unchanged(channels: int) -> None:
    pixels = np.repeat(RAMP[:, :, None], channels, axis=2)
    if channels == 4:
        pixels[:, :, 3] = 7  # alpha means nothing in a film
    assert (decode_image(encoded(".png", pixels)) == RAMP).all()


def test_colour_becomes_luminance() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 2] = 200  # BGR
    assert (decode_image(encoded(".png", red)) == 60).all()  # 0.299 × 200


def test_palette() -> None:
    rows = b"".join(b"\0" + bytes([0, 1, 2, 1]) for _ in range(3))
    colours = bytes([0, 0, 0, 90, 90, 90, 255, 255, 255])
    assert decode_image(png(4, 3, 8, 3, rows, (b"PLTE", colours))).tolist() == [[0, 90, 255, 90]] * 3


def test_two_bits_and_gray_with_alpha() -> None:
    assert decode_image(png(4, 1, 2, 0, b"\0" + bytes([0b00011011]))).tolist() == [[0, 85, 170, 255]]
    assert decode_image(png(2, 1, 8, 4, b"\0" + bytes([10, 255, 20, 0]))).tolist() == [[10, 20]]


def test_sixteen_bits_are_spread_from_darkest_to_brightest() -> None:
    deep = np.array([[1000, 1255, 2275], [1510, 2275, 1000]], np.uint16)
    assert decode_image(encoded(".png", deep)).tolist() == [[0, 51, 255], [102, 255, 0]]
    assert decode_image(encoded(".png", np.full((5, 6), 40_000, np.uint16))).tolist() == [[0] * 6] * 5
    assert (decode_image(encoded(".png", np.full((5, 6), 90, np.uint8))) == 90).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg(channels: int, progressive: int) -> None:
    pixels = np.repeat(RAMP[:, :, None], channels, axis=2)
    data = encoded(".jpg", pixels, cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    film = decode_image(data)
    assert jpeg_size(data) == (60, 40)
    assert np.abs(film.astype(int) - RAMP).max() <= 2


def test_exif_orientation_is_not_applied() -> None:
    """Boxes are in the pixels as stored; a film turned by its reader would leave them behind."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn by 90°
    segment = b"Exif\0\0" + tiff
    data = encoded(".jpg", RAMP)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (60, 40)
    assert (decode_image(turned) == decode_image(data)).all()


# --- damage


def noise(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)


def smooth_film() -> bytes:
    return (FILMS / "00000001_000.png").read_bytes() if FILMS.is_dir() else encoded(".png", noise(512))


@pytest.mark.parametrize(
    "whole",
    [
        smooth_film,
        lambda: encoded(".png", noise(300)),
        lambda: encoded(".jpg", noise(300)),
        lambda: encoded(".jpg", noise(300), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        lambda: encoded(".jpg", np.dstack([noise(300)] * 3)),
    ],
    ids=["film", "png", "jpeg", "progressive", "colour"],
)
def test_a_film_cut_off_anywhere_is_unreadable(whole: Callable[[], bytes]) -> None:
    data = whole()
    decode_image(data)
    ends = np.random.default_rng(1).integers(1, len(data), 200).tolist()
    for end in (*range(1, 60), *ends, len(data) - 12, len(data) - 2, len(data) - 1):
        assert why(data[:end])


def test_a_png_with_one_flipped_bit_is_unreadable() -> None:
    data = encoded(".png", noise(200))
    random = np.random.default_rng(2)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[int(random.integers(8, len(data)))] ^= 1 << int(random.integers(8))
        assert why(bytes(damaged))


def test_every_flipped_bit_of_a_small_png_is_found() -> None:
    data = encoded(".png", RAMP[:5, :5])
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            assert why(bytes(damaged))


def test_a_png_with_a_chunk_missing_is_unreadable() -> None:
    """Every checksum is right, and a part of the picture is not there."""
    rows = b"".join(b"\0" + row.tobytes() for row in noise(64))
    whole = png(64, 64, 8, 0, rows)
    assert decode_image(whole).shape == (64, 64)
    packed = zlib.compress(rows)
    short = whole.replace(
        struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed)),
        struct.pack(">I", 2000) + b"IDAT" + packed[:2000] + struct.pack(">I", zlib.crc32(b"IDAT" + packed[:2000])),
    )
    assert png_size(short) == (64, 64)
    assert why(short) == "damaged: its pixels cannot be decoded"


def test_bytes_after_the_end_do_no_harm() -> None:
    for ending in (".png", ".jpg"):
        data = encoded(ending, RAMP)
        assert (decode_image(data + b"\0\0junk") == decode_image(data)).all()


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_film() -> None:
    data = encoded(".jpg", noise(200))
    thumbnail = encoded(".jpg", noise(16))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    film = data[:2] + segment + data[2:]
    assert decode_image(film).shape == (200, 200)
    assert why(film[: len(film) // 2]) == "cut off before its end"


def test_too_large_a_film_is_refused_before_it_is_decoded() -> None:
    assert why(png(40_000, 30_000, 8, 0, b"")) == "40000 × 30000 pixels, more than 120 million"
    data = bytearray(encoded(".jpg", RAMP))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 60_000, 50_000)
    assert "50000 × 60000 pixels" in why(bytes(data))
    assert "size of" in why(png(0, 10, 8, 0, b""))


def test_a_jpeg_that_goes_over_its_pixels_too_often_is_refused() -> None:
    """Each scan of a progressive JPEG may be a few bytes, and costs a pass over all that its header announces."""
    data = encoded(".jpg", RAMP, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    start = data.index(b"\xff\xc2")
    large = data[: start + 5] + struct.pack(">HH", 10_000, 10_000) + data[start + 9 : -2]
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert jpeg_size(large + scan * 2 + b"\xff\xd9") == (10_000, 10_000)
    assert why(large + scan * 12 + b"\xff\xd9") == "13 scans or more of 10000 × 10000 pixels"


def test_what_is_no_film_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    assert why(path) == "no such file"
    path.touch()
    assert why(path) == "empty: zero bytes"
    path.write_text("<html>404</html>")
    assert why(path) == "not a PNG, JPEG or DICOM file"
    assert why(tmp_path) == "a folder, not a file"
    assert "not" in why(path / "b.png")  # a file where a folder should be
    os.mkfifo(tmp_path / "pipe.png")
    assert why(tmp_path / "pipe.png") == "not a regular file"
    path.write_bytes(encoded(".png", noise(100))[:-500])
    assert why(path) == "cut off before its end"
    assert capfd.readouterr().err == ""


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(".png", RAMP))

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)  # chmod would not keep the superuser out
    assert why(path) == "permission denied"


# --- geometry


def painted_edges(pixels: np.ndarray) -> list[float]:
    """The box of a white rectangle on black, to a fraction of a pixel: a pixel half covered is half as bright."""
    edges = []
    for profile in (pixels.max(axis=0) / 255, pixels.max(axis=1) / 255):
        lit = np.flatnonzero(profile)
        first, last = int(lit[0]), int(lit[-1])
        edges.append((first + 1 - profile[first], last + profile[last]))
    return [edges[0][0], edges[1][0], edges[0][1], edges[1][1]]


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(1200, 800), (700, 1000), (1024, 1024), (517, 2000), (512, 512)])
def test_a_box_covers_the_same_pixels_after_resizing(width: int, height: int, fit: str) -> None:
    film = np.zeros((height, width), np.uint8)
    box = np.array([[101, 203, 341, 407]])
    film[203:407, 101:341] = 255
    size = 448 if fit == "crop" else 512  # out of 512
    pixels, geometry = prepare(film, size, fit)  # type: ignore[arg-type]
    assert pixels.shape == (size, size)
    assert pixels.dtype == np.uint8
    painted = np.array([painted_edges(pixels)])
    assert np.abs(geometry.to_input(box) - painted).max() < 0.02
    assert np.abs(geometry.to_original(painted) - box).max() < 0.1
    for edge in range(4):  # one pixel of the film, on any side, would be noticed
        wrong = box.copy()
        wrong[0, edge] += 1
        assert np.abs(geometry.to_input(wrong) - painted).max() > 0.2


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_box_covers_the_same_pixels_after_growing(fit: str) -> None:
    film = np.zeros((100, 160), np.uint8)
    film[30:70, 40:90] = 255
    pixels, geometry = prepare(film, 512, fit)  # type: ignore[arg-type]
    ((x_min, y_min, x_max, y_max),) = geometry.to_input(np.array([[40, 30, 90, 70]]))
    rows, columns = pixels.max(axis=1) / 255, pixels.max(axis=0) / 255
    centres = np.arange(512) + 0.5
    assert columns.sum() == pytest.approx(x_max - x_min, abs=0.05)
    assert rows.sum() == pytest.approx(y_max - y_min, abs=0.05)
    assert (columns * centres).sum() / columns.sum() == pytest.approx((x_min + x_max) / 2, abs=0.05)
    assert (rows * centres).sum() / rows.sum() == pytest.approx((y_min + y_max) / 2, abs=0.05)


def test_aligned_boxes_by_hand() -> None:
    film = np.zeros((800, 1200), np.uint8)
    film[200:400, 300:600] = 255
    pixels, geometry = prepare(film, 400, "stretch")  # thirds across, halves down
    assert geometry.to_input(np.array([[300, 200, 600, 400]])) == pytest.approx(np.array([[100, 100, 200, 200]]))
    assert pixels[100:200, 100:200].min() == 255
    assert pixels.sum() == 255 * 100 * 100
    pixels, geometry = prepare(film, 600, "pad")  # halves, 100 rows of nothing above and below
    assert geometry.to_input(np.array([[300, 200, 600, 400]])) == pytest.approx(np.array([[150, 200, 300, 300]]))
    assert pixels[200:300, 150:300].min() == 255
    assert pixels.sum() == 255 * 150 * 100


def test_pad_leaves_zeros_outside_and_stretch_none() -> None:
    white = np.full((300, 600), 255, np.uint8)
    padded, geometry = prepare(white, 128, "pad")
    assert (geometry.offset_x, geometry.offset_y) == (0, 32)
    assert (padded[32:96] == 255).all()
    assert not padded[:32].any()
    assert not padded[96:].any()
    assert (prepare(white, 128, "stretch")[0] == 255).all()


def test_a_long_thin_film_is_averaged_on_the_axis_that_shrinks() -> None:
    """Every second of 4,000 columns is white: sampling would give stripes, averaging gives gray."""
    film = np.zeros((50, 4000), np.uint8)
    film[:, ::2] = 255
    pixels, _ = prepare(film, 100, "stretch")
    assert np.abs(pixels.astype(int) - 128).max() <= 1


def test_boxes_of_nothing_and_beyond_the_film() -> None:
    geometry = fit_geometry(600, 300, 128, "pad")
    for empty in (np.empty((0, 4)), np.empty(0), []):
        assert geometry.to_input(np.asarray(empty)).shape == (0, 4)
        assert geometry.to_original(np.asarray(empty)).shape == (0, 4)
    assert geometry.to_original(np.array([[-5, 0, 200, 128]])).tolist() == [[0, 0, 600, 300]]


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    size=st.integers(32, 2048),
    fit=st.sampled_from(["stretch", "pad"]),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_there_and_back(width: int, height: int, size: int, fit: str, share: tuple[float, ...]) -> None:
    geometry = fit_geometry(width, height, size, fit)  # type: ignore[arg-type]
    x_min, x_max = sorted(s * width for s in share[:2])
    y_min, y_max = sorted(s * height for s in share[2:])
    boxes = np.array([[x_min, y_min, x_max, y_max], [0, 0, width, height]])
    placed = geometry.to_input(boxes)
    assert (placed >= -1e-9).all()
    assert (placed <= size + 1e-9).all()
    assert geometry.to_original(placed) == pytest.approx(boxes, abs=1e-8)


@given(width=st.integers(1, 300), height=st.integers(1, 300), fit=st.sampled_from(["stretch", "pad"]))
def test_the_whole_film_fills_what_the_geometry_says(width: int, height: int, fit: str) -> None:
    pixels, geometry = prepare(np.full((height, width), 255, np.uint8), 64, fit)  # type: ignore[arg-type]
    assert painted_edges(pixels) == geometry.to_input(np.array([[0, 0, width, height]]))[0].round(9).tolist()


# --- the middle of a film


def test_crop_shows_the_middle_224_of_256_pixels() -> None:
    film = noise(256)
    pixels, geometry = prepare(film, 224, "crop")
    assert (pixels == film[16:240, 16:240]).all()
    assert pixels.flags.c_contiguous
    boxes = np.array([[16, 16, 240, 240], [0, 0, 256, 256], [100, 20, 110, 250]])
    placed = np.array([[0, 0, 224, 224], [-16, -16, 240, 240], [84, 4, 94, 234]])
    assert (geometry.to_input(boxes) == placed).all()
    assert (geometry.to_original(placed) == boxes).all()
    assert geometry.film() == (slice(0, 224), slice(0, 224))


def test_crop_of_a_film_that_is_not_square_by_hand() -> None:
    """1024 × 512: quarters across, halves down. Seen are its columns 64 to 960 and rows 32 to 480."""
    film = np.full((512, 1024), 255, np.uint8)
    film[32:480, 64:960] = 0
    pixels, geometry = prepare(film, 224, "crop")
    assert not pixels.any(), "what lies outside is cut off"
    assert (geometry.scale_x, geometry.scale_y, geometry.offset_x, geometry.offset_y) == (1 / 4, 1 / 2, -16, -16)
    assert geometry.to_input(np.array([[64, 32, 960, 480], [400, 100, 600, 300]])).tolist() == [
        [0, 0, 224, 224],
        [84, 34, 134, 134],
    ]
    assert geometry.to_original(np.array([[0, 0, 224, 224]])).tolist() == [[64, 32, 960, 480]]
    for left, top, right, bottom in ((65, 32, 960, 480), (64, 33, 960, 480), (64, 32, 959, 480), (64, 32, 960, 479)):
        film[:] = 255
        film[top:bottom, left:right] = 0
        assert prepare(film, 224, "crop")[0].any(), "one row or column inside is seen"


@pytest.mark.parametrize(("size", "whole"), [(224, 256), (448, 512), (896, 1024), (128, 146), (33, 37), (225, 257)])
def test_crop_cuts_whole_pixels_off_each_side(size: int, whole: int) -> None:
    """8/7 of the size, or the next that leaves the same on both sides."""
    beyond = (whole - size) // 2
    assert needed(size, "crop") == whole == size + 2 * beyond
    film = noise(300)[:, :211]
    stretched, _ = prepare(film, whole, "stretch")
    pixels, geometry = prepare(film, size, "crop")
    assert (pixels == stretched[beyond:-beyond, beyond:-beyond]).all()
    assert (geometry.offset_x, geometry.offset_y) == (-beyond, -beyond)
    assert [needed(size, fit) for fit in ("stretch", "pad")] == [size] * 2


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    size=st.integers(32, 2048),
    share=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_there_and_back_where_the_middle_is_shown(width: int, height: int, size: int, share: tuple[float, ...]) -> None:
    geometry = fit_geometry(width, height, size, "crop")
    x_min, x_max = sorted(s * width for s in share[:2])
    y_min, y_max = sorted(s * height for s in share[2:])
    boxes = np.array([[x_min, y_min, x_max, y_max], [0, 0, width, height]])
    assert geometry.to_original(geometry.to_input(boxes)) == pytest.approx(boxes, abs=1e-8)
    inside = geometry.to_original(np.array([[0, 0, size, size]]))[0] / ([width, height] * 2)
    assert inside == pytest.approx([1 / 16, 1 / 16, 15 / 16, 15 / 16], abs=1 / size)
    assert geometry.film() == (slice(0, size), slice(0, size))


def test_a_mask_is_cut_as_its_film_is(tmp_path: Path) -> None:
    mask = np.zeros((128, 64), np.uint8)  # half as fine as its film, and as fine as the input down
    mask[:60, 30:] = 255
    (tmp_path / "m.png").write_bytes(encoded(".png", mask))
    film = np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1)
    pixels, geometry = prepare(film, 112, "crop")
    fitted = fitted_mask(tmp_path / "m.png", geometry)
    assert fitted.shape == (112, 112)
    assert fitted[:52, 54:].all()  # rows 8 to 60 of 128; columns 60 of 128 on, of which 8 are cut off
    assert not fitted[52:].any()
    assert not fitted[:, :50].any()
    decided = np.r_[:50, 54:112]  # between them film and mask, which is coarser, are interpolated otherwise
    assert ((fitted > 0.5) == (pixels > 127))[:, decided].all()
