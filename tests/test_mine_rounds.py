"""Mining with a run's rounds: the same by one process or two, counted by round, refused where it cannot be."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from safetensors.numpy import load_file, save_file

from cxrmine.boxes.erase import peak_component
from cxrmine.boxes.extract import extract, nearest_cells, to_input
from cxrmine.boxes.maps import read_maps
from cxrmine.boxes.shards import read_boxes
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.files import sha256
from cxrmine.learn.parallel import accelerator
from cxrmine.learn.team import Team
from cxrmine.methods.registry import load
from cxrmine.runs import RunFolder, open_run
from cxrmine.scoring.leakage import seen_images
from cxrmine.stages import rounds, train
from cxrmine.stages.boxer import by_round
from cxrmine.stages.mine import Mine, MineResult, Round, run, summary
from cxrmine.stages.training import taught_rows
from tests.conftest import TINY
from tests.test_cli import cxrmine, refused

TINY_AM = (*TINY[:-1], "am.msa_channels=[8, 8]", "train.phases.0.epochs=1", "train.phases.2.epochs=1")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def am(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of attention mining with three rounds, very small."""
    folder = tmp_path_factory.mktemp("runs") / "am"
    train.run(train.Train(dataset, "demo-am", folder, TINY_AM, device="cpu", workers=1))
    return folder


@pytest.fixture
def changed(am: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be spoilt."""
    shutil.copytree(am, tmp_path / "run")
    return tmp_path / "run"


def mine(dataset: Path, folder: Path, out: Path, *overrides: str, **more: object) -> MineResult:
    config = Mine(folder, dataset, out, overrides=overrides, device="cpu", workers=1, batch_size=11, **more)  # type: ignore[arg-type]
    return run(config)


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT, env=env)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sources(out: Path) -> set[str]:
    return set(pq.ParquetFile(out).read()["source"].to_pylist())


# --- several processes


def test_two_processes_write_the_bytes_of_one(dataset: Path, am: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "b.parquet", tmp_path / "two" / "b.parquet"
    result = mine(dataset, am, one, split="all", maps=one.parent / "maps")
    words = ["mine", "--run", am, "--data", dataset, "--split", "all", "--device", "cpu", "--workers", 1]
    words += ["--batch-size", 11]  # 15 batches: at the last step one process has none
    done = torchrun("-m", "--", "cxrmine", *words, "--out", two, "--maps", two.parent / "maps")
    assert done.returncode == 0, done.stderr
    assert contents(one.parent) == contents(two.parent)
    assert len(contents(two.parent)) == 4
    assert done.stdout == summary(Mine(am, dataset, two, "all"), replace(result, out=two)) + "\n"  # said once
    assert "Round 3 erased" in done.stdout


def find_masks(dataset: Path, folder: Path) -> Accelerator:
    """Those of round 1, in batches small enough that each of two processes has several."""
    world, opened = accelerator("cpu"), open_run(folder)
    index = open_dataset(dataset).select("train")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rounds, "MASKING_BATCH", 8)
        taught = taught_rows(opened.recipe, index)
        rounds.Rounds(opened.recipe, index, taught, opened.folder, world, 1).begin(2, load(opened))
    return world


SCRIPT = """
import sys
from pathlib import Path
from cxrmine.boxes.table import BoxWriter
from cxrmine.errors import CxrError
from cxrmine.stages import boxer, mine
from tests.test_mine_rounds import find_masks

dataset, broken, folder, out = map(Path, sys.argv[1:])
world = find_masks(dataset, folder)

def run(name, data=dataset, **more):
    config = mine.Mine(folder, data, out / name, "test", device="cpu", workers=1, batch_size=3, **more)
    try:
        said = str(mine.run(config).already_done)
    except CxrError as fault:
        said = f"{type(fault).__name__} {fault}"
    with (out / f"{world.process_index}.txt").open("a") as file:
        file.write(f"{name}: {said}\\n")

def at_fault(*_):
    raise CxrError("It is full.")

run("b.parquet", shard=(2, 3))
run("b.parquet", shard=(2, 3))
run("a.parquet", data=broken)
run(".")
BoxWriter.write = at_fault  # in the main process, which alone writes
run("c.parquet")
if world.process_index == 1:
    boxer.extract = at_fault
run("d.parquet")
"""
BOTH = """\
b.parquet: False
b.parquet: True
a.parquet: CxrError 1 of FILMS images cannot be read, the last is FILM (unreadable: empty: zero bytes). See all with \
cxrmine check, or allow more with --set data.max_unreadable=SHARE.
"""
MAIN = """\
.: UsageError --out OUT is a folder. Name a file, for instance OUT/boxes.parquet.
c.parquet: CxrError It is full.
d.parquet: EndedElsewhere Process 1 has ended: It is full.
"""
OTHER = """\
.: EndedElsewhere Process 0 has ended: --out OUT is a folder. Name a file, for instance OUT/boxes.parquet.
c.parquet: EndedElsewhere Process 0 has ended: It is full.
d.parquet: CxrError It is full.
"""


def test_two_processes_find_the_same_masks_and_go_on_and_end_together(
    dataset: Path, am: Path, changed: Path, tmp_path: Path
) -> None:
    masks = RunFolder(changed).masks(1)
    masks.unlink()
    find_masks(dataset, changed)
    alone = masks.read_bytes()
    masks.unlink()
    script, out, broken = tmp_path / "script.py", tmp_path / "out", tmp_path / "broken"
    script.write_text(SCRIPT)
    out.mkdir()
    test = sorted((dataset / "test_list.txt").read_text().split())
    shutil.copytree(dataset, broken)
    (broken / "images" / test[4]).write_bytes(b"")  # in the second batch, which the second process takes
    done = torchrun(script, dataset, broken, changed, out)
    assert done.returncode == 0, done.stderr
    assert masks.read_bytes() == alone
    told = [(out / f"{process}.txt").read_text().replace(str(out), "OUT") for process in (0, 1)]
    both = BOTH.replace("FILMS", str(len(test))).replace("FILM", test[4])
    assert told == [both + MAIN, both + OTHER]
    assert done.stderr.count(f"unreadable: {test[4]}: ") == 1  # logged once

    config = Mine(am, dataset, tmp_path / "b.parquet", "test", shard=(2, 3), device="cpu", workers=1, batch_size=3)
    one = run(config).out
    assert [p.name for p in sorted(out.glob("*.parquet"))] == [images_path(one).name, one.name]
    assert (out / one.name).read_bytes() == one.read_bytes()


def test_one_process_tells_nobody() -> None:
    team = Team("cpu")
    assert (team.size, team.main, team.exchange("a")) == (1, True, ["a"])
    with pytest.raises(KeyError), team.together():
        raise KeyError


# --- what each round added


def test_boxes_know_their_highest_pixel() -> None:
    final = np.zeros((6, 8), np.float32)
    final[1, 1:4] = (0.4, 0.7, 0.4)
    final[4, 5:8] = (0.5, 0.9, 0.9)  # of two as high the first
    cut = extract(final, "components", cuts=(0.35,), min_area=0)
    assert cut.peaks.tolist() == [[6, 4], [2, 1]]
    assert extract(final * 0).peaks.shape == (0, 2)


def test_the_cell_nearest_to_a_pixel() -> None:
    assert nearest_cells([0, 4, 5, 8, 12, 13, 60, 63], 64, 8, 8.0).tolist() == [0, 0, 1, 1, 1, 2, 7, 7]
    assert nearest_cells([0, 7, 8, 15, 63], 64, 8, 8.0, "resize").tolist() == [0, 0, 1, 1, 7]
    assert nearest_cells([0, 14, 46, 30, 31], 64, 2, 32.0, offset=14.0).tolist() == [0, 0, 1, 0, 1]
    small = np.zeros((8, 8), np.float32)
    for align in ("centres", "resize"):
        for row, column in ((0, 0), (3, 5), (7, 7)):
            small[:], small[row, column] = 0, 1
            x, y = extract(to_input(small, (64, 64), 8.0, align), "peak", top=1).peaks[0]
            assert (nearest_cells(y, 64, 8, 8.0, align), nearest_cells(x, 64, 8, 8.0, align)) == (row, column)


def test_what_each_round_erased_and_whose_peaks_it_holds() -> None:
    masks = np.ones((3, 2, 4), bool)
    masks[0:, 0, 0:2] = False  # the first round: two cells of eight
    masks[1:, 1, 3] = False  # the second: one
    rows, columns = np.array([0, 0, 1, 1]), np.array([0, 1, 3, 0])
    assert by_round(masks, rows, columns).tolist() == [[0.25, 2], [0.125, 1], [0, 0]]
    assert by_round(masks, rows[:0], columns[:0]).tolist() == [[0.25, 0], [0.125, 0], [0, 0]]


def test_the_summary_says_what_each_round_added() -> None:
    config = Mine(Path("r"), Path("d"), Path("b.parquet"))
    result = MineResult(config.out, False, 9, 8, 20, rounds=(Round(0.123, 12), Round(0.05, 5)), not_there=("Hernia",))
    assert summary(config, result).splitlines()[1:] == [
        "Round 1 erased 12.3% of a map and holds the peak of 12 boxes.",
        "Round 2 erased 5.0% of a map and holds the peak of 5 boxes.",
        "No round erased the peak of the other 3 boxes.",
        "No image of the split has Hernia.",
    ]
    assert "Round" not in summary(config, MineResult(config.out, False, 9, 8, 20))


def test_a_mined_table_counts_its_rounds(dataset: Path, am: Path, tmp_path: Path) -> None:
    result = mine(dataset, am, tmp_path / "b.parquet", split="test", maps=tmp_path / "maps")
    assert len(result.rounds) == 3
    assert 0 < result.rounds[0].peaks <= sum(peaks for _, peaks in result.rounds) <= result.boxes
    index, (maps,) = read_maps(tmp_path / "maps")
    first = maps[index["round"].to_numpy() == 1]
    erased = [peak_component(map_.astype(np.float32), 128).mean() for map_ in first]  # 128 of 255: from 0.5 on
    assert result.rounds[0].erased == pytest.approx(np.mean(erased))
    assert mine(dataset, am, tmp_path / "one.parquet", "mine.rounds=1", split="test").rounds == ()


def test_each_round_is_seen_with_its_own_weights_and_cut_at_its_own_probability(
    dataset: Path, changed: Path, tmp_path: Path
) -> None:
    second = RunFolder(changed).round_weights(2)
    weights = load_file(second)
    save_file(weights | {"msa_head.weight": 0 * weights["msa_head.weight"]}, second)
    for t, cut in ((1, 0), (2, 1), (3, 1)):
        cuts = dict.fromkeys(open_dataset(dataset).findings, cut)
        RunFolder(changed).round_thresholds(t).write_text(json.dumps(cuts))
    told = mine(dataset, changed, tmp_path / "b.parquet", split="test", maps=tmp_path / "maps").rounds
    assert [erased > 0 for erased, _ in told] == [True, False, True]
    index, (maps,) = read_maps(tmp_path / "maps")
    shown = {t: maps[index["round"].to_numpy() == t].max() for t in (1, 2, 3)}
    assert shown == {1: 255, 2: 0, 3: 255}

    films = len(open_dataset(dataset).select("test"))
    for t, pairs in ((1, 8 * films), (3, 0)):
        out = tmp_path / f"{t}.parquet"
        assert mine(dataset, changed, out, f"mine.rounds={t}", split="test", findings="predicted").pairs == pairs


# --- provenance


def test_the_source_says_which_rounds_were_replayed(dataset: Path, am: Path, trained: Path, tmp_path: Path) -> None:
    weights = [sha256(RunFolder(am).round_weights(t)) for t in (1, 2, 3)]
    said = {}
    for name, folder, *overrides in (
        ("three", am),
        ("one", am, "mine.rounds=1"),
        ("fixed", am, "mine.fixed_weights=true"),
        ("cam", trained),
    ):
        out = tmp_path / f"{name}.parquet"
        mine(dataset, folder, out, *overrides, split="test")
        meta = read_meta(out)
        assert meta["weights_sha256"] == sha256(RunFolder(folder).weights)
        said[name] = (*sources(out), meta.get("rounds_sha256"))
    fixed = said.pop("fixed")
    assert said == {"three": ("am/3", weights), "one": ("am/1", weights[:1]), "cam": ("cam", None)}
    assert fixed == ("am-fixed/3", None)


def test_a_run_of_am_without_rounds_is_just_am(dataset: Path, tmp_path: Path) -> None:
    phases = 'train.phases=[{name="base", kind="base", epochs=1, lr=0.01}, {name="whole", epochs=1, lr=0.01}]'
    overrides = (*TINY_AM[:-2], phases, "mine.rounds=1")
    train.run(train.Train(dataset, "demo-am", tmp_path / "run", overrides, device="cpu", workers=1))
    assert mine(dataset, tmp_path / "run", tmp_path / "b.parquet", split="test").rounds == ()
    assert sources(tmp_path / "b.parquet") == {"am"}
    result = mine(
        dataset, tmp_path / "run", tmp_path / "c.parquet", "mine.rounds=2", "mine.fixed_weights=true", split="test"
    )
    assert sources(tmp_path / "c.parquet") == {"am/2"}
    assert [erased > 0 for erased, _ in result.rounds] == [True, True]


def test_metadata_say_how_many_films_the_run_has_seen(dataset: Path, am: Path, tmp_path: Path) -> None:
    splits = open_dataset(dataset).table["split"].to_pylist()
    count = {split: splits.count(split) for split in ("train", "val")}
    for split, expected in (("test", {"train": 0, "val": 0}), ("train,test", {**count, "val": 0}), ("all", count)):
        out = tmp_path / f"{split}.parquet"
        for i in (1, 2):
            mine(dataset, am, out, "mine.rounds=1", split=split, shard=(i, 2))
        paths = sorted(path for path in tmp_path.glob(f"{split}-*.parquet") if "images" not in path.name)
        assert [read_meta(path)["seen"] for path in paths] == [expected] * 2
        assert read_boxes(paths).meta["seen"] == expected


def test_films_are_counted_by_patient_however_the_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / "patients.parquet"
    pq.write_table(pa.table({"patient_id": ["13", "7", "x"], "split": ["train", "val", "train"]}), path)
    patients = pa.chunked_array([["00000013", "13", "7", "8"], ["x", "007", "13"]])
    assert seen_images(path, patients) == {"train": 4, "val": 2}


# --- input that is at fault


def test_rounds_that_cannot_be_mined_are_refused(dataset: Path, am: Path, trained: Path, tmp_path: Path) -> None:
    def said(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return cxrmine("mine", "--run", folder, "--data", dataset, "--out", tmp_path / "b.parquet", *words)

    few = said(am, "--rounds", "0")
    assert (few.returncode, "--rounds" in few.stderr, "Traceback" in few.stderr) == (2, True, False)
    refused(said(am, "--set", "mine.rounds=0"), 1, "mine.rounds", "greater than or equal to 1", "Mend")
    none = f"The run in {trained} was trained without rounds, and 3 are asked for."
    refused(said(trained, "--rounds", "3"), 1, none, "--set mine.fixed_weights=true", "recipe am")
    refused(said(am, "--rounds", "4"), 1, "has 3 rounds, and 4 are asked for", "--rounds 3 or fewer")
    refused(said(trained, "--rounds", "3", "--set", "mine.top=0"), 1, "mine.top")  # and not the rounds
    assert list(tmp_path.iterdir()) == []


def test_a_weight_below_zero_is_refused(dataset: Path, tmp_path: Path) -> None:
    words = ("train", "--data", dataset, "--recipe", "demo-am", "--run", tmp_path / "run", "--set", "am.kp_weight=-1")
    refused(cxrmine(*words), 1, "am.kp_weight", "greater than or equal to 0", "Mend")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["2.safetensors", "3.thresholds.json"])
def test_a_round_that_is_missing_is_named(dataset: Path, changed: Path, name: str) -> None:
    (changed / "rounds" / name).unlink()
    words = ("mine", "--run", changed, "--data", dataset, "--out", changed.parent / "b.parquet")
    refused(cxrmine(*words), 1, f"{changed / 'rounds' / name} is missing", "Copy it")
    assert list(changed.parent.iterdir()) == [changed]


def test_a_round_that_is_not_replayed_need_not_be_there(dataset: Path, changed: Path, tmp_path: Path) -> None:
    (changed / "rounds" / "2.safetensors").unlink()
    assert mine(dataset, changed, tmp_path / "b.parquet", "mine.rounds=1", split="test").boxes > 0


def test_a_map_without_anything_positive_has_no_box_and_erases_nothing(dataset: Path, changed: Path) -> None:
    findings = open_dataset(dataset).findings
    for t in (1, 2, 3):
        weights = load_file(RunFolder(changed).round_weights(t))
        weights["msa_head.weight"][findings.index("Mass")] = 0
        save_file(weights, RunFolder(changed).round_weights(t))
    out = changed.parent / "b.parquet"
    done = cxrmine("mine", "--run", changed, "--data", dataset, "--split", "all", "--out", out, "--device", "cpu")
    images = pq.ParquetFile(images_path(out)).read().to_pylist()
    masses = [row for row in images if row["finding"] == "Mass"]
    assert masses
    assert {(row["status"], row["boxes"]) for row in masses} == {("no box", 0)}
    without = sum(row["status"] == "no box" for row in images)
    assert f"({without} pairs without a box, 0 images unreadable)" in done.stdout

    for t in (1, 2, 3):
        weights = load_file(RunFolder(changed).round_weights(t))
        save_file(weights | {"msa_head.weight": 0 * weights["msa_head.weight"]}, RunFolder(changed).round_weights(t))
    result = mine(dataset, changed, changed.parent / "c.parquet", split="test")
    assert (result.boxes, result.without_box) == (0, result.pairs)
    assert result.rounds == (Round(0, 0),) * 3


def test_findings_that_nobody_has_are_named(dataset: Path, am: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    test = set((data / "test_list.txt").read_text().split())
    entry = data / "Data_Entry_2017_v2020.csv"
    lines = [line.split(",") for line in entry.read_text().splitlines()]
    for line in lines:
        if line[0] in test:
            line[1] = "|".join(set(line[1].split("|")) - {"Mass", "Nodule"}) or "No Finding"
    entry.write_text("\n".join(",".join(line) for line in lines) + "\n")
    (data / "BBox_List_2017.csv").unlink()
    words = ("mine", "--run", am, "--data", data, "--split", "test", "--device", "cpu", "--rounds", "1")
    done = cxrmine(*words, "--out", tmp_path / "b.parquet")
    assert done.stdout.splitlines()[-1] == "No image of the split has Mass, Nodule.", done.stderr
    assert mine(data, am, tmp_path / "c.parquet", "mine.rounds=1", split="test", findings="all").not_there == ()
    part = mine(data, am, tmp_path / "d.parquet", "mine.rounds=1", split="test", shard=(1, 30))
    assert part.not_there == ("Mass", "Nodule")  # of the split, not of the shard
