"""Masks of organs: from any kind of file, where the film's geometry puts them, and of the right film and side."""

import io
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxrmine.data.assemble import ROWS, Raw, assemble
from cxrmine.data.datasets import open_dataset
from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import Fit, fit_geometry
from cxrmine.data.index import Index
from cxrmine.data.organ_files import table_of
from cxrmine.data.organs import ORGANS, decode_mask, fitted_mask, read_mask, with_masks
from cxrmine.data.reading import Reading
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError
from cxrmine.stages.check import Check
from cxrmine.stages.check import run as check
from cxrmine.stages.pack import Pack
from cxrmine.stages.pack import run as pack
from tests.miniature import organ_masks, write_png

INSIDE = np.zeros((6, 9), bool)
INSIDE[1:4, 2:8] = True


def by_pillow(kind: str, mode: str, inside: np.ndarray = INSIDE, **options: object) -> bytes:
    picture = Image.fromarray(inside.astype(np.uint8))
    if mode == "P":
        picture.putpalette([0, 0, 0, 128, 0, 0])  # black and dark red
    elif mode == "1":
        picture = Image.fromarray(inside)
    else:
        picture = Image.fromarray(inside.astype(np.uint8) * 255).convert(mode)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def by_opencv(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


def why(data: bytes) -> str:
    with pytest.raises(Unreadable) as fault:
        decode_mask(data)
    return fault.value.why


# --- files


@pytest.mark.parametrize(
    "data",
    [
        by_pillow("PNG", "1"),
        by_pillow("PNG", "L"),
        by_pillow("PNG", "P"),
        by_pillow("PNG", "RGB"),
        by_pillow("PNG", "RGBA"),
        by_pillow("GIF", "L"),
        by_pillow("GIF", "P"),
        by_pillow("GIF", "P", interlace=0),
        by_opencv(INSIDE.astype(np.uint8)),
        by_opencv(INSIDE.astype(np.uint16) * 65535),
        by_opencv(INSIDE.astype(np.uint16)),
        by_opencv(INSIDE.astype(np.uint8) * 254 + 1),
    ],
    ids=["1 bit", "8", "palette", "RGB", "RGBA", "GIF", "GIF colours", "GIF rows", "0 1", "16", "16 0 1", "1 255"],
)
def test_every_kind_is_the_same_mask(data: bytes) -> None:
    mask = decode_mask(data)
    assert mask.dtype == bool
    assert (mask == INSIDE).all()


def test_inside_is_above_half_of_the_largest_value() -> None:
    assert decode_mask(by_opencv(np.array([[0, 127, 128, 255]], np.uint8))).tolist() == [[False, False, True, True]]
    assert decode_mask(by_opencv(np.array([[0, 1, 2]], np.uint8))).tolist() == [[False, False, True]]
    assert not decode_mask(by_opencv(np.zeros((3, 3), np.uint8))).any()
    assert decode_mask(by_opencv(np.full((3, 3), 255, np.uint8))).all()


def test_of_several_pictures_in_a_gif_the_first_counts() -> None:
    data = by_pillow("GIF", "L", save_all=True, append_images=[Image.new("L", (9, 6), 255)])
    assert (decode_mask(data) == INSIDE).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_is_refused_before_it_is_decoded() -> None:
    too_large = "20000 × 20000 pixels, more than 120 million"
    screen = by_pillow("GIF", "L")
    assert why(screen[:6] + struct.pack("<HH", 20000, 20000) + screen[10:]) == too_large
    at = screen.index(b"\x2c\0\0\0\0") + 5  # the picture's own size, behind its place
    assert why(screen[:at] + struct.pack("<HH", 12000, 10001) + screen[at + 4 :]).startswith("12000 × 10001 pixels")
    assert why(screen[:at] + struct.pack("<HH", 20000, 20000) + screen[at + 4 :]).startswith("damaged")  # by Pillow
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    assert why(b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))) == too_large


def test_damage() -> None:
    gif, png = by_pillow("GIF", "L", organ_masks()["heart"]), by_pillow("PNG", "L")
    assert {why(gif[:end]) for end in range(13, len(gif) - 3)} == {"damaged: its pixels cannot be decoded"}
    assert why(gif[:9]) == "cut off before its end"
    assert why(png[:-1]) == "cut off before its end"
    assert why(png[:45] + b"?" + png[46:]) == "damaged: a checksum does not match"
    assert why(cv2.imencode(".jpg", np.eye(9, dtype=np.uint8))[1].tobytes()) == "not a PNG or GIF file"
    assert why(b"") == "not a PNG or GIF file"


def test_damaged_at_random_it_is_read_or_refused() -> None:
    sound, rng = by_pillow("GIF", "L", organ_masks()["heart"]), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        for at in rng.integers(6, len(data), 3):
            data[at] = rng.integers(256)
        try:
            assert decode_mask(bytes(data)).dtype == bool
        except Unreadable:
            refused += 1
    assert 30 < refused < 300


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for name, reason in (("no.png", "no such file"), ("empty.png", "empty: zero bytes"), ("", "a folder, not a file")):
        with pytest.raises(Unreadable, match=reason):
            read_mask(tmp_path / name)


# --- geometry


def fitted(folder: Path, inside: np.ndarray, width: int, height: int, size: int, fit: Fit) -> np.ndarray:
    (folder / "mask.png").write_bytes(by_opencv(inside.astype(np.uint8) * 255))
    share = fitted_mask(folder / "mask.png", fit_geometry(width, height, size, fit))
    assert share.shape == (size, size)
    assert share.dtype == np.float32
    return share


def test_shares_by_hand(tmp_path: Path) -> None:
    """8 to 4 pixels: columns 1 to 6 become 0.5..3, rows 2 to 8 become 1..4."""
    inside = np.zeros((8, 8), bool)
    inside[2:8, 1:6] = True
    row = [0.5, 1, 1, 0]
    assert fitted(tmp_path, inside, 8, 8, 4, "stretch").tolist() == [[0] * 4, row, row, row]


def test_half_the_films_resolution_by_hand(tmp_path: Path) -> None:
    """A film of 16×8 and a mask of 8×4, padded to 8: the film lies in rows 2 to 6, the mask's pixel is the input's."""
    inside = np.zeros((4, 8), bool)
    inside[1:3, 2:7] = True
    expected = np.zeros((8, 8))
    expected[3:5, 2:7] = 1
    assert (fitted(tmp_path, inside, 16, 8, 8, "pad") == expected).all()


@given(
    width=st.integers(8, 40),
    height=st.integers(8, 40),
    size=st.integers(2, 8),
    fit=st.sampled_from(["stretch", "pad"]),
    finer=st.sampled_from([1, 2, 3]),
    ends=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_rectangles_edges_land_where_its_box_does(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    size: int,
    fit: Fit,
    finer: int,
    ends: tuple[float, float, float, float],
) -> None:
    """`finer`: how many pixels of the film one of the mask is. A pixel's share is what the mapped box covers of it."""
    left, right = sorted(round(end * width) for end in ends[:2])
    top, bottom = sorted(round(end * height) for end in ends[2:])
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    share = fitted(tmp_path_factory.getbasetemp(), inside, finer * width, finer * height, size, fit)
    box = np.array([[left, top, right, bottom]]) * finer
    x0, y0, x1, y1 = fit_geometry(finer * width, finer * height, size, fit).to_input(box)[0]
    grid = np.arange(size)
    across = np.clip(np.minimum(grid + 1, x1) - np.maximum(grid, x0), 0, 1)
    down = np.clip(np.minimum(grid + 1, y1) - np.maximum(grid, y0), 0, 1)
    if inside.any():
        assert share == pytest.approx(np.outer(down, across), abs=1e-5)
    else:
        assert not share.any()


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_mask_that_grows_keeps_its_edges(fit: Fit, tmp_path: Path) -> None:
    """From 16×8 to 64: four times wider, and eight times higher or padded."""
    inside = np.zeros((8, 16), bool)
    inside[2:5, 3:11] = True
    share = fitted(tmp_path, inside, 32, 16, 64, fit)
    x0, y0, x1, y1 = fit_geometry(32, 16, 64, fit).to_input(np.array([[6, 4, 22, 10]]))[0].astype(int)
    expected = np.zeros((64, 64), bool)
    expected[y0:y1, x0:x1] = True
    assert (x0, x1) == (12, 44)
    assert (y0, y1) == ((16, 40) if fit == "stretch" else (24, 36))
    cut = share > 0.5
    assert (cut.any(axis=0) == expected.any(axis=0)).all()
    assert (cut.any(axis=1) == expected.any(axis=1)).all()


# --- beside any dataset


def write(root: Path, names: tuple[str, ...] = ("a", "b", "c", "d"), lies: tuple[str, ...] = ()) -> Path:
    """A table and films whose folder comes behind `organs`, with masks; of films in `lies`, of the other sides."""
    rows = []
    for number, name in enumerate(names):
        pixels = np.full((40, 60), 90 + number, np.uint8)
        pixels[:, :20] = 10
        write_png(root / "pictures" / f"{name}.png", pixels)
        rows.append(f"{name}.png,p{number},{('Mass', 'Normal')[number % 2]}")
        for organ, inside in organ_masks(40, 60).items():
            shown = inside[:, ::-1] if name in lies and organ != "heart" else inside
            write_png(root / "organs" / organ / f"{name}.png", shown.astype(np.uint8) * 255)
    (root / "list.csv").write_text("\n".join(("image,patient,findings", *rows)) + "\n")
    return root


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def paths_of(index: Index, organ: str) -> list[str]:
    assert index.organs is not None
    return [mask["path"] for mask in index.organs.to_pylist() if mask["organ"] == organ]


def test_masks_are_no_films(tmp_path: Path) -> None:
    index = open_dataset(write(tmp_path))
    assert index.table["path"].to_pylist() == [f"pictures/{name}.png" for name in "abcd"]
    assert index.dropped == ()
    for organ in ORGANS:
        assert paths_of(index, organ) == [f"organs/{organ}/{name}.png" for name in "abcd"]


def test_masks_follow_their_images(tmp_path: Path) -> None:
    index = open_dataset(write(tmp_path))
    some = index.filter(np.array([False, True, False, True]))
    assert paths_of(some, "heart") == ["organs/heart/b.png", "organs/heart/d.png"]
    assert paths_of(some.restrict(["Mass"]), "heart") == paths_of(some, "heart")
    (tmp_path / "pictures" / "b.png").unlink()
    left, _ = open_dataset(tmp_path).present()
    assert paths_of(left, "left_lung") == [f"organs/left_lung/{name}.png" for name in "acd"]
    assert len(paths_of(index.select(index.table["split"].to_pylist()[0]), "heart")) < 5


def test_the_phantoms_masks(dataset: Path) -> None:
    index = open_dataset(dataset)
    assert index.organs is not None
    assert index.organs.num_rows == 3 * len(index)
    assert index.dropped == ()
    assert not any("swapped" in note for note in index.notes)
    ready = with_masks(index.select("test"))
    assert ready.findings == ORGANS
    assert (ready.labels() == 1).all()
    assert not ready.boxes.num_rows
    assert not any(ready.table["boxed"].to_pylist())
    assert len(ready) == len(index.select("test"))


def test_masks_without_their_film_are_counted_and_do_no_harm(tmp_path: Path) -> None:
    root = write(tmp_path)
    sound = open_dataset(root)
    shutil.copy(root / "organs/heart/a.png", root / "organs/heart/ghost.png")
    (root / "list.csv").write_text("image,view,findings\na.png,PA,Mass\nb.png,LATERAL,Mass\nc.png,PA,x\nd.png,PA,x\n")
    index = open_dataset(root)
    assert reasons(index) == {
        "lateral view, and frontal ones are asked for": 1,
        "mask without its film": 1,
        "mask of an image that is left out": 3,
    }
    assert sound.organs is not None
    assert paths_of(index, "heart") == [f"organs/heart/{name}.png" for name in "acd"]
    assert check(Check(root, workers=1)).ok


def test_a_mask_that_could_be_of_two_films_is_of_none(tmp_path: Path) -> None:
    root = write(tmp_path)
    write_png(root / "pictures" / "more" / "a.png", np.eye(64, dtype=np.uint8))
    (root / "list.csv").write_text("path,findings\npictures/a.png,Mass\npictures/more/a.png,y\npictures/b.png,Mass\n")
    index = open_dataset(root)
    assert reasons(index)["mask of several films of one name"] == 3
    assert paths_of(index, "heart") == ["organs/heart/b.png"]


def test_what_a_layout_says_of_masks_is_checked(tmp_path: Path) -> None:
    """A path that leads out of the dataset, one that leads nowhere, two of one organ, and none."""
    root = write(tmp_path / "data")
    write_png(tmp_path / "outside.png", np.eye(40, dtype=np.uint8))
    names = [f"{name}.png" for name in "abc"]
    columns = [names, names, [None] * 3, [None] * 3, [f"pictures/{name}" for name in names]]
    images = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=ROWS)
    masks = [
        ("a.png", "heart", "../outside.png"),
        ("a.png", "left_lung", str(tmp_path / "outside.png")),
        ("b.png", "heart", "organs/heart/nowhere.png"),
        ("b.png", "left_lung", None),
        ("c.png", "heart", "organs/heart/c.png"),
        ("c.png", "heart", "organs/heart/a.png"),
    ]
    raw = Raw("mine", images, {"Mass": pa.array([1, 0, 1], pa.int8())}, organs=table_of(masks))
    index = assemble(Tree(root), raw, Reading())
    assert {reason: count for reason, count in reasons(index).items() if "mask" in reason or "path" in reason} == {
        "path that leaves the dataset": 2,
        "no file for this mask": 2,
        "second mask of an organ": 1,
    }
    assert paths_of(index, "heart") == ["organs/heart/a.png"]
    assert paths_of(index, "left_lung") == []


@pytest.mark.parametrize(("lies", "swapped"), [("", False), ("b", False), ("acd", True), ("abcd", True)])
def test_most_films_tell_what_left_means(tmp_path: Path, lies: str, swapped: bool) -> None:
    index = open_dataset(write(tmp_path, lies=tuple(lies)))
    assert any("left and right are swapped" in note for note in index.notes) == swapped
    named = "right_lung" if swapped else "left_lung"
    assert paths_of(index, "left_lung") == [f"organs/{named}/{name}.png" for name in "abcd"]


def test_masks_that_cannot_be_read_have_no_say(tmp_path: Path) -> None:
    root = write(tmp_path, lies=("b",))
    (root / "organs/left_lung/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    write_png(root / "organs/left_lung/c.png", np.zeros((40, 60), np.uint8))
    (root / "organs/right_lung/d.png").unlink()
    assert any("left and right are swapped" in note for note in open_dataset(root).notes)
    kinds = {fault.kind: (fault.level, fault.examples) for fault in check(Check(root, workers=1)).faults}
    assert kinds == {
        "unreadable mask of an organ: cut off before its end": ("error", ("organs/left_lung/a.png",)),
        "mask of an organ with nothing in it": ("warning", ("organs/left_lung/c.png",)),
    }
    assert check(Check(root, fast=True, workers=1)).ok


def test_few_of_the_first_do_not_decide(tmp_path: Path) -> None:
    """Of the first eleven films one can be read, and it lies; of the two after them none does."""
    names = tuple("abcdefghijklm")
    root = write(tmp_path, names, lies=("a",))
    for name in names[1:11]:
        (root / "organs/left_lung" / f"{name}.png").write_bytes(b"?")
    assert not any("left and right are swapped" in note for note in open_dataset(root).notes)


def test_an_archive_of_it_all(tmp_path: Path) -> None:
    root = write(tmp_path / "above" / "data")
    archive = Path(shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "above"))
    index = open_dataset(archive, archives=True)
    assert index.organs == open_dataset(root).organs
    assert index.dropped == ()
    assert check(Check(archive, workers=1)).ok


# --- what an organ network learns from


def test_films_with_a_mask(tmp_path: Path) -> None:
    root = write(tmp_path)
    for organ in ORGANS:
        (root / "organs" / organ / "b.png").unlink()
    (root / "organs/heart/a.png").unlink()
    shutil.rmtree(root / "organs/right_lung")
    ready = with_masks(open_dataset(root))
    assert ready.findings == ("left_lung", "heart")
    assert ready.table["image_id"].to_pylist() == ["a.png", "c.png", "d.png"]
    assert ready.labels().tolist() == [[1, -128], [1, 1], [1, 1]]
    assert ready.dropped[-1].reason == "film without the mask of an organ"
    assert ready.dropped[-1].examples == ("b.png",)
    assert ready.notes[-1] == "films with the mask of an organ: 3 of 4"
    assert paths_of(ready, "heart") == ["organs/heart/c.png", "organs/heart/d.png"]


def test_none_to_learn_from_is_said(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    none_left = open_dataset(root)
    packed = pack(Pack(root, tmp_path / "pack", 32, workers=1)).index
    assert packed.organs is None
    assert packed.fingerprint == none_left.fingerprint
    with pytest.raises(CxrError, match="is a pack, and a pack carries no masks") as fault:
        with_masks(packed)
    assert fault.value.cure == "Name the dataset that it was made of."
    for organ in ORGANS:
        for name in "bcd":
            (root / "organs" / organ / f"{name}.png").unlink()
    with pytest.raises(CxrError, match="None of the 3 films chosen"):
        with_masks(open_dataset(root).filter(np.array([False, True, True, True])))
    shutil.rmtree(root / "organs")
    with pytest.raises(CxrError, match="has no masks of organs"):
        with_masks(open_dataset(root))
