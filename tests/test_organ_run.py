"""Runs that outline organs, and runs that need one: going on after a kill, what is refused, and being moved."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from torch import Tensor

from cxrmine.boxes.shards import read_boxes
from cxrmine.boxes.table import read_meta
from cxrmine.config import Phase
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import fit_geometry
from cxrmine.data.index import UNMENTIONED
from cxrmine.data.organs import read_mask, with_masks
from cxrmine.data.outlines import Outlines
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import sha256
from cxrmine.learn.loader import batches
from cxrmine.learn.loop import Loop
from cxrmine.methods.organ_weighted import OrganWeighted
from cxrmine.methods.registry import load
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder, open_run, organs_sha256
from cxrmine.stages.mine import Mine
from cxrmine.stages.mine import run as mine
from cxrmine.stages.predict import Predict
from cxrmine.stages.predict import run as predict
from cxrmine.stages.refine import Refine
from cxrmine.stages.refine import run as refine
from cxrmine.stages.train import Train, TrainResult, run, with_organs
from tests.conftest import TINY
from tests.organ_runs import organs_run
from tests.test_cli import cxrmine, refused

ORGANS = ("heart", "left_lung", "right_lung")
TINY_ORGANS = (
    "data.size=32",
    "network.channels=[8, 8, 8, 8]",
    "train.batch_size=16",
    "train.save_every=3",
    "train.phases.0.epochs=6",
    "train.phases.0.lr=0.02",
)
SAME = ("model.safetensors", "thresholds.json", "metrics.jsonl", "patients.parquet", "recipe.toml")


def outliner(dataset: Path, folder: Path, *more: str) -> TrainResult:
    return run(Train(dataset, "demo-organs", folder, (*TINY_ORGANS, *more), device="cpu", workers=1))


def finder(dataset: Path, folder: Path, organs: object, *more: str) -> TrainResult:
    overrides = (*TINY, f"irnet.organs={organs}", *more)
    return run(Train(dataset, "demo-irnet", folder, overrides, device="cpu", workers=1))


@pytest.fixture(scope="module")
def place(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that outlines organs, and one that needs it."""
    folder = tmp_path_factory.mktemp("place") / "runs"
    outliner(dataset, folder / "organs")
    finder(dataset, folder / "irnet", folder / "organs")
    return folder


@pytest.fixture
def moved(place: Path, tmp_path: Path) -> Path:
    """Both at another place, to be spoilt."""
    shutil.copytree(place, tmp_path / "moved")
    return tmp_path / "moved"


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


def measured(folder: Path) -> dict[str, object]:
    """What is said last of validation."""
    return json.loads([line for line in RunFolder(folder).metrics.read_text().splitlines() if "val_loss" in line][-1])


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    count = Loop._count

    def killed(self: Loop, phase: Phase, parts: dict[str, Tensor]) -> None:
        count(self, phase, parts)
        if self.at.steps_done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_count", killed)
    return monkeypatch


# --- a run that outlines organs


def test_the_run_folder_holds_what_any_other_does(place: Path, trained: Path) -> None:
    folder = place / "organs"
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in trained.iterdir())
    opened = open_run(folder)
    assert sorted(opened.recipe.data.findings) == sorted(ORGANS)
    assert opened.thresholds == dict.fromkeys(opened.recipe.data.findings, 0.5)
    assert set(pq.read_table(folder / "patients.parquet")["split"].to_pylist()) == {"train", "val"}


def test_it_is_measured_by_dice_and_iou_of_each_organ(place: Path) -> None:
    last = measured(place / "organs")
    assert last.keys() == {"phase", "epoch", "step", "val_loss", "macro_dice", "dice", "iou"}
    overlaps, shared = last["dice"], last["iou"]
    assert isinstance(overlaps, dict)
    assert isinstance(shared, dict)
    assert sorted(overlaps) == sorted(shared) == sorted(ORGANS)
    assert last["macro_dice"] == pytest.approx(np.mean(list(overlaps.values())))
    for organ in ORGANS:
        assert 0 < shared[organ] < overlaps[organ] < 1
    assert min(overlaps.values()) > 0.5, "all of the film would be 2 a / (a + 1), with a the organ's share: below 0.3"
    first = json.loads((place / "organs" / "metrics.jsonl").read_text().splitlines()[0])
    assert last["val_loss"] < first["val_loss"]


def test_what_training_says_is_in_the_table_and_what_comes_next(dataset: Path, place: Path) -> None:
    sets = [word for override in TINY_ORGANS for word in ("--set", override)]
    words = ("train", "--data", dataset, "--recipe", "demo-organs", "--run", place / "organs", *sets)
    done = cxrmine(*words)
    assert done.returncode == 0, done.stderr
    assert "is trained already" in done.stdout
    assert "Dice" in done.stdout
    assert "IOU" in done.stdout
    assert f"cxrmine mine --organs {place / 'organs'}" in done.stdout.replace("\n", " ")
    overlaps = measured(place / "organs")["dice"]
    assert isinstance(overlaps, dict)
    assert all(f"{overlaps[organ]:.3f}" in done.stdout for organ in ORGANS)


def test_killed_in_the_middle_it_ends_with_the_same_weights(
    dataset: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "organs"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        killed_at(11, patched)  # in the second epoch, two steps after a mark
        outliner(dataset, folder)
    assert not RunFolder(folder).weights.exists()
    outliner(dataset, folder)
    assert "goes on from step 9" in (folder / "log.txt").read_text()
    assert contents(folder) == contents(place / "organs")


def test_two_processes_train_and_leave_the_same_kind_of_folder(dataset: Path, place: Path, tmp_path: Path) -> None:
    overrides = (*TINY_ORGANS, "train.phases.0.epochs=2")
    folder, sets = tmp_path / "two", [word for override in overrides for word in ("--set", override)]
    words = ["train", "--data", dataset, "--recipe", "demo-organs", "--run", folder, *sets, "--device", "cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "cxrmine"]
    command = [*torchrun, *map(str, words), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in (place / "organs").iterdir())
    together, alone = measured(folder), measured(place / "organs")
    assert together.keys() == alone.keys()
    assert isinstance(together["dice"], dict)
    assert all(0 < overlap < 1 for overlap in together["dice"].values())


def test_masks_lie_where_their_film_lies_in_the_input(dataset: Path) -> None:
    index = with_masks(open_dataset(dataset))
    stored = read_mask(dataset / "organs" / "heart" / f"{Path(index.table['image_id'][3].as_py()).stem}.png")
    wanted = index.findings.index("heart")
    plain, cropped = fit_geometry(96, 96, 96, "stretch"), fit_geometry(96, 96, 84, "crop")
    assert np.array_equal(Outlines(index, 96).of([3], [plain])[0, wanted], stored)
    assert np.array_equal(Outlines(index, 84).of([3], [cropped])[0, wanted], stored[6:90, 6:90])
    outlines = Outlines(index, 96)
    once, again = (outlines.of([5, 3], [plain] * 2) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.array_equal(once[1, wanted], stored)


def test_a_mask_that_cannot_be_read_is_named(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "d")
    index = with_masks(open_dataset(tmp_path / "d"))
    (tmp_path / "d" / "organs" / "heart" / f"{Path(index.table['image_id'][0].as_py()).stem}.png").write_bytes(b"")
    with pytest.raises(CxrError, match=r"The mask organs/heart/\S+\.png cannot be read: empty: zero bytes\. Mend it"):
        Outlines(index, 96).of([0], [fit_geometry(96, 96, 96, "stretch")])


def test_a_dataset_without_masks_or_a_pack_teaches_no_organs(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "d", ignore=shutil.ignore_patterns("organs"))
    with pytest.raises(CxrError, match=r"has no masks of organs\. Put them beside its films as organs/left_lung"):
        outliner(tmp_path / "d", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- lungs alone


@pytest.fixture(scope="module")
def montgomery(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same films in the form of the Montgomery County set, without a heart; one has no left lung."""
    root = tmp_path_factory.mktemp("montgomery") / "d"
    (root / "CXR_png").mkdir(parents=True)
    for number, film in enumerate(sorted((dataset / "images").iterdir()), start=1):
        name = f"MCUCXR_{number:04d}_{number % 2}.png"
        shutil.copy(film, root / "CXR_png" / name)
        for side in ("left", "right"):
            (root / "ManualMask" / f"{side}Mask").mkdir(parents=True, exist_ok=True)
            if (number, side) != (5, "left"):
                mask = dataset / "organs" / f"{side}_lung" / f"{film.stem}.png"
                shutil.copy(mask, root / "ManualMask" / f"{side}Mask" / name)
    return root


def test_films_without_a_heart_teach_lungs(montgomery: Path, dataset: Path, tmp_path: Path) -> None:
    result = outliner(montgomery, tmp_path / "lungs", "train.phases.0.epochs=1")
    assert sorted(result.findings) == ["left_lung", "right_lung"]
    assert set(result.measured) == {"dice", "iou"}
    assert 0 <= result.mean("dice") <= 1
    recipe = with_organs(load_recipe("demo-irnet", [f"irnet.organs={tmp_path / 'lungs'}"]))
    assert recipe.irnet is not None
    assert sorted(recipe.irnet.organ_names) == ["left_lung", "right_lung"]
    index = with_masks(open_dataset(montgomery))
    row = index.table["image_id"].to_pylist().index("MCUCXR_0005_1")
    assert index.labels()[row].tolist() == [UNMENTIONED if organ == "left_lung" else 1 for organ in index.findings]
    finder(dataset, tmp_path / "irnet", tmp_path / "lungs", "train.phases.0.epochs=1")
    assert open_run(tmp_path / "irnet").recipe.irnet == recipe.irnet.model_copy(update={"organs": "../lungs"})


# --- what a run that outlines organs is not for


@pytest.mark.parametrize("findings", ["labelled", "predicted", "all"])
def test_mining_a_run_that_outlines_organs_is_refused(
    dataset: Path, place: Path, tmp_path: Path, findings: str
) -> None:
    with pytest.raises(
        CxrError, match=r"outlines organs, and knows no findings\. Name another.*mine --organs \S+organs"
    ):
        mine(Mine(place / "organs", dataset, tmp_path / "b.parquet", findings=findings, device="cpu"))
    assert list(tmp_path.iterdir()) == []


def test_predicting_and_refining_with_it_are_refused(dataset: Path, place: Path, tmp_path: Path) -> None:
    out, boxes = tmp_path / "b.parquet", dataset / "truth.parquet"
    done = cxrmine("predict", "--run", place / "organs", "--data", dataset, "--out", out)
    refused(done, 1, "outlines organs, and knows no findings", "Name another with --run")
    for recipe in ("demo-organs", str(place / "organs" / "recipe.toml"), "demo-irnet"):
        with pytest.raises(UsageError, match=r"which does not learn from boxes\. Take the recipe ham"):
            refine(Refine(boxes, dataset, tmp_path / "refine", out, recipe, device="cpu"))
    assert not out.exists()


def test_no_run_of_findings_begins_with_it(dataset: Path, place: Path, tmp_path: Path) -> None:
    with pytest.raises(CxrError, match="learned other findings"):
        run(Train(dataset, "demo", tmp_path / "run", (*TINY, f"train.start={place / 'organs'}"), device="cpu"))


# --- a run that needs organs


def test_what_it_needs_to_know_of_the_organs_is_in_its_own_folder(place: Path) -> None:
    recipe = open_run(place / "irnet").recipe.irnet
    assert recipe is not None
    assert (recipe.organs, recipe.organ_size, recipe.organ_channels) == ("../organs", 32, (8, 8, 8, 8))
    assert recipe.organ_names == open_run(place / "organs").recipe.data.findings
    assert organs_sha256(RunFolder(place / "irnet")) == sha256(place / "organs" / "model.safetensors")


def test_training_leaves_the_organs_network_as_it_was(place: Path) -> None:
    own, theirs = (load_file(place / name / "model.safetensors") for name in ("irnet", "organs"))
    taken = {name.removeprefix("organs."): weight for name, weight in own.items() if name.startswith("organs.")}
    assert taken.keys() == {name.removeprefix("net.") for name in theirs}
    assert all(np.array_equal(weight, theirs[f"net.{name}"]) for name, weight in taken.items())


def test_killed_before_and_after_its_first_mark_a_run_with_a_gate_ends_with_the_same_weights(
    dataset: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "organs").symlink_to(place / "organs")
    for step in (2, 8):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            killed_at(step, patched)
            finder(dataset, tmp_path / "irnet", tmp_path / "organs")
    finder(dataset, tmp_path / "irnet", tmp_path / "organs")
    assert "goes on from step 6" in (tmp_path / "irnet" / "log.txt").read_text()
    assert contents(tmp_path / "irnet") == contents(place / "irnet")


def test_attention_and_gate_change_what_is_learned(dataset: Path, place: Path, tmp_path: Path, trained: Path) -> None:
    keys = ("irnet.attention=false", "irnet.gate=false", "irnet.cut=0.9")
    for number, key in enumerate(keys):
        finder(dataset, tmp_path / str(number), place / "organs", key)
    folders = [place / "irnet", *(tmp_path / str(number) for number in range(len(keys)))]
    heads = [load_file(folder / "model.safetensors")["head.weight"].tobytes() for folder in folders]
    assert len(set(heads)) == 4
    finder(dataset, tmp_path / "neither", place / "organs", *keys[:2])
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "neither", trained))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one), "what remains is the recipe demo"


def test_it_mines_and_predicts_where_the_run_of_its_organs_is_gone(dataset: Path, place: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere" / "irnet"
    shutil.copytree(place / "irnet", alone)
    tables = []
    for number, folder in enumerate((place / "irnet", alone)):
        boxes, probabilities = tmp_path / f"{number}.parquet", tmp_path / f"p{number}.parquet"
        assert mine(Mine(folder, dataset, boxes, "test", device="cpu", workers=1)).boxes > 0
        assert predict(Predict(folder, dataset, probabilities, device="cpu", workers=1)).images > 0
        tables.append((read_boxes(boxes).table, pq.read_table(probabilities)))
    assert tables[0][0].equals(tables[1][0])
    assert tables[0][1].equals(tables[1][1])
    assert set(tables[0][0]["source"].to_pylist()) == {"irnet"}
    told = read_meta(tmp_path / "1.parquet")["recipe"]["irnet"]
    assert told["organs"] == "organs"
    assert "/" not in json.dumps(told)


def test_maps_are_zero_outside_the_organs(dataset: Path, place: Path) -> None:
    model = load(open_run(place / "irnet")).eval()
    assert isinstance(model, OrganWeighted)
    batch = next(batches(open_dataset(dataset), model.recipe.data, [np.arange(16)], workers=1))
    _, maps = model.infer(batch.images)
    gate = model.gate(batch.images, maps.shape[-2:])[:, 0]
    assert 0.05 < gate.float().mean() < 0.95, "or nothing is said"
    assert not maps.abs().amax((1, 2))[~gate].any()
    assert (maps.abs().amax((1, 2))[gate] > 0).float().mean() > 0.9


# --- a run of organs that is not there, or another


def test_organs_that_are_no_run_of_organs_are_refused(dataset: Path, trained: Path, tmp_path: Path) -> None:
    done = cxrmine("train", "--data", dataset, "--recipe", "demo-irnet", "--run", tmp_path / "run", cwd=tmp_path)
    refused(done, 1, "irnet.organs: there is no run in runs/demo-organs", "--recipe organs", "irnet.gate=false")
    for organs, said in (
        (tmp_path / "nowhere", r"irnet\.organs: there is no run in \S+nowhere\. Train one"),
        (trained, r"\S+tiny is of method cam, and outlines no organs\. Train one"),
        (dataset, r"is not a run: it has no recipe\.toml\. Train one: cxrmine train --recipe organs"),
    ):
        with pytest.raises(CxrError, match=said):
            finder(dataset, tmp_path / "run", organs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("finished", [True, False])
def test_with_other_organs_in_the_same_folder_it_does_not_go_on(dataset: Path, moved: Path, finished: bool) -> None:
    if not finished:
        RunFolder(moved / "irnet").weights.unlink()
    weights = moved / "organs" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(CxrError, match=r"the run that outlines its organs has changed.*--fresh"):
        finder(dataset, moved / "irnet", moved / "organs")


def test_organs_that_learned_films_fitted_otherwise_are_taken_with_a_warning(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_organs(load_recipe("demo-irnet", [f"irnet.organs={place / 'organs'}", "data.fit=crop"]))
    assert "CAREFUL: it outlines organs of films with data.fit = stretch, not crop." in capsys.readouterr().err
    with_organs(load_recipe("demo-irnet", [f"irnet.organs={place / 'organs'}"]))
    assert "CAREFUL" not in capsys.readouterr().err


def test_both_runs_can_be_moved_together(dataset: Path, moved: Path) -> None:
    assert finder(dataset, moved / "irnet", moved / "organs").already_done
    own = str(moved / "irnet" / "recipe.toml")
    assert run(Train(dataset, own, moved / "irnet", device="cpu", workers=1)).already_done


def test_organs_that_outline_nothing_are_told_of(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = organs_run(tmp_path / "blank", {"heart": None, "left_lung": None})
    finder(dataset, tmp_path / "irnet", blank, "train.phases.0.epochs=1")
    validates = len(open_dataset(dataset).select("val"))
    said = "images no organ was outlined, or less than a cell: they were seen whole."
    assert f"CAREFUL: in {validates} of {validates} validation {said}" in (tmp_path / "irnet" / "log.txt").read_text()
    capsys.readouterr()
    result = predict(Predict(tmp_path / "irnet", dataset, tmp_path / "p.parquet", device="cpu", workers=1))
    assert f"CAREFUL: in {result.images} of {result.images} {said}" in capsys.readouterr().err
