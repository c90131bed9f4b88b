"""Boxes on films that somebody made smaller: never off by a scale without a word."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import OF_ANOTHER_SIZE, Index, corners
from cxrmine.data.scale import announced_size
from cxrmine.stages import check
from tests.miniature import write_dicom, write_jpg, write_png

NIH = "Image Index,Finding Labels,Patient ID"
NIH_BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
RSNA = "patientId,x,y,width,height,Target"
VINDR = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
SCALED = "are scaled to the size of these copies"


def film(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width), dtype=np.uint8)


def put(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def nih(root: Path, name: str = "00000001_000.png", width: int = 256, height: int = 256, at: str = "images") -> Index:
    """One film, and a box of it from 512, 256 to 768, 512 on NIH's grid."""
    write_png(root / at / name, film(width, height))
    put(root / "Data_Entry_2017.csv", NIH, f"{name},Mass,1")
    put(root / "BBox_List_2017.csv", NIH_BOXES, f"{name},Mass,512,256,256,256")
    return open_dataset(root)


def said(index: Index) -> list[str]:
    return [note for note in index.notes if note.startswith("boxes")]


def left_out(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def test_a_smaller_film_of_nih(tmp_path: Path) -> None:
    """A quarter of 1024: all four numbers are divided by 4."""
    index = nih(tmp_path)
    assert corners(index.boxes).tolist() == [[128, 64, 192, 128]]
    assert said(index) == [f"boxes: 1 on 1 films were drawn on films of 1024×1024 pixels, and {SCALED}"]
    assert index.dropped == ()
    assert check.run(check.Check(tmp_path)).ok


def test_other_proportions(tmp_path: Path) -> None:
    index = nih(tmp_path, width=512, height=256)
    assert corners(index.boxes).tolist() == [[256, 64, 384, 128]]
    assert said(index)[0].endswith("1 of these films have other proportions, so each side is scaled by itself")


def test_films_of_1024_and_films_that_are_not_nih_s(tmp_path: Path) -> None:
    """Who writes tables as NIH does, with names of his own, draws on his own films; and so do phantoms."""
    assert corners(nih(tmp_path / "full", width=1024, height=1024).boxes).tolist() == [[512, 256, 768, 512]]
    own = nih(tmp_path / "own", "mine.png", width=800, height=600)
    assert corners(own.boxes).tolist() == [[512, 256, 768, 512]]
    assert said(own) == []
    (tmp_path / "phantom").mkdir()
    (tmp_path / "phantom" / "truth.parquet").write_bytes(b"")
    assert corners(nih(tmp_path / "phantom").boxes).tolist() == [[512, 256, 768, 512]]


def test_a_film_that_is_missing_or_damaged(tmp_path: Path) -> None:
    """Its size is not known: the box stays as it is, and the film is told elsewhere."""
    index = nih(tmp_path)
    path = tmp_path / "images" / "00000001_000.png"
    path.write_bytes(path.read_bytes()[:20])
    assert corners(open_dataset(tmp_path).boxes).tolist() == [[512, 256, 768, 512]]
    path.unlink()
    assert corners(open_dataset(tmp_path).boxes).tolist() == [[512, 256, 768, 512]]
    assert corners(index.boxes).tolist() == [[128, 64, 192, 128]]


def test_films_in_a_folder_of_somebody(tmp_path: Path) -> None:
    index = nih(tmp_path, at="images-224/images-224")
    assert index.table["path"].to_pylist() == ["images-224/images-224/00000001_000.png"]
    assert "films: none in images/ or its like, so from images-224/images-224/" in index.notes
    assert corners(index.boxes).tolist() == [[128, 64, 192, 128]]
    write_png(tmp_path / "images-224" / "stranger.png", film(8, 8))
    assert left_out(open_dataset(tmp_path)) == {"file without a row": 1}
    write_png(tmp_path / "images" / "00000001_000.png", film(512, 512))  # as NIH has it: the others are no films then
    index = open_dataset(tmp_path)
    assert index.table["path"].to_pylist() == ["images/00000001_000.png"]
    assert corners(index.boxes).tolist() == [[256, 128, 384, 256]]
    assert index.dropped == ()


def test_copies_of_rsna(tmp_path: Path) -> None:
    """a: a PNG of half the grid. b: a DICOM, which is what was drawn on, whatever its size here."""
    write_png(tmp_path / "images" / "a.png", film(512, 512))
    write_dicom(tmp_path / "images" / "b.dcm", film(300, 300))
    put(tmp_path / "stage_2_train_labels.csv", RSNA, "a,100,200,300,400,1", "b,100,200,30,40,1", "a,2,2,,,1")
    index = open_dataset(tmp_path)
    assert corners(index.boxes).tolist() == [[50, 100, 200, 300], [100, 200, 130, 240]]
    assert said(index) == [f"boxes: 2 on 1 films were drawn on films of 1024×1024 pixels, and {SCALED}"]
    assert left_out(index) == {"box without four numbers": 1}


def test_boxes_beside_a_table(tmp_path: Path) -> None:
    """NIH's list beside a table of one's own; and a list that tells sizes of one film and not of the other."""
    write_png(tmp_path / "f" / "00000001_000.png", film(512, 512))
    write_png(tmp_path / "f" / "b.png", film(60, 40))
    put(tmp_path / "labels.csv", "image,patient,Mass", "00000001_000.png,1,1", "b.png,2,1")
    put(tmp_path / "BBox_List_2017.csv", NIH_BOXES, "00000001_000.png,Mass,512,256,256,256", "b.png,Mass,5,6,7,8")
    index = open_dataset(tmp_path)
    assert corners(index.boxes).tolist() == [[256, 128, 384, 256], [5, 6, 12, 14]]
    assert said(index)[1] == f"boxes: 1 on 1 films were drawn on films of the size that their file tells, and {SCALED}"
    (tmp_path / "BBox_List_2017.csv").unlink()
    head = "image_id,finding,x_min,y_min,x_max,y_max,image_width,image_height"
    put(tmp_path / "boxes.csv", head, "b.png,Mass,10,20,60,80,120,80", "00000001_000.png,Mass,1,2,3,400,,")
    assert corners(open_dataset(tmp_path).boxes).tolist() == [[1, 2, 3, 400], [5, 10, 30, 40]]


def vindr(root: Path, *sizes: str) -> Index:
    """a is a JPEG of 100×50, b a PNG of 30×20, c a DICOM of 40×40, each with a box."""
    write_jpg(root / "train" / "a.jpg", film(100, 50))
    write_png(root / "train" / "b.png", film(30, 20))
    write_dicom(root / "train" / "c.dicom", film(40, 40))
    boxes = {"a": "8,8,64,32", "b": "3,3,9,9", "c": "2,3,30,40"}
    put(root / "train.csv", VINDR, *(f"{name},ILD,4,R1,{box}" for name, box in boxes.items()))
    if sizes:
        put(root / "train_meta.csv", "image_id,dim0,dim1", *sizes)
    return open_dataset(root)


def test_copies_of_vindr_with_their_sizes(tmp_path: Path) -> None:
    """dim0 is the height: a was 200 wide and 400 high, b as it is."""
    index = vindr(tmp_path, "a,400,200", "b,20,30", "c,40,40")
    assert corners(index.boxes).tolist() == [[4, 1, 32, 4], [3, 3, 9, 9], [2, 3, 30, 40]]
    assert said(index)[0].startswith(f"boxes: 1 on 1 films were drawn on the DICOM films, and {SCALED}; 1 of")
    assert index.table["width"].to_pylist() == [None, None, 40]  # of the file, as far as a table tells it
    assert check.run(check.Check(tmp_path)).ok


def test_copies_of_vindr_without_sizes(tmp_path: Path) -> None:
    """All boxes lie within: nothing is known to be wrong. Then one does not, and none of a copy is kept."""
    index = vindr(tmp_path)
    assert corners(index.boxes).tolist() == [[8, 8, 64, 32], [3, 3, 9, 9], [2, 3, 30, 40]]
    assert said(index)[0].endswith("nothing tells their scale; train_meta.csv (image_id, dim0, dim1) beside them would")
    write_png(tmp_path / "train" / "b.png", film(8, 8))
    index = open_dataset(tmp_path)
    assert corners(index.boxes).tolist() == [[8, 8, 64, 32], [3, 3, 9, 9], [2, 3, 30, 40]]  # a pixel, by rounding
    write_png(tmp_path / "train" / "b.png", film(9, 7))
    index = open_dataset(tmp_path)
    assert index.boxes["image_id"].to_pylist() == ["c"]
    assert left_out(index) == {OF_ANOTHER_SIZE: 2}
    assert (
        "train/b.png is 9×7 where a box reaches 9,9; use those films, or put a table of their sizes" in said(index)[1]
    )
    index = vindr(tmp_path, "b,20,30")  # a table that lacks a: nothing is wrong with that
    assert index.boxes.num_rows == 3


def test_a_jpeg_with_much_before_its_size(tmp_path: Path) -> None:
    """Two segments of 60,000 bytes each, as cameras put thumbnails there."""
    index = nih(tmp_path, "00000001_000.jpg", width=256)
    data = cv2.imencode(".jpg", film(512, 512))[1].tobytes()
    segment = b"\xff\xe1\xea\x60" + bytes(59998)
    (tmp_path / "images" / "00000001_000.jpg").write_bytes(data[:2] + 2 * segment + data[2:])
    assert corners(index.boxes).tolist() == [[128, 64, 192, 128]]
    assert corners(open_dataset(tmp_path).boxes).tolist() == [[256, 128, 384, 256]]


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_sizes_from_the_beginning_of_a_file(ending: str) -> None:
    data = cv2.imencode(ending, film(70, 30))[1].tobytes()
    assert announced_size(data) == (70, 30)
    assert announced_size(data[: len(data) // 2]) == (70, 30)
    assert announced_size(data[:19]) is None
    assert announced_size(b"") is None
    assert announced_size(b"\xff\xd8\xff\xe0\x00\x04ab\xff\xda\x00\x02" + bytes(30)) is None  # pixels before a frame
