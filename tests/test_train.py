"""A run goes on exactly where it stopped, says what it is, and refuses what does not fit it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from cxrmine.config import Phase
from cxrmine.data.datasets import open_dataset
from cxrmine.errors import CxrError
from cxrmine.learn.loop import Loop
from cxrmine.methods.registry import load
from cxrmine.runs import RunFolder, open_run
from cxrmine.stages.train import Train, run
from tests.conftest import TINY

SAME = ("model.safetensors", "thresholds.json", "metrics.jsonl", "patients.parquet", "recipe.toml")


def command(dataset: Path, folder: Path, *more: str) -> list[str]:
    sets = [word for override in TINY for word in ("--set", override)]
    base = [sys.executable, "-m", "cxrmine", "train", "--data", str(dataset), "--recipe", "demo", "--run", str(folder)]
    return [*base, *sets, "--device", "cpu", "--workers", "1", *more]


def started(process: subprocess.Popen[str] | subprocess.Popen[bytes], folder: Path, times: int) -> None:
    """Wait until the process has begun to train, for the `times`-th time in this folder, or has ended."""
    log = folder / "log.txt"
    while process.poll() is None and (not log.exists() or log.read_text().count("training and") < times):
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


def test_the_run_folder_holds_what_it_should(dataset: Path, trained: Path) -> None:
    opened = open_run(trained)
    assert opened.recipe.data.findings == tuple(sorted(opened.recipe.data.findings))
    assert len(opened.dataset) == 64
    assert set(opened.thresholds) == set(opened.recipe.data.findings)
    lines = [json.loads(line) for line in RunFolder(trained).metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines if "val_loss" in line] == [1, 2]
    patients = pq.ParquetFile(RunFolder(trained).patients).read()
    assert set(patients["split"].to_pylist()) == {"train", "val"}
    assert len(set(patients["patient_id"].to_pylist())) == len(patients)


def test_training_again_gives_the_same_bytes(dataset: Path, trained: Path, tmp_path: Path) -> None:
    run(Train(dataset, "demo", tmp_path / "again", TINY, device="cpu", workers=1))
    assert contents(tmp_path / "again") == contents(trained)


def test_an_order_to_stop_saves_and_the_same_command_goes_on(dataset: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    for times, number in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        process = subprocess.Popen(command(dataset, folder), stderr=subprocess.PIPE, text=True)
        started(process, folder, times)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (75, 0), errors
        assert "Traceback" not in errors
    run(Train(dataset, "demo", folder, TINY, device="cpu", workers=1))
    assert contents(folder) == contents(trained)


def test_killed_at_random_instants_it_ends_with_the_same_weights(dataset: Path, trained: Path, tmp_path: Path) -> None:
    folder, chance = tmp_path / "killed", random.Random(0)
    for times in range(1, 6):
        process = subprocess.Popen(command(dataset, folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        started(process, folder, times)
        time.sleep(chance.uniform(0, 1.0))
        process.kill()
        process.wait()
    run(Train(dataset, "demo", folder, TINY, device="cpu", workers=1))
    assert contents(folder) == contents(trained)


def test_a_run_in_use_is_refused(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    first = subprocess.Popen(command(dataset, folder), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        started(first, folder, 1)
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(command(dataset, folder), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"in use by {os.uname().nodename} pid {first.pid}" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(dataset: Path, trained: Path) -> None:
    with pytest.raises(CxrError, match=r"train\.seed: 0 → 5.*--fresh"):
        run(Train(dataset, "demo", trained, (*TINY, "train.seed=5"), device="cpu", workers=1))
    assert run(Train(dataset, "demo", trained, TINY, device="cpu", workers=1)).already_done


def test_fresh_moves_the_old_run_aside(dataset: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = (*TINY[:-1], "train.phases.0.epochs=1")
    run(Train(dataset, "demo", folder, short, device="cpu", workers=1))
    old = contents(folder)
    result = run(Train(dataset, "demo", folder, TINY, fresh=True, device="cpu", workers=1))
    assert not result.already_done
    assert contents(tmp_path / "run.1") == old
    assert contents(folder) == contents(trained)


def test_two_processes_train_and_leave_the_same_kind_of_folder(dataset: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    words = command(dataset, folder)[3:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "cxrmine", *words]
    done = subprocess.run(torchrun, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in trained.iterdir())
    assert (folder / "log.txt").read_text().count("training and") == 1
    lines, alone = ((f / "metrics.jsonl").read_text().splitlines() for f in (folder, trained))
    assert [json.loads(line).keys() for line in lines] == [json.loads(line).keys() for line in alone]
    assert open_run(folder).recipe == open_run(trained).recipe


def test_missing_and_unreadable_images_stop_a_run_that_has_too_many(dataset: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(dataset, broken)
    films = sorted((broken / "images").iterdir())
    for film in films[::2]:
        film.write_bytes(film.read_bytes()[:200])
    with pytest.raises(CxrError, match=r"training images cannot be read.*cut off before its end.*cxrmine check"):
        run(Train(broken, "demo", tmp_path / "run", TINY, device="cpu", workers=1))
    for film in films[::2]:
        film.unlink()
    with pytest.raises(CxrError, match="are listed but not there"):
        run(Train(broken, "demo", tmp_path / "run", TINY, device="cpu", workers=1))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_state_is_read_without_unpickling(trained: Path, tmp_path: Path) -> None:
    import pickle

    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "model.safetensors").unlink()
    (folder / "state.pt").write_bytes(pickle.dumps(print))
    from cxrmine.learn.checkpoint import load_state

    with pytest.raises(CxrError, match="cannot be read"):
        load_state(RunFolder(folder))


def test_a_later_phase_goes_on_as_it_would_have_alone(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen parts and clipping: what one phase leaves behind must not matter to the next."""
    phases = 'train.phases=[{name="a", epochs=1, lr=0.01}, {name="b", epochs=1, lr=0.01, frozen=["backbone"]}]'
    overrides = (*TINY[:-1], phases, "train.clip=0.01", "train.save_every=1", "train.optimizer=sgd")
    run(Train(dataset, "demo", tmp_path / "alone", overrides, device="cpu", workers=1))
    count = Loop._count

    def killed_in_the_second_phase(self: Loop, phase: Phase, loss: Tensor) -> None:
        count(self, phase, loss)
        if phase.name == "b" and self.at.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "_count", killed_in_the_second_phase)
        run(Train(dataset, "demo", tmp_path / "killed", overrides, device="cpu", workers=1))
    run(Train(dataset, "demo", tmp_path / "killed", overrides, device="cpu", workers=1))
    assert contents(tmp_path / "killed") == contents(tmp_path / "alone")


def test_a_folder_is_claimed_only_by_what_can_be_trained(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(CxrError, match="no model of timm"):
        run(Train(dataset, "demo", folder, (*TINY, "network.backbone=resnet5O"), device="cpu", workers=1))
    lonely = tmp_path / "data"
    shutil.copytree(dataset, lonely)
    table = open_dataset(dataset).table
    train, val = (table.filter(pc.equal(table["split"], s))["image_id"].to_pylist() for s in ("train", "val"))
    kept = {train[0], *val}
    (lonely / "train_val_list.txt").write_text("\n".join(sorted(kept)))
    (lonely / "test_list.txt").write_text("\n".join(sorted(set(table["image_id"].to_pylist()) - kept)))
    with pytest.raises(CxrError, match=r"1 training images in batches of 16 .* two are needed"):
        run(Train(lonely, "demo", folder, TINY, device="cpu", workers=1))
    run(Train(dataset, "demo", folder, (*TINY[:-1], "train.phases.0.epochs=1"), device="cpu", workers=1))
    assert RunFolder(folder).finished


def test_who_was_trained_on_is_not_rewritten_when_a_film_has_gone(dataset: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(dataset, data)
    overrides = (*TINY[:-1], "train.phases.0.epochs=1", "data.max_unreadable=0.5")
    run(Train(data, "demo", folder, overrides, device="cpu", workers=1))
    before = RunFolder(folder).patients.read_bytes()
    for film in sorted((data / "images").iterdir())[::4]:
        film.unlink()
    assert run(Train(data, "demo", folder, overrides, device="cpu", workers=1)).already_done
    assert RunFolder(folder).patients.read_bytes() == before


def test_a_runs_own_recipe_is_a_recipe(dataset: Path, trained: Path, tmp_path: Path) -> None:
    run(Train(dataset, str(trained / "recipe.toml"), tmp_path / "again", device="cpu", workers=1))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("thresholds.json", b'{"Mass": ', "a number from 0 to 1 for each"),
        ("thresholds.json", b"[1]", "a number from 0 to 1 for each"),
        ("thresholds.json", b"{}", "a number from 0 to 1 for each"),
        ("recipe.toml", b"\xff\xfe\x00", "not a text file"),
        ("recipe.toml", b'name = "demo"', "does not say what it was trained on"),
        ("model.safetensors", b"junk", "does not hold this network's weights"),
    ],
)
def test_a_broken_run_is_named(trained: Path, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(CxrError, match=message):
        load(open_run(folder))


def test_a_broken_step_mark_is_named(dataset: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "model.safetensors").unlink()
    whole = (folder / "state.pt").read_bytes()
    for content in (whole[:1000], b"", b"PK junk"):
        (folder / "state.pt").write_bytes(content)
        with pytest.raises(CxrError, match=r"state\.pt cannot be read"):
            run(Train(dataset, "demo", folder, TINY, device="cpu", workers=1))
    (folder / "state.pt").write_bytes(whole)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(CxrError, match="shorter than when this run was stopped"):
        run(Train(dataset, "demo", folder, TINY, device="cpu", workers=1))
