"""JSRT and SCR: raw films without a header, masks in two folds, and the many ways they are unpacked."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import Unreadable, decode_image, image_size, read_image
from cxrmine.data.index import Index
from cxrmine.data.organs import read_mask, with_masks
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError
from cxrmine.stages.check import Check, CheckReport
from cxrmine.stages.check import run as check
from cxrmine.stages.pack import Pack
from cxrmine.stages.pack import run as pack
from tests.miniature import Case, organ_masks, write_gif, write_png

NAMES = ("JPCLN001", "JPCLN002", "JPCLN003", "JPCNN001", "JPCNN002")
STRUCTURES = {"left lung": "left_lung", "right lung": "right_lung", "heart": "heart"}


def name_of(case: Case) -> str:
    return f"JPC{'L' if case.findings else 'N'}N{case.number + 1:03}"


def fold(name: str) -> str:
    return "fold1" if int(name[-3:]) % 2 else "fold2"


def write_masks(scr: Path, names: Sequence[str], height: int, width: int, ending: str = "gif") -> None:
    masks = organ_masks(height, width)
    for name in names:
        for folder in (*STRUCTURES, "left clavicle"):
            path = scr / fold(name) / "masks" / folder / f"{name}.{ending}"
            if ending == "gif":
                write_gif(path, masks[STRUCTURES.get(folder, "heart")])
            else:
                write_png(path, masks[STRUCTURES.get(folder, "heart")].astype(np.uint8) * 255)


def write(root: Path, made: list[Case]) -> Path:
    """Copies of the films as PNG, of which many are in use, and SCR's masks of half their size."""
    for case in made:
        write_png(root / "All247images" / f"{name_of(case)}.png", case.pixels)
    height, width = (side // 2 for side in made[0].pixels.shape)
    write_masks(root / "scr" / "scratch", [name_of(case) for case in made], height, width)
    return root


def raw(number: int) -> np.ndarray:
    """12 bits, 0 the brightest: dark but for a bright body, and a corner that tells one film from another."""
    words = np.full((2048, 2048), 3900, np.uint16)
    words[400:1700, 300:1750] = 1000
    words[:10, : 10 + number] = 95
    return words


def as_written(words: np.ndarray) -> bytes:
    return words.astype(">u2").tobytes()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five films and their masks as the two sites give them out. Nothing may be written in it."""
    root = tmp_path_factory.mktemp("jsrt") / "JSRT"
    (root / "All247images").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (root / "All247images" / f"{name}.IMG").write_bytes(as_written(raw(number)))
    write_masks(root / "scr" / "scratch", NAMES, 1024, 1024)
    (root / "scr" / "scratch" / "fold1" / "landmarks").mkdir()
    (root / "scr" / "scratch" / "fold1" / "landmarks" / "JPCLN001.pfs").write_text("{\n")
    (root / "Clinical_Information").mkdir()
    (root / "Clinical_Information" / "CLNDAT_EN.txt").write_text("JPCLN001.IMG\t5\t15\t53\tmale\t1634\t692\n")
    return root


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def found(report: CheckReport) -> dict[str, tuple[str, int]]:
    return {fault.kind: (fault.level, fault.count) for fault in report.faults}


# --- films without a header


def test_raw_words_become_bright_bones(tmp_path: Path) -> None:
    words = np.full((2048, 2048), 4095, np.uint16)  # black
    words[0, 0], words[0, 1], words[2047, 5] = 0, 0x0123, 4095 - 2048
    data = as_written(words)
    assert data[2:4] == b"\x01\x23"
    film = decode_image(data)
    assert film.dtype == np.uint8
    assert film.shape == (2048, 2048)
    # 255 × (4095 - 291) / 4095 = 236.9; 255 × 2048 / 4095 = 127.5
    assert (film[0, 0], film[0, 1], film[2047, 5], film[1, 1]) == (255, 237, 128, 0)
    (tmp_path / "film").write_bytes(data)
    assert image_size(tmp_path / "film") == (2048, 2048)
    assert (read_image(tmp_path / "film") == film).all()


def test_the_darkest_and_the_brightest_are_the_ends() -> None:
    words = np.full((2048, 2048), 3000, np.uint16)
    words[:, :1024] = 1000
    words[0, 0] = 2000
    film = decode_image(as_written(words))
    assert (film[5, 5], film[5, 2000], film[0, 0]) == (255, 0, 128)


@pytest.mark.parametrize(
    "data",
    [
        bytes(2 * 2048 * 2048 - 1),
        bytes(2 * 2048 * 2048 + 2),
        bytes(2 * 2048 * 2048 - 2) + b"\x10\x00",  # 4096
        raw(0).astype("<u2").tobytes(),  # the lower byte first
    ],
    ids=["too short", "too long", "more than 12 bits", "another byte order"],
)
def test_what_only_looks_alike_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.IMG").write_bytes(data)
    for read in (read_image, image_size):
        with pytest.raises(Unreadable, match="not a PNG, JPEG or DICOM file"):
            read(tmp_path / "x.IMG")


# --- the dataset


def test_the_real_form(real: Path) -> None:
    index = open_dataset(real)
    assert index.layout == "JSRT"
    assert index.notes[0] == "layout: JSRT, because All247images/JPCLN001.IMG is in it"
    assert index.findings == ("Nodule",)
    rows = {row["image_id"]: row for row in index.table.to_pylist()}
    assert tuple(rows) == NAMES
    assert [rows[name]["labels"]["Nodule"] for name in NAMES] == [1, 1, 1, 0, 0]
    assert rows["JPCLN001"]["path"] == "All247images/JPCLN001.IMG"
    assert {row["patient_id"] for row in rows.values()} == set(NAMES)
    splits = {name: rows[name]["split"] for name in NAMES}
    assert {name for name in NAMES if splits[name] == "test"} == {"JPCLN002", "JPCNN002"}
    assert {splits[name] for name in ("JPCLN001", "JPCLN003", "JPCNN001")} <= {"train", "val"}
    assert index.dropped == ()
    assert index.organs is not None
    assert index.organs.num_rows == 15
    masks = {(m["image_id"], m["organ"]): m["path"] for m in index.organs.to_pylist()}
    assert masks["JPCLN002", "right_lung"] == "scr/scratch/fold2/masks/right lung/JPCLN002.gif"
    mask = read_mask(real / masks["JPCLN002", "right_lung"])
    assert (mask == organ_masks(1024, 1024)["right_lung"]).all()
    assert (
        "organs: masks beside the films, left_lung 5, right_lung 5, heart 5; a pack does not carry them" in index.notes
    )
    assert not any("swapped" in note for note in index.notes)


def test_check_and_pack(real: Path, tmp_path: Path) -> None:
    report = check(Check(real, workers=1))
    assert report.faults == ()
    assert report.document["sizes"] == {"2048x2048": 5}
    packed = pack(Pack(real, tmp_path / "pack", 64, workers=1)).index
    assert packed.fingerprint == report.index.fingerprint
    assert packed.organs is None
    assert {packed.films.size(path) for path in packed.table["path"].to_pylist()} == {(2048, 2048)}
    pixels, _ = packed.films.fitted(packed.table["path"].to_pylist()[0], 64, "stretch")
    assert (pixels[32, 32], pixels[60, 60]) == (194, 0)  # 255 × (3900 - 1000) / (3900 - 95) = 194.4
    with pytest.raises(CxrError, match="a pack carries no masks"):
        with_masks(packed)


def test_a_raw_film_that_is_cut_off_is_found(tmp_path: Path) -> None:
    root = tmp_path / "Nodule154images"
    root.mkdir()
    (root / "JPCLN001.IMG").write_bytes(as_written(raw(0)))
    (root / "JPCLN002.IMG").write_bytes(as_written(raw(1))[:-2])
    report = check(Check(root, workers=1))
    assert found(report) == {"unreadable image: not a PNG, JPEG or DICOM file": ("error", 1)}


@pytest.mark.parametrize(
    ("films", "masks"),
    [
        ("All247images", "scr/scratch"),
        ("All247images/All247images", "scr/scratch"),
        ("scr/All247images", "scr/scratch"),
        ("", "scratch"),
        ("All247images", ""),
        ("images", "SCR"),
        ("scr", "scr/scratch"),
        ("Images/Images", "Masks"),
    ],
)
def test_unpacked_in_many_ways(films: str, masks: str, tmp_path: Path) -> None:
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    for name in NAMES:
        write_png(tmp_path / films / f"{name}.png", pixels)
    write_masks(tmp_path / masks, NAMES, 32, 32)
    index = open_dataset(tmp_path)
    assert index.table["image_id"].to_pylist() == list(NAMES)
    assert index.table["path"].to_pylist()[0] == f"{films}/JPCLN001.png".lstrip("/")
    assert index.organs is not None
    assert index.organs.num_rows == 15
    assert index.dropped == ()


def test_endings_and_small_letters(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "JPCLN001.img").write_bytes(as_written(raw(0)))
    write_png(tmp_path / "jpcln002.PNG", np.eye(64, dtype=np.uint8))
    write_png(tmp_path / "copies" / "JPCLN001.png", np.eye(64, dtype=np.uint8))
    write_gif(tmp_path / "fold1" / "masks" / "LEFT_LUNG" / "jpcln001.GIF", organ_masks()["left_lung"])
    write_png(tmp_path / "fold2" / "masks" / "left lung" / "JPCLN002.png", np.eye(64, dtype=np.uint8))
    index = open_dataset(tmp_path)
    rows = {row["image_id"]: row["path"] for row in index.table.to_pylist()}
    assert rows == {"JPCLN001": "films/JPCLN001.img", "JPCLN002": "jpcln002.PNG"}
    assert index.organs is not None
    assert index.organs["organ"].to_pylist() == ["left_lung"] * 2
    assert reasons(index) == {"second file of an image": 1}


def test_masks_in_no_fold_are_split_by_number(tmp_path: Path) -> None:
    for name in NAMES:
        write_png(tmp_path / "images" / f"{name}.png", np.eye(64, dtype=np.uint8))
        write_gif(tmp_path / "masks" / "heart" / f"{name}.gif", organ_masks()["heart"])
    splits = open_dataset(tmp_path).table["split"].to_pylist()
    assert [split == "test" for split in splits] == [False, True, False, False, True]


def test_films_with_outlines_drawn_into_them_are_none(tmp_path: Path) -> None:
    """SCR's newer release has such in a folder jpg."""
    for name in NAMES:
        write_png(tmp_path / "jpg" / f"{name}.jpg", np.eye(64, dtype=np.uint8))
    with pytest.raises(CxrError, match="in no layout that is known here"):
        open_dataset(tmp_path)
    write_png(tmp_path / "images" / "JPCLN002.png", np.eye(64, dtype=np.uint8))
    assert open_dataset(tmp_path).table["path"].to_pylist() == ["images/JPCLN002.png"]


def test_without_masks_the_split_is_drawn(tmp_path: Path) -> None:
    for name in NAMES:
        write_png(tmp_path / "All247images" / f"{name}.png", np.eye(64, dtype=np.uint8))
    index = open_dataset(tmp_path)
    assert index.organs is None
    assert "split: no official lists here; by a fixed draw, 20 % of the patients are test" in index.notes
    with pytest.raises(CxrError, match="has no masks of organs") as fault:
        with_masks(index)
    assert "organs/left_lung/NAME.png" in fault.value.cure


def test_masks_that_are_missing_damaged_or_of_no_film(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        write_png(tmp_path / "All247images" / f"{name}.png", np.eye(64, dtype=np.uint8) * 200 + number)
    write_masks(tmp_path / "scr", [*NAMES, "JPCLN154"], 64, 64)
    (tmp_path / "scr/fold1/masks/heart/JPCLN003.gif").unlink()
    damaged = tmp_path / "scr/fold2/masks/heart/JPCLN002.gif"
    damaged.write_bytes(damaged.read_bytes()[:60])
    write_png(tmp_path / "scr/fold2/masks/heart/JPCNN002.png", np.eye(64, dtype=np.uint8))
    index = open_dataset(tmp_path)
    ledger = {entry.reason: (entry.count, entry.examples) for entry in index.dropped}
    assert ledger == {
        "mask without its film": (
            3,
            tuple(f"scr/fold2/masks/{word}/JPCLN154.gif" for word in ("heart", "left lung", "right lung")),
        ),
        "no file for this mask": (1, ("JPCLN003 heart",)),
        "second mask of an organ": (1, ("scr/fold2/masks/heart/JPCNN002.png",)),
    }
    assert found(check(Check(tmp_path, workers=1))) == {
        "no file for this mask": ("error", 1),
        "unreadable mask of an organ: damaged: its pixels cannot be decoded": ("error", 1),
        "mask without its film": ("warning", 3),
        "second mask of an organ": ("warning", 1),
    }
    assert "unreadable mask of an organ" not in " ".join(found(check(Check(tmp_path, fast=True, workers=1))))


def test_a_table_of_ones_own_counts_more(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "JPCLN001.png", np.eye(64, dtype=np.uint8))
    (tmp_path / "jsrt_metadata.csv").write_text("study_id,subtlety\nJPCLN001.png,5\n")
    assert open_dataset(tmp_path).layout == "JSRT"
    (tmp_path / "mine.csv").write_text("image,findings\nJPCLN001.png,Mass\n")
    (tmp_path / "jsrt_metadata.csv").unlink()
    assert open_dataset(tmp_path).findings == ("Mass",)
    (tmp_path / "mine.csv").unlink()
    (tmp_path / "annotations.json").write_text(
        '{"images": [{"id": 1, "file_name": "images/JPCLN001.png", "width": 64, "height": 64}], '
        '"categories": [{"id": 1, "name": "Lump"}], '
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]}'
    )
    assert open_dataset(tmp_path).findings == ("Lump",)


def test_any_dataset_may_have_raw_films(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for number in range(2):
        (tmp_path / "films" / f"{number}.IMG").write_bytes(as_written(raw(number)))
    (tmp_path / "list.csv").write_text("image,findings\n0.IMG,Mass\n1.IMG,none\n")
    report = check(Check(tmp_path, workers=1))
    assert report.faults == ()
    assert report.index.table["path"].to_pylist() == ["films/0.IMG", "films/1.IMG"]
    pixels, geometry = report.index.films.fitted("films/0.IMG", 64, "pad")
    assert (pixels[32, 32], geometry.width) == (194, 2048)


def test_other_datasets_are_not_taken_for_it(tmp_path: Path) -> None:
    """Among several datasets none is chosen, and masks alone are no films."""
    write_png(tmp_path / "a" / "JSRT" / "All247images" / "JPCLN001.png", np.eye(64, dtype=np.uint8))
    (tmp_path / "a" / "NIH").mkdir()
    (tmp_path / "a" / "NIH" / "Data_Entry_2017.csv").write_text("Image Index,Finding Labels,Patient ID\n")
    write_masks(tmp_path / "b", ["JPCLN001"], 64, 64, "png")
    for folder, why in (("a", "has 2 datasets in it"), ("b", "in no layout that is known here")):
        with pytest.raises(CxrError, match=why):
            open_dataset(tmp_path / folder)


def test_archives(real: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    for name in NAMES:
        write_png(small / "films" / "All247images" / f"{name}.png", np.eye(64, dtype=np.uint8))
    write_masks(small / "masks" / "scr" / "scratch", NAMES, 64, 64)
    there = tmp_path / "there"
    there.mkdir()
    shutil.make_archive(str(there / "All247images"), "zip", small / "films")
    shutil.make_archive(str(there / "scr"), "zip", small / "masks")
    index = open_dataset(there, archives=True)
    assert len(index) == 5
    assert index.organs is not None
    assert index.organs["path"].to_pylist()[0] == "scr.zip/scr/scratch/fold1/masks/heart/JPCLN001.gif"
    assert "unreadable" not in " ".join(found(check(Check(there, workers=1))))


def test_no_columns_are_to_be_named(real: Path) -> None:
    with pytest.raises(CxrError, match="JSRT does not let 'findings' be named"):
        open_dataset(real, Reading({"findings": "x"}))
