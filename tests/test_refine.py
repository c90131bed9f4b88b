"""Refining boxes: the paper's rule by hand, and the whole command, very small."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.geometry import area, iou
from cxrmine.boxes.refine import around, refine
from cxrmine.boxes.regions import decode
from cxrmine.boxes.shards import Boxes, read_boxes
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import fit_geometry
from cxrmine.errors import CxrError, UsageError
from cxrmine.learn.team import Team
from cxrmine.stages import mine as mining
from cxrmine.stages.refine import Refine, RefineResult, run, sentence, summary
from cxrmine.stages.refiner import Refiner
from cxrmine.stages.refiner import refined as refined_row
from cxrmine.stages.training import Training
from cxrmine.tables import COORDINATES
from tests.test_cli import cxrmine, refused
from tests.test_ham_run import TINY_HAM

SHARP = ("train.phases.0.epochs=4", "train.phases.0.lr=0.01", "ham.dropout=0", "ham.alpha=10", "mine.cuts=[0.3]")
Row = dict[str, Any]


# --- the rule


def region(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def shown(mask: np.ndarray | None) -> list[str] | None:
    return None if mask is None else ["".join(".#"[int(value)] for value in row) for row in mask]


def at(*corners: float) -> np.ndarray:
    return np.array(corners, np.float64)


TOP = at(0, 0, 5, 2)  # ten pixels


@pytest.mark.parametrize(
    ("first", "third", "stays"),
    [
        ("##...", ".....", None),  # 2 / 10
        ("###..", ".....", "###.."),  # 3 / 10, which is not lower than 0.3
        ("###..", "#....", None),  # 3 / 11
        ("####.", "###..", "####."),  # 4 / 13
        ("####.", "####.", None),  # 4 / 14
        ("#####", ".....", "#####"),
        (".....", ".....", None),
    ],
)
def test_a_box_is_refined_from_an_iou_of_0_3_on(first: str, third: str, stays: str | None) -> None:
    found = shown(refine(region(first, ".....", third, ".....", "....."), TOP))
    assert found == (None if stays is None else [stays, *["....."] * 4])


def test_the_iou_counts_the_part_of_a_pixel_that_a_box_covers() -> None:
    two = region("##...", ".....")
    assert refine(two, at(0.4, 0, 5.4, 1)) is None  # 1.6 / 5.4, where whole pixels have 2 / 5
    assert shown(refine(two, at(0.4, 0, 4.6, 1))) == ["##...", "....."]  # 1.6 / 4.6
    assert shown(refine(two, at(0.6, 0, 3.6, 1))) == [".#...", "....."]  # 1.4 / 3.6; 0's middle is outside
    assert refine(region("#....", "....."), at(0.6, 0, 0.9, 1)) is None  # 0.3 / 1, but it has no pixel's middle
    assert refine(region("....."), at(1, 0, 1, 1)) is None  # nothing in nothing


def test_the_box_around_what_stays_is_no_larger_than_before() -> None:
    whole = region("#####", "#####", ".....")
    for box, expected in (
        (at(1, 0, 4, 2), (1, 0, 4, 2)),
        (at(0.4, 0.3, 3.4, 1.8), (0.4, 0.3, 3, 1.8)),  # column 3 has its middle at 3.5
        (at(0.6, 0, 3.6, 3), (1, 0, 3.6, 2)),
    ):
        inside = refine(whole, box)
        assert inside is not None
        assert tuple(around(inside, box)) == expected
    part = region(".....", "..##.", ".....")
    assert tuple(around(part, at(0, 0, 5, 3))) == (2, 1, 4, 2)


def test_a_row_of_the_table_by_hand() -> None:
    """A film of 20 × 10 on an input of 10 × 10: half as wide, as high."""
    map_ = np.zeros((10, 10), np.float32)
    map_[1:4, 3:6] = 0.75
    map_[9, 9] = 1
    box = {"rank": 2, "score": 0.1, "source": "am/3"} | dict(zip(COORDINATES, (4.0, 0.0, 12.0, 4.0), strict=True))
    changed, change = refined_row(box, map_, 0.75, fit_geometry(20, 10, 10, "stretch"))  # 9 of 16 + 1 pixels
    assert [changed[name] for name in COORDINATES] == [6, 1, 12, 4]
    assert change == (18 / 32, 18 / 32)
    assert (changed["score"], changed["threshold"], changed["source"]) == (0.75, 0.75, "refined")
    assert (changed["image_width"], changed["image_height"]) == (20, 10)
    inside = np.zeros((10, 10), bool)
    inside[1:4, 3:6] = True
    assert np.array_equal(decode(changed["region"], changed["region_height"], changed["region_width"]), inside)

    kept, change = refined_row(box, map_, 0.8, fit_geometry(20, 10, 10, "stretch"))
    assert change is None
    assert not set(kept) & {*COORDINATES, "score", "source", "threshold"}
    assert kept["region"] is None


# --- the command


def config(dataset: Path, boxes: Path, folder: Path, *more: str) -> Refine:
    overrides = (*TINY_HAM, *SHARP, *more)
    out = folder / "out.parquet"
    return Refine(boxes, dataset, folder / "run", out, "demo-ham", "test", overrides, device="cpu", workers=1)


@pytest.fixture(scope="module")
def drawn(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Refine, RefineResult]:
    """Boxes that people drew, of all splits."""
    asked = config(dataset, dataset / "truth.parquet", tmp_path_factory.mktemp("drawn"))
    return asked, run(asked)


@pytest.fixture(scope="module")
def mined(dataset: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Refine, RefineResult]:
    """Boxes that a network found, of all splits."""
    folder = tmp_path_factory.mktemp("mined")
    boxes = folder / "boxes.parquet"
    mining.run(mining.Mine(trained, dataset, boxes, "all", device="cpu", workers=1))
    asked = config(dataset, boxes, folder, "boxes.ranks=[1, 2]", "boxes.min_score=0.45", "boxes.annotated=0.9")
    return asked, run(asked)


def contents(asked: Refine) -> dict[str, bytes]:
    passing = {"state.pt", "log.txt", ".lock"}
    files = [path for path in asked.run.rglob("*") if path.is_file() and path.name not in passing]
    return {str(path): path.read_bytes() for path in (*files, asked.out, images_path(asked.out))}


def by_box(boxes: Boxes) -> dict[tuple[str, str, int], Row]:
    return {(row["image_id"], row["finding"], row["rank"]): row for row in boxes.table.to_pylist()}


def corners(row: Row) -> list[float]:
    return [row[name] for name in COORDINATES]


@pytest.mark.parametrize("which", ["drawn", "mined"])
def test_every_box_is_kept_as_it_was_or_lies_in_itself(which: str, request: pytest.FixtureRequest) -> None:
    asked, result = request.getfixturevalue(which)
    told = result.refined
    before, after = by_box(read_boxes(asked.boxes)), by_box(read_boxes(asked.run / "refined.parquet"))
    assert told.boxes == told.kept + told.changed == len(after) > 20
    assert set(after) < set(before)
    changed = {key for key, row in after.items() if row["source"] == "refined"}
    assert 0 < len(changed) == told.changed < len(after)
    shares, fills = [], []
    for key, row in after.items():
        old = before[key]
        assert (row["split"], row["patient_id"]) == ("train", old["patient_id"])
        if key not in changed:
            assert corners(row) == corners(old)
            assert [row[n] for n in ("score", "source", "threshold")] == [
                old[n] for n in ("score", "source", "threshold")
            ]
            assert (row["region"], row["region_height"], row["region_width"]) == (None, None, None)
            continue
        assert (np.array(corners(row)[:2]) >= corners(old)[:2]).all()
        assert (np.array(corners(row)[2:]) <= corners(old)[2:]).all()
        assert row["threshold"] == pytest.approx(0.3)
        inside = np.argwhere(decode(row["region"], row["region_height"], row["region_width"])) + 0.5
        scaled = np.array(corners(old)) * 64 / 96
        assert ((scaled[:2] <= inside[:, ::-1]) & (inside[:, ::-1] <= scaled[2:])).all()
        shares.append(iou(corners(row), corners(old))[0])
        fills.append(len(inside) / area(scaled.ravel())[0])
    assert told.mean_iou == pytest.approx(np.mean(shares), abs=1e-4)
    assert told.mean_fill == pytest.approx(np.mean(fills), abs=1e-4)


def test_it_leaves_what_it_says(dataset: Path, drawn: tuple[Refine, RefineResult]) -> None:
    asked, result = drawn
    assert result.refined.boxes == 96  # of 140: the others are of patients that validate or test
    there = {path.name for path in asked.run.iterdir()} - {".lock"}
    assert there == {"refiner", "refined.parquet", "refined.images.parquet", "ham"}
    images = read_boxes(asked.run / "refined.parquet").images
    assert images is not None
    assert pc.sum(images["boxes"]).as_py() == 96
    assert set(images["status"].to_pylist()) == {"ok"}
    assert summary(asked, result).splitlines()[0] == sentence(result.refined)
    final = read_boxes(asked.out)
    assert len(final.table) == result.mined.boxes > 0
    assert set(final.table["source"].to_pylist()) == {"ham-refined"}
    assert set(final.table["split"].to_pylist()) == {"test"}
    told = final.meta["recipe"]["boxes"]
    assert (told["source"], told["masks"]) == ("refined.parquet", "regions")
    log = (asked.run / "ham" / "log.txt").read_text()
    assert "96 of 96 boxes teach 81 pairs." in log
    index = open_dataset(dataset).table
    trains = set(index.filter(pc.equal(index["split"], "train"))["image_id"].to_pylist())
    assert set(read_boxes(asked.run / "refined.parquet").table["image_id"].to_pylist()) <= trains


def test_only_the_boxes_that_are_asked_for_are_refined_and_all_of_them_are_learned(
    mined: tuple[Refine, RefineResult],
) -> None:
    asked, _ = mined
    after = read_boxes(asked.run / "refined.parquet").table.to_pylist()
    assert {row["rank"] for row in after} == {1, 2}
    assert min(row["score"] for row in after if row["source"] == "cam") >= 0.45
    assert min(row["score"] for row in after) < 0.45, "a refined box has another score"
    count = len(after)
    assert f"{count} of {count} boxes teach " in (asked.run / "ham" / "log.txt").read_text()


def test_what_is_done_is_not_done_again_and_what_is_lost_is(
    drawn: tuple[Refine, RefineResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, result = drawn
    before = contents(asked)
    with monkeypatch.context() as patched:
        patched.setattr(Training, "run", None)  # none is trained again
        again = run(asked)
        assert again.refined == result.refined
        assert again.mined.already_done
        assert contents(asked) == before
    for lost in (
        ("ham", "out.parquet"),
        ("refined.parquet", "ham", "out.parquet"),
        ("refiner", "refined.parquet", "ham", "out.parquet"),
    ):
        for name in lost:
            path = asked.out if name == "out.parquet" else asked.run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert run(asked).refined == result.refined
        assert contents(asked) == before


def test_other_boxes_into_the_same_folder_are_refused(
    drawn: tuple[Refine, RefineResult], mined: tuple[Refine, RefineResult], tmp_path: Path
) -> None:
    asked, _ = drawn
    folder = tmp_path / "run"
    shutil.copytree(asked.run, folder)
    other = replace(asked, run=folder, boxes=mined[0].boxes, out=tmp_path / "out.parquet")
    with pytest.raises(
        CxrError, match=r"refiner holds a run with another recipe: boxes\.source: .* → \S+/boxes\.parquet\."
    ):
        run(other)
    shutil.copy(mined[0].run / "refined.parquet", folder / "refined.parquet")
    with pytest.raises(
        CxrError, match=r"refined\.parquet was refined otherwise \(its recipe, weights_sha256, starts, boxes_sha256 dif"
    ):
        run(replace(other, boxes=asked.boxes))
    assert not other.out.exists()


def test_it_can_be_moved_and_says_no_path(dataset: Path, mined: tuple[Refine, RefineResult], tmp_path: Path) -> None:
    asked, result = mined
    old = asked.out.parent
    place = tmp_path / "moved"
    shutil.copytree(old, place)
    shutil.copytree(dataset, tmp_path / "data")
    here = config(tmp_path / "data", place / "boxes.parquet", place, *asked.overrides[-3:])
    before = contents(here)
    again = run(here)
    assert again.refined == result.refined
    assert again.mined.already_done
    assert contents(here) == before
    tables = [here.run / "refined.parquet", here.run / "refined.images.parquet", here.out, images_path(here.out)]
    for text in (*(str(read_meta(path)) for path in tables), *(p.read_text() for p in place.rglob("recipe.toml"))):
        assert str(old.parent) not in text
        assert "'/" not in text.replace('"', "'")
    assert 'source = "../../boxes.parquet"' in (here.run / "refiner" / "recipe.toml").read_text()
    assert 'source = "../refined.parquet"' in (here.run / "ham" / "recipe.toml").read_text()


def test_a_film_that_cannot_be_read_any_more_is_left_out_and_said(
    dataset: Path, drawn: tuple[Refine, RefineResult], tmp_path: Path
) -> None:
    asked, _ = drawn
    shutil.copytree(dataset, tmp_path / "data")
    names = read_boxes(asked.run / "refined.parquet").table["image_id"].to_pylist()
    name = names[0]
    (tmp_path / "data" / "images" / name).write_bytes(b"")
    refiner = Refiner(replace(asked, data=tmp_path / "data"), Team("cpu"))
    with pytest.raises(CxrError, match=r"1 of the \d+ films with boxes cannot be read, the first is .*max_unreadable"):
        refiner.run(tmp_path / "refined.parquet")
    data = refiner.recipe.data.model_copy(update={"max_unreadable": 0.5})
    refiner.recipe = refiner.recipe.model_copy(update={"data": data})
    found = refiner.run(tmp_path / "refined.parquet")
    assert found.boxes == 96 - names.count(name)
    images = pq.ParquetFile(tmp_path / "refined.images.parquet").read().to_pylist()
    assert [row["status"] for row in images if row["image_id"] == name] == ["unreadable: empty: zero bytes"]


def test_fresh_moves_aside_what_refine_left_and_nothing_else(
    drawn: tuple[Refine, RefineResult], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _ = drawn
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    names = {path.name for path in folder.iterdir()}
    monkeypatch.setattr("cxrmine.stages.refine._train", lambda *_: (_ for _ in ()).throw(InterruptedError))
    again = replace(asked, run=folder, out=tmp_path / "o.parquet", fresh=True)
    with pytest.raises(InterruptedError):
        run(again)
    assert {path.name for path in folder.iterdir()} - {".lock"} == names, "there was nothing of ours"
    for name in ("refiner", "refined.parquet", "refined.images.parquet", "ham"):
        source = asked.run / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    for n in ("1", "2"):
        with pytest.raises(InterruptedError):
            run(again)
        shutil.copytree(asked.run / "ham", folder / "ham")
        names |= {n, "ham"}
        assert {path.name for path in folder.iterdir()} - {".lock"} == names
    assert {path.name for path in (folder / "1").iterdir()} == {
        "refiner", "refined.parquet", "refined.images.parquet", "ham",
    }  # fmt: skip
    with pytest.raises(UsageError, match="--fresh would move"):
        run(replace(asked, boxes=asked.run / "refined.parquet", out=tmp_path / "o.parquet", fresh=True))


def test_two_processes_refine_the_same(drawn: tuple[Refine, RefineResult], tmp_path: Path) -> None:
    """By a refiner that is there: the same table as one process; then both train the second network."""
    asked, _ = drawn
    folder = asked.run.with_name("two")
    shutil.copytree(asked.run / "refiner", folder / "refiner")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "cxrmine"]
    words = ["refine", asked.boxes, "--data", asked.data, "--run", folder, "--out", tmp_path / "two.parquet"]
    words += ["--recipe", asked.recipe, "--split", asked.split, "--device", "cpu", "--workers", "1"]
    for override in asked.overrides:
        words += ["--set", override]
    done = subprocess.run([*torchrun, *map(str, words)], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.parquet").is_file()
    for name in ("refined.parquet", "refined.images.parquet"):
        assert (folder / name).read_bytes() == (asked.run / name).read_bytes()


# --- what is refused


def test_what_cannot_be_refined_is_said_at_once(dataset: Path, tmp_path: Path) -> None:
    boxes, here = dataset / "truth.parquet", {"cwd": tmp_path}
    words = ("--data", dataset, "--run", "run")
    ham, out = ("--recipe", "demo-ham"), ("--out", "b.parquet")
    refused(
        cxrmine("refine", boxes, *words, *out, "--recipe", "demo", **here),
        2, 'The recipe demo has method = "cam", which does not learn from boxes', "Take the recipe ham",
    )  # fmt: skip
    refused(cxrmine("refine", "none.parquet", *words, *ham, *out, **here), 1, "no boxes table at none.parquet")
    refused(cxrmine("refine", *words, *ham, *out, **here), 2, "No boxes is named")
    refused(cxrmine("refine", boxes, *words, *ham, "--out", "b.csv", **here), 2, "b.csv is no name", ".parquet")
    wrong = cxrmine("refine", boxes, *words, *ham, *out, "--set", "boxes.rank=[1]", **here)
    refused(wrong, 1, "there is no key boxes.rank. Did you mean ranks?")
    assert list(tmp_path.iterdir()) == []


def test_places_and_splits_that_are_none(dataset: Path, tmp_path: Path) -> None:
    asked = config(dataset, dataset / "truth.parquet", tmp_path)
    (tmp_path / "d.parquet").mkdir()
    for out, said in (
        (tmp_path / "d.parquet", "is a folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "b.images.parquet", "is no name for a box table"),
        (tmp_path / "run" / "refined.parquet", "is where boxes lie that are read"),
    ):
        with pytest.raises(UsageError, match=said):
            run(replace(asked, out=out))
    with pytest.raises(UsageError, match=r"no split named 'tests'\. Did you mean test"):
        run(replace(asked, split="tests"))
    assert [path.name for path in tmp_path.iterdir()] == ["d.parquet"]
