"""A whole attention mining run, very small: what it leaves, its masks, its batches, and going on after a kill."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cxrmine.boxes.erase import erase
from cxrmine.boxes.masks import read_masks
from cxrmine.config import Phase
from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.learn.inference import infer
from cxrmine.learn.loop import Loop
from cxrmine.learn.parallel import accelerator
from cxrmine.methods.registry import load, load_rounds
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder, open_run, read_thresholds
from cxrmine.stages.rounds import MASKING_BATCH, Rounds
from cxrmine.stages.train import Train, run
from cxrmine.stages.training import Training
from tests.conftest import TINY

ONCE = (*TINY[:-1], "train.phases.0.epochs=1", "train.phases.2.epochs=1", "am.msa_channels=[8, 4]")


def train(dataset: Path, folder: Path, *more: str) -> None:
    run(Train(dataset, "demo-am", folder, (*ONCE, *more), device="cpu", workers=1))


@pytest.fixture(scope="session")
def mined(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe demo-am, very small: an epoch a phase, three rounds."""
    folder = tmp_path_factory.mktemp("runs") / "am"
    train(dataset, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    passing = {"state.pt", "log.txt", ".lock"}
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in passing
    }


def test_the_run_folder_holds_every_round(mined: Path) -> None:
    names = ["0.safetensors", "1.masks.parquet", "1.safetensors", "1.thresholds.json", "2.masks.parquet"]
    names += ["2.safetensors", "2.thresholds.json", "3.safetensors", "3.thresholds.json"]
    assert sorted(p.name for p in (mined / "rounds").iterdir()) == names
    folder = RunFolder(mined)
    weights = [folder.round_weights(t).read_bytes() for t in range(4)]
    assert len(set(weights)) == 4, "every round moves them"
    assert folder.weights.read_bytes() == weights[3]
    assert folder.thresholds.read_bytes() == folder.round_thresholds(3).read_bytes()
    opened = open_run(mined)
    for t in (1, 2, 3):
        assert set(read_thresholds(folder.round_thresholds(t), opened.recipe)) == set(opened.recipe.data.findings)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    phases = ["base", "aggregation", "whole", "round 1", "round 2", "round 3"]
    assert [line["phase"] for line in lines if "val_loss" in line] == phases


def test_what_a_phase_freezes_or_does_not_use_stays(mined: Path) -> None:
    """From the first round to the last the plain network's head did not learn; the rest did."""
    first, last = (load_file(RunFolder(mined).round_weights(t)) for t in (0, 3))
    still = {name for name in first if torch.equal(first[name], last[name])}
    assert still == {"head.weight", "head.bias"}


def test_masks_are_what_erasing_gives_of_the_films_as_they_are(dataset: Path, mined: Path) -> None:
    """M_t by the weights of rounds 1 to t, one after another; of every pair that has the label, and of no other."""
    opened = open_run(mined)
    index = open_dataset(dataset).select("train")
    films = index.filter((index.labels() == 1).any(axis=1))
    names, labels = films.table["image_id"].to_pylist(), films.labels()
    found = {}
    replay = load_rounds(opened, 2)
    for batch, _, maps in infer(replay, films, opened.recipe.data, MASKING_BATCH, 1, accelerator("cpu")):
        for i, row in enumerate(batch.rows):
            for c in np.flatnonzero(labels[row] == 1):
                found[names[row], films.findings[c]] = erase(maps[i, :, c]).masks
    for t in (1, 2):
        masks = read_masks(opened.folder.masks(t))
        assert masks.shape == (16, 16)
        assert masks.pairs == sorted(found)
        assert np.array_equal(masks.unpack(range(len(found))), [found[pair][t - 1] for pair in masks.pairs])
    something = [pair for pair, masks in found.items() if masks[1].sum() < masks[0].sum() < masks[0].size]
    assert len(something) > len(found) / 2, "most maps had a peak to erase, and then another"


def copied(mined: Path, folder: Path) -> RunFolder:
    shutil.copytree(mined, folder)
    return RunFolder(folder)


def rounds_of(folder: RunFolder, index: Index, *more: str) -> Rounds:
    recipe = load_recipe(str(folder.recipe), more)
    return Rounds(recipe, index, np.arange(len(index)), folder, accelerator("cpu"), 1)


def test_masks_that_were_removed_are_made_again(dataset: Path, mined: Path, tmp_path: Path) -> None:
    folder = copied(mined, tmp_path / "run")
    folder.masks(2).unlink()
    network = load(open_run(folder.path))
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rounds_of(folder, open_dataset(dataset).select("train")).begin(3, network)
    assert contents(folder.path) == contents(mined)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())


def test_absent_findings_are_erased_where_the_recipe_says_so(dataset: Path, mined: Path, tmp_path: Path) -> None:
    folder = copied(mined, tmp_path / "run")
    folder.masks(1).unlink()
    index = open_dataset(dataset).select("train")
    rounds_of(folder, index, "am.erase_absent=true").begin(2, load(open_run(folder.path)))
    present, every = read_masks(RunFolder(mined).masks(1)), read_masks(folder.masks(1))
    count = int((index.labels() == 1).any(axis=1).sum())
    assert len(every.pairs) == 8 * count > len(present.pairs)
    rows = [every.pairs.index(pair) for pair in present.pairs]
    assert np.array_equal(every.unpack(rows), present.unpack(range(len(rows))))


def test_films_that_cannot_be_read_are_left_out(dataset: Path, mined: Path, tmp_path: Path) -> None:
    """The last batch is of such films alone: 51 are mined, 32 at a time. Where all are, that is said."""
    folder, index = copied(mined, tmp_path / "run"), open_dataset(dataset).select("train")
    rows = np.flatnonzero((index.labels() == 1).any(axis=1))
    assert len(rows) == 51

    def without(rows: np.ndarray) -> Index:
        there = pc.invert(pc.is_in(index.table["image_id"], value_set=index.table["image_id"].take(rows)))
        paths = pc.if_else(there, index.table["path"], None)
        return replace(index, table=index.table.set_column(index.table.column_names.index("path"), "path", paths))

    folder.masks(1).unlink()
    rounds_of(folder, without(rows[32:])).begin(2, load(open_run(folder.path)))
    readable = set(index.table["image_id"].take(rows[:32]).to_pylist())
    left = [pair for pair in read_masks(RunFolder(mined).masks(1)).pairs if pair[0] in readable]
    assert read_masks(folder.masks(1)).pairs == left
    folder.masks(1).unlink()
    with pytest.raises(CxrError, match="Not one of the images to be mined can be read"):
        rounds_of(folder, without(rows)).begin(2, load(open_run(folder.path)))


def test_killed_in_its_rounds_it_ends_with_the_same_weights_and_masks(
    dataset: Path, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once between two rounds, when the first one's weights are saved and its masks not yet found; once inside."""
    folder, count = tmp_path / "killed", Loop._count

    def killed_before_the_masks(self: Rounds, t: int, objective: torch.nn.Module) -> None:
        raise KeyboardInterrupt

    def killed_in_the_second_round(self: Loop, phase: Phase, parts: dict[str, Tensor]) -> None:
        count(self, phase, parts)
        if phase.name == "round 2" and self.at.step == 5:  # two steps after a mark
            raise KeyboardInterrupt

    for owner, name, kill in ((Rounds, "_find", killed_before_the_masks), (Loop, "_count", killed_in_the_second_round)):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(owner, name, kill)
            train(dataset, folder)
        assert RunFolder(folder).round_weights(1).is_file()
        assert not RunFolder(folder).round_weights(2).is_file()
    train(dataset, folder)
    assert contents(folder) == contents(mined)


def test_box_images_join_the_rounds_and_no_other_phase(dataset: Path, tmp_path: Path) -> None:
    recipe = load_recipe("demo-am", (*ONCE, 'train.include=["boxed"]'))
    whole = open_dataset(dataset)
    index = whole.select("train,boxed")
    boxed = set(np.flatnonzero(index.table["boxed"].to_numpy()))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"findings": index.findings})})
    training = Training(recipe, index, whole.select("val"), RunFolder(tmp_path / "run"), accelerator("cpu"), 1)
    steps = {step.phase.name: step for step in recipe.schedule}
    for name in ("base", "whole"):
        batches = list(training.batches(steps[name], 0, 0))
        assert len(batches) == len(training.taught) // 16
        assert not {row for batch, _, _ in batches for row in batch.rows} & boxed
        assert all(guide is None for _, _, guide in batches)
    training.begin(steps["round 1"])
    batches = list(training.batches(steps["round 1"], 3, 0))
    for batch, labels, guide in batches:
        assert guide is not None
        assert guide.where.tolist() == [row in boxed for row in batch.rows]
        assert guide.where.sum() == 2  # an eighth of 16
        assert torch.equal(labels, training.train_targets[batch.rows])
    assert len(batches) == len(training.taught) // 16


def test_two_processes_share_a_small_batch_evenly(dataset: Path, tmp_path: Path) -> None:
    """Four films, one of them erased: two a process, which a batch norm needs."""
    whole = open_dataset(dataset)
    recipe = load_recipe("demo-am", (*ONCE, "train.batch_size=4", "am.kp=vanilla"))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"findings": whole.findings})})
    shares = []
    for rank in (0, 1):
        world: Any = SimpleNamespace(
            process_index=rank, num_processes=2, is_main_process=False, device="cpu", wait_for_everyone=lambda: None
        )
        parts = whole.select("train"), whole.select("val")
        training = Training(recipe, *parts, RunFolder(tmp_path / "run"), world, 1)
        training.begin(recipe.schedule[3])
        shares.append([(batch.rows, guide) for batch, _, guide in training.batches(recipe.schedule[3], 0, 0)])
    assert len(shares[0]) == len(shares[1]) == 106 // 4
    for (one, guide), (other, unlaid) in zip(*shares, strict=True):
        assert len(one) == len(other) == len({*one, *other}) / 2 == 2
        assert guide.where.tolist() == [True, False]
        assert unlaid.where.tolist() == [False, False]


def test_a_round_goes_on_at_any_step(dataset: Path, mined: Path) -> None:
    opened, whole = open_run(mined), open_dataset(dataset)
    training = Training(opened.recipe, whole.select("train"), whole.select("val"), opened.folder, accelerator("cpu"), 1)
    step = opened.recipe.schedule[-1]
    training.begin(step)
    alone, rest = (list(training.batches(step, 5, first)) for first in (0, 4))
    assert len(rest) == len(alone) - 4
    for (batch, _, guide), (other, _, same) in zip(alone[4:], rest, strict=True):
        assert batch.rows.tolist() == other.rows.tolist()
        assert guide is not None
        assert same is not None
        assert torch.equal(guide.cells, same.cells)
        assert guide.where[guide.cells.flatten(1).any(1)].all(), "nothing is laid over the others"
        assert guide.cells.any()
