"""Runs of AGCL: what an iteration leaves, going on after a kill, its end, and severities as phases of other methods."""

import csv
import itertools
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from cxrmine.boxes.shards import read_boxes
from cxrmine.config import Phase
from cxrmine.data.datasets import open_dataset
from cxrmine.data.severities import severities_of
from cxrmine.errors import CxrError
from cxrmine.learn.guides import Guide
from cxrmine.learn.inference import infer
from cxrmine.learn.loader import Batch
from cxrmine.learn.loop import Loop
from cxrmine.learn.parallel import accelerator
from cxrmine.methods.registry import load
from cxrmine.runs import RunFolder, open_run
from cxrmine.stages import mine, predict, severity
from cxrmine.stages.seeds import Iterations
from cxrmine.stages.train import Train, TrainResult, run
from tests.conftest import TINY

FINDINGS = ("Cardiomegaly", "Effusion")
THRESHOLD = 0.6
SHORT = (
    *TINY,
    f"data.findings={json.dumps(FINDINGS)}",
    f"agcl.threshold={THRESHOLD}",
    *(f"train.phases.{i}.{key}" for i in range(1, 4) for key in ("epochs=1", "lr=0.02")),
    "train.phases.4.epochs=2",
)
SAME = ("model.safetensors", "thresholds.json", "metrics.jsonl", "patients.parquet", "recipe.toml")


AGL = (*TINY, f"data.findings={json.dumps(FINDINGS)}", "agcl.threshold=0.1", "train.phases.1.epochs=1")


def train(dataset: Path, folder: Path, *more: str) -> TrainResult:
    return run(Train(dataset, "demo-agcl", folder, (*SHORT, *more), device="cpu", workers=1))


def train_agl(dataset: Path, folder: Path, *more: str) -> TrainResult:
    return run(Train(dataset, "demo-agl", folder, (*AGL, *more), device="cpu", workers=1))


@pytest.fixture(scope="module")
def place(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the films, of which half have no severity, and a run that learned from them."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(dataset, folder / "data")
    table = folder / "data" / "severity.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join((head, *rows[::2])) + "\n")
    train(folder / "data", folder / "run")
    return folder


def seeds(folder: Path, t: int) -> list[dict]:
    place = RunFolder(folder).iteration(t)
    return [row for c in range(len(FINDINGS)) for row in pq.ParquetFile(place.seeds(c)).read().to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    files = [*map(folder.joinpath, SAME), *sorted((folder / "iterations").rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def log(folder: Path) -> str:
    return (folder / "log.txt").read_text()


# --- what it leaves


def test_seeds_are_training_films_that_have_the_finding(place: Path) -> None:
    index = open_dataset(place / "data").select("train")
    labels = dict(zip(index.table["image_id"].to_pylist(), index.labels(FINDINGS), strict=True))
    for t in (1, 2):
        for seed in seeds(place / "run", t):
            assert labels[seed["image_id"]][FINDINGS.index(seed["finding"])] == 1


def test_severe_and_moderate_films_are_seeds_and_others_by_their_probability(place: Path) -> None:
    with (place / "data" / "severity.csv").open() as file:
        severity = {(r["image_id"], r["finding"]): int(r["severity"]) for r in csv.DictReader(file)}
    index = open_dataset(place / "data").select("train")
    found = {(seed["image_id"], seed["finding"]): seed for seed in seeds(place / "run", 1)}
    for pair, level in severity.items():
        if pair[0] in set(index.table["image_id"].to_pylist()) and pair[1] in FINDINGS and level >= 2:
            assert found[pair]["by"] in ("severity", "both")
    for pair, seed in found.items():
        assert seed["severity"] == severity.get(pair)
        by_probability = "both" if severity.get(pair, 0) >= 2 else "probability"
        assert seed["by"] == (by_probability if seed["probability"] > THRESHOLD else "severity")
        assert seed["since"] == 1


def test_maps_are_there_for_every_seed(place: Path) -> None:
    for t in (1, 2):
        folder = RunFolder(place / "run").iteration(t)
        for c in range(len(FINDINGS)):
            maps = np.load(folder.seeds(c).with_suffix(".npy"), allow_pickle=False)
            assert maps.shape == (len(pq.ParquetFile(folder.seeds(c)).read()), 1, 8, 8)
            assert np.isfinite(maps).all()
            assert maps.std() > 0


def test_seeds_stay_seeds(place: Path) -> None:
    first, second = ({(s["image_id"], s["finding"]): s["since"] for s in seeds(place / "run", t)} for t in (1, 2))
    assert first.items() <= second.items()
    assert {since for pair, since in second.items() if pair not in first} <= {2}


def test_a_seed_of_which_a_later_network_is_unsure_stays_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sure of every film in the first iteration, and of none in the second."""
    grade, calls = Iterations._grade, []

    def graded(self: Iterations, *asked: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, likely, maps = grade(self, *asked)
        calls.append(asked)
        return rows, np.full_like(likely, 0.95 if len(calls) <= len(FINDINGS) else 0.05), maps

    monkeypatch.setattr(Iterations, "_grade", graded)
    train_agl(place / "data", tmp_path / "agl", "agcl.threshold=0.9")
    first, second = (seeds(tmp_path / "agl", t) for t in (1, 2))
    assert [seed["image_id"] for seed in first] == [seed["image_id"] for seed in second]
    assert {(seed["by"], seed["since"]) for seed in first} == {("probability", 1)}
    assert {(seed["by"], seed["since"]) for seed in second} == {("before", 1)}


def test_networks_of_findings_are_gone(place: Path) -> None:
    assert {path.name for path in (place / "run" / "iterations" / "1").iterdir()} == {
        *(f"seeds-0{c}.{end}" for c in range(2) for end in ("npy", "parquet")),
        "model.safetensors", "patients.parquet", "recipe.toml", "thresholds.json",
    }  # fmt: skip


def test_every_iteration_is_a_run_of_its_own(place: Path, tmp_path: Path) -> None:
    folder, weights, sources = place / "run", set(), []
    for t in (0, 1, 2):
        one = open_run(folder / "iterations" / str(t))
        assert one.recipe.agcl is not None
        assert one.recipe.agcl.iterations == t
        weights.add(one.weights_sha256)
        out = tmp_path / f"{t}.parquet"
        mine.run(mine.Mine(one.folder.path, place / "data", out, "boxed", device="cpu", workers=1))
        sources += read_boxes(out).table["source"].unique().to_pylist()
        asked = predict.Predict(one.folder.path, place / "data", tmp_path / f"p{t}.parquet", device="cpu", workers=1)
        assert predict.run(asked).images
    assert len(weights) == 3
    assert sources == ["agcl/0", "agcl/1", "agcl/2"]
    assert open_run(folder).weights_sha256 == open_run(folder / "iterations" / "2").weights_sha256


def test_the_log_says_how_many_seeds_there_are(place: Path) -> None:
    counts = [sum(s["finding"] == finding for s in seeds(place / "run", 1)) for finding in FINDINGS]
    said = ", ".join(f"{finding} {count:,}" for finding, count in zip(FINDINGS, counts, strict=True))
    assert f"seeds of iteration 1: {said}\n" in log(place / "run")
    assert "severity: severity.csv: " in log(place / "run")


def test_films_reach_a_network_severe_ones_first(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage by stage, each with as many normal films; what is present is as severe as the stage asks, or more."""
    seen: list[tuple[str, np.ndarray, np.ndarray]] = []
    step = Loop._step

    def watched(self: Loop, phase: Phase, batch: Batch, labels: Tensor, guide: Guide | None) -> dict[str, Tensor]:
        if labels.shape[1] == 1:
            seen.append((phase.name, batch.rows, labels[:, 0].numpy() == 1))
        return step(self, phase, batch, labels, guide)

    monkeypatch.setattr(Loop, "_step", watched)
    train(dataset, tmp_path / "run", "agcl.iterations=1", "train.batch_size=4", "train.phases.0.epochs=1")
    index = open_dataset(dataset).restrict(FINDINGS).select("train")
    labels, severity = index.labels(), severities_of(index).values
    stages = [[*own] for _, own in itertools.groupby(seen, key=lambda one: one[0])]
    assert [own[0][0] for own in stages] == ["severe", "moderate", "mild"] * len(FINDINGS)
    for number, own in enumerate(stages):
        c, level = number // 3, 3 - number % 3
        rows, present = (np.concatenate([one[part] for one in own]) for part in (1, 2))
        assert (labels[rows[present], c] == 1).all()
        assert severity[rows[present], c].min() >= level
        assert not labels[rows[~present]].any()
        assert abs(present.sum() - (~present).sum()) <= 4  # what does not fill a batch waits


def test_maps_are_those_of_the_network_before_the_iteration(place: Path, tmp_path: Path) -> None:
    train_agl(place / "data", tmp_path / "agl")
    index = open_dataset(place / "data").restrict(FINDINGS).select("train")
    names = index.table["image_id"].to_pylist()
    whole = RunFolder(tmp_path / "agl")
    found = []
    for t in (0, 1):
        opened = open_run(whole.iteration(t).path)
        stream = infer(load(opened), index, opened.recipe.data, 32, 1, accelerator("cpu"))
        found.append(np.concatenate([of_films[:, 0, 0] for _, _, of_films in stream]))
    for t in (1, 2):
        maps = np.load(whole.iteration(t).seeds(0).with_suffix(".npy"), allow_pickle=False)[:, 0]
        rows = [names.index(seed["image_id"]) for seed in seeds(tmp_path / "agl", t) if seed["finding"] == FINDINGS[0]]
        assert len(rows)
        assert np.allclose(found[t - 1][rows], maps, atol=2e-3)
        assert not np.allclose(found[2 - t][rows], maps, atol=2e-3)


# --- going on


@pytest.mark.parametrize(("at", "phase"), [(2, "severe"), (4, "mild"), (3, "attention 1"), (1, "attention 2")])
def test_killed_anywhere_it_ends_with_the_same_files(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, phase: str
) -> None:
    """Of the phase, after so many steps: in the network of a finding, or in an iteration."""
    folder, count, seen = tmp_path / "run", Loop._count, []

    def killed(self: Loop, now: Phase, parts: dict[str, Tensor]) -> None:
        count(self, now, parts)
        seen.append(now.name)
        if seen.count(phase) == at:
            raise KeyboardInterrupt

    shutil.copytree(place / "data", tmp_path / "data")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "_count", killed)
        train(tmp_path / "data", folder)
    assert not RunFolder(folder).weights.exists()
    train(tmp_path / "data", folder)
    assert contents(folder) == contents(place / "run")


def test_asked_to_stop_in_the_network_of_a_finding_it_goes_on_there(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, count = tmp_path / "run", Loop._count

    def asked(self: Loop, now: Phase, parts: dict[str, Tensor]) -> None:
        self.stop.asked |= now.name == "moderate"
        count(self, now, parts)

    shutil.copytree(place / "data", tmp_path / "data")
    with monkeypatch.context() as patched, pytest.raises(CxrError, match="everything is saved"):
        patched.setattr(Loop, "_count", asked)
        train(tmp_path / "data", folder)
    assert (folder / "iterations" / "1" / "seeds-00" / "state.pt").is_file()
    train(tmp_path / "data", folder)
    assert contents(folder) == contents(place / "run")


def test_finished_it_is_not_done_again_and_other_severities_are_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "run", tmp_path / "run")
    assert train(tmp_path / "data", tmp_path / "run").already_done
    table = tmp_path / "data" / "severity.csv"
    table.write_text(table.read_text().replace(",3\n", ",2\n"))
    with pytest.raises(CxrError, match="the severities that it learns from have changed"):
        train(tmp_path / "data", tmp_path / "run")


# --- without a curriculum


def test_without_severities_it_says_so_and_learns_as_agl(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "severity.csv").unlink()
    train(tmp_path / "data", tmp_path / "agcl", "agcl.iterations=1", "agcl.threshold=0.1")
    train_agl(tmp_path / "data", tmp_path / "agl", "agcl.iterations=1", "train.phases.1.epochs=2")
    assert all(f"No severity of {finding} is known" in log(tmp_path / "agcl") for finding in FINDINGS)
    one, other = (torch_weights(tmp_path / name) for name in ("agcl", "agl"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def torch_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_agl_takes_its_seeds_from_probabilities_alone(place: Path, tmp_path: Path) -> None:
    train_agl(place / "data", tmp_path / "agl", "agcl.iterations=1")
    found = seeds(tmp_path / "agl", 1)
    assert {seed["by"] for seed in found} == {"probability"}
    assert all(seed["probability"] > 0.1 for seed in found)


def test_where_nothing_is_a_seed_it_says_what_to_do(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CxrError, match=r"No film is a seed.*--set agcl\.threshold"):
        train_agl(place / "data", tmp_path / "agl", "agcl.threshold=0.9999")


def test_it_ends_where_no_seed_is_new(place: Path, tmp_path: Path) -> None:
    """No probability is above this threshold, and films that are severe were seeds from the first iteration on."""
    train(place / "data", tmp_path / "run", "agcl.iterations=5", "agcl.threshold=0.9999")
    folder = RunFolder(tmp_path / "run")
    assert "(0 new)" in log(folder.path)
    assert not folder.iteration(2).finished
    assert not folder.iteration(3).path.exists()
    assert open_run(folder.path).weights_sha256 == open_run(folder.iteration(1).path).weights_sha256


# --- two processes


def test_two_processes_learn_and_leave_the_same_kind_of_folder(place: Path, tmp_path: Path) -> None:
    words = ["train", "--data", place / "data", "--recipe", "demo-agcl", "--run", tmp_path / "two", "--device", "cpu"]
    words += [word for override in SHORT for word in ("--set", override)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "cxrmine"]
    command = [*torchrun, *map(str, words), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    one, two = (
        {name for name in contents(folder) if not name.startswith("iterations/2")}  # there may be no new seeds
        for folder in (place / "run", tmp_path / "two")
    )
    assert one == two
    assert log(tmp_path / "two").count("seeds of iteration 1: ") == 1
    assert seeds(tmp_path / "two", 1)


# --- severities in other methods


def test_a_phase_counts_severe_findings_only(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of CAM, too: what is present and milder, or of unknown severity, does not count in that phase."""
    seen, step = [], Loop._step

    def watched(self: Loop, phase: Phase, batch: object, labels: Tensor, guide: object) -> dict[str, Tensor]:
        seen.append((batch.rows, labels))  # type: ignore[attr-defined]
        return step(self, phase, batch, labels, guide)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_step", watched)
    overrides = (*TINY, 'train.phases.0.severity="severe"', "train.phases.0.epochs=1")
    run(Train(place / "data", "demo", tmp_path / "cam", overrides, device="cpu", workers=1))
    index = open_dataset(place / "data").select("train")
    labels, severity = index.labels(), severities_of(index).values
    for rows, targets in seen:
        found = targets.numpy()
        assert (np.isnan(found) == ((labels[rows] == 1) & (severity[rows] < 3))).all()
        assert (found[~np.isnan(found)] == labels[rows][~np.isnan(found)]).all()
    assert sum(np.isnan(targets.numpy()).sum() for _, targets in seen)


def test_a_phase_of_severe_findings_needs_severities(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "severity.csv").unlink()
    overrides = (*TINY, 'train.phases.0.severity="severe"')
    with pytest.raises(CxrError, match=r"of no training film it is known.*cxrmine severity"):
        run(Train(tmp_path / "data", "demo", tmp_path / "cam", overrides, device="cpu", workers=1))


def test_a_file_of_severities_may_lie_elsewhere(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "severity.csv").rename(tmp_path / "graded.csv")
    named = f"data.severity={tmp_path / 'graded.csv'}"
    train(tmp_path / "data", tmp_path / "run", "agcl.iterations=1", named)
    assert open_run(tmp_path / "run").recipe.data.severity == "../graded.csv"
    assert {seed["by"] for seed in seeds(tmp_path / "run", 1)} & {"severity", "both"}


# --- one report


def test_a_report_can_be_followed_to_its_seeds(place: Path, tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "follow_report.py"))
    severity.run(severity.Severity(place / "data" / "reports.csv", tmp_path / "s.parquet"))
    graded = severities_of(open_dataset(place / "data").restrict(FINDINGS).select("train"))
    index = open_dataset(place / "data").restrict(FINDINGS).select("train")
    film, c = np.argwhere(graded.values == 2)[0]
    image = index.table["image_id"][int(film)].as_py()
    report = script["of_report"](tmp_path / "s.parquet", image)
    assert report[0] == f"{image}, its report:"
    assert any(line.startswith(f"  {FINDINGS[c]}: present, moderate (") for line in report)
    lines = script["of_run"](place / "run", place / "data", image)
    begin = lines.index(f"{FINDINGS[c]} (moderate):")
    assert lines[begin + 1] == "  learned in: moderate, mild"
    assert lines[begin + 2].startswith("  iteration 1: a seed by ")
    assert lines[begin + 3].startswith("  iteration 2: a seed by ")
    test = open_dataset(place / "data").select("test").table["image_id"][0].as_py()
    assert script["of_run"](place / "run", place / "data", test)[0].startswith("It is a film for test")
