"""Open-i: labels from the terms that people indexed reports with, the real 3,955 ones and a few by hand."""

import tarfile
from pathlib import Path
from typing import Literal

import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import UNMENTIONED, Index
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError
from tests.miniature import Case, cases, write_dicom, write_png

REPORTS = Path(__file__).parents[2] / "shared" / "data" / "openi" / "NLMCXR_reports.tgz"
needs_real_reports = pytest.mark.skipif(not REPORTS.is_file(), reason="the reports of Open-i are not on this machine")
NAMES = {"Cardiomegaly": "Cardiomegaly", "Pneumothorax": "Pneumothorax"}
TERMS = {"Cardiomegaly": "Cardiomegaly/mild", "Pneumothorax": "Pneumothorax/apex/right/small"}
IMAGES = {
    "Airspace Disease": 224, "Atelectasis": 616, "Calcified Granuloma": 511, "Cardiomegaly": 575, "Cicatrix": 355,
    "Consolidation": 53, "Edema": 87, "Effusion": 284, "Emphysema": 199, "Fibrosis": 34, "Fracture": 165,
    "Granuloma": 103, "Hernia": 86, "Infiltration": 116, "Mass": 32, "Nodule": 211, "Opacity": 840,
    "Pleural_Thickening": 82, "Pneumonia": 77, "Pneumothorax": 54, "Pulmonary Congestion": 135,
}  # fmt: skip


def name_of(case: Case) -> str:
    return f"CXR{case.patient + 2}_IM-{case.patient + 600:04}-{case.number % 2 + 1}001"


def report(number: int, terms: list[str], images: list[str], head: str = "") -> str:
    majors = "".join(f"<major>{term}</major>\n      " for term in terms)
    parents = "".join(f'<parentImage id="{image}"><caption>PA and lateral</caption></parentImage>' for image in images)
    return f"""<?xml version="1.0" encoding="utf-8"?>
{head}<eCitation>
   <uId id="CXR{number}"/>
   <MeSH>
      {majors}<automatic>Fibrosis</automatic>
   </MeSH>
   {parents}
</eCitation>
"""


def write(root: Path, made: list[Case], films: Literal["png", "dicom"] = "png") -> Path:
    """The dataset with a report a film, since the two films of a miniature's patient differ in what they show."""
    for case in made:
        terms = [TERMS[finding] for finding in case.findings] or ["normal"]
        put(root, case.number + 1, report(case.patient + 2, terms, [name_of(case)]))
        if films == "png":
            write_png(root / "NLMCXR_png" / f"{name_of(case)}.png", case.pixels)
        else:
            name = name_of(case).removeprefix("CXR")
            write_dicom(root / "NLMCXR_dcm" / str(case.patient + 2) / f"{name}.dcm", case.pixels)
    return root


def put(root: Path, number: int, text: str) -> None:
    (root / "ecgen-radiology").mkdir(parents=True, exist_ok=True)
    (root / "ecgen-radiology" / f"{number}.xml").write_text(text, encoding="utf-8")


def labels(index: Index, *findings: str) -> dict[str, list[int]]:
    return dict(zip(index.table["image_id"].to_pylist(), index.labels(findings).tolist(), strict=True))


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


# --- the real reports


@needs_real_reports
def test_real_counts(tmp_path: Path) -> None:
    """95 reports have `No Indexing` and nothing else, 6 only that the film is poor: together 186 films."""
    (tmp_path / "NLMCXR_reports.tgz").symlink_to(REPORTS)
    index = open_dataset(tmp_path, archives=True)
    assert index.layout == "Open-i"
    assert len(index) == 7_470
    assert len(set(index.table["patient_id"].to_pylist())) == 3_955 - 104
    assert "labels: MeSH major terms of 3,955 reports; 101 are not indexed, 104 have no film" in index.notes
    assert index.dropped == ()
    assert dict(zip(index.findings, (index.labels() == 1).sum(axis=0).tolist(), strict=True)) == IMAGES
    assert labels(index, "Cardiomegaly")["CXR1_1_IM-0001-3001"] == [0]
    assert int((index.labels(["Cardiomegaly"]) == -1).sum()) == 80
    assert int((index.labels(["Mass"]) == UNMENTIONED).sum()) == 186
    assert index.table["view"].null_count == index.table["path"].null_count == 7_470


# --- the miniature


def test_the_miniature(tmp_path: Path) -> None:
    made = cases()
    index = open_dataset(write(tmp_path, made))
    assert index.notes[0] == "layout: Open-i, because ecgen-radiology is in it"
    assert index.findings == ("Cardiomegaly", "Pneumothorax")
    assert labels(index, *NAMES) == {name_of(case): [int(name in case.findings) for name in NAMES] for case in made}
    rows = {row["image_id"]: row for row in index.table.to_pylist()}
    for case in made:
        assert rows[name_of(case)]["patient_id"] == f"CXR{case.patient + 2}"
        assert rows[name_of(case)]["path"] == f"NLMCXR_png/{name_of(case)}.png"
    assert index.boxes.num_rows == 0
    assert index.dropped == ()


def test_archives(tmp_path: Path) -> None:
    root = write(tmp_path / "unpacked", cases(4))
    packed = tmp_path / "packed"
    packed.mkdir()
    for archive, folder in (("NLMCXR_reports.tgz", "ecgen-radiology"), ("NLMCXR_png.tgz", "NLMCXR_png")):
        with tarfile.open(packed / archive, "w:gz") as tar:
            for file in sorted((root / folder).iterdir()):
                tar.add(file, f"{folder}/{file.name}" if archive == "NLMCXR_reports.tgz" else file.name)
    index = open_dataset(packed, archives=True)
    assert index.table["path"].to_pylist()[0] == "NLMCXR_png.tgz/CXR2_IM-0600-1001.png"
    assert index.table.drop(["path"]) == open_dataset(root).table.drop(["path"])
    with pytest.raises(CxrError, match="in no layout"):
        open_dataset(packed)


def test_dicom_and_kaggle_names(tmp_path: Path) -> None:
    made = cases(4)
    root = write(tmp_path, made, films="dicom")
    put(root, 90, report(1, ["normal"], ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]))
    write_dicom(root / "NLMCXR_dcm/1/1_IM-0001-3001.dcm", made[0].pixels)
    write_png(root / "images_normalized/1_IM-0001-4001.dcm.png", made[0].pixels)
    index = open_dataset(root)
    assert index.table["path"].to_pylist() == [
        "NLMCXR_dcm/1/1_IM-0001-3001.dcm",
        "images_normalized/1_IM-0001-4001.dcm.png",
        *(f"NLMCXR_dcm/{n}/{n}_IM-060{n - 2}-{f}001.dcm" for n in (2, 3) for f in (1, 2)),
    ]
    assert index.dropped == ()


def test_views_come_from_kaggles_table(tmp_path: Path) -> None:
    root = write(tmp_path, cases(4))
    assert any(note.startswith("views: the reports do not say them") for note in open_dataset(root).notes)
    rows = "2,2_IM-0600-1001.dcm.png,Frontal\n2,2_IM-0600-2001.dcm.png,Lateral\n3,3_IM-0601-1001.dcm.png,Frontal\n"
    (root / "indiana_projections.csv").write_text(f"uid,filename,projection\n{rows}")
    index = open_dataset(root)
    assert index.table["view"].to_pylist() == ["FRONTAL", "FRONTAL", None]
    assert reasons(index) == {"lateral view, and frontal ones are asked for": 1}
    assert len(open_dataset(root, Reading(views="all"))) == 4


# --- by hand


def test_terms(tmp_path: Path) -> None:
    """Emphysema under the skin is none of the lungs, and Fibrosis is only what a program found."""
    terms = {
        "a": ["Cardiomegaly/borderline", "Opacity/lung/base/left", "Thickening/pleura/right", "Markings/lung"],
        "b": ["Cardiomegaly", "Cardiomegaly/borderline", "Hydropneumothorax/left", "Thickening/bronchi"],
        "c": ["No Indexing"],
        "d": ["Technical Quality of Image Unsatisfactory "],
        "e": [],
        "f": ["Lung/hypoinflation", "Technical Quality of Image Unsatisfactory "],
        "g": ["normal"],
        "h": ["Hernia, Hiatal/large", "Subcutaneous  Emphysema", "normal"],
    }
    for number, (image, words) in enumerate(terms.items()):
        put(tmp_path, number, report(number, words, [image]))
    index = open_dataset(tmp_path)
    assert index.findings == ("Cardiomegaly", "Hernia", "Opacity", "Pleural_Thickening", "Pneumothorax")
    silent = [UNMENTIONED] * 4
    assert labels(index, "Cardiomegaly", "Opacity", "Pleural_Thickening", "Pneumothorax") == {
        "a": [-1, 1, 1, 0], "b": [1, 0, 0, 1], "c": silent, "d": silent, "e": silent,
        "f": [0, 0, 0, 0], "g": [0, 0, 0, 0], "h": [0, 0, 0, 0],
    }  # fmt: skip
    assert labels(index, "Hernia")["h"] == [1]
    assert "labels: MeSH major terms of 8 reports; 3 are not indexed, 0 have no film" in index.notes


BOMB = '<!DOCTYPE e [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>\n'


def test_reports_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    put(tmp_path, 1, report(1, ["Opacity"], ["a"]))
    put(tmp_path, 2, report(2, ["&b;"], ["b"], BOMB))
    put(tmp_path, 3, report(3, ["Mass"], ["c"], '<!DOCTYPE e SYSTEM "file:///etc/passwd">\n'))
    put(tmp_path, 4, report(4, ["Mass"], ["d"])[:-20])
    put(tmp_path, 5, report(5, ["Mass"], ["e"]).replace("uId", "other"))
    put(tmp_path, 6, "")
    swollen = report(7, ["&b;"], ["f"], BOMB).replace("utf-8", "utf-16").encode("utf-16")
    (tmp_path / "ecgen-radiology" / "7.xml").write_bytes(swollen)
    index = open_dataset(tmp_path)
    assert index.table["image_id"].to_pylist() == ["a"]
    assert [(entry.reason, entry.count) for entry in index.dropped] == [("report that cannot be read", 6)]


def test_missing_film_film_without_a_report_and_an_image_twice(tmp_path: Path) -> None:
    made = cases(4)
    root = write(tmp_path, made)
    (root / f"NLMCXR_png/{name_of(made[1])}.png").unlink()
    write_png(root / "NLMCXR_png/stranger.png", made[0].pixels)
    put(root, 99, report(99, ["normal"], [name_of(made[3]), "../outside"]))
    index = open_dataset(root)
    assert index.table["path"].is_valid().to_pylist() == [True, False, True, True]
    assert labels(index, "Cardiomegaly")[name_of(made[3])] == [1]  # of the report that comes first by name
    assert reasons(index) == {"second row of an image": 1, "unsafe image name": 1, "file without a row": 1}


def test_films_alone_are_no_dataset(tmp_path: Path) -> None:
    root = write(tmp_path, cases(2))
    for file in (root / "ecgen-radiology").iterdir():
        file.unlink()
    with pytest.raises(CxrError, match="in no layout"):
        open_dataset(root)
