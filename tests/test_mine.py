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

from cxrmine.boxes.extract import to_input
from cxrmine.boxes.maps import FINAL, maps_path, read_maps
from cxrmine.boxes.shards import read_boxes, shard_path
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import fit_geometry
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import write_bytes
from cxrmine.learn.team import Team
from cxrmine.runs import open_run
from cxrmine.stages.boxer import Mined
from cxrmine.stages.mine import Mine, provenance, run, summary
from cxrmine.stages.miner import Miner
from cxrmine.tables import COORDINATES
from tests.test_cli import cxrmine, refused

ERASED = ("mine.rounds=3", "mine.fixed_weights=true")


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
        run(Mine(trained, dataset, whole, split="all", device="cpu", overrides=ERASED))
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


def test_weights_from_a_file_are_named_without_their_folder(dataset: Path, trained: Path) -> None:
    opened = open_run(trained)
    network = opened.recipe.network.model_copy(update={"weights": "/home/me/resnet.safetensors"})
    recipe = opened.recipe.model_copy(update={"network": network})
    told = provenance("train", (1, 1), recipe, opened, open_dataset(dataset))
    assert told["recipe"]["network"]["weights"] == "resnet.safetensors"


def test_maps_hold_every_round_and_the_final_map(dataset: Path, trained: Path, tmp_path: Path) -> None:
    mine(dataset, trained, tmp_path / "b.parquet", split="test", maps=tmp_path / "maps", overrides=ERASED)
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


def test_a_place_that_cannot_be_is_refused_before_anything_is_done(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    words = ["mine", "--run", trained, "--data", dataset, "--workers", "1", "--device", "cpu"]
    (tmp_path / "b.parquet").mkdir()
    file = tmp_path / "file"
    file.write_text("mine")
    for out, code, said in (
        ("b.csv", 2, "It ends in .parquet"),
        ("b", 2, "It ends in .parquet"),
        ("b.images.parquet", 2, "not in .images.parquet"),
        ("b.parquet", 2, "is a folder"),
        (".", 2, "is a folder"),
        ("file/b.parquet", 1, f"{file} is a file"),
        (f"{'n' * 260}.parquet", 1, "File name too long"),
        ("/proc/b.parquet", 1, "/proc/b.parquet cannot be written"),
    ):
        refused(cxrmine(*words, "--out", tmp_path / out), code, said)
    refused(cxrmine(*words, "--out", tmp_path / "c.parquet", "--maps", file), 2, f"--maps {file} is a file")
    refused(cxrmine(*words, "--out", tmp_path / "c.parquet", "--maps", file / "m"), 1, f"{file} is a file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.parquet", "file"]
    assert file.read_text() == "mine"


def test_where_one_cannot_write_it_is_said_before_torch_is_loaded(dataset: Path, trained: Path) -> None:
    code = "import sys; from pathlib import Path; from cxrmine.stages.mine import Mine, run\n"
    code += "try: run(Mine(Path(sys.argv[1]), Path(sys.argv[2]), Path('/proc/b.parquet')))\n"
    code += "except Exception as fault: sys.exit(f'{fault} torch: {chr(116) + \"orch\" in sys.modules}')"
    words = [sys.executable, "-c", code, str(trained), str(dataset)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "/proc/b.parquet cannot be written" in done.stderr
    assert done.stderr.strip().endswith("torch: False")


def test_a_full_disk_is_told_with_the_name_of_the_file(dataset: Path, trained: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cxrmine", "mine", "--run", trained, "--data", dataset, "--split", "all"]
    words += ["--workers", "1", "--device", "cpu", "--out", tmp_path / "b.parquet"]
    command = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *map(str, words)]
    refused(
        subprocess.run(command, capture_output=True, text=True, check=False),
        1,
        f"File too large ({tmp_path / 'b.parquet'}).",
    )
    assert list(tmp_path.iterdir()) == []


def test_train_into_a_file_names_it(dataset: Path, tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"mine")
    words = ["train", "--data", dataset, "--recipe", "demo", "--workers", "1", "--run", tmp_path / "file"]
    refused(cxrmine(*words), 1, str(tmp_path / "file"), "is a file")


@pytest.mark.parametrize("rounds", ["0", "21", "one"])
def test_rounds_out_of_range_are_a_fault_of_the_command_line(tmp_path: Path, rounds: str) -> None:
    done = cxrmine("mine", "--out", tmp_path / "b.parquet", "--rounds", rounds)
    assert done.returncode == 2
    assert "--rounds" in done.stderr


def test_the_shard_of_a_slurm_array(monkeypatch: pytest.MonkeyPatch) -> None:
    from cxrmine.commands.mine import parse_shard

    def slurm(**values: str) -> tuple[int, int]:
        for key in ("ID", "COUNT", "MIN", "STEP"):
            monkeypatch.delenv(f"SLURM_ARRAY_TASK_{key}", raising=False)
        for key, value in values.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{key}", value)
        return parse_shard(None)

    assert [slurm(ID=str(i), COUNT="4", MIN="0", STEP="2")[0] for i in (0, 2, 4, 6)] == [1, 2, 3, 4]
    assert [slurm(ID=str(i), COUNT="2", MIN="10", STEP="5") for i in (10, 15)] == [(1, 2), (2, 2)]
    assert slurm(ID="3", COUNT="3", MIN="1") == (3, 3)
    for odd in (
        {"ID": "3", "COUNT": "3"},
        {"ID": "9", "COUNT": "3", "MIN": "1"},
        {"ID": "0", "COUNT": "3", "MIN": "1"},
        {"ID": "x", "COUNT": "3", "MIN": "1"},
        {"ID": "1", "COUNT": "3", "MIN": "1", "STEP": "0"},
    ):
        with pytest.raises(UsageError, match=r"SLURM_ARRAY_TASK_ID=.*SLURM_ARRAY_TASK_MIN=.*--shard I/N"):
            slurm(**odd)
    assert parse_shard("2/3") == (2, 3)  # the flag is stronger


@pytest.mark.parametrize("text", ["²/3", "1/³", "0/3", "4/3", "1", "1/", "/3", "", "-1/3", "1/2/3", f"1/{'9' * 5000}"])
def test_a_shard_that_is_none(text: str) -> None:
    from cxrmine.commands.mine import parse_shard

    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


def test_a_table_that_is_not_this_work_is_never_replaced_unasked(dataset: Path, trained: Path, tmp_path: Path) -> None:
    mine_ = tmp_path / "truth.parquet"  # a boxes table without an images table beside it
    shutil.copy(dataset / "truth.parquet", mine_)
    with pytest.raises(CxrError, match=r"truth\.parquet exists and was mined otherwise"):
        mine(dataset, trained, mine_)
    mine_.write_text("not even Parquet")
    with pytest.raises(CxrError, match="cannot be read as Parquet"):
        mine(dataset, trained, mine_)
    assert mine_.read_text() == "not even Parquet"


def test_maps_say_what_they_are_of_and_are_not_replaced_by_others(dataset: Path, trained: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    out = mine(dataset, trained, tmp_path / "b.parquet", split="test", maps=maps)
    index = maps_path(maps, 1, 1).with_suffix(".parquet")
    assert read_meta(index) == read_meta(out)
    before = {file: file.read_bytes() for file in (index, maps_path(maps, 1, 1))}

    other = {"split": "test", "maps": maps, "overrides": ("mine.rounds=2", ERASED[1])}
    with pytest.raises(
        CxrError, match=r"maps-00001-of-00001.parquet exists.*recipe differ.*--maps, or say --overwrite"
    ):
        mine(dataset, trained, tmp_path / "c.parquet", **other)
    with pytest.raises(CxrError, match="differ in the number of shards: 1 and 2"):
        mine(dataset, trained, tmp_path / "d.parquet", split="test", maps=maps, shard=(1, 2))
    assert {file: file.read_bytes() for file in before} == before
    assert sorted(p.name for p in tmp_path.glob("*.parquet")) == ["b.images.parquet", "b.parquet"]

    mine(dataset, trained, tmp_path / "c.parquet", **other, overwrite=True)
    assert set(read_maps(maps)[0]["round"].to_pylist()) == {FINAL, 1, 2}


def test_shards_of_maps_are_one_or_refused(dataset: Path, trained: Path, tmp_path: Path) -> None:
    maps, whole = tmp_path / "maps", tmp_path / "whole"
    mine(dataset, trained, tmp_path / "w.parquet", split="test", maps=whole)
    for i in (1, 2):
        mine(dataset, trained, tmp_path / "b.parquet", split="test", maps=maps, shard=(i, 2))
    index, arrays = read_maps(maps)
    one, single = read_maps(whole)
    assert index.drop(["shard", "row"]).equals(one.drop(["shard", "row"]))
    assert np.array_equal(np.concatenate(arrays), single[0])

    for name in ("maps-00002-of-00002.parquet", "maps-00002-of-00002.npy", "maps-00001-of-00002.npy"):
        (maps / name).rename(tmp_path / "aside")
        with pytest.raises(CxrError, match=f"{name} is missing"):
            read_maps(maps)
        (tmp_path / "aside").rename(maps / name)
    mine(
        dataset, trained, tmp_path / "o.parquet", split="test", maps=maps, shard=(2, 2), overwrite=True, findings="all"
    )
    with pytest.raises(
        CxrError, match=r"maps-00002-of-00002.parquet and .*maps-00001-of-00002.parquet differ in findings"
    ):
        read_maps(maps)
    for file in whole.iterdir():
        shutil.copy(file, maps)
    with pytest.raises(CxrError, match="number of shards: 1 and 2"):
        read_maps(maps)
    array = maps_path(whole, 1, 1)
    array.write_bytes(array.read_bytes()[:-3])
    with pytest.raises(CxrError, match=r"maps-00001-of-00001\.npy is damaged"):
        read_maps(whole)


def test_without_any_labelled_pair_the_table_is_there_and_empty(dataset: Path, trained: Path, tmp_path: Path) -> None:
    normals = tmp_path / "data"
    shutil.copytree(dataset, normals)
    test = set((normals / "test_list.txt").read_text().split())
    entry = normals / "Data_Entry_2017_v2020.csv"
    lines = [line.split(",") for line in entry.read_text().splitlines()]
    lines = [[line[0], "No Finding", *line[2:]] if line[0] in test else line for line in lines]
    entry.write_text("\n".join(map(",".join, lines)) + "\n")
    (normals / "BBox_List_2017.csv").unlink()
    config = Mine(
        trained, normals, tmp_path / "b.parquet", split="test", maps=tmp_path / "maps", device="cpu", workers=1
    )
    result = run(config)
    assert (result.images, result.pairs, result.boxes) == (len(test), 0, 0)
    assert "The table has no boxes: no image has a label" in summary(config, result)
    assert len(read_boxes(config.out).table) == 0
    assert {row["status"] for row in rows(images_path(config.out))} == {"no pair"}
    assert len(read_maps(tmp_path / "maps")[0]) == 0


def test_a_shard_without_images_is_whole(dataset: Path, trained: Path, tmp_path: Path) -> None:
    config = Mine(trained, dataset, tmp_path / "b.parquet", split="test", shard=(2, 400), device="cpu", workers=1)
    assert summary(config, run(config)).startswith("0 boxes of 0 pairs in 0 images")
    assert len(rows(shard_path(config.out, 2, 400))) == 0


def test_padding_sets_no_scale_and_takes_no_box(dataset: Path, trained: Path, tmp_path: Path) -> None:
    """Films twice as wide as high, padded: the strongest cells are put on the padding, and must not matter."""
    opened = open_run(trained)
    recipe = opened.recipe.model_copy(update={"data": opened.recipe.data.model_copy(update={"fit": "pad"})})
    index = open_dataset(dataset).select("boxed")
    config = Mine(trained, dataset, tmp_path / "b.parquet", device="cpu")
    miner = Miner(config, recipe, opened, None, index, len(index), Team("cpu"))
    geometry = fit_geometry(96, 48, 64, "pad")  # the film is rows 16 to 47 of the input: cells 2 to 5 of 8
    assert geometry.film() == (slice(16, 48), slice(0, 64))
    map_ = np.zeros((8, 8), np.float32)
    map_[0, 3], map_[7, 7] = 9.0, 5.0
    map_[3, 5] = 1.0
    mined = Mined()
    assert miner.boxer.pair(map_[None], {"image_id": "a", "finding": "Mass"}, geometry, mined) == 1
    box = mined.boxes[0]
    assert box["x_min"] < 40 * 96 / 64 < box["x_max"]  # cell 5 is centred at pixel 40 of 64, 60 of the film's 96
    assert box["y_min"] < (24 - 16) * 48 / 32 < box["y_max"]
    left, top, right, bottom = geometry.to_input(np.array([[box[k] for k in COORDINATES]]))[0].round().astype(int)
    at_input = to_input(map_ * (map_ == 1), (64, 64), 8)
    assert box["score"] == pytest.approx(at_input[top:bottom, left:right].mean(), abs=1e-5)


def test_one_bad_film_is_no_fault_of_a_small_shard(dataset: Path, trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(dataset, broken)
    sorted((broken / "images").iterdir())[0].write_bytes(b"")
    out = tmp_path / "s.parquet"
    mine(broken, trained, out, split="all", shard=(1, 3))
    assert len(rows(images_path(shard_path(out, 1, 3)))) > 1
