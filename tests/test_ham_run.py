"""Runs that learn from boxes: going on after a kill, two processes, mining, and what they say of where boxes lie."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from cxrmine.boxes.regions import pixels
from cxrmine.boxes.shards import read_boxes
from cxrmine.boxes.table import read_meta
from cxrmine.config import Phase
from cxrmine.errors import CxrError
from cxrmine.learn.loop import Loop
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder, open_run
from cxrmine.stages.mine import Mine, MineResult
from cxrmine.stages.mine import run as mine
from cxrmine.stages.train import Train, TrainResult, run
from tests.conftest import TINY
from tests.test_cli import cxrmine, refused

TINY_HAM = (*TINY, "ham.channels=8", "ham.reduction=2")
SAME = ("model.safetensors", "thresholds.json", "metrics.jsonl", "patients.parquet", "recipe.toml")


def train(dataset: Path, folder: Path, boxes: object, *more: str) -> TrainResult:
    overrides = (*TINY_HAM, f"boxes.source={boxes}", *more)
    return run(Train(dataset, "demo-ham", folder, overrides, device="cpu", workers=1))


@pytest.fixture(scope="module")
def place(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the films, boxes of them, and a run that learned these."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(dataset, folder / "data")
    (folder / "boxes").mkdir()
    shutil.copy(dataset / "truth.parquet", folder / "boxes" / "b.parquet")
    train(folder / "data", folder / "runs" / "ham", folder / "boxes" / "b.parquet")
    return folder


@pytest.fixture
def moved(place: Path, tmp_path: Path) -> Path:
    """All of it at another place, to be spoilt."""
    shutil.copytree(place, tmp_path / "moved")
    return tmp_path / "moved"


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


# --- training


def test_boxes_change_what_is_learned_and_the_log_says_which(place: Path, tmp_path: Path) -> None:
    folder = place / "runs" / "ham"
    said = "96 of 140 boxes teach 81 pairs; not used: 44 of patients that validate or test."
    assert said in (folder / "log.txt").read_text()
    train(place / "data", tmp_path / "half", place / "boxes" / "b.parquet", "boxes.annotated=0.5")
    overrides = (*TINY_HAM, "ham.box_weight=0")
    run(Train(place / "data", "demo-ham", tmp_path / "none", overrides, device="cpu", workers=1))
    train(place / "data", tmp_path / "weightless", place / "boxes" / "b.parquet", "ham.box_weight=0")
    weights = {RunFolder(tmp_path / name).weights.read_bytes() for name in ("half", "none", "weightless")}
    assert len(weights | {RunFolder(folder).weights.read_bytes()}) == 3
    assert RunFolder(tmp_path / "none").weights.read_bytes() == RunFolder(tmp_path / "weightless").weights.read_bytes()


def test_killed_in_the_middle_it_ends_with_the_same_weights(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, count = tmp_path / "runs" / "ham", Loop._count
    (tmp_path / "boxes").symlink_to(place / "boxes")

    def killed(self: Loop, phase: Phase, parts: dict[str, Tensor]) -> None:
        count(self, phase, parts)
        assert "boxes" in parts
        if self.at.steps_done == 8:  # in the second epoch, two steps after a mark
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "_count", killed)
        train(place / "data", folder, tmp_path / "boxes" / "b.parquet")
    assert not RunFolder(folder).weights.exists()
    train(place / "data", folder, tmp_path / "boxes" / "b.parquet")
    assert "goes on from step 6" in (folder / "log.txt").read_text()
    assert contents(folder) == contents(place / "runs" / "ham")


@pytest.mark.parametrize("finished", [True, False])
def test_with_other_boxes_in_the_same_file_it_does_not_go_on(moved: Path, finished: bool) -> None:
    folder, boxes = moved / "runs" / "ham", moved / "boxes" / "b.parquet"
    if not finished:
        RunFolder(folder).weights.unlink()
    shutil.copy(boxes, moved / "other.parquet")
    with pytest.raises(CxrError, match=r"another recipe: boxes\.source: \S+/b\.parquet → \S+/other\.parquet\. "):
        train(moved / "data", folder, moved / "other.parquet")
    table = read_boxes(boxes).table
    pq.write_table(table.slice(1), boxes)
    with pytest.raises(CxrError, match=r"the boxes that it learns from have changed.*--fresh"):
        train(moved / "data", folder, boxes)


def test_a_fault_in_a_box_is_met_in_training(moved: Path) -> None:
    boxes = moved / "boxes" / "b.parquet"
    table = read_boxes(boxes).table
    wide = pa.array([97] * len(table), pa.int32())
    pq.write_table(table.set_column(table.column_names.index("image_width"), "image_width", wide), boxes)
    with pytest.raises(CxrError, match=r"are for a film of 97 × 96 pixels, and it has 96 × 96"):
        train(moved / "data", moved / "runs" / "other", boxes)


def test_two_processes_train_and_leave_the_same_kind_of_folder(place: Path, tmp_path: Path) -> None:
    """Few films have boxes: of many steps only one process has a mask, or none."""
    words = ["train", "--data", place / "data", "--recipe", "demo-ham", "--run", tmp_path / "two", "--device", "cpu"]
    overrides = (*TINY_HAM, f"boxes.source={place / 'boxes' / 'b.parquet'}", "boxes.annotated=0.1")
    words += [word for override in overrides for word in ("--set", override)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "cxrmine"]
    command = [*torchrun, *map(str, words), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    one = place / "runs" / "ham"
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == sorted(p.name for p in one.iterdir())
    assert (tmp_path / "two" / "log.txt").read_text().count(" boxes teach ") == 1
    lines, alone = ((f / "metrics.jsonl").read_text().splitlines() for f in (tmp_path / "two", one))
    assert [json.loads(line).keys() for line in lines] == [json.loads(line).keys() for line in alone]
    assert open_run(tmp_path / "two").recipe.boxes is not None


# --- mining


def mined(place: Path, out: Path, *overrides: str) -> MineResult:
    return mine(
        Mine(place / "runs" / "ham", place / "data", out, "test", "labelled", overrides, device="cpu", workers=1)
    )


def test_mining_a_run_fills_the_regions_and_says_that_it_learned_boxes(place: Path, tmp_path: Path) -> None:
    assert mined(place, tmp_path / "b.parquet").boxes > 0
    table = read_boxes(tmp_path / "b.parquet").table
    assert set(table["source"].to_pylist()) == {"ham-boxes"}
    assert set(table["threshold"].to_pylist()) == {pa.scalar(0.469, pa.float32()).as_py()}
    for row in table.to_pylist():
        assert (row["region_height"], row["region_width"]) == (64, 64)
        area = (row["x_max"] - row["x_min"]) * (row["y_max"] - row["y_min"]) * (64 / 96) ** 2
        assert 0 < pixels(row["region"]) <= area + 0.01


def test_a_cut_of_one_finding_changes_its_boxes_and_no_others(place: Path, tmp_path: Path) -> None:
    names = {"plain": (), "one": ("mine.cuts_of={Effusion=[0.25]}",), "all": ("mine.cuts=[0.25]",)}
    tables = {}
    for name, overrides in names.items():
        mined(place, tmp_path / f"{name}.parquet", *overrides)
        tables[name] = read_boxes(tmp_path / f"{name}.parquet").table.to_pylist()

    def of(name: str, effusion: bool) -> list[dict[str, object]]:
        return [row for row in tables[name] if (row["finding"] == "Effusion") is effusion]

    assert of("one", False) == of("plain", False) != of("all", False)
    assert of("one", True) == of("all", True) != of("plain", True)
    assert {row["threshold"] for row in of("one", True)} == {0.25}


# --- what a run says of paths


def test_no_path_leaves_the_place_and_it_can_be_moved(place: Path, moved: Path, tmp_path: Path) -> None:
    listed = moved / "boxes" / "listed.txt"
    listed.write_text("00000001_001.png\n")
    started = (f"boxes.listed={listed}", f"train.start={moved / 'runs' / 'ham'}")
    train(moved / "data", moved / "runs" / "second", moved / "boxes" / "b.parquet", *started)
    for name, folder in (("ham", place), ("second", moved)):
        recipe = (folder / "runs" / name / "recipe.toml").read_text()
        assert 'source = "../../boxes/b.parquet"' in recipe
        assert str(tmp_path.parent) not in recipe
        assert '"/' not in recipe
    assert 'listed = "../../boxes/listed.txt"' in recipe
    assert 'start = "../ham"' in recipe

    again = moved.rename(tmp_path / "again")
    here = (f"boxes.listed={again / 'boxes' / 'listed.txt'}", f"train.start={again / 'runs' / 'ham'}")
    boxes = again / "boxes" / "b.parquet"
    assert train(again / "data", again / "runs" / "ham", boxes).already_done
    assert train(again / "data", again / "runs" / "second", boxes, *here).already_done
    config = Train(again / "data", str(again / "runs" / "second" / "recipe.toml"), again / "runs" / "second")
    assert run(config).already_done  # its own recipe names them from where it lies

    mine(Mine(again / "runs" / "second", again / "data", again / "m.parquet", "test", device="cpu", workers=1))
    told = read_meta(again / "m.parquet")["recipe"]
    assert (told["boxes"]["source"], told["boxes"]["listed"], told["train"]["start"]) == (
        "b.parquet",
        "listed.txt",
        "ham",
    )


# --- what is refused on the command line


@pytest.mark.parametrize(
    ("recipe", "sets", "parts"),
    [
        ("demo-ham", ["boxes.source=nowhere.parquet"], ["There is no boxes table at nowhere.parquet"]),
        ("demo-ham", ["ham.union=true", "ham.positive=false"], ["ham.bound and ham.union", "need ham.positive = true"]),
        ("demo", ["boxes.source=dataset"], ['the section boxes is for method = "ham", and this is "cam"']),
        ("demo-ham", ["mine.cuts_of={Masss=[0.2]}"], ["mine.cuts_of names Masss, and the findings are"]),
        ("demo-ham", ["boxes.source=dataset"], ["Not one of the 21 boxes of dataset", "validate or test"]),
    ],
)
def test_what_is_wrong_with_boxes_or_cuts_is_said_before_anything_is_made(
    dataset: Path, tmp_path: Path, recipe: str, sets: list[str], parts: list[str]
) -> None:
    words = [word for override in sets for word in ("--set", override)]
    done = cxrmine("train", "--data", dataset, "--recipe", recipe, "--run", tmp_path / "run", *words, cwd=tmp_path)
    refused(done, 1, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_finding_that_a_run_does_not_know_is_refused_in_its_cuts(place: Path, tmp_path: Path) -> None:
    words = ("mine", "--run", place / "runs" / "ham", "--data", place / "data", "--out", tmp_path / "b.parquet")
    done = cxrmine(*words, "--set", "mine.cuts_of={Masss=[0.2]}")
    refused(done, 1, "mine.cuts_of names Masss, and the findings are")
    assert list(tmp_path.iterdir()) == []
    assert load_recipe(str(place / "runs" / "ham" / "recipe.toml"), ["mine.cuts_of={Mass=[0.2]}"]).mine.cuts_of


RANKS = """
import torch
from cxrmine.learn.parallel import accelerator
from cxrmine.methods.hierarchical_attention import mean_over
rank = accelerator("cpu").process_index
chosen = torch.tensor([[rank == 0, False], [False, False]])
print(f"{mean_over(torch.full((2, 2), 0.45), chosen, 'image').item():.3f}", flush=True)
"""


def test_a_process_without_boxes_does_not_thin_out_the_others(tmp_path: Path) -> None:
    """One film of two processes has a box, and loses 0.45: the mean of what they find, 0.9 and 0, is 0.45."""
    (tmp_path / "ranks.py").write_text(RANKS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(tmp_path / "ranks.py")]
    done = subprocess.run(torchrun, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"\d\.\d{3}", done.stdout)) == ["0.000", "0.900"]
