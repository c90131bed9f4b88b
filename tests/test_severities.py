"""How severe findings are: files of every form, aligned with an index."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.severities import Severities, severities_of
from cxrmine.errors import CxrError
from cxrmine.stages import check
from cxrmine.stages.pack import Pack
from cxrmine.stages.pack import run as pack

LABELS = """image,patient,split,findings
p1/s11/a.png,1,train,Mass|Effusion
p1/s11/b.png,1,train,Mass
p2/s21/c.png,2,train,Effusion
p2/s22/d.png,2,test,No Finding
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for line in LABELS.splitlines()[1:]:
        path = folder / line.partition(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.arange(40 * 40, dtype=np.uint8).reshape(40, 40))
    (folder / "labels.csv").write_text(LABELS)
    return folder


def found(dataset: Path, text: str = "", name: str = "severity.csv") -> Severities:
    if text:
        (dataset / name).write_text(text)
    return severities_of(open_dataset(dataset))


def values(severities: Severities) -> list[list[int]]:
    """Effusion, Mass."""
    return severities.values.tolist()


def test_without_a_file_nothing_is_known(dataset: Path) -> None:
    assert values(found(dataset)) == [[0, 0]] * 4
    assert found(dataset).sha256 == ""


def test_numbers_and_words_by_image(dataset: Path) -> None:
    text = "image_id,finding,severity\na,Mass,3\na,Effusion,mild\nb.png,Mass,Moderate\nc,Effusion,\n"
    assert values(found(dataset, text)) == [[1, 3], [0, 2], [0, 0], [0, 0]]


def test_the_most_severe_of_several_rows_counts(dataset: Path) -> None:
    text = "image_id,finding,severity\na,Mass,1\na,Mass,3\na,Mass,2\n"
    assert values(found(dataset, text))[0] == [0, 3]


def test_a_study_speaks_of_all_its_films(dataset: Path) -> None:
    text = "study_id,image_id,finding,severity\ns11,,Mass,2\ns21,,Effusion,3\ns99,,Effusion,3\n"
    assert values(found(dataset, text)) == [[0, 2], [0, 2], [3, 0], [0, 0]]


def test_a_study_of_mimic_goes_by_its_number(dataset: Path) -> None:
    labels = (dataset / "labels.csv").read_text().replace("s21", "s50414267")
    (dataset / "labels.csv").write_text(labels)
    (dataset / "p2" / "s21").rename(dataset / "p2" / "s50414267")
    text = "study_id,image_id,finding,severity\n50414267,,Effusion,3\n1,,Effusion,2\n"
    assert values(found(dataset, text)) == [[0, 0], [0, 0], [0, 0], [3, 0]]  # it is the last by its path now


def test_findings_that_are_not_present_have_none_and_it_is_said(dataset: Path) -> None:
    severities = found(dataset, "image_id,finding,severity\nb,Effusion,3\nd,Mass,1\na,Mass,1\n")
    assert values(severities) == [[0, 1], [0, 0], [0, 0], [0, 0]]
    assert severities.notes == (
        "severity: severity.csv: 1 mild, 0 moderate, 0 severe, of 4 findings that are present",
        "severity: 2 are of findings that their film does not have, and do not count",
    )


def test_parquet_as_it_is_written(dataset: Path) -> None:
    table = pa.table({"image_id": ["a", "b"], "finding": ["Mass", "Mass"], "severity": pa.array([None, 2], pa.int8())})
    pq.write_table(table, dataset / "severity.parquet")
    assert values(found(dataset))[:2] == [[0, 0], [0, 2]]


def test_numbers_as_a_table_program_writes_them(dataset: Path) -> None:
    assert values(found(dataset, "image_id,finding,severity\na,Mass,2.0\n"))[0] == [0, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image_id,finding\na,Mass\n", "no column severity"),
        ("finding,severity\nMass,1\n", "no column image_id or study_id"),
        ("image_id,finding,severity\na,Mass,1\nb,Mass,4\n", r"severity is '4' in row 2"),
        ("image_id,finding,severity\na,Mass,0\n", r"severity is '0' in row 1"),
        ("image_id,finding,severity\na,Mass,huge\n", r"'huge'.*Write 1 \(mild\)"),
    ],
)
def test_faults_name_the_file_and_the_row(dataset: Path, text: str, says: str) -> None:
    with pytest.raises(CxrError, match=rf"severity\.csv.*{says}"):
        found(dataset, text)


def test_two_files_are_one_too_many(dataset: Path) -> None:
    (dataset / "severity.parquet").write_bytes(b"")
    with pytest.raises(CxrError, match=r"has severity\.parquet and severity\.csv"):
        found(dataset, "image_id,finding,severity\n")


def test_a_named_file_must_be_there(dataset: Path) -> None:
    with pytest.raises(CxrError, match=r"no file .*none\.csv"):
        severities_of(open_dataset(dataset), str(dataset / "none.csv"))


def test_check_counts_them_and_a_file_that_cannot_be_read_is_a_fault(dataset: Path) -> None:
    (dataset / "severity.csv").write_text("image_id,finding,severity\na,Mass,3\n")
    report = check.run(check.Check(dataset, fast=True))
    assert report.document["notes"][-1].endswith("0 mild, 0 moderate, 1 severe, of 4 findings that are present")
    (dataset / "severity.csv").write_text("image_id,finding,severity\na,Mass,9\n")
    faults = {fault.kind: fault for fault in check.run(check.Check(dataset, fast=True)).faults}
    assert "row 1" in faults["severities that cannot be read"].examples[0]


def test_a_pack_has_them_too(dataset: Path, tmp_path: Path) -> None:
    before = found(dataset, "study_id,image_id,finding,severity\ns11,,Mass,2\n,c,Effusion,3\n")
    pack(Pack(dataset, tmp_path / "pack", size=32))
    assert values(severities_of(open_dataset(tmp_path / "pack"))) == values(before)
