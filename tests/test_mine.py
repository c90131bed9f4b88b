"""Mining is repeatable: whole or in shards, killed or left alone, the same bytes; and nothing vanishes."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.maps import FINAL, read_maps
from cxrmine.boxes.shards import read_boxes, shard_path
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.layouts import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.stages.mine import Mine, run


def mine(dataset: Path, trained: Path, out: Path, **more: object) -> Path:
    run(Mine(trained, dataset, out, device="cpu", workers=1, batch_size=16, **more))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def whole(dataset: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mine(dataset, trained, tmp_path_factory.mktemp("boxes") / "b.parquet", split="all")


def rows(path: Path) -> list[dict[str, object]]:
    return pq.ParquetFile(path).read().to_pylist()


def test_every_labelled_pair_is_there_once_with_its_boxes(dataset: Path, whole: Path) -> None:
    index = open_dataset(dataset)
    ids = index.table.column("image_id").to_pylist()
    labelled = {(ids[r], index.findings[c]) for r, c in np.argwhere(index.labels() == 1)}
    everything, boxes = rows(images_path(whole)), rows(whole)
    assert {row["image_id"] for row in everything} == set(ids)
    images = [row for row in everything if row["status"] != "no pair"]
    assert {(row["image_id"], row["finding"]) for row in images} == labelled
    assert len(images) == len(labelled)
    for row in images:
        mine_ = [b for b in boxes if (b["image_id"], b["finding"]) == (row["image_id"], row["finding"])]
        assert len(mine_) == row["boxes"] <= 3
        assert [b["rank"] for b in mine_] == list(range(1, len(mine_) + 1))
        assert row["status"] == ("ok" if mine_ else "no box")
    assert {b["source"] for b in boxes} == {"cam"}
    assert all(0 <= b["x_min"] < b["x_max"] <= 96 and 0 <= b["y_min"] < b["y_max"] <= 96 for b in boxes)  # type: ignore[operator]


def test_shards_read_together_are_the_whole(dataset: Path, trained: Path, whole: Path, tmp_path: Path) -> None:
    for i in (3, 1, 2):
        mine(dataset, trained, tmp_path / "s.parquet", split="all", shard=(i, 3))
    assert shard_path(tmp_path / "s.parquet", 1, 3).name == "s-00001-of-00003.parquet"
    together, one = read_boxes(tmp_path), read_boxes(whole)
    assert together.table.equals(one.table)
    assert together.images is not None
    assert together.images.equals(one.images)


def test_the_batch_size_and_the_threads_change_nothing(
    dataset: Path, trained: Path, whole: Path, tmp_path: Path
) -> None:
    run(Mine(trained, dataset, tmp_path / "b.parquet", split="all", device="cpu", workers=3, batch_size=16))
    assert (tmp_path / "b.parquet").read_bytes() == whole.read_bytes()
    run(Mine(trained, dataset, tmp_path / "c.parquet", split="all", device="cpu", workers=2, batch_size=5))
    other, one = (pq.ParquetFile(p).read() for p in (tmp_path / "c.parquet", whole))
    np.testing.assert_allclose(other["x_min"].to_numpy(), one["x_min"].to_numpy(), atol=1)


def test_what_is_done_is_not_done_again_and_other_work_does_not_replace_it(
    dataset: Path, trained: Path, whole: Path
) -> None:
    before = whole.stat().st_mtime_ns
    assert run(Mine(trained, dataset, whole, split="all", device="cpu")).already_done
    with pytest.raises(CxrError, match=r"mined otherwise \(its recipe differ.*--overwrite"):
        run(Mine(trained, dataset, whole, split="all", device="cpu", overrides=("mine.rounds=3",)))
    assert whole.stat().st_mtime_ns == before


def test_killed_at_random_instants_it_leaves_nothing_and_then_the_same(
    dataset: Path, trained: Path, whole: Path, tmp_path: Path
) -> None:
    out, chance = tmp_path / "b.parquet", random.Random(1)
    words = ["mine", "--run", trained, "--data", dataset, "--split", "all", "--out", out, "--batch-size", "16"]
    command = [sys.executable, "-m", "cxrmine", *map(str, words), "--device", "cpu", "--workers", "1"]
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not any(tmp_path.glob(".b.parquet.*")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.wait()
        if out.exists():
            assert out.read_bytes() == whole.read_bytes()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert out.read_bytes() == whole.read_bytes()
    assert images_path(out).read_bytes() == images_path(whole).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.images.parquet", "b.parquet"]


def test_the_metadata_say_what_was_done_and_hold_no_path(dataset: Path, trained: Path, whole: Path) -> None:
    meta = read_meta(whole)
    assert meta["shard"] == [1, 1]
    assert meta["split"] == "all"
    assert meta["recipe"]["name"] == "demo"
    assert len(meta["weights_sha256"]) == len(meta["dataset"]) == 64
    assert str(trained.parent) not in str(meta)
    assert str(dataset.parent) not in str(meta)


def test_maps_hold_every_round_and_the_final_map(dataset: Path, trained: Path, tmp_path: Path) -> None:
    mine(dataset, trained, tmp_path / "b.parquet", split="test", maps=tmp_path / "maps", overrides=("mine.rounds=3",))
    index, arrays = read_maps(tmp_path / "maps")
    assert set(index["round"].to_pylist()) == {FINAL, 1, 2, 3}
    pairs = [row for row in rows(images_path(tmp_path / "b.parquet")) if row["finding"]]
    assert len(index) == len(arrays[0]) == 4 * len(pairs)
    assert arrays[0].shape[1:] == (8, 8)
    first = [i for i, row in enumerate(index.to_pylist()) if row["round"] == 1]
    peaks = arrays[0][first].reshape(len(first), -1).max(axis=1)
    assert set(peaks.tolist()) <= {0, 255}
    assert {b["source"] for b in rows(tmp_path / "b.parquet")} == {"cam/3"}


def test_all_and_predicted_pairs(dataset: Path, trained: Path, tmp_path: Path) -> None:
    every = mine(dataset, trained, tmp_path / "a.parquet", split="test", findings="all")
    count = len(open_dataset(dataset).select("test"))
    images = rows(images_path(every))
    assert len(images) == 8 * count
    predicted = mine(dataset, trained, tmp_path / "p.parquet", split="test", findings="predicted")
    pairs = [row for row in rows(images_path(predicted)) if row["finding"]]
    assert 0 < len(pairs) < len(images)


def test_an_unreadable_image_is_in_the_table_and_too_many_are_an_error(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "data"
    shutil.copytree(dataset, broken)
    films = sorted((broken / "images").iterdir())
    films[3].write_bytes(films[3].read_bytes()[:300])
    films[5].unlink()
    with pytest.raises(CxrError, match=r"2 of 160 images cannot be read.*max_unreadable"):
        mine(broken, trained, tmp_path / "b.parquet", split="all")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    out = mine(broken, trained, tmp_path / "b.parquet", split="all", overrides=("data.max_unreadable=0.02",))
    lost = {
        row["image_id"]: row["status"]
        for row in rows(images_path(out))
        if row["status"] not in ("ok", "no box", "no pair")
    }
    assert lost == {
        films[3].name: "unreadable: cut off before its end",
        films[5].name: "unreadable: no such file",
    }


def test_what_does_not_fit_is_refused(dataset: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.parquet"
    with pytest.raises(UsageError, match=r"labeled.*Did you mean labelled"):
        mine(dataset, trained, out, findings="labeled")
    with pytest.raises(CxrError, match=r"no run in.*cxrmine train"):
        mine(dataset, tmp_path / "none", out)
    with pytest.raises(UsageError, match=r"mine\.way = wong.*Did you mean wang"):
        mine(dataset, trained, out, overrides=("mine.way=wong",))
    other = tmp_path / "data"
    shutil.copytree(dataset, other)
    entry = other / "Data_Entry_2017_v2020.csv"
    entry.write_text(entry.read_text().replace("Mass", "Fibrosis").replace("Nodule", "Fibrosis"))
    (other / "BBox_List_2017.csv").unlink()
    with pytest.raises(CxrError, match="knows Mass, Nodule, which the labels"):
        mine(other, trained, out)
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
