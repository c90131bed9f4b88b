"""The RSNA Pneumonia Detection Challenge: one finding, several boxes an image, and a test part that says nothing."""

import json
from pathlib import Path

import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import UNMENTIONED, Index, corners
from cxrmine.data.layouts import rsna
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError
from tests.miniature import Case, cases, write_dicom

NAMES = {"Cardiomegaly": "Lung Opacity", "Pneumothorax": "Lung Opacity"}
CLASSES = ("Normal", "No Lung Opacity / Not Normal")
HEADER = "patientId,x,y,width,height,Target"


def name_of(case: Case) -> str:
    return f"{case.number:08x}-7a1c-4d2e-9f00-0123456789ab"


def write(root: Path, made: list[Case], stage: int = 2) -> Path:
    """The dataset; every case is a training film, since those of the challenge's test part have no labels."""
    rows, classes = [], []
    for case in made:
        write_dicom(root / f"stage_{stage}_train_images" / f"{name_of(case)}.dcm", case.pixels, patient=name_of(case))
        for _, left, top, right, bottom in case.boxes:
            rows.append(f"{name_of(case)},{left}.0,{top}.0,{right - left}.0,{bottom - top}.0,1")
            classes.append(f"{name_of(case)},Lung Opacity")
        if not case.boxes:
            rows.append(f"{name_of(case)},,,,,0")
            classes.append(f"{name_of(case)},{CLASSES[case.number // 4 % 2]}")
    put(root, f"stage_{stage}_train_labels.csv", HEADER, *rows)
    put(root, f"stage_{stage}_detailed_class_info.csv", "patientId,class", *classes)
    put(root, f"stage_{stage}_sample_submission.csv", "patientId,PredictionString", "0,0.5 0 0 100 100")
    return root


def put(folder: Path, name: str, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def test_the_miniature(tmp_path: Path) -> None:
    made = cases()
    index = open_dataset(write(tmp_path, made))
    assert index.layout == "RSNA Pneumonia"
    assert index.notes[0] == "layout: RSNA Pneumonia, because stage_2_train_labels.csv is in it"
    assert index.findings == ("Lung Opacity",)
    assert index.table["image_id"].to_pylist() == [name_of(case) for case in made]
    assert index.table["patient_id"].to_pylist() == index.table["image_id"].to_pylist()
    assert index.table["path"].to_pylist() == [f"stage_2_train_images/{name_of(case)}.dcm" for case in made]
    assert index.labels()[:, 0].tolist() == [int(bool(case.boxes)) for case in made]
    assert index.table["view"].null_count == 32
    assert set(index.table["split"].to_pylist()) == {"train", "val", "test"}
    assert index.dropped == ()


def test_boxes_are_corners(tmp_path: Path) -> None:
    made = cases(4)
    index = open_dataset(write(tmp_path, made))
    assert corners(index.boxes).tolist() == sorted([list(b[1:]) for c in made[:3] for b in c.boxes]) + sorted(
        list(b[1:]) for b in made[3].boxes
    )
    assert index.boxes["finding"].to_pylist() == ["Lung Opacity"] * 4
    assert index.boxes["reader"].null_count == 4
    assert index.looked_at is None


def test_test_films_and_classes_are_notes(tmp_path: Path) -> None:
    """32 films, 24 with a box; of the 8 others every second is Normal. Of three test films one has a label."""
    made = cases(34)
    root = write(tmp_path, made[:32])
    for case in made[31:34]:
        write_dicom(root / "stage_2_test_images" / f"{name_of(case)}.dcm", case.pixels)
    index = open_dataset(root)
    assert "classes of the images: Lung Opacity 24, No Lung Opacity / Not Normal 4, Normal 4" in index.notes
    assert "test films without labels, not in the index: 2" in index.notes
    assert any(note.startswith("CAREFUL: these are films of ChestX-ray14") for note in index.notes)
    assert reasons(index) == {"second file of an image": 1}


def test_first_stage_and_a_packed_table(tmp_path: Path) -> None:
    root = write(tmp_path, cases(4), stage=1)
    assert open_dataset(root).notes[1] == "labels: stage_1_train_labels.csv"
    write(root, cases(8), stage=2)
    assert len(open_dataset(root)) == 8


MAPPINGS = "pneumonia-challenge-dataset-mappings_2018.json"


def mapped(*pairs: tuple[str, str]) -> str:
    """patientId, the film's name in ChestX-ray14"""
    keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    entries = [
        {"subset_img_id": image, "img_id": film, "orig_labels": ["No Finding"], **dict.fromkeys(keys, "1.2")}
        for image, film in pairs
    ]
    return json.dumps(entries)


def test_patients_by_rsna_s_mappings(tmp_path: Path) -> None:
    """Of 40 films 38 are mapped, four a person: nobody is in two splits, and two films are people of their own."""
    made = cases(40)
    root = write(tmp_path, made)
    before = open_dataset(root)
    assert len(set(before.table["patient_id"].to_pylist())) == 40
    assert any(note.startswith("CAREFUL: patients") and MAPPINGS in note for note in before.notes)
    put(
        root / "more", MAPPINGS, mapped(*((name_of(c), f"{c.number // 4:08}_{c.number % 4:03}.png") for c in made[:38]))
    )
    index = open_dataset(root)
    patients = dict(zip(index.table["image_id"].to_pylist(), index.table["patient_id"].to_pylist(), strict=True))
    assert patients == {name_of(c): str(c.number // 4) for c in made[:38]} | {name_of(c): name_of(c) for c in made[38:]}
    people: dict[str, set[str]] = {}
    for patient, split in zip(index.table["patient_id"].to_pylist(), index.table["split"].to_pylist(), strict=True):
        people.setdefault(patient, set()).add(split)
    assert all(len(splits) == 1 for splits in people.values())
    assert {split for splits in people.values() for split in splits} >= {"train", "test"}
    assert (
        f"patients: those of ChestX-ray14, by more/{MAPPINGS}; 2 images are not in it, and each counts as a patient of "
        "its own"
    ) in index.notes
    assert not any(note.startswith("CAREFUL: patients") for note in index.notes)


@pytest.mark.parametrize("text", ["{}", "[]", "[1]", '[{"subset_img_id": "a"}]', '[{"img_id": "x.png"}]'])
def test_mappings_of_another_form(tmp_path: Path, text: str) -> None:
    put(tmp_path, "stage_2_train_labels.csv", HEADER, "a,,,,,0", "b,1,2,3,4,1")
    put(tmp_path, MAPPINGS, text)
    with pytest.raises(CxrError, match=r"mappings_2018\.json is no list of objects with subset_img_id and img_id"):
        open_dataset(tmp_path)


def test_rows_that_contradict_or_say_nothing(tmp_path: Path) -> None:
    """a: 0 and 1. b: neither. c: Target 1 without a box. d: a box of Target 0. The row without a name is no image."""
    put(
        tmp_path, "stage_2_train_labels.csv", HEADER,
        "a,,,,,0", "a,1,2,3,4,1", "b,,,,,?", "c,,,,,1", "d,1,2,3,4,0", ",1,2,3,4,1", "e,1,2,0,4,1", "f,1,2",
    )  # fmt: skip
    index = open_dataset(tmp_path)
    assert index.table["image_id"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert index.labels()[:, 0].tolist() == [1, UNMENTIONED, 1, 0, 1]
    assert corners(index.boxes).tolist() == [[1, 2, 4, 6]]
    assert reasons(index) == {
        "stage_2_train_labels.csv: another number of fields than its header": 1,
        "box without four numbers": 2,
        "box of an image without a row": 1,
        "box of a finding that no image is labelled with": 1,
        "box without an area": 1,
    }


def test_missing_film_and_film_without_a_row(tmp_path: Path) -> None:
    made = cases(4)
    root = write(tmp_path, made)
    (root / f"stage_2_train_images/{name_of(made[1])}.dcm").unlink()
    write_dicom(root / "stage_2_train_images/stranger.dcm", made[0].pixels)
    index = open_dataset(root)
    assert index.table["path"].is_valid().to_pylist() == [True, False, True, True]
    assert reasons(index) == {"file without a row": 1}


def test_without_a_table_it_is_no_layout(tmp_path: Path) -> None:
    root = write(tmp_path, cases(2))
    (root / "stage_2_train_labels.csv").rename(root / "labels.csv")
    assert not rsna.recognise(Tree(root))
