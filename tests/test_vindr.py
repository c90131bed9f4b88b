"""VinDr-CXR in PhysioNet's form and in Kaggle's: three readers a film, a consensus, and copies of another size."""

from pathlib import Path
from typing import Literal

import pyarrow as pa

from cxrmine.data.datasets import open_dataset
from cxrmine.data.drawn.vindr import FINDINGS
from cxrmine.data.index import Index, corners
from cxrmine.data.layouts import vindr
from cxrmine.data.tree import Tree
from tests.miniature import HEIGHT, WIDTH, Case, cases, write_dicom, write_png

NAMES = {"Cardiomegaly": "Cardiomegaly", "Pneumothorax": "Pneumothorax"}
READERS = ("R8", "R9", "R10")
GLOBAL = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding")
BOX = "class_name,x_min,y_min,x_max,y_max"
KAGGLE = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"


def name_of(case: Case) -> str:
    return f"{case.number:032x}"


def drawn_by(case: Case, reader: str) -> list[tuple[str, int, int, int, int]]:
    """Every box; but of a film with two, R10 misses the first."""
    return list(case.boxes[1:] if reader == "R10" and len(case.boxes) == 2 else case.boxes)


def write(
    root: Path,
    made: list[Case],
    form: Literal["physionet", "kaggle"] = "physionet",
    films: Literal["dicom", "png"] = "dicom",
) -> Path:
    """The dataset; in Kaggle's form films of the test part have no row."""
    for case in made:
        path = root / ("test" if case.split == "test" else "train") / name_of(case)
        if films == "dicom":
            write_dicom(path.with_suffix(".dicom"), case.pixels)
        else:
            write_png(path.with_suffix(".png"), case.pixels)
    train = [case for case in made if case.split != "test"]
    if form == "kaggle":
        rows = [
            f"{name_of(case)},{box[0]},3,{reader},{','.join(f'{v:.1f}' for v in box[1:])}"
            for case in train
            for reader in READERS
            for box in drawn_by(case, reader)
        ]
        rows += [f"{name_of(case)},No finding,14,{r},,,," for case in train if not case.boxes for r in READERS]
        put(root, "train.csv", KAGGLE, *rows)
        put(root, "sample_submission.csv", "image_id,PredictionString")
        return root
    test = [case for case in made if case.split == "test"]
    for part, chosen, readers in (("train", train, READERS), ("test", test, ("",))):
        who = [f"{name_of(case)},{reader}".rstrip(",") for case in chosen for reader in readers]
        found = [drawn_by(case, reader) for case in chosen for reader in readers]
        head = "image_id,rad_id" if part == "train" else "image_id"
        columns = [word if part == "train" else word.replace("diseases", "disease") for word in (*FINDINGS, *GLOBAL)]
        labels = [
            ",".join((one, *(said(word, boxes) for word in columns))) for one, boxes in zip(who, found, strict=True)
        ]
        rows = [
            f"{one},{box[0]},{','.join(f'{v}.25' for v in box[1:])}" if box else f"{one},No finding,,,,"
            for one, boxes in zip(who, found, strict=True)
            for box in (boxes or [None])
        ]
        put(root / "annotations", f"image_labels_{part}.csv", f"{head},{','.join(columns)}", *labels)
        put(root / "annotations", f"annotations_{part}.csv", f"{head},{BOX}", *rows)
    return root


def said(word: str, boxes: list[tuple[str, int, int, int, int]]) -> str:
    return str(int(word in {box[0] for box in boxes} or (word == "No finding" and not boxes)))


def put(folder: Path, name: str, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")


def label(index: Index, image: str) -> dict[str, int]:
    row = index.table["image_id"].to_pylist().index(image)
    return dict(zip(index.findings, index.labels()[row].tolist(), strict=True))


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


# --- the miniature


def test_physionet(tmp_path: Path) -> None:
    made = cases()
    index = open_dataset(write(tmp_path, made))
    assert index.layout == "VinDr-CXR"
    assert index.notes[0] == "layout: VinDr-CXR, because annotations/image_labels_train.csv is in it"
    assert len(index) == 32
    assert index.findings == ("Cardiomegaly", "Pneumothorax")
    assert index.table["path"].null_count == 0
    assert index.table["view"].null_count == 32
    assert index.table["patient_id"].to_pylist() == index.table["image_id"].to_pylist()
    for case in made:
        row = index.table.slice(index.table["image_id"].to_pylist().index(name_of(case)), 1).to_pylist()[0]
        assert row["path"] == f"{'test' if case.split == 'test' else 'train'}/{name_of(case)}.dicom"
        assert (row["split"] == "test") == (case.split == "test")
        assert row["labels"] == {name: int(name in case.findings) for name in NAMES}
    assert index.dropped == ()


def test_boxes_have_their_reader_and_the_consensus_none(tmp_path: Path) -> None:
    made = cases()
    index = open_dataset(write(tmp_path, made))
    both = next(case for case in made if len(case.boxes) == 2 and case.split == "train")
    boxes = index.boxes.filter(pa.compute.equal(index.boxes["image_id"], name_of(both)))
    drawn = sorted(zip(boxes["finding"].to_pylist(), boxes["reader"].to_pylist(), strict=True))
    assert drawn == [("Cardiomegaly", "R8"), ("Cardiomegaly", "R9"), *(("Pneumothorax", r) for r in sorted(READERS))]
    assert corners(boxes)[0].tolist() == [v + 0.25 for v in both.boxes[0][1:]]
    assert index.looked_at is not None
    looked = index.looked_at.filter(pa.compute.equal(index.looked_at["image_id"], name_of(both)))
    assert sorted(looked["reader"].to_pylist()) == ["R10", "R8", "R9"]
    assert index.looked_at.num_rows == 3 * sum(case.split != "test" for case in made)
    test = index.select("test")
    assert test.boxes.num_rows == sum(len(case.boxes) for case in made if case.split == "test")
    assert test.boxes["reader"].null_count == test.boxes.num_rows


def test_kaggle(tmp_path: Path) -> None:
    made = cases()
    index = open_dataset(write(tmp_path, made, form="kaggle"))
    train = [case for case in made if case.split != "test"]
    assert len(index) == len(train)
    assert index.dropped == ()
    assert f"test films without labels, not in the index: {32 - len(train)}" in index.notes
    assert any("no official lists" in note for note in index.notes)
    for case in train:
        assert label(index, name_of(case)) == {name: int(name in case.findings) for name in NAMES}
    assert index.looked_at is not None
    assert index.looked_at.num_rows == 3 * len(train)  # those who found nothing looked too
    normal = next(case for case in train if not case.boxes)
    assert name_of(normal) in index.looked_at["image_id"].to_pylist()


def test_copies_without_a_size_are_doubtful(tmp_path: Path) -> None:
    write(tmp_path, cases(8), form="kaggle", films="png")
    index = open_dataset(tmp_path)
    assert index.notes[2].startswith("boxes are in pixels of the DICOM films, and 8 films here are copies: nothing")
    assert "width" not in index.table.column_names


def test_sizes_of_the_dicom_films(tmp_path: Path) -> None:
    """dim0 is the height. A film that the table does not have has no size."""
    made = cases(8)
    write(tmp_path, made, form="kaggle")
    put(tmp_path, "train_meta.csv", "image_id,dim0,dim1", *(f"{name_of(c)},{HEIGHT},{WIDTH}" for c in made[1:]))
    index = open_dataset(tmp_path)
    assert index.table["width"].to_pylist() == [None] + [60] * 7
    assert index.table["height"].to_pylist() == [None] + [48] * 7
    assert not any(note.startswith("boxes") for note in index.notes)


# --- by hand

BY_HAND = (
    "a,Cardiomegaly,3,R1,1,1,5,5", "a,Cardiomegaly,3,R2,1,1,6,6", "a,No finding,14,R3,,,,",
    "b,Cardiomegaly,3,R1,1,1,5,5", "b,Nodule/Mass,8,R1,1,1,5,5", "b,No finding,14,R2,,,,", "b,No finding,14,R3,,,,",
    "c,Nodule/Mass,8,R1,1,1,5,5", "c,Nodule/Mass,8,R1,7,7,9,9", "c,No finding,14,R2,,,,", "c,No finding,14,R3,,,,",
    "d,No finding,14,R1,,,,", "d,No finding,14,R2,,,,", "d,No finding,14,R3,,,,",
    "e,Nodule/Mass,8,R1,1,1,5,5", "e,No finding,14,R2,,,,",
)  # fmt: skip


def test_half_of_the_readers(tmp_path: Path) -> None:
    """a: 2 of 3. b: 1 of 3, twice. c: 1 of 3, whose two boxes are one voice. d: none. e: 1 of 2."""
    put(tmp_path, "train.csv", KAGGLE, *BY_HAND)
    index = open_dataset(tmp_path)
    assert index.findings == ("Cardiomegaly", "Nodule/Mass")
    assert index.labels().tolist() == [[1, 0], [-1, -1], [0, -1], [0, 0], [0, 1]]
    assert index.boxes.num_rows == 7


def test_labels_without_boxes_are_findings(tmp_path: Path) -> None:
    """Two of three say Tuberculosis; one says Other diseases, which the test table spells otherwise."""
    put(
        tmp_path / "annotations", "image_labels_train.csv",
        "image_id,rad_id,ILD,Tuberculosis,Other diseases,No finding",
        "a,R1,0,1,0,0", "a,R2,0,1,1,0", "a,R3,0,0,0,1", "a,R3,0,0,0,1",
    )  # fmt: skip
    put(
        tmp_path / "annotations", "image_labels_test.csv", "image_id,ILD,Tuberculosis,Other disease,No finding",
        "t,0.0,0,1.0,0", "u,,0,0,1",
    )  # fmt: skip
    index = open_dataset(tmp_path)
    assert index.findings == ("Other diseases", "Tuberculosis")
    assert index.labels().tolist() == [[-1, 1], [1, 0], [0, 0]]
    assert index.table["split"].to_pylist()[1:] == ["test", "test"]
    assert index.boxes.num_rows == 0


def test_readers_in_capitals_and_tables_at_the_top(tmp_path: Path) -> None:
    put(tmp_path, "annotations_train.csv", f"image_id,rad_ID,{BOX}", "a,R1,ILD,1,1,5,5", "a,R2,No finding,,,,")
    index = open_dataset(tmp_path)
    assert index.looked_at is not None
    assert index.looked_at["reader"].to_pylist() == ["R1", "R2"]
    assert label(index, "a") == {"ILD": 1}
    assert index.boxes["reader"].to_pylist() == ["R1"]


def test_missing_film_film_without_a_row_and_two_of_one_image(tmp_path: Path) -> None:
    made = cases(8)
    root = write(tmp_path, made)
    (root / f"train/{name_of(made[1])}.dicom").unlink()
    write_png(root / "train/stranger.png", made[0].pixels)
    write_png(root / f"copies/{name_of(made[2])}.png", made[2].pixels)
    index = open_dataset(root)
    paths = dict(zip(index.table["image_id"].to_pylist(), index.table["path"].to_pylist(), strict=True))
    assert [name for name, path in paths.items() if path is None] == [name_of(made[1])]
    assert paths[name_of(made[2])] == f"train/{name_of(made[2])}.dicom"  # the DICOM, whose pixels the boxes are in
    assert reasons(index) == {"file without a row": 1, "second file of an image": 1}


def test_boxes_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    put(
        tmp_path, "train.csv", KAGGLE, *BY_HAND, "a,ILD,5,R1,9,9,5,5", "a,No finding,14,R1,1,1,5,5", "a,ILD,5,R1,1,1,,5"
    )
    assert reasons(open_dataset(tmp_path)) == {
        "box without four numbers": 1,
        "box of a finding that no image is labelled with": 1,
        "box without an area": 1,
    }


def test_another_train_csv_is_not_vindr(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", "Path,Sex,No Finding", "a.jpg,Female,1")
    assert not vindr.recognise(Tree(tmp_path))
    (tmp_path / "train.csv").write_bytes(b"")
    assert not vindr.recognise(Tree(tmp_path))
