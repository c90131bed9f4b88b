"""PadChest: lists written as text, cells of several lines, six projections, and 54 folders."""

import csv
import gzip
from pathlib import Path

import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import UNMENTIONED, Index
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError
from tests.miniature import HEIGHT, WIDTH, Case, cases, write_png

NAMES = {"Cardiomegaly": "cardiomegaly", "Pneumothorax": "pneumothorax"}
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = (
    "", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
    "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Modality_DICOM", "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM", "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM", "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM",
    "Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime",
    "RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations",
    "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS",
)  # fmt: skip
SIXTEEN_BITS = 257  # 255 × 257 = 65,535


def name_of(case: Case) -> str:
    return f"2168401113669640128198070611120103061{case.number:05}_04-020-{case.number:03}.png"


def entry(image: str, labels: str, patient: str, **others: str) -> dict[str, str]:
    """A row; the study's other columns as they are in the real table, the last with a cell of two lines."""
    fixed = {
        "ImageDir": "0", "StudyDate_DICOM": "20140915", "StudyID": "20536686640136348236148679891455886468",
        "PatientBirth": "1930.0", "PatientSex_DICOM": "F", "ViewPosition_DICOM": "POSTEROANTERIOR", "Projection": "PA",
        "MethodProjection": "Manual review of DICOM fields", "Pediatric": "No", "Rows_DICOM": str(HEIGHT),
        "Columns_DICOM": str(WIDTH), "ReportID": "4765777", "Report": "sin hallazgos patologicos , edad paciente .",
        "MethodLabel": "Physician", "Localizations": "['loc right', ' loc basal']",
        "LabelsLocalizationsBySentence": "[['normal'], ['normal']]",
        "LocalizationsCUIS": "['C0444532' 'C1282378' 'C0205091' 'C0225706' 'C0929227'\n 'C1253959']",
    }  # fmt: skip
    return fixed | {"ImageID": image, "Labels": labels, "PatientID": patient} | others


def put(root: Path, rows: list[dict[str, str]], name: str = TABLE, header: tuple[str, ...] = HEADER) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, header, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows({"": str(number)} | row for number, row in enumerate(rows))
    return root


def write(root: Path, made: list[Case]) -> Path:
    """The dataset: 16-bit films, eight a folder."""
    rows = []
    for case in made:
        folder = str(case.number // 8)
        write_png(root / folder / name_of(case), case.pixels.astype("uint16") * SIXTEEN_BITS)
        found = str([f" {NAMES[finding]}" for finding in case.findings] or ["normal"])
        rows.append(entry(name_of(case), found, f"{case.patient:036}", ImageDir=folder))
    return put(root, rows)


def labels(index: Index, *findings: str) -> dict[str, list[int]]:
    return dict(zip(index.table["image_id"].to_pylist(), index.labels(findings).tolist(), strict=True))


def reasons(index: Index) -> dict[str, int]:
    return {entry.reason: entry.count for entry in index.dropped}


def test_the_miniature(tmp_path: Path) -> None:
    made = cases()
    index = open_dataset(write(tmp_path, made))
    assert index.layout == "PadChest"
    assert index.notes[0] == f"layout: PadChest, because {TABLE} is in it"
    assert index.findings == ("cardiomegaly", "pneumothorax")
    found = {name_of(case): [int(name in case.findings) for name in NAMES] for case in made}
    assert labels(index, *NAMES.values()) == found
    for row, case in zip(index.table.to_pylist(), made, strict=True):
        assert row["image_id"] == name_of(case)
        assert row["path"] == f"{case.number // 8}/{name_of(case)}"
        assert row["patient_id"] == f"{case.patient:036}"
        assert (row["width"], row["height"], row["view"]) == (60, 48, "PA")
    assert set(index.table["split"].to_pylist()) == {"train", "val", "test"}
    assert index.dropped == ()
    assert "labelled by: Physician 32" in index.notes


def test_packed_and_flat(tmp_path: Path) -> None:
    made = cases(16)
    root = write(tmp_path, made)
    (root / f"{TABLE}.gz").write_bytes(gzip.compress((root / TABLE).read_bytes()))
    (root / TABLE).unlink()
    (root / "images").mkdir()
    for case in made:
        (root / str(case.number // 8) / name_of(case)).rename(root / "images" / name_of(case))
    index = open_dataset(root)
    assert index.table["path"].to_pylist() == [f"images/{name_of(case)}" for case in made]


def test_lists_of_labels(tmp_path: Path) -> None:
    """As they are in the real table: blanks, capitals, quotes of both kinds, a label twice, an empty one, nothing."""
    texts = {
        "a": "['pleural effusion', ' Pleural  Effusion', 'NSG tube']",
        "b": "[\"chilaiditi's sign\", 'normal']",
        "c": "['normal']",
        "d": "['exclude']",
        "e": "['unchanged', 'suboptimal study']",
        "f": "['', 'unchanged', 'normal']",
        "g": "nan",
        "h": "",
        "i": "[]",
        "j": "['exclude', 'nsg tube']",
    }
    index = open_dataset(put(tmp_path, [entry(f"{name}.png", text, name) for name, text in texts.items()]))
    assert index.findings == ("chilaiditi's sign", "nsg tube", "pleural effusion")
    silent = [UNMENTIONED] * 3
    assert labels(index, *index.findings) == {
        "a.png": [0, 1, 1], "b.png": [1, 0, 0], "c.png": [0, 0, 0], "d.png": silent, "e.png": silent,
        "f.png": [0, 0, 0], "g.png": silent, "h.png": silent, "i.png": silent, "j.png": [0, 1, 0],
    }  # fmt: skip


def test_projections(tmp_path: Path) -> None:
    """Ribs and no chest are left out whatever is asked for; their films are known, so they are no strangers."""
    views = ("PA", "AP", "AP_horizontal", "L", "COSTAL", "EXCLUDE", "UNK", "")
    root = put(tmp_path, [entry(f"{n}.png", "['mass']", f"p{n}", Projection=view) for n, view in enumerate(views)])
    for number in range(len(views)):
        write_png(root / "0" / f"{number}.png", cases(1)[0].pixels)
    index = open_dataset(root)
    assert index.table["view"].to_pylist() == ["PA", "AP", "AP_horizontal", None, None]
    assert reasons(index) == {
        "no film of a chest, as the dataset says": 2,
        "lateral view, and frontal ones are asked for": 1,
    }
    assert "views: unknown of 2 films, which stay in" in index.notes
    assert open_dataset(root, Reading(views="all")).table["view"].to_pylist()[3] == "LATERAL"


def test_sizes_and_methods(tmp_path: Path) -> None:
    rows = [
        entry("a.png", "['mass']", "1", Rows_DICOM="4280.0", Columns_DICOM="3520", MethodLabel="RNN_model"),
        entry("b.png", "['mass']", "2", Rows_DICOM="", Columns_DICOM="0"),
        entry("c.png", "['mass']", "3", Rows_DICOM="12.5", Columns_DICOM="99999999999"),
    ]
    index = open_dataset(put(tmp_path, rows))
    assert index.table["height"].to_pylist() == [4280, None, None]
    assert index.table["width"].to_pylist() == [3520, None, None]
    assert "labelled by: Physician 2, RNN_model 1" in index.notes


def test_cells_of_several_lines_in_a_long_table(tmp_path: Path) -> None:
    """2.4 MB, more than what is read at once: a break inside of a cell must not begin a row."""
    rows = [entry(f"{n:05}.png", "['mass']", str(n), Report="x" * 400) for n in range(3_000)]
    index = open_dataset(put(tmp_path, rows))
    assert len(index) == 3_000
    assert index.dropped == ()
    assert index.table["patient_id"].to_pylist()[-1] == "2999"


def test_films_that_are_missing_strange_or_twice_and_rows_that_are(tmp_path: Path) -> None:
    made = cases(8)
    root = write(tmp_path, made)
    (root / "0" / name_of(made[1])).unlink()
    write_png(root / "0/stranger.png", made[0].pixels)
    write_png(root / "53" / name_of(made[2]), made[2].pixels)
    with (root / TABLE).open("a") as table:
        table.write((root / TABLE).read_text().split("\n", 1)[1].split("\n8,")[0].split("\n1,")[0] + "\n")
        table.write("9,short.png,0\n")
    index = open_dataset(root)
    assert index.table["path"].is_valid().to_pylist() == [True, False] + [True] * 6
    assert index.table["path"].to_pylist()[2] == f"0/{name_of(made[2])}"
    assert reasons(index) == {
        f"{TABLE}: another number of fields than its header": 1,
        "second row of an image": 1,
        "file without a row": 1,
        "second file of an image": 1,
    }


def test_a_table_of_few_columns(tmp_path: Path) -> None:
    index = open_dataset(put(tmp_path, [entry("a.png", "['mass']", "1")], header=("ImageID", "PatientID", "Labels")))
    assert index.table["view"].to_pylist() == [None]
    assert "width" not in index.table.column_names
    assert "views: no column Projection, so lateral films stay in" in index.notes
    with pytest.raises(CxrError, match="has no column Labels"):
        open_dataset(put(tmp_path, [], header=("ImageID", "PatientID")))


def test_two_tables_are_an_error(tmp_path: Path) -> None:
    put(tmp_path, [entry("a.png", "['mass']", "1")])
    put(tmp_path, [entry("a.png", "['mass']", "1")], name="PADCHEST_chest_x_ray_images_labels_mine.csv")
    with pytest.raises(CxrError, match="2 tables of labels"):
        open_dataset(tmp_path)
