"""ROC curves: their corners by hand, the area under them, the CSV, the picture, and `cxrmine score --roc`."""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrmine.data.datasets import open_dataset
from cxrmine.report.roc import COLOURS, LEFT, SIDE, TITLE, as_csv, picture
from cxrmine.scoring.classification import auc
from cxrmine.scoring.roc import Curve, Points, points
from tests.score_cases import command, draw, lines, mine

FOUR = np.array([1, 1, 0, 0])
TIED = np.array([0.9, 0.5, 0.5, 0.1])


def corners(labels: list[int], probabilities: list[float]) -> list[tuple[int, int, float]]:
    """(false, true, threshold)"""
    found = points(np.array(labels), np.array(probabilities))
    assert found is not None
    return list(zip(*(column.tolist() for column in found), strict=True))


def curve(labels: np.ndarray, probabilities: np.ndarray) -> Points:
    found = points(labels, probabilities)
    assert found is not None
    return found


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def under(rows: list[dict[str, str]]) -> float:
    """The trapezoids under points as they are written."""
    at = [(float(row["false_positive_rate"]), float(row["true_positive_rate"])) for row in rows]
    return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(at))


# --- corners


def test_four_images_with_a_tie() -> None:
    """One positive alone, then a positive and a negative at once, then a negative: 1/2 · 3/4 + 1/2 · 1."""
    infinite = float("inf")
    assert corners(FOUR.tolist(), TIED.tolist()) == [(0, 0, infinite), (0, 1, 0.9), (1, 2, 0.5), (2, 2, 0.1)]
    assert curve(FOUR, TIED).area == auc(FOUR, TIED) == 0.875
    rates = curve(FOUR, TIED).rates
    assert [rate.tolist() for rate in rates] == [[0, 0, 0.5, 1], [0, 0.5, 1, 1]]


@pytest.mark.parametrize(
    ("labels", "probabilities", "kept"),
    [
        ([1, 1, 1, 0], [0.9, 0.8, 0.7, 0.1], [(0, 3, 0.7), (1, 3, 0.1)]),  # three steps up are one
        ([0, 0, 1, 1], [0.9, 0.8, 0.7, 0.1], [(2, 0, 0.8), (2, 2, 0.1)]),
        ([1, 0, 1, 0], [0.9, 0.9, 0.1, 0.1], [(2, 2, 0.1)]),  # two ties of one slope
        ([1, 0, 0, 1, 1, 0, 0, 0, 0], [0.9] * 3 + [0.1] * 6, [(6, 3, 0.1)]),  # 1:2, then 2:4
        ([1, 0, 0, 1, 0], [0.9, 0.9, 0.9, 0.1, 0.1], [(2, 1, 0.9), (3, 2, 0.1)]),  # 1:2, then 1:1
        ([1, 0], [0.5, 0.5], [(1, 1, 0.5)]),
        ([1, -1, 0, -128], [0.9, 0.8, 0.7, 0.6], [(0, 1, 0.9), (1, 1, 0.7)]),  # uncertain and unmentioned
    ],
)
def test_what_lies_on_a_straight_line_is_left_out(labels: list, probabilities: list, kept: list) -> None:
    assert corners(labels, probabilities)[1:] == kept


@pytest.mark.parametrize("labels", [[], [1, 1], [0], [1, -1], [-128, 0]])
def test_without_both_kinds_there_is_no_curve(labels: list[int]) -> None:
    assert points(np.array(labels, np.int8), np.linspace(0, 1, len(labels))) is None


def test_the_area_is_the_aucs_and_no_point_is_off_the_curve() -> None:
    """Random ties: every threshold's rates lie on the line between the kept corners around them, in whole numbers."""
    rng = np.random.default_rng(5)
    dropped = 0
    for k in range(300):
        labels = np.concatenate([[1, 0], rng.choice([1, 0, -1], int(rng.integers(0, 90)))])
        levels = (1, 2, 3, 10, 1000)[k % 5]
        scores = np.floor(levels * rng.random(len(labels)) + (labels == 1)).astype(np.float32) / np.float32(levels)
        found = curve(labels, scores.astype(np.float64))
        assert found.area == pytest.approx(auc(labels, scores), abs=1e-12)
        written = rows_of(as_csv([Curve("m", "Mass", found)]))
        assert under(written) == pytest.approx(auc(labels, scores), abs=1e-9)
        assert [float(row["threshold"]) for row in written] == found.thresholds.tolist()
        for cut in np.unique(scores[labels >= 0]):
            x, y = (int(((scores >= cut) & (labels == label)).sum()) for label in (0, 1))
            after = int(np.searchsorted(-found.thresholds, -cut))
            (x0, x1), (y0, y1) = (of[after - 1 : after + 1].tolist() for of in (found.false, found.true))
            assert x0 <= x <= x1
            assert y0 <= y <= y1
            assert (x - x0) * (y1 - y0) == (y - y0) * (x1 - x0)
            dropped += cut not in found.thresholds
    assert dropped > 500


# --- the files


def test_the_csv_of_two_methods() -> None:
    found = [Curve("a,b", "Mass", curve(FOUR, TIED)), Curve("a,b", "Hernia", None), Curve("c", "Mass", None)]
    assert as_csv(found).splitlines() == [
        "method,finding,false_positive_rate,true_positive_rate,threshold",
        '"a,b",Mass,0.0,0.0,inf',
        '"a,b",Mass,0.0,0.5,0.9',
        '"a,b",Mass,0.5,1.0,0.5',
        '"a,b",Mass,1.0,1.0,0.1',
    ]


def coloured(sheet: Image.Image, false: float, true: float, panel: int = 0) -> tuple[int, ...]:
    """The pixel at these rates."""
    height = sheet.height // 2 if panel else 0
    pixel = sheet.getpixel((LEFT + round(false * SIDE), height + TITLE + round((1 - true) * SIDE)))
    assert isinstance(pixel, tuple)
    return pixel


def near(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) < 60


def test_curves_are_where_their_rates_say() -> None:
    """The tie's slope goes through (1/4, 3/4); the perfect curve along the left side and the top."""
    perfect = Curve("m", "Nodule", curve(FOUR, np.array([0.9, 0.8, 0.2, 0.1])))
    sheet = picture([Curve("m", "Mass", curve(FOUR, TIED)), Curve("m", "Hernia", None), perfect])
    assert sheet.width == 900
    assert near(coloured(sheet, 0.25, 0.75), COLOURS[0])
    assert near(coloured(sheet, 0.25, 1), COLOURS[1])
    assert near(coloured(sheet, 0, 0.75), COLOURS[1])
    assert coloured(sheet, 0.25, 0.85) == coloured(sheet, 0.75, 0.35) == (255, 255, 255)


def test_each_method_has_a_panel_and_a_finding_one_colour() -> None:
    mass, nodule = (Curve(m, f, curve(FOUR, TIED)) for m, f in (("a", "Mass"), ("b", "Nodule")))
    sheet = picture([mass, nodule])
    assert sheet.height == 2 * picture([mass]).height
    assert near(coloured(sheet, 0.25, 0.75), COLOURS[0])
    assert near(coloured(sheet, 0.25, 0.75, panel=1), COLOURS[1])


def test_many_findings_and_long_names_have_room() -> None:
    many = [Curve("m", f"A finding with a long name, {k}", curve(FOUR, TIED)) for k in range(60)]
    assert picture(many).width > 1200
    assert picture([Curve("folder/" * 60, "Mass", curve(FOUR, TIED))]).width == 900


# --- as it is typed


def classifier(dataset: Path, path: Path, seed: int) -> Path:
    """Rounded to tenths, so that many tie; images with a Nodule have no probability of it."""
    index = open_dataset(dataset).select("test")
    labels = index.labels(("Mass", "Nodule"))
    chance = np.random.default_rng(seed).random(len(index))
    rows = [
        f"{name},{min(round(p + 0.2 * (mass == 1), 1), 1)},{'' if nodule == 1 else round(p, 1)}"
        for name, p, (mass, nodule) in zip(index.table["image_id"].to_pylist(), chance, labels, strict=True)
    ]
    return lines(path, "image_id,Mass,Nodule", *rows)


def test_the_points_are_of_the_areas_that_are_printed(dataset: Path, tmp_path: Path) -> None:
    one, two = (classifier(dataset, tmp_path / f"{name}.csv", seed) for seed, name in enumerate(("one", "two")))
    asked = (one, two, "--truth", dataset, "--json", "s.json", "--roc", "out/roc.CSV")
    printed = command(*asked, cwd=tmp_path)
    document = json.loads((tmp_path / "s.json").read_text())
    rows = rows_of((tmp_path / "out" / "roc.CSV").read_text())
    assert {(row["method"], row["finding"]) for row in rows} == {("one", "Mass"), ("two", "Mass")}
    for name, of in (("one", document), ("two", document["others"]["two"])):
        assert under([row for row in rows if row["method"] == name]) == pytest.approx(
            of["auc"]["Mass"]["auc"], abs=1e-9
        )
        assert of["auc"]["Nodule"]["auc"] is None
        note = f"{name}: no ROC curve of Nodule: positives or negatives are missing."
        assert note in document["notes"]
        assert note in printed
    assert "no ROC curve" not in command(*asked[:4], cwd=tmp_path)


def test_the_picture_is_written(dataset: Path, tmp_path: Path) -> None:
    one = classifier(dataset, tmp_path / "one.csv", 0)
    words = (one, "--truth", dataset, "--against", "irnet2021:2", "--roc", "roc.png")
    assert "IRNet, irnet2021:2 0.813" in command(*words, cwd=tmp_path)
    with Image.open(tmp_path / "roc.png") as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 900)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.csv", "roc.png"]


def test_what_cannot_be_written_is_said_before_the_work(dataset: Path, tmp_path: Path) -> None:
    one = classifier(dataset, tmp_path / "one.csv", 0)
    for name in ("roc.svg", "roc", "-", ""):
        said = command(one, "--truth", dataset, f"--roc={name}", cwd=tmp_path, code=2)
        told = f"--roc {name} ends neither in .csv nor in .png. Name a file that ends so."
        assert " ".join(told.split()) in said
    said = command(one, "--truth", dataset, "--roc", "one.csv", cwd=tmp_path, code=2)
    assert "--roc one.csv cannot be written: " in said
    said = command(one, "--truth", dataset, "--csv", "a.csv", "--roc", "a.csv", cwd=tmp_path, code=2)
    assert "--roc a.csv cannot be written: it takes what --csv writes" in said
    boxes, truth = mine(tmp_path / "b.parquet"), draw(tmp_path / "truth.parquet")
    said = command(boxes, "--truth", truth, "--roc", "roc.csv", cwd=tmp_path, code=2)
    assert "--roc is of probabilities, and boxes are scored here. Leave it out." in said
    said = command(one, "--truth", dataset, "--finding", "Nodule", "--roc", "roc.csv", cwd=tmp_path, code=1)
    assert "There is no ROC curve to write" in said
    assert not (tmp_path / "roc.csv").exists()


def test_a_failed_write_leaves_the_old_picture(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = classifier(dataset, tmp_path / "one.csv", 0)
    (tmp_path / "roc.png").write_bytes(b"old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxrmine.files.os.fsync", broken)
    told = command(one, "--truth", dataset, "--roc", "roc.png", cwd=tmp_path, code=1)
    assert "No space left on device (roc.png)" in told
    assert (tmp_path / "roc.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
