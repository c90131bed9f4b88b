"""COCO's JSON beside films: where lists and films lie, what an image has, and who is a patient."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError
from tests.miniature import FINDINGS, HEIGHT, WIDTH, Case, cases, write_png

FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def name_of(case: Case) -> str:
    return f"film_{case.number:03}.png"


def document(made: Sequence[Case], folder: str = "") -> dict:
    """COCO's JSON of these cases; ids begin at 7, and one category is that of Roboflow, which no image has."""
    boxes = [(case, box) for case in made for box in case.boxes]
    return {
        "images": [
            {"id": case.number, "file_name": folder + name_of(case), "width": WIDTH, "height": HEIGHT,
             "patient": f"p{case.patient}"}
            for case in made
        ],
        "annotations": [
            {"id": i, "image_id": case.number, "category_id": 7 + FINDINGS.index(finding), "iscrowd": 0,
             "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for i, (case, (finding, x0, y0, x1, y1)) in enumerate(boxes)
        ],
        "categories": [{"id": 0, "name": "chest", "supercategory": "none"}]
        + [{"id": 7 + i, "name": finding} for i, finding in enumerate(FINDINGS)],
    }  # fmt: skip


def write(root: Path, made: list[Case], own_patients: bool = True) -> Path:
    """As Roboflow writes it: train/, valid/ and test/, each with its films and its list."""
    for split, folder in FOLDERS.items():
        own = [case for case in made if case.split == split]
        for case in own:
            write_png(root / folder / name_of(case), case.pixels)
        put(root / folder / "_annotations.coco.json", document(own))
    if own_patients:
        (root / "cxrmine-data.toml").write_text('[columns]\npatient = "patient"\n')
    return root


def put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def rows(index: Index, *names: str) -> list[tuple]:
    return list(zip(*(index.table[name].to_pylist() for name in names), strict=True))


def ledger(index: Index) -> dict[str, tuple[str, ...]]:
    return {entry.reason: entry.examples for entry in index.dropped}


def test_roboflow_s_folders(tmp_path: Path) -> None:
    made = cases(12)
    index = open_dataset(write(tmp_path / "d", made))
    assert (index.layout, index.findings, index.dropped) == ("COCO", FINDINGS, ())
    assert rows(index, "image_id", "path", "split", "patient_id", "width", "height") == [
        (name_of(c), f"{FOLDERS[c.split]}/{name_of(c)}", c.split, f"p{c.patient}", 60, 48) for c in made
    ]
    assert index.labels().tolist() == [[int(f in c.findings) for f in FINDINGS] for c in made]
    drawn = [(name_of(c), *box, None) for c in made for box in c.boxes]
    assert [tuple(row.values()) for row in index.boxes.to_pylist()] == sorted(drawn)
    assert not any("CAREFUL" in note for note in index.notes)


def test_without_a_key_every_image_is_a_patient_and_that_is_said(tmp_path: Path) -> None:
    index = open_dataset(write(tmp_path / "d", cases(8), own_patients=False))
    assert rows(index, "patient_id") == rows(index, "image_id")
    assert sum(note.startswith("CAREFUL: nobody says who the patient of 8 images is") for note in index.notes) == 1
    told = open_dataset(tmp_path / "d", Reading({"patient": "patient"}))
    assert rows(told, "patient_id")[:3] == [("p0",), ("p0",), ("p1",)]
    with pytest.raises(CxrError, match=r"no entry of images has the key patien for patient. Did you mean patient\?"):
        open_dataset(tmp_path / "d", Reading({"patient": "patien"}))


@pytest.mark.parametrize("folder", ["train2017/", "images/train2017/", "images/", "", "somewhere/else/"])
def test_films_of_coco_s_own_lists(tmp_path: Path, folder: str) -> None:
    made = cases(4)
    put(tmp_path / "annotations" / "instances_train2017.json", document(made))
    for case in made:
        write_png(tmp_path / f"{folder}{name_of(case)}", case.pixels)
    index = open_dataset(tmp_path)
    assert rows(index, "path") == [(f"{folder}{name_of(case)}",) for case in made]
    assert {*rows(index, "split")} <= {("train",), ("val",)}


def test_names_with_folders_and_one_list_at_the_top(tmp_path: Path) -> None:
    """The path of the film says the split where the list's does not."""
    made = cases(4)
    whole = document(made[:2], "films/test/")
    whole["images"] += document(made[2:], "films/val/")["images"]
    put(tmp_path / "annotations.json", whole)
    for case, folder in zip(made, ("test", "test", "val", "val"), strict=True):
        write_png(tmp_path / "films" / folder / name_of(case), case.pixels)
    index = open_dataset(tmp_path)
    assert rows(index, "image_id", "path", "split") == [
        (f"films/{folder}/film_00{i}.png",) * 2 + (folder,) for i, folder in enumerate(("test", "test", "val", "val"))
    ]
    assert index.table["image_id"].to_pylist() == index.table["path"].to_pylist()


def test_two_films_of_one_name_get_the_folders_of_their_lists(tmp_path: Path) -> None:
    """Film 1 has a Cardiomegaly, film 2 a Pneumothorax: here both are called film_001.png."""
    one, two = cases(4)[1:3]
    put(tmp_path / "train" / "_annotations.coco.json", document([one]))
    put(tmp_path / "test" / "_annotations.coco.json", document([two._replace(number=1), cases(4)[3]]))
    for folder, case in (("train", one), ("test", two), ("test", cases(4)[3])):
        name = name_of(case) if case.number == 3 else "film_001.png"
        write_png(tmp_path / folder / name, case.pixels)
    index = open_dataset(tmp_path)
    assert [row[0] for row in rows(index, "image_id")] == ["film_003.png", "test/film_001.png", "train/film_001.png"]
    assert [row[0] for row in rows(index, "path")] == ["test/film_003.png", "test/film_001.png", "train/film_001.png"]
    assert index.labels().tolist() == [[1, 1], [0, 1], [1, 0]]
    assert index.boxes["image_id"].to_pylist() == [
        "film_003.png", "film_003.png", "test/film_001.png", "train/film_001.png",
    ]  # fmt: skip
    assert any("names that two films have" in note and note.endswith(" 1") for note in index.notes)


def test_an_image_in_two_lists_is_taken_from_the_first(tmp_path: Path) -> None:
    made = cases(4)
    put(tmp_path / "annotations" / "instances_test.json", document([made[0], made[1]]))
    put(tmp_path / "annotations" / "instances_val.json", document([made[1], made[2]]))
    for case in made[:3]:
        write_png(tmp_path / "images" / name_of(case), case.pixels)
    index = open_dataset(tmp_path)
    assert rows(index, "image_id", "split") == [
        ("film_000.png", "test"), ("film_001.png", "test"), ("film_002.png", "val"),
    ]  # fmt: skip
    assert len(index.boxes) == 2
    assert ledger(index) == {
        "image that another list has too": ("annotations/instances_val.json: film_001.png",),
        "box of an image that another list has too": ("annotations/instances_val.json: box 1",),
    }


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    made = cases(4)
    whole = document([*made, made[0]._replace(number=9)])
    whole["images"][0]["file_name"] = "/etc/film.png"
    whole["images"][4]["file_name"] = "../film.png"
    whole["annotations"][0]["bbox"] = [1, 2, 0, 5]
    whole["annotations"][1]["image_id"] = 77
    put(tmp_path / "annotations.json", whole)
    for case in made[1:3]:
        write_png(tmp_path / name_of(case), case.pixels)
    index = open_dataset(tmp_path)
    assert rows(index, "image_id", "path") == [
        ("film_001.png", "film_001.png"), ("film_002.png", "film_002.png"), ("film_003.png", None),
    ]  # fmt: skip
    found = ledger(index)
    assert found["unsafe image name"] == ("'/etc/film.png'", "'../film.png'")
    assert found["box without an area"][0].startswith("row 1: film_001.png Cardiomegaly")
    assert found["box of an image without a row"][0].startswith("row 2: None Pneumothorax")


def test_another_json_is_not_taken_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text('{"train": []}')
    with pytest.raises(CxrError, match="in no layout that is known"):
        open_dataset(tmp_path)
    (tmp_path / "annotations.json").write_text(json.dumps(document(cases(4)))[:-1])
    with pytest.raises(CxrError, match=r"annotations\.json is damaged JSON"):
        open_dataset(tmp_path)


def test_only_a_patient_can_be_named(tmp_path: Path) -> None:
    root = write(tmp_path / "d", cases(4))
    with pytest.raises(CxrError, match=r"COCO does not let 'view' be named.* It takes patient\."):
        open_dataset(root, Reading({"view": "position"}))
