"""CheXpert's layout: a miniature in every form that people have it in, and HAM's real boxes."""

import csv
import gzip
import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index, corners
from cxrmine.data.layouts import chexpert
from cxrmine.data.reading import Reading
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError
from cxrmine.stages import check
from tests.miniature import Case, cases, write_jpg

REAL = Path(__file__).parents[2] / "shared" / "data" / "chexpert" / "BBoxes.json.gz"
needs_real_boxes = pytest.mark.skipif(not REAL.is_file(), reason="HAM's boxes are not on this machine")
OBSERVATIONS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS)
FOLDERS = {"train": "train", "val": "valid", "test": "test"}
FILM = np.zeros((48, 60), np.uint8)


def row(path: str, side: str = "Frontal", view: str = "AP", **labels: str) -> list[str]:
    """A row of a table; a label's name has _ where the column has a blank."""
    return [path, "Female", "68", side, view, *(labels.get(name.replace(" ", "_"), "") for name in OBSERVATIONS)]


def table(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())


def write(root: Path, made: list[Case], release: str = "CheXpert-v1.0") -> Path:
    """CheXpert as it is unpacked, with HAM's BBoxes.json of full-size films; one patient has a side view too."""
    folder = root / release
    rows: dict[str, list[list[str]]] = {"train": [], "val": [], "test": []}
    boxes: dict[str, dict[str, list[list[int]]]] = {}
    for case in made:
        place = f"{FOLDERS[case.split]}/patient{case.patient + 1:05d}/study{case.number % 2 + 1}"
        labels = dict.fromkeys(case.findings, "1.0") or {"No_Finding": "1.0"}
        if case.split != "train":  # read by radiologists: nothing is blank or uncertain
            labels = {name.replace(" ", "_"): "0.0" for name in OBSERVATIONS} | labels
        elif case.number % 3 == 0:
            labels = {"Pneumothorax": "0.0", "Edema": "-1.0", "Support_Devices": "1.0"} | labels
        rows[case.split].append(
            row(f"{release}/{place}/view1_frontal.jpg", "Frontal", ("AP", "PA")[case.number % 2], **labels)
        )
        write_jpg(folder / place / "view1_frontal.jpg", case.pixels)
        if not case.number:
            rows[case.split].append(row(f"{release}/{place}/view2_lateral.jpg", "Lateral", "", **labels))
            write_jpg(folder / place / "view2_lateral.jpg", case.pixels)
        for finding, *corner in case.boxes:
            boxes.setdefault(f"{place}/view1_frontal.jpg", {}).setdefault(finding, []).append(list(map(int, corner)))
    for split, name in (("train", "train.csv"), ("val", "valid.csv"), ("test", "test.csv")):
        if rows[split]:
            table(folder / name, rows[split])
    (folder / "BBoxes.json").write_text(json.dumps(boxes))
    return folder


# --- a miniature by hand

A1, A2, A3 = (
    f"train/patient00001/study{study}/view{view}.jpg"
    for study, view in ((1, "1_frontal"), (1, "2_lateral"), (2, "1_frontal"))
)
B1, C1 = "valid/patient64541/study1/view1_frontal.jpg", "test/patient64741/study1/view1_frontal.jpg"
BEFORE = "CheXpert-v1.0/"


def dataset(root: Path, boxes: dict[str, dict[str, list[list[float]]]] | None = None, before: str = BEFORE) -> Path:
    """Two frontal films and a side view of a patient, and one film of two others."""
    first = [
        row(before + A1, Cardiomegaly="1.0", Edema="-1.0", Pleural_Effusion="0.0"),
        row(before + A2, "Lateral", "", Cardiomegaly="1.0"),
        row(before + A3, "Frontal", "PA", No_Finding="1.0", Support_Devices="1.0"),
    ]
    table(root / "train.csv", first)
    table(root / "valid.csv", [row(before + B1, Edema="1.0", Cardiomegaly="0.0")])
    table(root / "test.csv", [row(before + C1, Pleural_Effusion="1.0")])
    if boxes is not None:
        (root / "BBoxes.json").write_text(json.dumps(boxes))
    return root


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def column(index: Index, name: str) -> list[str | None]:
    return index.table[name].to_pylist()


def test_uncertain_absent_and_not_mentioned_are_kept_apart(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    assert index.layout == "CheXpert"
    assert index.findings == OBSERVATIONS[1:]
    labels = dict(zip(column(index, "image_id"), index.table["labels"].to_pylist(), strict=True))
    nothing = dict.fromkeys(OBSERVATIONS[1:])
    assert labels[A1] == nothing | {"Cardiomegaly": 1, "Edema": -1, "Pleural Effusion": 0}
    assert labels[A3] == nothing | {"Support Devices": 1}  # No Finding makes no blank a 0
    assert labels[B1] == nothing | {"Edema": 1, "Cardiomegaly": 0}
    assert any(note.startswith("images with No Finding, which is no finding: 1;") for note in index.notes)


def test_views_and_the_lateral_film_that_is_counted(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    assert column(index, "image_id") == sorted([A1, A3, B1, C1])
    assert reasons(index) == {"lateral view, and frontal ones are asked for": 1}
    every = open_dataset(tmp_path, Reading(views="all"))
    assert dict(zip(column(every, "image_id"), column(every, "view"), strict=True)) == {
        A1: "AP", A2: "LATERAL", A3: "PA", B1: "AP", C1: "AP"
    }  # fmt: skip
    assert every.dropped == ()


def test_a_frontal_film_is_frontal_whatever_stands_under_ap_pa(tmp_path: Path) -> None:
    side = row(B1, "Lateral", "")  # whatever its name says
    table(tmp_path / "train.csv", [row(A1, view="LL", Edema="1.0"), row(A3, view="", Edema="1.0"), side])
    index = open_dataset(tmp_path)
    assert reasons(index) == {"lateral view, and frontal ones are asked for": 1}
    assert column(index, "view") == [None, None]
    assert any(note.endswith("whose view is not known then: 1") for note in index.notes)


def test_splits_are_the_folders_and_patients_are_whole(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    split = dict(zip(column(index, "image_id"), column(index, "split"), strict=True))
    assert split == {A1: "train", A3: "train", B1: "val", C1: "test"}
    assert column(index, "patient_id") == ["patient64741", "patient00001", "patient00001", "patient64541"]
    assert "split: official" in index.notes
    (tmp_path / "test.csv").unlink()
    index = open_dataset(tmp_path)
    assert C1 not in column(index, "image_id")
    assert "split: official; no test.csv here, so nothing is test" in index.notes


def test_films_that_are_missing_or_that_no_row_names(tmp_path: Path) -> None:
    for name in (A1, A2, "train/patient00009/study1/view1_frontal.jpg"):
        write_jpg(tmp_path / name, FILM)
    (tmp_path / "train" / "notes.txt").touch()
    index = open_dataset(dataset(tmp_path))
    assert dict(zip(column(index, "image_id"), column(index, "path"), strict=True)) == {
        A1: A1, A3: None, B1: None, C1: None
    }  # fmt: skip
    assert reasons(index)["file without a row"] == 1
    here, missing = index.present()
    assert (column(here, "image_id"), missing and missing.count) == ([A1], 3)


@pytest.mark.parametrize(
    ("before", "place"),
    [
        ("CheXpert-v1.0/", ""),
        ("CheXpert-v1.0-small/", ""),
        ("CheXpert-v1.0-small/", "CheXpert-v1.0-small/"),
        ("/nas/public/CheXpert/CheXpert-v1.0/", ""),
        ("", "my films/"),
    ],
)
def test_films_are_found_whatever_path_begins_with(tmp_path: Path, before: str, place: str) -> None:
    for name in (A1, A2, A3, B1, C1):
        write_jpg(tmp_path / place / name, FILM)
    index = open_dataset(dataset(tmp_path, before=before), Reading(views="all"))
    assert column(index, "path") == [f"{place}{name}" for name in column(index, "image_id")]
    assert column(index, "image_id") == sorted([A1, A2, A3, B1, C1])
    assert index.dropped == ()


def test_of_two_copies_of_the_films_those_are_read_that_path_names(tmp_path: Path) -> None:
    for release in ("CheXpert-v1.0-small/", "CheXpert-v1.0/"):
        write_jpg(tmp_path / release / A1, FILM)
    for release in ("CheXpert-v1.0-small/", "CheXpert-v1.0/"):
        index = open_dataset(dataset(tmp_path, before=release))
        assert column(index, "path")[column(index, "image_id").index(A1)] == f"{release}{A1}"
        assert reasons(index)["file without a row"] == 1


def test_stanfords_batches_and_chexlocalize(tmp_path: Path) -> None:
    first, second = "CheXpert-v1.0 batch 1 (validate & csv)", "CheXpert-v1.0 batch 2 (train 1)"
    dataset(tmp_path / "full" / first)
    write_jpg(tmp_path / "full" / first / B1, FILM)
    write_jpg(tmp_path / "full" / second / A1.removeprefix("train/"), FILM)
    index = open_dataset(tmp_path / "full")
    paths = dict(zip(column(index, "image_id"), column(index, "path"), strict=True))
    assert paths == {A1: f"{second}/{A1.removeprefix('train/')}", A3: None, B1: f"{first}/{B1}", C1: None}

    other = tmp_path / "CheXlocalize"
    table(other / "val_labels.csv", [row(BEFORE + B1, Edema="1.0")])
    side = C1.replace("1_frontal", "2_lateral")
    table(other / "test_labels.csv", [[C1, *["0.0"] * 14], [side, *["1.0"] * 14]], ("Path", *OBSERVATIONS))
    write_jpg(other / B1.replace("valid", "val"), FILM)
    index = open_dataset(other)
    assert column(index, "path") == [None, B1.replace("valid", "val")]
    assert column(index, "split") == ["test", "val"]
    assert reasons(index) == {"lateral view, and frontal ones are asked for": 1}  # the name tells


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    bad = [row(BEFORE + A1), row("view1_frontal.jpg"), row("CheXpert-v1.0/train/patient00001/../../x.jpg"), ["x", "y"]]
    table(dataset(tmp_path) / "valid.csv", [row(BEFORE + A1, Edema="1.0"), *bad])
    index = open_dataset(tmp_path)
    assert reasons(index) == {
        "valid.csv: another number of fields than its header": 1,
        "valid.csv: Path without a split and a patient in it": 1,
        "unsafe image name": 1,
        "second row of an image": 2,
        "lateral view, and frontal ones are asked for": 1,
    }


def test_odd_labels_and_columns(tmp_path: Path) -> None:
    table(tmp_path / "train.csv.gz", [[*row(A1, Edema="nan", Fracture="1"), "7"]], (*HEADER, "Fold"))
    index = open_dataset(tmp_path)
    assert index.table["labels"].to_pylist() == [dict.fromkeys(OBSERVATIONS[1:]) | {"Fracture": 1}]
    assert "columns of train.csv.gz that are not read: Fold" in index.notes
    table(tmp_path / "train.csv", [row(A1), row(A3, Edema="2.0")])
    with pytest.raises(CxrError, match=r"train\.csv: Edema is '2\.0' in row 2\. Write 1, 0, -1 or nothing"):
        open_dataset(tmp_path)


# --- recognition


def test_recognition(tmp_path: Path) -> None:
    why = "layout: CheXpert, because train.csv in it has a column Path and CheXpert's findings"
    assert open_dataset(dataset(tmp_path / "x" / "whatever")).notes[0] == why
    above = open_dataset(tmp_path / "x")
    assert (above.notes[0], above.root) == (why, tmp_path / "x" / "whatever")
    archive = shutil.make_archive(str(tmp_path / "kaggle"), "zip", tmp_path / "x")
    packed = open_dataset(Path(archive), archives=True)
    assert (packed.notes[0], packed.table) == (why, above.table)
    table(tmp_path / "y" / "train.csv", [["a", "Edema"]], ("image_id", "class_name"))
    assert not chexpert.recognise(Tree(tmp_path / "y"))


# --- boxes

DRAWN = {
    A1: {"Pleural_Effusion": [[1.0, 2.0, 30.0, 40.0]], "edema": [[5.0, 6.0, 7.0, 8.0], [50.0, 40.0, 60.0, 48.0]]},
    A2: {"Cardiomegaly": [[1.0, 2.0, 3.0, 4.0]]},
    A3: {},
    B1: {"Enlarg_Cardiomediastinum": [[0.0, 0.0, 9.0, 9.0]], "Enlarged_Cardiomediastinum": [[1.0, 1.0, 9.0, 9.0]]},
    "train/patient00007/study1/view1_frontal.jpg": {"Fracture": [[1.0, 1.0, 9.0, 9.0]]},
}


def test_boxes_are_spelled_as_the_tables_are(tmp_path: Path) -> None:
    for name in (A1, A2, B1):
        write_jpg(tmp_path / name, FILM)
    index = open_dataset(dataset(tmp_path, DRAWN))
    named = list(zip(index.boxes["image_id"].to_pylist(), index.boxes["finding"].to_pylist(), strict=True))
    assert named == [
        (A1, "Edema"), (A1, "Edema"), (A1, "Pleural Effusion"),
        (B1, "Enlarged Cardiomediastinum"), (B1, "Enlarged Cardiomediastinum"),
    ]  # fmt: skip
    assert corners(index.boxes)[1:3].tolist() == [[50, 40, 60, 48], [1, 2, 30, 40]]
    assert [name for name, boxed in zip(column(index, "image_id"), column(index, "boxed"), strict=True) if boxed] == [
        A1,
        B1,
    ]
    assert reasons(index) == {
        "lateral view, and frontal ones are asked for": 1,
        "box of an image that is left out": 1,
        "box of an image without a row": 1,
    }
    assert "boxes: BBoxes.json" in index.notes
    assert len(open_dataset(tmp_path, Reading(views="all")).boxes) == 6


@pytest.mark.parametrize(
    ("film", "before", "kept", "why"),
    [
        ((48, 60), BEFORE, 5, ""),
        ((48, 60), "CheXpert-v1.0-small/", 5, ""),  # what the films are counts more than what a table says
        (None, BEFORE, 5, ""),
        (None, "CheXpert-v1.0-small/", 0, "the folder or Path says -small"),
        ((48, 29), BEFORE, 0, f"{A1} is 29×48 where a box reaches 60,48"),
        ((23, 60), BEFORE, 0, f"{A1} is 60×23 where a box reaches 60,48"),
    ],
)
def test_boxes_of_full_films_are_not_put_on_small_ones(
    tmp_path: Path, film: tuple[int, int] | None, before: str, kept: int, why: str
) -> None:
    if film:
        write_jpg(tmp_path / A1, np.zeros(film, np.uint8))
    index = open_dataset(dataset(tmp_path, DRAWN, before))
    assert len(index.boxes) == kept
    assert reasons(index).get("box in pixels of another size of its film", 0) == (0 if kept else 7)
    told = [note for note in index.notes if note.startswith("boxes: BBoxes.json is left out") and why in note]
    assert len(told) == (0 if kept else 1)


def test_a_folder_named_small_and_films_that_cannot_be_read(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "CheXpert-v1.0-small", DRAWN, "")
    (folder / A1).parent.mkdir(parents=True)
    (folder / A1).write_bytes(b"\xff\xd8\xff cut off")
    assert len(open_dataset(folder).boxes) == 0
    write_jpg(folder / B1, FILM)  # one film that can be read is enough
    assert len(open_dataset(folder).boxes) == 5


def test_another_vocabulary_renames_labels_and_boxes(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path, DRAWN), Reading(vocabulary="chestxray14"))
    assert "Effusion" in index.findings
    assert "Pleural Effusion" not in index.findings
    assert Counter(index.boxes["finding"].to_pylist()) == {"Edema": 2, "Effusion": 1, "Enlarged Cardiomediastinum": 2}
    assert index.labels(["Effusion"])[column(index, "image_id").index(C1), 0] == 1
    ham = open_dataset(tmp_path, Reading(vocabulary="ham"))
    assert {"Pleural_Effusion", "Enlarged_Cardiomediastinum"} <= set(ham.boxes["finding"].to_pylist())


def test_the_miniature(tmp_path: Path) -> None:
    made = cases()
    folder = write(tmp_path, made)
    index = open_dataset(folder)
    assert len(index) == len(made) == 32
    assert Counter(column(index, "split")) == Counter(case.split for case in made)
    assert len(index.boxes) == sum(len(case.boxes) for case in made)
    for name in ("Cardiomegaly", "Pneumothorax"):
        assert (index.labels([name]) == 1).sum() == sum(name in case.findings for case in made) == 16
    report = check.run(check.Check(tmp_path))
    assert [(fault.kind, fault.level, fault.count) for fault in report.faults] == [
        ("lateral view, and frontal ones are asked for", "warning", 1)
    ]


# --- HAM's real boxes


@needs_real_boxes
def test_real_boxes_beside_made_tables(tmp_path: Path) -> None:
    keys = list(json.loads(gzip.decompress(REAL.read_bytes())))
    assert len(keys) == 2_348
    for split, name in (("train", "train.csv"), ("valid", "valid.csv")):
        named = [key for key in keys if key.startswith(split)]
        sides = ["Lateral" if "_lateral" in key else "Frontal" for key in named]
        table(
            tmp_path / name, [row(BEFORE + key, side, "", Edema="1.0") for key, side in zip(named, sides, strict=True)]
        )
    (tmp_path / "BBoxes.json.gz").symlink_to(REAL)
    index = open_dataset(tmp_path)
    assert len(index) == 2_348 - 272
    assert len(index.boxes) == 6_101 - 453
    assert reasons(index) == {
        "lateral view, and frontal ones are asked for": 272,
        "box of an image that is left out": 453,
    }
    assert len(index.select("boxed")) == 2_348 - 272 - 1
    every = open_dataset(tmp_path, Reading(views="all"))
    assert every.dropped == ()
    assert Counter(every.boxes["finding"].to_pylist()) == {
        "Pleural Effusion": 1_785, "Edema": 1_054 + 44, "Atelectasis": 723, "Cardiomegaly": 659, "Consolidation": 400,
        "Fracture": 378, "Pneumonia": 371, "Enlarged Cardiomediastinum": 361 + 25, "Pneumothorax": 301,
    }  # fmt: skip
    small = (tmp_path / "train.csv").read_text().replace(BEFORE, "CheXpert-v1.0-small/")
    (tmp_path / "train.csv").write_text(small)
    assert reasons(open_dataset(tmp_path))["box in pixels of another size of its film"] == 6_101
