"""MIMIC-CXR's layout: a miniature as JPG and as DICOM, with labels by study, and every trap of its tables."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError, UsageError
from cxrmine.stages import check
from tests.miniature import Case, cases, write_dicom, write_jpg, write_png

OBSERVATIONS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
FINDINGS = [name for name in OBSERVATIONS if name != "No Finding"]
METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns",
    "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
HEADERS = {
    "metadata": METADATA,
    "split": ("dicom_id", "study_id", "subject_id", "split"),
    "chexpert": ("subject_id", "study_id", *OBSERVATIONS),
    "negbio": ("subject_id", "study_id", *OBSERVATIONS),
}
FILM = np.zeros((48, 60), np.uint8)


def table(root: Path, name: str, rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """A table of this kind, gzipped as PhysioNet has it, or of this name."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADERS.get(name, header), *rows])
    root.mkdir(parents=True, exist_ok=True)
    file = root / (f"mimic-cxr-2.0.0-{name}.csv.gz" if name in HEADERS else name)
    content = text.getvalue().encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def film(
    dicom: str, subject: str, study: str, view: str = "AP", rows: object = 48, columns: object = 60
) -> list[object]:
    """A row of the metadata."""
    return [
        dicom,
        subject,
        study,
        "CHEST (PORTABLE AP)",
        view,
        rows,
        columns,
        "21800506",
        "213014.531",
        "",
        "",
        "Erect",
    ]


def study(subject: str, number: str, **labels: str) -> list[object]:
    """A row of the labels; a label's name has _ where the column has a blank."""
    return [subject, number, *(labels.get(name.replace(" ", "_"), "") for name in OBSERVATIONS)]


def write(root: Path, made: list[Case], form: Literal["jpg", "dicom"] = "jpg") -> Path:
    """MIMIC-CXR-JPG, or MIMIC-CXR with its tables beside it; one patient has a side view too."""
    folder = root / ("mimic-cxr-jpg" if form == "jpg" else "mimic-cxr") / "2.1.0"
    metadata, split, chexpert, records = [], [], [], []
    for case in made:
        subject, number = str(10000032 + case.patient), str(50414267 + case.number)
        labels = dict.fromkeys(case.findings, "1.0") or {"No_Finding": "1.0"}
        if case.number % 3 == 0:
            labels = {"Pneumothorax": "0.0", "Edema": "-1.0", "Support_Devices": "1.0"} | labels
        chexpert.append(study(subject, number, **labels))
        for view in (("AP", "PA")[case.number % 2], *(["LATERAL"] if not case.number else [])):
            dicom = f"{case.number:08x}-bde0afdd-112c0b34-7bc16630-{view.lower():0>8}"
            place = f"files/p{subject[:2]}/p{subject}/s{number}/{dicom}"
            metadata.append(film(dicom, subject, number, view))
            split.append([dicom, number, subject, {"val": "validate"}.get(case.split, case.split)])
            records.append([subject, number, dicom, f"{place}.dcm"])
            if form == "jpg":
                write_jpg(folder / f"{place}.jpg", case.pixels)
            else:
                write_dicom(folder / f"{place}.dcm", case.pixels, subject, view)
    for kind, rows in {"metadata": metadata, "split": split, "chexpert": chexpert}.items():
        table(folder, kind, rows)
    if form == "dicom":
        table(folder, "cxr-record-list.csv.gz", records, ("subject_id", "study_id", "dicom_id", "path"))
    return folder


# --- a miniature by hand

A1, A2, B1, B2, C1 = (f"{letter}-0000" for letter in ("a1", "a2", "b1", "b2", "c1"))
FOLDERS = {
    A1: "p10/p10000032/s50000001", A2: "p10/p10000032/s50000001", B1: "p11/p11000001/s50000002",
    B2: "p11/p11000001/s50000003", C1: "p12/p12000001/s50000004",
}  # fmt: skip


def dataset(root: Path) -> Path:
    """A study of two films, two studies of a patient, the second without labels, and a study of a third patient."""
    ids = [(dicom, folder[5:13], folder[15:]) for dicom, folder in FOLDERS.items()]
    views = ("PA", "LATERAL", "AP", "", "PA")
    table(root, "metadata", [film(*names, view) for names, view in zip(ids, views, strict=True)])
    splits = ("train", "train", "validate", "validate", "test")
    rows = [[dicom, number, subject, word] for (dicom, subject, number), word in zip(ids, splits, strict=True)]
    table(root, "split", rows)
    table(
        root,
        "chexpert",
        [
            study("10000032", "50000001", Cardiomegaly="1.0", Edema="-1.0", Pleural_Effusion="0.0"),
            study("11000001", "50000002", No_Finding="1.0", Support_Devices="1.0"),
            study("12000001", "50000004", Pneumothorax="1.0"),
        ],
    )
    return root


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def column(index: Index, name: str) -> dict[str, object]:
    return dict(zip(index.table["image_id"].to_pylist(), index.table[name].to_pylist(), strict=True))


def test_every_film_of_a_study_has_its_labels(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path), Reading(views="all"))
    assert index.layout == "MIMIC-CXR"
    assert sorted(index.findings) == FINDINGS
    labels, nothing = column(index, "labels"), dict.fromkeys(FINDINGS)
    assert labels[A1] == labels[A2] == nothing | {"Cardiomegaly": 1, "Edema": -1, "Pleural Effusion": 0}
    assert labels[B1] == nothing | {"Support Devices": 1}  # No Finding makes no blank a 0
    assert labels[B2] == nothing
    assert labels[C1] == nothing | {"Pneumothorax": 1}
    assert "images of studies without labels: 1" in index.notes
    assert index.dropped == ()


def test_views_splits_patients_and_sizes(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path))
    assert column(index, "view") == {A1: "PA", B1: "AP", B2: None, C1: "PA"}
    assert reasons(index) == {"lateral view, and frontal ones are asked for": 1}
    assert column(index, "split") == {A1: "train", B1: "val", B2: "val", C1: "test"}
    assert column(index, "patient_id") == {A1: "10000032", B1: "11000001", B2: "11000001", C1: "12000001"}
    assert set(column(index, "width").values()) == {60}
    assert set(column(index, "height").values()) == {48}
    assert "split: official (mimic-cxr-2.0.0-split.csv.gz)" in index.notes
    assert column(open_dataset(tmp_path, Reading(views="all")), "view")[A2] == "LATERAL"


def test_rare_side_views_are_left_out_and_oblique_ones_are_not(tmp_path: Path) -> None:
    words = ("LL", "XTABLE LATERAL", "LAO", "SWIMMERS", "AP LLD")
    dataset(tmp_path)
    table(
        tmp_path,
        "metadata",
        [film(dicom, *folder_ids(dicom), word) for dicom, word in zip(FOLDERS, words, strict=True)],
    )
    assert set(column(open_dataset(tmp_path), "view").values()) == {"LAO", "SWIMMERS", "AP LLD"}


def folder_ids(dicom: str) -> tuple[str, str]:
    return FOLDERS[dicom][5:13], FOLDERS[dicom][15:]


@pytest.mark.parametrize("top", ["files/", "", "resized/224/"])
def test_films_are_found_below_their_patient_and_study(tmp_path: Path, top: str) -> None:
    for dicom in (A1, A2, B1):
        write_jpg(tmp_path / f"{top}{FOLDERS[dicom]}/{dicom}.jpg", FILM)
    write_dicom(tmp_path / f"{top}{FOLDERS[B1]}/{B1}.dcm", FILM)  # the JPG is read
    write_dicom(tmp_path / f"{top}{FOLDERS[C1]}/{C1}.dcm", FILM)
    write_jpg(tmp_path / f"{top}{FOLDERS[A1]}/{B2}.jpg", FILM)  # in another's folder
    write_jpg(tmp_path / f"{top}{FOLDERS[A1]}/d1-0000.jpg", FILM)
    (tmp_path / f"{top}p10/p10000032/s50000001.txt").touch()  # a report
    index = open_dataset(dataset(tmp_path))
    assert column(index, "path") == {
        A1: f"{top}{FOLDERS[A1]}/{A1}.jpg", B1: f"{top}{FOLDERS[B1]}/{B1}.jpg", B2: None,
        C1: f"{top}{FOLDERS[C1]}/{C1}.dcm",
    }  # fmt: skip
    assert reasons(index) == {
        "lateral view, and frontal ones are asked for": 1,
        "second file of an image": 2,
        "file without a row": 1,
    }
    _, missing = index.present()
    assert missing
    assert missing.examples == (B2,)


def test_negbio_is_read_where_it_is_asked_for_or_alone(tmp_path: Path) -> None:
    table(dataset(tmp_path), "negbio", [study("10000032", "50000001", Cardiomegaly="0.0", Fracture="1.0")])
    first, second = "mimic-cxr-2.0.0-chexpert.csv.gz", "mimic-cxr-2.0.0-negbio.csv.gz"
    index = open_dataset(tmp_path)
    assert f'labels: {first}; {second} is there too (labels = "negbio")' in index.notes
    assert column(index, "labels")[A1] == dict.fromkeys(FINDINGS) | {
        "Cardiomegaly": 1,
        "Edema": -1,
        "Pleural Effusion": 0,
    }
    negbio = dict.fromkeys(FINDINGS) | {"Cardiomegaly": 0, "Fracture": 1}
    asked = open_dataset(tmp_path, Reading(columns={"labels": "negbio"}))
    assert f'labels: {second}; {first} is there too (labels = "chexpert")' in asked.notes
    assert column(asked, "labels")[A1] == negbio
    (tmp_path / "cxrmine-data.toml").write_text('[columns]\nlabels = "negbio"\n')
    assert column(open_dataset(tmp_path), "labels")[A1] == negbio
    (tmp_path / "cxrmine-data.toml").unlink()
    (tmp_path / first).unlink()
    alone = open_dataset(tmp_path)
    assert f"labels: {second}" in alone.notes
    assert column(alone, "labels")[A1] == negbio
    with pytest.raises(CxrError, match=r"no file mimic-cxr-\*-chexpert\.csv\.gz.*MIMIC-CXR-JPG"):
        open_dataset(tmp_path, Reading(columns={"labels": "chexpert"}))
    with pytest.raises(UsageError, match=r"'negbo'\. Did you mean negbio\?"):
        open_dataset(tmp_path, Reading(columns={"labels": "negbo"}))
    (tmp_path / second).unlink()
    with pytest.raises(CxrError, match=r"no file mimic-cxr-\*-chexpert or negbio\.csv\.gz"):
        open_dataset(tmp_path)


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    dataset(tmp_path)
    rows = [film(dicom, *folder_ids(dicom)) for dicom in FOLDERS]
    bad = [film("../x", "10000032", "50000001"), film("y", "", "50000001"), film(A1, *folder_ids(A1)), ["z"]]
    table(tmp_path, "metadata", [*rows, film("unlisted", "10000032", "50000001"), *bad])
    more = [study("10000032", "50000001", Cardiomegaly="0.0"), study("13000001", "50000009", Edema="1.0")]
    same = study("12000001", "50000001", Edema="1.0")  # the number of a study of another patient
    table(tmp_path, "chexpert", [study("10000032", "50000001", Cardiomegaly="1.0"), *more, same])
    index = open_dataset(tmp_path)
    assert sorted(column(index, "path")) == sorted(FOLDERS)
    assert column(index, "labels")[A1] == dict.fromkeys(FINDINGS) | {"Cardiomegaly": 1}
    assert reasons(index) == {
        "mimic-cxr-2.0.0-metadata.csv.gz: another number of fields than its header": 1,
        "mimic-cxr-2.0.0-chexpert.csv.gz: second row of a study": 1,
        "study without an image": 2,
        "unsafe image name": 1,
        "no patient": 1,
        "second row of an image": 1,
        "in neither split list": 1,
    }


def test_sizes_of_copies_that_were_made_smaller_are_not_told(tmp_path: Path) -> None:
    write_jpg(tmp_path / FOLDERS[A1] / f"{A1}.jpg", FILM)
    write_dicom(tmp_path / FOLDERS[B1] / f"{B1}.dcm", FILM)
    assert "width" in open_dataset(dataset(tmp_path)).table.column_names
    write_dicom(tmp_path / FOLDERS[B1] / f"{B1}.dcm", FILM[:24, :30])
    index = open_dataset(tmp_path)
    assert {"width", "height"}.isdisjoint(index.table.column_names)
    assert any(f"{B1}.dcm is 30×24 and 60×48 in" in note for note in index.notes)
    write_dicom(tmp_path / FOLDERS[B1] / f"{B1}.dcm", FILM)
    (tmp_path / FOLDERS[A1] / f"{A1}.jpg").unlink()
    write_png(tmp_path / FOLDERS[A1] / f"{A1}.png", FILM.T)
    assert any(f"{A1}.png is 48×60 and 60×48 in" in note for note in open_dataset(tmp_path).notes)


def test_other_versions_and_tables_that_say_odd_things(tmp_path: Path) -> None:
    packed = dataset(tmp_path) / "mimic-cxr-2.0.0-metadata.csv.gz"
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    assert open_dataset(tmp_path).notes[0] == "layout: MIMIC-CXR, because mimic-cxr-2.0.0-metadata.csv is in it"
    table(tmp_path, "mimic-cxr-2.1.0-test-set-labeled.csv", [], ("study_id", *OBSERVATIONS))
    (tmp_path / "mimic-cxr-3.0.0-split.csv").write_text(f"dicom_id,split\n{A1},train\n{C1},valid\n")
    with pytest.raises(
        CxrError, match=r"2 files of split: mimic-cxr-2\.0\.0-split\.csv\.gz, mimic-cxr-3\.0\.0-split\.csv"
    ):
        open_dataset(tmp_path)
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(CxrError, match=r"split is 'valid' in row 2\. It knows train, validate, test"):
        open_dataset(tmp_path)
    (tmp_path / "mimic-cxr-3.0.0-split.csv").unlink()
    assert any("no official lists" in note for note in open_dataset(tmp_path).notes)
    table(tmp_path, "chexpert", [study("10000032", "50000001", Edema="yes")])
    with pytest.raises(CxrError, match=r"Edema is 'yes' in row 1"):
        open_dataset(tmp_path)


def test_dicom_without_metadata(tmp_path: Path) -> None:
    rows = [[*folder_ids(dicom), dicom, f"files/{folder}/{dicom}.dcm"] for dicom, folder in FOLDERS.items()]
    table(tmp_path, "cxr-record-list.csv.gz", rows, ("subject_id", "study_id", "dicom_id", "path"))
    with pytest.raises(CxrError, match=r"has no labels.*Copy it there from MIMIC-CXR-JPG"):
        open_dataset(tmp_path)
    dataset(tmp_path)
    (tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    write_dicom(tmp_path / "files" / FOLDERS[A2] / f"{A2}.dcm", FILM)
    index = open_dataset(tmp_path)
    assert index.notes[0] == "layout: MIMIC-CXR, because cxr-record-list.csv.gz is in it"
    assert set(column(index, "view").values()) == {None}
    assert column(index, "path")[A2] == f"files/{FOLDERS[A2]}/{A2}.dcm"
    assert any(
        note.startswith("views: not in cxr-record-list.csv.gz, so that side views stay in") for note in index.notes
    )
    assert "width" not in index.table.column_names


def test_another_vocabulary(tmp_path: Path) -> None:
    index = open_dataset(dataset(tmp_path), Reading(vocabulary="chestxray14"))
    assert "Effusion" in index.findings
    assert "Pleural Effusion" not in index.findings
    assert index.labels(["Effusion"])[0].tolist() == [0]


@pytest.mark.parametrize("form", ["jpg", "dicom"])
def test_the_miniature(tmp_path: Path, form: Literal["jpg", "dicom"]) -> None:
    made = cases()
    folder = write(tmp_path, made, form)
    index = open_dataset(tmp_path)  # one folder, and again one, above
    assert index.root == folder
    assert len(index) == len(made) == 32
    assert Counter(column(index, "split").values()) == Counter(case.split for case in made)
    for name in ("Cardiomegaly", "Pneumothorax"):
        assert (index.labels([name]) == 1).sum() == sum(name in case.findings for case in made) == 16
    assert {len(str(name)) for name in column(index, "path")} == {44}
    report = check.run(check.Check(tmp_path))
    assert [(fault.kind, fault.level, fault.count) for fault in report.faults] == [
        ("lateral view, and frontal ones are asked for", "warning", 1)
    ]
    assert report.sizes == {(60, 48): 32}
