"""Montgomery County: labels in the films' names, masks of two lungs in folders whose sides are not to be trusted."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrmine.data.datasets import open_dataset
from cxrmine.data.organs import read_mask, with_masks
from cxrmine.errors import CxrError
from cxrmine.stages.check import Check
from cxrmine.stages.check import run as check
from cxrmine.stages.pack import Pack
from cxrmine.stages.pack import run as pack
from tests.miniature import HEIGHT, WIDTH, Case, cases, organ_masks, write_png


def name_of(case: Case) -> str:
    return f"MCUCXR_{case.number + 1:04}_{int(bool(case.findings))}"


def write(root: Path, made: list[Case], lies: bool = False) -> Path:
    """As unpacked, one bit a pixel in the masks; `lies`: the folders mean the picture's sides."""
    masks = organ_masks()
    folders = {"left": "right_lung", "right": "left_lung"} if lies else {"left": "left_lung", "right": "right_lung"}
    top = root / "MontgomerySet"
    for case in made:
        write_png(top / "CXR_png" / f"{name_of(case)}.png", case.pixels)
        for side, organ in folders.items():
            path = top / "ManualMask" / f"{side}Mask" / f"{name_of(case)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            inside = masks[organ].astype(np.uint8) * 255
            path.write_bytes(cv2.imencode(".png", inside, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes())
        text = top / "ClinicalReadings" / f"{name_of(case)}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("Patient's Sex: F\nPatient's Age: 027Y\nnormal\n")
    (root / "NLM-MontgomeryCXRSet-ReadMe.pdf").write_bytes(b"%PDF-1.4\n")
    (top / "CXR_png" / "Thumbs.db").write_bytes(b"\0")
    return root


@pytest.mark.parametrize("inside", [False, True])
def test_the_real_form(tmp_path: Path, inside: bool) -> None:
    made = cases(8)
    root = write(tmp_path, made)
    index = open_dataset(root / "MontgomerySet" if inside else root)
    before = "" if inside else "MontgomerySet/"
    assert index.layout == "Montgomery County"
    assert index.notes[0] == f"layout: Montgomery County, because {before}CXR_png/MCUCXR_0001_0.png is in it"
    assert index.findings == ("Tuberculosis",)
    assert index.labels()[:, 0].tolist() == [int(bool(case.findings)) for case in made]
    assert index.table["image_id"].to_pylist() == index.table["patient_id"].to_pylist()
    assert index.table["path"].to_pylist()[1] == f"{before}CXR_png/MCUCXR_0002_1.png"
    assert index.dropped == ()
    assert index.organs is not None
    assert index.organs.num_rows == 16
    assert "organs: masks beside the films, left_lung 8, right_lung 8; a pack does not carry them" in index.notes


@pytest.mark.parametrize("lies", [False, True])
def test_sides_are_the_patients_whatever_the_folders_mean(tmp_path: Path, lies: bool) -> None:
    index = open_dataset(write(tmp_path, cases(6), lies))
    assert index.organs is not None
    assert sum("left and right are swapped" in note for note in index.notes) == lies
    for mask in index.organs.to_pylist():
        assert (f"ManualMask/{mask['organ'][:-5]}Mask" in mask["path"]) != lies
        assert (read_mask(index.root / mask["path"]) == organ_masks()[mask["organ"]]).all()


def test_check_and_pack(tmp_path: Path) -> None:
    root = write(tmp_path / "data", cases(8), lies=True)
    report = check(Check(root, workers=1))
    assert report.ok, report.faults
    packed = pack(Pack(root, tmp_path / "pack", 32, "pad", workers=1)).index
    assert packed.fingerprint == report.index.fingerprint
    assert packed.organs is None
    assert {packed.films.size(path) for path in packed.table["path"].to_pylist()} == {(WIDTH, HEIGHT)}


def test_what_an_organ_network_learns_from(tmp_path: Path) -> None:
    root = write(tmp_path, cases(8)) / "MontgomerySet"
    (root / "ManualMask/leftMask/MCUCXR_0002_1.png").unlink()
    (root / "ManualMask/rightMask/MCUCXR_0002_1.png").unlink()
    (root / "ManualMask/leftMask/MCUCXR_0003_1.png").unlink()
    (root / "CXR_png/MCUCXR_0008_1.png").unlink()
    index = open_dataset(root)
    assert {entry.reason: entry.count for entry in index.dropped} == {
        "no file for this mask": 3,
        "mask without its film": 2,
    }
    ready = with_masks(index)
    assert ready.findings == ("left_lung", "right_lung")
    assert ready.labels().tolist() == [[1, 1], [-128, 1], [1, 1], [1, 1], [1, 1], [1, 1]]
    assert ready.table["image_id"].to_pylist()[1] == "MCUCXR_0003_1"
    assert (
        ready.table["split"].to_pylist()
        == index.filter(np.array([True, False, *[True] * 5])).table["split"].to_pylist()
    )
    assert (ready.dropped[-1].reason, ready.dropped[-1].count) == ("film without the mask of an organ", 1)


def test_an_archive_of_it(tmp_path: Path) -> None:
    root = write(tmp_path / "above", cases(4), lies=True)
    archive = Path(shutil.make_archive(str(tmp_path / "NLM-MontgomeryCXRSet"), "zip", root))
    index, loose = open_dataset(archive, archives=True), open_dataset(root)
    assert index.organs is not None
    assert loose.organs is not None
    assert index.organs == loose.organs
    assert index.notes == loose.notes
    there = tmp_path / "there"
    there.mkdir()
    archive.rename(there / archive.name)
    assert len(open_dataset(there, archives=True)) == 4


def test_a_table_of_ones_own_counts_more(tmp_path: Path) -> None:
    root = write(tmp_path, cases(4)) / "MontgomerySet"
    (root / "montgomery_metadata.csv").write_text("study_id,findings\nMCUCXR_0001_0.png,normal\n")
    assert open_dataset(root).layout == "Montgomery County"
    (root / "mine.csv").write_text("image,findings\nMCUCXR_0001_0.png,Mass\n")
    (root / "montgomery_metadata.csv").unlink()
    assert open_dataset(root).findings == ("Mass",)


def test_shenzhen_is_not_taken_for_it(tmp_path: Path) -> None:
    write_png(tmp_path / "CXR_png" / "CHNCXR_0001_0.png", np.eye(64, dtype=np.uint8))
    with pytest.raises(CxrError, match="in no layout that is known here"):
        open_dataset(tmp_path)
