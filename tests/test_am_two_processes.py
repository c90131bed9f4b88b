"""Two processes train attention mining, also where one of them is late and the other's disk is slow."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import TINY

UNEVEN = """
import os, sys, time
from pathlib import Path
import cxrmine.stages.training as training
from cxrmine.stages.train import Train, run

save, begin = training.save_weights, training.Training.begin

def slowly(path, model):
    time.sleep(1 if path.parent.name == "rounds" and path.name != "0.safetensors" else 0)
    save(path, model)

def late(self, step):
    time.sleep(2 if os.environ["RANK"] == "1" and step.round == 1 else 0)
    return begin(self, step)

training.save_weights, training.Training.begin = slowly, late
run(Train(Path(sys.argv[1]), "demo-am", Path(sys.argv[2]), tuple(sys.argv[3:]), device="cpu", workers=1))
"""


def test_two_processes_wait_for_each_other_between_the_rounds(dataset: Path, tmp_path: Path) -> None:
    script, folder = tmp_path / "uneven.py", tmp_path / "run"
    script.write_text(UNEVEN)
    one_epoch = ("train.phases.0.epochs=1", "train.phases.2.epochs=1", "am.msa_channels=[8, 4]", "mine.rounds=2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    words = [*torchrun, str(dataset), str(folder), *TINY, *one_epoch]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "rounds").iterdir()) == [
        "0.safetensors", "1.masks.parquet", "1.safetensors", "1.thresholds.json", "2.safetensors", "2.thresholds.json",
    ]  # fmt: skip
