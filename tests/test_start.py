"""train.start: attention mining that begins with the weights of a finished run, and what it refuses to begin with."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from cxrmine.errors import CxrError
from cxrmine.methods.registry import build
from cxrmine.recipe_files import load_recipe
from cxrmine.stages.train import to_train_on
from cxrmine.stages.training import Training
from tests.test_groups import HAS, films
from tests.test_rounds import train


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Trainings that were about to start, in place of being run."""
    trainings: list[Training] = []
    monkeypatch.setattr(Training, "run", lambda training: trainings.append(training))
    return trainings


def test_a_run_starts_from_a_finished_one(dataset: Path, trained: Path, tmp_path: Path, begun: list[Training]) -> None:
    """It has the phases after the base ones, that run's backbone and head, and its patients."""
    start, folder = tmp_path / "cam", tmp_path / "am"
    shutil.copytree(trained, start)
    before = pq.ParquetFile(start / "patients.parquet").read()
    more = pa.table({"patient_id": ["far away", "near"], "split": ["train", "val"]})
    pq.write_table(pa.concat_tables([before, more]), start / "patients.parquet")
    train(dataset, folder, f"train.start={start}")
    weights, own = load_file(start / "model.safetensors"), begun[0].objective.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights.items())
    fresh = build(begun[0].recipe, torch.full((8,), 0.5)).state_dict()
    assert {name.partition(".")[0] for name in set(fresh) - set(weights)} == {"msa", "msa_head"}
    assert [step.phase.name for step in begun[0].recipe.schedule][:3] == ["aggregation", "whole", "round 1"]
    patients = pq.ParquetFile(folder / "patients.parquet").read().to_pylist()
    seen = {row["patient_id"]: row["split"] for row in patients}
    assert (seen["far away"], seen["near"]) == ("train", "val")
    assert len(seen) == len(patients) == len(before) + 2


def test_a_patient_the_first_run_trained_on_is_no_validation_patient(
    dataset: Path, trained: Path, tmp_path: Path, begun: list[Training]
) -> None:
    start = tmp_path / "cam"
    shutil.copytree(trained, start)
    before = pq.ParquetFile(start / "patients.parquet").read()
    everyone = pa.table({"patient_id": before["patient_id"], "split": ["train"] * len(before)})
    pq.write_table(everyone, start / "patients.parquet")
    train(dataset, tmp_path / "am", f"train.start={start}")
    assert set(pq.ParquetFile(tmp_path / "am" / "patients.parquet").read()["split"].to_pylist()) == {"train"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('data.findings=["Nodule", "Mass"]', "learned other findings, or the same in another order"),
        ("network.channels=[8, 8, 16, 24]", r"another network \(backbone\.body\.layer4\S+ differs\)"),
        ("network.layers=[2, 1, 1, 1]", r"another network \(backbone\.body\.layer1\.1\S+ differs\)"),  # one block more
        ("network.backbone=resnet18", "another network"),
        ("train.start=nowhere", "There is no run in nowhere"),
    ],
)
def test_what_cannot_be_started_from_is_named(
    dataset: Path, trained: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(CxrError, match=message):
        train(dataset, tmp_path / "am", f"train.start={trained}", override)
    assert not (tmp_path / "am").exists(), "nothing is claimed"


def test_films_that_validate_are_not_trained_on_though_they_have_boxes(tmp_path: Path) -> None:
    index = films(*[("train", HAS)] * 4, ("val+", HAS), ("test+", HAS))
    recipe = load_recipe("demo-am", ['train.include=["boxed"]'])
    assert set(to_train_on(index, recipe).table["split"].to_pylist()) == {"train", "test"}


def test_include_without_rounds_is_refused() -> None:
    with pytest.raises(CxrError, match=r"train\.include is for the rounds"):
        load_recipe("demo-am", ['train.include=["boxed"]', "train.phases.3.kind=plain", "mine.rounds=1"])
