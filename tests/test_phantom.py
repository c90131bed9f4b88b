"""The phantom: the same bytes for the same seed, real box statistics, tight boxes, ChestX-ray14's own layout."""

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from cxrmine.data.phantom.canvas import bounds
from cxrmine.data.phantom.cohort import Case, cases, render
from cxrmine.data.phantom.findings import FINDINGS, lesion_mask
from cxrmine.data.phantom.reports import WORDS
from cxrmine.errors import CxrError
from cxrmine.stages.phantom import Phantom, run

# 25th, 50th, 75th percentile of the 984 boxes of ChestX-ray14, in fractions of the film: distance of the centre from
# the middle, height of the centre, width, height
REAL = {
    "Atelectasis": ((0.149, 0.200, 0.259), (0.499, 0.572, 0.652), (0.125, 0.167, 0.240), (0.081, 0.115, 0.181)),
    "Cardiomegaly": ((0.044, 0.074, 0.103), (0.525, 0.566, 0.617), (0.435, 0.466, 0.500), (0.336, 0.373, 0.406)),
    "Effusion": ((0.225, 0.279, 0.313), (0.474, 0.560, 0.645), (0.153, 0.203, 0.259), (0.154, 0.271, 0.450)),
    "Infiltration": ((0.105, 0.177, 0.216), (0.456, 0.519, 0.597), (0.189, 0.222, 0.256), (0.188, 0.259, 0.385)),
    "Mass": ((0.119, 0.194, 0.243), (0.370, 0.446, 0.528), (0.094, 0.117, 0.166), (0.099, 0.138, 0.226)),
    "Nodule": ((0.179, 0.243, 0.289), (0.353, 0.467, 0.606), (0.053, 0.069, 0.085), (0.055, 0.067, 0.078)),
    "Pneumonia": ((0.140, 0.190, 0.216), (0.482, 0.556, 0.621), (0.185, 0.223, 0.258), (0.190, 0.269, 0.369)),
    "Pneumothorax": ((0.174, 0.199, 0.233), (0.181, 0.253, 0.435), (0.127, 0.197, 0.256), (0.118, 0.201, 0.292)),
}
PLACE_MEDIAN, PLACE_QUARTILE = 0.06, 0.09  # absolute
SIZE_MEDIAN, SIZE_QUARTILE = 0.18, 0.25  # relative


@pytest.fixture(scope="module")
def cohort() -> list[Case]:
    return list(cases(2000, seed=0))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    run(Phantom(folder, images=48, size=128, seed=3, workers=1))
    return folder


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.fixture(scope="module")
def measured(cohort: list[Case], size: int = 256) -> dict[str, np.ndarray]:
    """Per finding |centre - middle|, centre height, width, height of every lesion."""
    found = defaultdict(list)
    for case in cohort:
        for lesion in case.lesions:
            x0, y0, x1, y1 = np.array(bounds(lesion_mask(lesion, case.person, size))) / size
            found[lesion.finding].append((abs((x0 + x1) / 2 - 0.5), (y0 + y1) / 2, x1 - x0, y1 - y0))
    return {finding: np.array(rows) for finding, rows in found.items()}


def test_same_seed_same_bytes_whoever_draws(written: Path, tmp_path: Path) -> None:
    run(Phantom(tmp_path / "two", images=48, size=128, seed=3, workers=2))
    assert digest(tmp_path / "two") == digest(written)


def test_another_seed_other_films(written: Path, tmp_path: Path) -> None:
    run(Phantom(tmp_path / "other", images=2, size=128, seed=4, workers=1))
    name = "images/00000001_000.png"
    assert (tmp_path / "other" / name).read_bytes() != (written / name).read_bytes()


def test_a_longer_cohort_begins_with_the_shorter(cohort: list[Case]) -> None:
    # the last patient of a list may be cut short, and nothing else
    assert [case.report for case in cases(50, seed=0)] == [case.report for case in cohort[:50]]


@pytest.mark.parametrize("finding", FINDINGS)
def test_boxes_lie_and_measure_as_the_real_ones(measured: dict[str, np.ndarray], finding: str) -> None:
    quartiles = np.percentile(measured[finding], [25, 50, 75], axis=0).T
    for row, real, what in zip(quartiles, REAL[finding], ("aside", "down", "width", "height"), strict=True):
        for ours, theirs, middle in zip(row, real, (False, True, False), strict=True):
            if what in ("aside", "down"):
                tolerance = PLACE_MEDIAN if middle else PLACE_QUARTILE
            else:
                tolerance = theirs * (SIZE_MEDIAN if middle else SIZE_QUARTILE)
            assert abs(ours - theirs) <= tolerance, f"{finding} {what}: {ours:.3f}, real {theirs:.3f}"


def test_prevalence_and_pairs(cohort: list[Case]) -> None:
    normal = np.mean([not case.lesions for case in cohort])
    assert 0.45 <= normal <= 0.55
    positives, doubled = Counter(), Counter()
    for case in cohort:
        per = Counter(lesion.finding for lesion in case.lesions)
        positives.update(per.keys())
        doubled.update(finding for finding, n in per.items() if n == 2)
        assert max(per.values(), default=0) <= 2
    assert min(positives[f] for f in FINDINGS) > 0.04 * len(cohort)
    for finding in ("Atelectasis", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"):
        assert 0.12 < doubled[finding] / positives[finding] < 0.35
    assert not doubled["Cardiomegaly"]
    assert not doubled["Pneumothorax"]
    assert sum(len(case.findings) > 1 for case in cohort) > 0.05 * len(cohort)
    severities = Counter(lesion.severity for case in cohort for lesion in case.lesions)
    assert set(severities) == {1, 2, 3}
    assert min(severities.values()) > 0.1 * severities.total()


def test_a_large_heart_is_larger_than_any_normal_one(cohort: list[Case]) -> None:
    for case in cohort:
        assert (case.person.ctr >= 0.53) == ("Cardiomegaly" in case.findings)
        assert 0.40 <= case.person.ctr <= 0.65


def test_boxes_are_the_tight_bounds_of_masks(cohort: list[Case]) -> None:
    seen = set()
    for case in (c for c in cohort[:120] if set(c.findings) - seen):
        seen |= set(case.findings)
        film = render(case, 128)
        assert film.gray.shape == (128, 128)
        assert film.gray.max() <= 4095
        for mask, (x0, y0, x1, y1) in zip(film.masks, film.boxes, strict=True):
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 128
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert mask[y0].any()
            assert mask[y1 - 1].any()
            assert mask[:, x0].any()
            assert mask[:, x1 - 1].any()
    assert seen == set(FINDINGS)


def test_twice_the_size_twice_the_box(cohort: list[Case]) -> None:
    for case in cohort[:200]:
        for lesion in case.lesions:
            small = np.array(bounds(lesion_mask(lesion, case.person, 256)))
            large = np.array(bounds(lesion_mask(lesion, case.person, 512)))
            # a meniscus thins out to nothing: where its tip ends depends on the pixel
            assert np.abs(large - 2 * small).max() <= (8 if lesion.finding in ("Effusion", "Pneumothorax") else 2)


@pytest.mark.parametrize("finding", [f for f in FINDINGS if f != "Cardiomegaly"])
def test_a_lesion_changes_the_film_where_it_is(cohort: list[Case], finding: str) -> None:
    case = next(c for c in cohort if c.findings == (finding,) and len(c.lesions) == 1 and c.lesions[0].severity > 1)
    ill, well = render(case, 256), render(replace(case, lesions=()), 256)
    change = ill.gray.astype(float) - well.gray
    near = cv2.dilate(ill.masks[0].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    inside, outside = change[ill.masks[0]].mean(), np.abs(change[~near]).mean()
    assert inside < -60 if finding == "Pneumothorax" else inside > 100
    assert outside < 0.1 * abs(inside)


def test_severe_is_plainer_than_mild(cohort: list[Case]) -> None:
    case = next(c for c in cohort if c.findings == ("Mass",) and len(c.lesions) == 1)
    well = render(replace(case, lesions=()), 256).gray.astype(float)
    contrast = []
    for severity in (1, 2, 3):
        film = render(replace(case, lesions=(replace(case.lesions[0], severity=severity),)), 256)
        contrast.append((film.gray - well)[film.masks[0]].mean())
    assert contrast[0] < contrast[1] < contrast[2]


def test_files_are_chestxray14s_own(written: Path) -> None:
    entries = (written / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    assert entries[0] == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    rows = [line.split(",") for line in entries[1:]]
    assert len(rows) == 48
    assert {len(row) for row in rows} == {11}
    names = [row[0] for row in rows]
    assert names == sorted(p.name for p in (written / "images").iterdir())
    assert all(row[0] == f"{int(row[3]):08d}_{int(row[2]):03d}.png" for row in rows)
    known = {*FINDINGS, "No Finding"}
    assert all(set(row[1].split("|")) <= known and row[6] in ("PA", "AP") for row in rows)

    listed = (written / "BBox_List_2017.csv").read_text().splitlines()
    assert listed[0] == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    lists = {n: (written / f"{n}_list.txt").read_text() for n in ("train_val", "test")}
    assert not any(text.endswith("\n") for text in lists.values())
    train, test = (set(lists[n].split("\n")) for n in ("train_val", "test"))
    assert sorted(train | test) == names
    assert not {n[:8] for n in train} & {n[:8] for n in test}
    labels = {row[0]: row[1].split("|") for row in rows}
    for line in listed[1:]:
        name, label, x, y, w, h = line.split(",")
        assert name in test
        assert label.replace("Infiltrate", "Infiltration") in labels[name]
        assert float(x) >= 0
        assert float(w) > 0
        assert float(x) + float(w) <= 128
        assert float(y) + float(h) <= 128


def test_truth_holds_every_lesion(written: Path) -> None:
    truth = pq.ParquetFile(written / "truth.parquet").read().to_pylist()
    rows = [line.split(",") for line in (written / "Data_Entry_2017_v2020.csv").read_text().splitlines()[1:]]
    labels = {(row[0], f) for row in rows for f in row[1].split("|") if f != "No Finding"}
    assert {(box["image_id"], box["finding"]) for box in truth} == labels
    assert {box["source"] for box in truth} == {"truth"}
    assert {box["image_width"] for box in truth} == {128}
    made = json.loads((written / "phantom.json").read_text())
    assert made["seed"] == 3
    assert made["generator"] == "1"
    assert made["counts"]["boxes"] == len(truth)
    tests = set((written / "test_list.txt").read_text().split("\n"))
    assert all((box["split"] == "test") == (box["image_id"] in tests) for box in truth)


def test_reports_and_severity_agree(written: Path) -> None:
    reports = dict(line.split(",", 1) for line in (written / "reports.csv").read_text().splitlines()[1:])
    severity = [line.split(",") for line in (written / "severity.csv").read_text().splitlines()]
    assert severity[0] == ["image_id", "finding", "severity"]
    assert len(reports) == 48
    for name, _, grade in severity[1:]:
        assert any(word in reports[name].lower() for word in WORDS[int(grade) - 1])


def test_organs_are_masks_of_the_right_sides(written: Path) -> None:
    for path in sorted((written / "organs" / "heart").iterdir())[:6]:
        masks = {
            o: cv2.imread(str(written / "organs" / o / path.name), -1) for o in ("left_lung", "right_lung", "heart")
        }
        assert all(m.shape == (128, 128) and set(np.unique(m)) == {0, 255} for m in masks.values())
        centres = {organ: np.argwhere(m).mean(0)[1] for organ, m in masks.items()}
        assert centres["right_lung"] < centres["heart"] < centres["left_lung"]  # the patient's right is on our left
        assert not (masks["heart"] & masks["left_lung"]).any()


def test_dicom_holds_twelve_bits_and_no_clock(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        run(Phantom(tmp_path / folder, images=3, size=128, format="dicom", workers=1))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    paths = sorted((tmp_path / "a" / "images").iterdir())
    assert [p.suffix for p in paths] == [".dcm"] * 3
    data = pydicom.dcmread(paths[0])
    assert (data.BitsStored, data.HighBit, data.PhotometricInterpretation) == (12, 11, "MONOCHROME2")
    assert data.PatientID == "1"
    assert len({pydicom.dcmread(p).SOPInstanceUID for p in paths}) == 3
    film = render(next(cases(1, seed=0)), 128)
    assert np.array_equal(data.pixel_array, film.gray)
    assert film.gray.max() > 255
    assert (tmp_path / "a" / "Data_Entry_2017_v2020.csv").read_text().splitlines()[1].startswith("00000001_000.dcm,")


@pytest.mark.parametrize(
    "wrong", [{"images": 0}, {"size": 10}, {"format": "tiff"}, {"seed": -1}], ids=lambda w: next(iter(w))
)
def test_what_cannot_be_made_is_said(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(CxrError) as error:
        run(replace(Phantom(tmp_path / "x"), **wrong))
    assert error.value.cure
    assert not (tmp_path / "x").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CxrError, match="not empty"):
        run(Phantom(tmp_path, images=1, size=64))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
