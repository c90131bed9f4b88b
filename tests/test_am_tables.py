"""The tables of Cai et al. 2018: the whole script at toy size, and what it makes of figures that are known."""

import json
import runpy
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrmine.boxes.door import read_table
from cxrmine.boxes.table import read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.data.phantom.findings import FINDINGS
from cxrmine.errors import CxrError
from cxrmine.scoring.second_lesions import Second

ROOT = Path(__file__).parent.parent
ROWS = {
    "1": ["baseline", "bilinear", "deconv.", "bilinear − baseline", "deconv. − bilinear"],
    "2 and 5": ["ref.", "baseline", "t=1", "ours", "ours − baseline", "ours − ref."],
    "3": ["t=1", "t=2", "t=3", "w/o KP", "KP-Vanilla", "KP", "t=3 − t=1", "KP − KP-Vanilla", "KP − w/o KP"],
    "4": ["ResNet", "ResNet-MSA", "ResNet-MSA − ResNet"],
}
SMALL = ("data.size=64", "network.channels=[8, 8, 16, 16]", "am.msa_channels=[8, 8]", "train.batch_size=16")
SHORT = tuple(f"train.phases.{i}.epochs=1" for i in range(4))
THRESHOLDS = ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "am_tables.py"))


@pytest.fixture(scope="module")
def am_tables() -> Any:
    return runpy.run_path(str(ROOT / "docs" / "build.py"))["am_tables"]


def test_every_table_row_and_finding_and_nothing_twice(
    script: dict[str, Any],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside = script["main"].__globals__
    monkeypatch.setitem(inside, "SAMPLES", 10)
    monkeypatch.setitem(inside["BOXES"], "wang", ("base", ("mine.way=wang", "mine.top=1")))  # a bound that binds
    folder = tmp_path / "seed-7"
    shutil.copytree(dataset, folder / "data")  # 160 films of 96 pixels, in place of 256
    words = [str(tmp_path), "--seeds", "7", "--images", "160", "--device", "cpu", "--set", *SMALL, *SHORT]
    script["main"](words)

    text = (tmp_path / "am-tables.json").read_text()
    measured = json.loads(text)
    assert measured["seeds"] == [7]
    assert str(tmp_path) not in text
    assert measured["command"].startswith("python examples/am_tables.py OUT --seeds 7 --images 160")
    figures = measured["figures"]["7"]
    assert {name: list(rows) for name, rows in figures.items()} == ROWS
    judged = set(read_table(folder / "data" / "truth.parquet")["finding"].to_pylist())
    assert judged == set(FINDINGS)
    means = {"mean", "mean without Cardiomegaly"}
    second = {"second lesions", "second lesions, as many boxes"}
    for name, rows in figures.items():
        columns = judged | (means if name != "4" else {"mean"}) | (second if name == "3" else set())
        assert all(set(row) == columns for row in rows.values()), name

    check_figures(figures)
    check_runs(folder)
    markdown = capsys.readouterr().out
    assert [line for line in markdown.splitlines() if line.startswith("**")] == [
        f"**{title}.** {measured['tables'][name]['says']}"
        for title, name in zip(["Table 1", "Tables 2 and 5", "Table 3", "Table 4"], ROWS, strict=True)
    ]

    before = made(folder)
    script["main"](words)
    assert made(folder) == before, "a second call trains, mines and predicts nothing"
    assert json.loads((tmp_path / "am-tables.json").read_text())["figures"] == measured["figures"]


def check_figures(figures: dict[str, Any]) -> None:
    table = figures["2 and 5"]
    for t in THRESHOLDS:
        for finding in FINDINGS:
            bound = table["ref."][finding][f"afp {t}"]
            assert bound <= 1, "one box a pair"
            assert all(table[row][finding][f"afp {t}"] <= bound for row in ("baseline", "t=1", "ours"))
    held = [table[row]["mean"]["afp 0.1"] for row in ("t=1", "ours")]
    free = [figures["3"][row]["mean"]["afp 0.1"] for row in ("t=1", "t=3")]
    assert sum(held) < sum(free), "somewhere the list was cut short"
    assert figures["3"]["KP"]["mean"] == figures["3"]["t=3"]["mean"]
    for rows in figures.values():
        for row in (name for name in rows if " − " in name):
            one, other = (rows[name] for name in row.split(" − "))
            for finding, of in rows[row].items():
                for figure, value in of.items():
                    assert value == pytest.approx(one[finding][figure] - other[finding][figure], abs=3e-5)
    row = figures["3"]["t=3"]
    assert row["mean"]["boxes"] == pytest.approx(sum(row[f]["boxes"] for f in FINDINGS) / 8, abs=2e-5)


def check_runs(folder: Path) -> None:
    """Who was learnt from, and how boxes were made."""
    boxed = set(open_dataset(folder / "data").select("boxed").table["patient_id"].to_pylist())
    for run in (folder / "runs").iterdir():
        seen = set(read_table(run / "patients.parquet")["patient_id"].to_pylist())
        rounds = run.name.startswith("am")
        assert boxed <= seen if rounds else not boxed & seen, run.name
    recipes = {path.stem: read_meta(path)["recipe"] for path in (folder / "boxes").glob("*[!s].parquet")}
    mined = {name: (of["name"], of["mine"]["way"], of["mine"]["rounds"]) for name, of in recipes.items()}
    assert mined == {
        "base": ("base", "components", 1), "wang": ("base", "wang", 1),
        "msa-bilinear": ("msa-bilinear", "components", 1), "msa-deconv": ("msa-deconv", "components", 1),
        "am-t1": ("am", "components", 1), "am-t2": ("am", "components", 2), "am": ("am", "components", 3),
        "am-none": ("am-none", "components", 3), "am-vanilla": ("am-vanilla", "components", 3),
        "am-baseline": ("am-baseline", "components", 1),
    }  # fmt: skip


def made(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the runs, the boxes and the probabilities: when it was written, and what is in it."""
    files = [p for sub in ("runs", "boxes", "probabilities") for p in (folder / sub).rglob("*") if p.is_file()]
    assert len(files) > 50
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.parametrize(("data", "base", "whole"), [(None, 12, 2), (Path("x"), 50, 20)])
def test_recipes_of_the_runs(script: dict[str, Any], data: Path | None, base: int, whole: int) -> None:
    asked = Namespace(data=data, set=["am.kp_weight=0.25", "train.batch_size=8", "train.phases.1.lr=0.5"])
    recipes = {run: script["recipe"](asked, 5, run) for run in script["STARTS"]}
    assert {recipe.name for recipe in recipes.values()} == set(script["STARTS"])
    assert {(r.train.seed, r.train.batch_size) for r in recipes.values()} == {(5, 8)}
    assert recipes["base"].method == "cam"
    assert recipes["base"].train.phases[0].epochs == base
    told = {
        run: (Path(r.train.start).name, r.am.msa, r.am.kp, r.am.kp_weight, r.train.include, r.mine.rounds)
        for run, r in recipes.items()
        if r.am
    }
    assert told == {
        "msa-bilinear": ("base", "bilinear", "full", 0.25, (), 1),
        "msa-deconv": ("base", "deconv", "full", 0.25, (), 1),
        "am": ("msa-bilinear", "bilinear", "full", 0.25, ("boxed",), 3),
        "am-vanilla": ("msa-bilinear", "bilinear", "vanilla", 0.25, ("boxed",), 3),
        "am-none": ("msa-bilinear", "bilinear", "none", 0.25, ("boxed",), 3),
        "am-baseline": ("msa-bilinear", "bilinear", "vanilla", 0.25, ("boxed",), 1),
    }
    steps = {run: [(s.round, s.phase.epochs, s.phase.until) for s in r.schedule] for run, r in recipes.items()}
    until = "epochs" if data is None else "level"
    assert [(t, word) for t, _, word in steps["msa-deconv"]] == [(0, "epochs"), (0, until)]
    assert steps["msa-deconv"][1][1] == whole
    assert steps["am"] == steps["am-none"] == [(1, 1, "epochs"), (2, 1, "epochs"), (3, 1, "epochs")]
    assert steps["am-baseline"] == [(1, 10, "level")]
    assert recipes["msa-bilinear"].train.phases[0].lr == 0.5


def test_the_paper_stands_beside(script: dict[str, Any]) -> None:
    ref = script["printed"]("2 and 5")["wang2017, cai2018:2"]
    assert ref["Atelectasis"]["acc 0.1"] == 0.69
    assert ref["Cardiomegaly"]["afp 0.7"] == 0.86
    assert script["printed"]("4")["ResNet-MSA, cai2018:4"]["Hernia"] == {"auc": 0.53}
    assert list(script["runs_of"](["4"])) == ["base", "msa-bilinear"]
    assert list(script["runs_of"](["3"])) == ["base", "msa-bilinear", "am", "am-none", "am-vanilla"]


def test_means_by_hand(script: dict[str, Any]) -> None:
    key, of = script["Key"], script["TABLES"]["3"]
    counted = {"Cardiomegaly": (1.0, 4, 4), "Mass": (0.5, 6, 4), "Nodule": (0.25, 9, 3)}  # Acc, boxes, films
    values = {key("acc_afp", "mean", "0.1", "acc"): 0.9, key("boxacc", "Mass", "0.1", "acc"): 0.9}
    for finding, (acc, boxes, films) in counted.items():
        for name, value in (("acc", acc), ("taken", boxes), ("images", films)):
            values[key("acc_afp", finding, "0.1", name)] = value
    figures = script["Seed"](Namespace(data=None), 0).figures(of, values)
    assert figures["Nodule"] == {"acc 0.1": 0.25, "boxes": 3}
    assert figures["mean"] == {"acc 0.1": pytest.approx(1.75 / 3), "boxes": pytest.approx(5.5 / 3)}
    assert figures["mean without Cardiomegaly"] == {"acc 0.1": 0.375, "boxes": 2.25}
    assert [*script["Seed"](Namespace(data=Path("x")), 0).figures(of, values)] == [*counted, "mean"]


def test_second_lesions_at_equal_box_counts(
    script: dict[str, Any], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five boxes and three: all but two boxes hit one of four lesions, and at 0.1 one more does."""

    def second(table: pa.Table, true: pa.Table, at: float, take: int | None = None) -> Second:
        boxes = len(table[:take])
        return Second(boxes - 2 + (at < 0.2), 4, boxes)

    for name, count in (("x", 5), ("y", 3)):
        pq.write_table(pa.table({"box": range(count)}), tmp_path / f"{name}.parquet")
    monkeypatch.setitem(script["main"].__globals__, "second_lesions", second)
    monkeypatch.setattr(script["Seed"], "boxes", lambda self, name: tmp_path / f"{name}.parquet")
    of = script["TableOf"]("", {"a": "x", "b": "y"}, (), ("0.1", "0.3"), ("acc",))
    figures: dict[str, Any] = {"a": {}, "b": {}}
    script["Seed"](Namespace(data=dataset), 0).add_second_lesions(figures, of, ("a", "b"))
    five = {"acc 0.1": 1.0, "hit 0.1": 4, "acc 0.3": 0.75, "hit 0.3": 3, "lesions": 4, "boxes": 5}
    three = {"acc 0.1": 0.5, "hit 0.1": 2, "acc 0.3": 0.25, "hit 0.3": 1, "lesions": 4, "boxes": 3}
    assert figures == {
        "a": {"second lesions": five, "second lesions, as many boxes": three},
        "b": {"second lesions": three, "second lesions, as many boxes": three},
    }


def test_films_of_another_call_are_refused(script: dict[str, Any], dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "seed-1" / "data")
    with pytest.raises(CxrError, match="has 160 films of seed 7"):
        script["main"]([str(tmp_path), "--seeds", "1", "--images", "160"])
    with pytest.raises(SystemExit):
        script["main"]([str(tmp_path), "--tables", "6"])


def measured(figures: dict[str, Any], cell: list[str], at: list[str], **more: Any) -> dict[str, Any]:
    """A table 1 with the rows a and b."""
    of = {"says": "Said.", "rows": {"a": "x", "b": "y"}, "less": [["b", "a"]], "at": at, "cell": cell}
    around = {"command": "typed", "date": "2026-01-02", "hardware": "abacus", "version": "9", "made_up": True}
    trees = {seed: {"1": rows} for seed, rows in figures.items()}
    return {**around, "seeds": [*trees], "tables": {"1": of}, "figures": trees, "intervals": {}, "paper": {}, **more}


def test_two_seeds_by_hand(am_tables: Any) -> None:
    """With two values the t-interval is mean ± 12.706 · |x − y| / 2."""
    one = {"Mass": {"acc 0.3": 0.4}, "mean": {"acc 0.3": 0.3, "afp 0.3": 1.0, "boxes": 2.0}}
    other = {"Mass": {"acc 0.3": 0.6}, "mean": {"acc 0.3": 0.3, "afp 0.3": 1.5, "boxes": 2.0}}
    more = {"Mass": {"acc 0.3": 0.5}, "Hernia": {"acc 0.3": 1.0}, "mean": {"acc 0.3": 0.2}}
    second = [{"second lesions": {"acc 0.3": hit / 4, "hit 0.3": hit, "lesions": 4}} for hit in (1, 2)]
    less = [
        {"Mass": {"acc 0.3": by}, "second lesions": {"acc 0.3": 0.0, "hit 0.3": 0, "lesions": 0}} for by in (0.1, 0.3)
    ]
    figures = {
        "0": {"a": one | second[0], "b": more | second[0], "b − a": less[0]},
        "1": {"a": other | second[1], "b": {"Mass": {"acc 0.3": 0.9}} | second[1], "b − a": less[1]},
    }
    paper = {"1": {"a, printed": {"Mass": {"acc 0.3": 0.35}}}}
    assert am_tables(measured(figures, ["acc"], ["0.3"], paper=paper)).splitlines() == [
        "**Table 1.** Said.",
        "",
        "| T(IoU) |  | Mass | Hernia | mean | second lesions | boxes a pair | AFP |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 0.3 | a | 0.500 ± 1.271 | – | 0.300 ± 0.000 | 0.375 ± 1.588 (3/8) | 2.000 ± 0.000 | 1.250 ± 3.176 |",
        "| 0.3 | b | 0.700 ± 2.541 | – | – | 0.375 ± 1.588 (3/8) | – | – |",
        "| 0.3 | b − a | +0.200 ± 1.271 | – | – | +0.000 ± 0.000 | – | – |",
        "| 0.3 | a, printed | 0.350 | – | – | – | – | – |",
        "",
        "Mean over 2 seeds ± half of its 95 % t-interval; differences are taken seed by seed.",
        "The second mean leaves out Cardiomegaly: a fixed box finds any heart. ref. is the base network,",
        "boxed as in Wang et al. 2017.",
        "`typed`; 2026-01-02, abacus, cxrmine 9.",
    ]


def test_one_seed_by_hand(am_tables: Any) -> None:
    rows = {"a": {"Mass": {"acc 0.1": 0.25, "afp 0.1": 1.5}}, "b": {"Mass": {"acc 0.1": 0.5, "afp 0.1": 1.0}}}
    rows["b − a"] = {"Mass": {"acc 0.1": 0.25, "afp 0.1": -0.5}}
    ends = {"4": {"1": {"a": {"Mass": {"acc 0.1": [0.2, 0.3]}}, "b − a": {"Mass": {"acc 0.1": [-0.1, 0.5]}}}}}
    said = am_tables(measured({"4": rows}, ["acc", "afp"], ["0.1"], intervals=ends, made_up=False)).splitlines()
    assert said[2:-1] == [
        "| T(IoU) |  | Mass |",
        "| --- | --- | --- |",
        "| 0.1 | a | 0.250 (0.200 to 0.300) / 1.50 |",
        "| 0.1 | b | 0.500 / 1.00 |",
        "| 0.1 | b − a | +0.250 (-0.100 to +0.500) / -0.50 |",
        "",
        "In brackets 95 % intervals: by bootstrap over patients, those of the AUC DeLong's.",
        "ref. is Wang et al. 2017, and rows with cai2018 are the paper's, as printed.",
    ]


def test_areas_have_no_threshold(am_tables: Any) -> None:
    rows = {row: {"Mass": {"auc": area}} for row, area in (("a", 0.75), ("b", 0.8), ("b − a", 0.05))}
    said = am_tables(measured({"0": rows}, ["auc"], [""])).splitlines()
    assert said[2:7] == ["|  | Mass |", "| --- | --- |", "| a | 0.750 |", "| b | 0.800 |", "| b − a | +0.050 |"]
