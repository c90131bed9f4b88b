"""Predicting is repeatable: whole or in shards the same values, those that mining saw; and no image vanishes."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from cxrmine.boxes.shards import shard_path
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.runs import open_run
from cxrmine.scoring.areas import document
from cxrmine.scoring.classification import auc
from cxrmine.scoring.probabilities import NAMES, is_probabilities, read_probabilities
from cxrmine.stages import mine
from cxrmine.stages.predict import Predict, run, summary
from tests.test_cli import cxrmine, refused


def predict(dataset: Path, trained: Path, out: Path, **more: object) -> Path:
    run(Predict(trained, dataset, out, device="cpu", workers=1, batch_size=16, **more))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def whole(dataset: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return predict(dataset, trained, tmp_path_factory.mktemp("predicted") / "p.parquet", split="all")


def rows(path: Path) -> list[dict[str, object]]:
    return pq.ParquetFile(path).read().to_pylist()


def test_every_image_has_a_row_and_every_finding_a_column(dataset: Path, trained: Path, whole: Path) -> None:
    index, findings = open_dataset(dataset), open_run(trained).recipe.data.findings
    table = pq.ParquetFile(whole).read()
    assert table.column_names == [*NAMES, *findings]
    for name in ("image_id", "patient_id", "split"):
        assert table[name].to_pylist() == index.table[name].to_pylist()
    values = np.stack([table[f].to_numpy() for f in findings])
    assert values.dtype == np.float32
    assert ((values > 0) & (values < 1)).all()
    assert len(np.unique(values)) > values.size / 2
    assert set(table["status"].to_pylist()) == {"ok"}
    assert is_probabilities(whole)


def test_the_probabilities_are_those_that_mining_writes(
    dataset: Path, trained: Path, whole: Path, tmp_path: Path
) -> None:
    boxes = tmp_path / "b.parquet"
    mine.run(mine.Mine(trained, dataset, boxes, split="all", findings="all", device="cpu", workers=1, batch_size=16))
    predicted = {row["image_id"]: row for row in rows(whole)}
    mined = rows(images_path(boxes))
    assert len(mined) == 8 * len(predicted)
    assert all(predicted[row["image_id"]][row["finding"]] == row["probability"] for row in mined)  # type: ignore[index]


def test_shards_read_together_are_the_whole(dataset: Path, trained: Path, whole: Path, tmp_path: Path) -> None:
    for i in (3, 1, 2):
        predict(dataset, trained, tmp_path / "s.parquet", split="all", shard=(i, 3))
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"s-0000{i}-of-00003.parquet" for i in (1, 2, 3)]
    together, one = read_probabilities(tmp_path), read_probabilities(whole)
    assert together.table.equals(one.table)
    assert together.meta == one.meta
    config = Predict(trained, dataset, tmp_path / "e.parquet", shard=(2, 400), device="cpu", workers=1)
    assert summary(config, run(config)).startswith("Probabilities of 8 findings in 0 images of test")
    assert rows(shard_path(config.out, 2, 400)) == []


def test_the_batch_size_and_the_threads_change_nothing(
    dataset: Path, trained: Path, whole: Path, tmp_path: Path
) -> None:
    run(Predict(trained, dataset, tmp_path / "p.parquet", split="all", device="cpu", workers=3, batch_size=16))
    assert (tmp_path / "p.parquet").read_bytes() == whole.read_bytes()
    run(Predict(trained, dataset, tmp_path / "q.parquet", split="all", device="cpu", workers=2, batch_size=5))
    other, one = read_probabilities(tmp_path / "q.parquet"), read_probabilities(whole)
    for finding in one.findings:
        np.testing.assert_allclose(other.table[finding].to_numpy(), one.table[finding].to_numpy(), atol=1e-5)


def test_the_metadata_say_what_was_done_and_hold_no_path(dataset: Path, trained: Path, whole: Path) -> None:
    meta = read_meta(whole)
    assert (meta["kind"], meta["split"], meta["shard"]) == ("probabilities", "all", [1, 1])
    assert meta["recipe"]["name"] == "demo"
    assert meta["dataset"] == open_dataset(dataset).fingerprint
    assert meta["weights_sha256"] == open_run(trained).weights_sha256
    assert str(trained.parent) not in str(meta)
    assert str(dataset.parent) not in str(meta)


def test_what_is_done_is_not_done_again_and_other_work_does_not_replace_it(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    out = predict(dataset, trained, tmp_path / "p.parquet")
    assert {row["split"] for row in rows(out)} == {"test"}
    before = out.read_bytes(), out.stat().st_mtime_ns
    config = Predict(trained, dataset, out, device="cpu", workers=1)
    assert summary(config, run(config)) == f"{out} is predicted already."
    with pytest.raises(CxrError, match=r"p\.parquet exists and was made otherwise \(its split differs\).*--overwrite"):
        predict(dataset, trained, out, split="val")
    with pytest.raises(CxrError, match="exists and was mined otherwise"):
        mine.run(mine.Mine(trained, dataset, out, split="test", device="cpu", workers=1))
    assert (out.read_bytes(), out.stat().st_mtime_ns) == before
    predict(dataset, trained, out, split="val", overwrite=True)
    assert {row["split"] for row in rows(out)} == {"val"}
    boxes = tmp_path / "b.parquet"
    mine.run(mine.Mine(trained, dataset, boxes, split="test", device="cpu", workers=1))
    with pytest.raises(CxrError, match=r"b\.parquet exists and was made otherwise \(its kind differs\)"):
        predict(dataset, trained, boxes)


def test_an_unreadable_image_keeps_its_row_and_too_many_are_an_error(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "data"
    shutil.copytree(dataset, broken)
    films = sorted((broken / "images").iterdir())
    films[3].write_bytes(films[3].read_bytes()[:300])
    films[5].unlink()
    with pytest.raises(CxrError, match=rf"2 of 160 images cannot be read, the last is {films[5].name}.*max_unreadable"):
        predict(broken, trained, tmp_path / "p.parquet", split="all")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    allowed = {"split": "all", "overrides": ("data.max_unreadable=0.02",)}
    config = Predict(trained, broken, tmp_path / "p.parquet", device="cpu", workers=1, **allowed)  # type: ignore[arg-type]
    assert "in 160 images of all" in summary(config, result := run(config))
    assert result.unreadable == 2
    lost = {row["image_id"]: row for row in rows(config.out) if row["status"] != "ok"}
    assert {name: row["status"] for name, row in lost.items()} == {
        films[3].name: "unreadable: cut off before its end",
        films[5].name: "unreadable: no such file",
    }
    assert all(row["Mass"] is None and row["patient_id"] for row in lost.values())
    read = read_probabilities(config.out)
    assert [read.table[f].null_count for f in read.findings] == [2] * 8
    made = document([("demo", read)], open_dataset(broken))
    assert made["counts"]["images_without_probability"] == 2
    assert made["auc"]["Mass"]["missing"] == 2
    predict(broken, trained, tmp_path / "s.parquet", split="all", shard=(3, 3))


def test_what_it_wrote_scores_as_its_numbers_do(dataset: Path, whole: Path) -> None:
    index = open_dataset(dataset)
    read = read_probabilities(whole, index.findings)
    made = document([("demo", read)], index, "test")
    test = index.select("test")
    assert made["counts"]["images"] == len(test)
    assert made["counts"]["images_of_other_splits"] == len(index) - len(test)
    values = {row["image_id"]: row for row in rows(whole)}
    for c, finding in enumerate(index.findings):
        scores = np.array([values[name][finding] for name in test.table["image_id"].to_pylist()])
        assert made["auc"][finding]["auc"] == auc(test.labels()[:, c], scores)


def test_what_does_not_fit_is_refused(dataset: Path, trained: Path, tmp_path: Path) -> None:
    words = ["predict", "--run", trained, "--data", dataset, "--workers", "1", "--device", "cpu"]
    (tmp_path / "b.parquet").mkdir()
    (tmp_path / "file").write_text("mine")
    for out, code, said in (
        ("p.csv", 2, "It ends in .parquet"),
        ("p", 2, "It ends in .parquet"),
        ("p.images.parquet", 2, "not in .images.parquet"),
        ("b.parquet", 2, "is a folder"),
        ("file/p.parquet", 1, f"{tmp_path / 'file'} is a file"),
    ):
        refused(cxrmine(*words, "--out", tmp_path / out), code, said)
    out = tmp_path / "p.parquet"
    refused(cxrmine(*words, "--out", out, "--split", "tset"), 2, "tset", "Did you mean test?")
    refused(cxrmine(*words, "--out", out, "--shard", "4/3"), 2, "--shard 4/3")
    refused(cxrmine(*words, "--out", out, "--set", "mine.top=3"), 1, "cannot change a trained run")
    refused(cxrmine("predict", "--run", tmp_path / "none", "--data", dataset, "--out", out), 1, "no run in")
    assert cxrmine(*words).returncode == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.parquet", "file"]
    with pytest.raises(UsageError, match="no name for a table of probabilities"):
        predict(dataset, trained, tmp_path / "p.txt")


def test_what_can_be_refused_is_refused_before_torch_is_loaded(dataset: Path, trained: Path) -> None:
    code = "import sys; from pathlib import Path; from cxrmine.stages.predict import Predict, run\n"
    code += "try: run(Predict(Path(sys.argv[1]), Path(sys.argv[2]), Path('/proc/p.parquet')))\n"
    code += "except Exception as fault: sys.exit(f'{fault} torch: {\"torch\" in sys.modules}')"
    words = [sys.executable, "-c", code, str(trained), str(dataset)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "/proc/p.parquet cannot be written" in done.stderr
    assert done.stderr.strip().endswith("torch: False")


def test_a_network_that_gives_no_number_is_refused(dataset: Path, trained: Path, tmp_path: Path) -> None:
    astray = tmp_path / "run"
    shutil.copytree(trained, astray)
    weights = load_file(astray / "model.safetensors")
    bias = next(name for name in weights if name.endswith("head.bias"))
    weights[bias] = np.full_like(weights[bias], np.nan)
    save_file(weights, astray / "model.safetensors")
    with pytest.raises(CxrError, match=r"gives no number.*Train again"):
        predict(dataset, astray, tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()


def test_the_command_says_what_it_did(dataset: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    words = ["predict", "--run", trained, "--data", dataset, "--out", out, "--shard", "1/2", "--device", "cpu"]
    done = cxrmine(*words)
    first = shard_path(out, 1, 2)
    count = len(rows(first))
    assert done.stdout == f"Probabilities of 8 findings in {count} images of test → {first} (0 images unreadable)\n"
    assert cxrmine(*words).stdout == f"{first} is predicted already.\n"
