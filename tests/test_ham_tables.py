"""The tables of Ouyang et al. 2021: the script at toy size, the recipes of its rows, and its Markdown by hand."""

import json
import runpy
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from cxrmine.boxes.door import read_table
from cxrmine.boxes.table import images_path, read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.data.phantom.findings import FINDINGS
from cxrmine.recipe_files import builtin_recipes, load_recipe, to_dict
from cxrmine.runs import RunFolder, read_recipe

ROOT = Path(__file__).parent.parent
SMALL = (
    "data.size=64", "network.channels=[8, 8, 16, 16]", "am.msa_channels=[8, 8]", "ham.channels=8",
    "train.batch_size=16", "train.share=0.5", "boxes.annotated=0.5", "mine.top=1", "mine.rounds=1",
    *(f"train.phases.{i}.epochs=1" for i in range(4)),
)  # fmt: skip
TWICE = "HAM + true boxes, twice as long"
CHAIN = ["CAM", "AM", "AM + refine", "HAM + true boxes", TWICE, "whole chain"]
ROWS = {
    "VII": ["ours", "ours, MSE", "ours − ours, MSE"],
    "chain": [
        *CHAIN,
        "AM + refine − AM",
        "HAM + true boxes − AM",
        "whole chain − AM",
        f"whole chain − {TWICE}",
    ],
}
MEANS = ["mean", "mean without Cardiomegaly"]


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "ham_tables.py"))


@pytest.fixture
def runs(script: dict[str, Any]) -> Any:
    return sys.modules["ham_runs"]


@pytest.fixture(scope="module")
def ham_tables() -> Any:
    return runpy.run_path(str(ROOT / "docs" / "build.py"))["ham_tables"]


def test_two_tables_and_nothing_twice(
    script: dict[str, Any],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(script["main"].__globals__, "SAMPLES", 10)
    folder = tmp_path / "seed-7"
    shutil.copytree(dataset, folder / "data")
    words = [str(tmp_path), "--seeds", "7", "--images", "160", "--device", "cpu", "--set", *SMALL]
    script["main"]([*words, "--tables", "7"])
    one = json.loads((tmp_path / "ham-tables.json").read_text())["figures"]["7"]["VII"]
    assert {p.name for p in (folder / "runs").iterdir()} == {"base", "sr", "mse"}
    first = made(folder)

    script["main"]([*words, "--tables", "7,chain"])
    text = (tmp_path / "ham-tables.json").read_text()
    assert str(tmp_path) not in text
    document = json.loads(text)
    figures = document["figures"]["7"]
    assert {name: list(rows) for name, rows in figures.items()} == ROWS
    assert figures["VII"] == one
    check_figures(figures)
    check_runs(folder)
    markdown = capsys.readouterr().out
    assert "**Table VII.** AMSE against MSE." in markdown
    assert "| Acc / AFP, IoU > 0.5 | whole chain − AM |" in markdown

    everything = made(folder)
    assert first.items() <= everything.items(), "what one table made another takes"
    script["main"]([*words, "--tables", "chain,7"])
    assert made(folder) == everything, "a third call trains, mines and predicts nothing"
    assert json.loads((tmp_path / "ham-tables.json").read_text())["figures"]["7"] == figures


def check_figures(figures: dict[str, Any]) -> None:
    of = {"VII": {"iou 0.1", "iou 0.3"}, "chain": {f"{w} {t}" for w in ("acc", "afp") for t in (0.1, 0.3, 0.5)}}
    of["chain"] |= {"ior 0.1", "ior 0.25", "ior 0.5"}
    for name, rows in figures.items():
        for row, by in rows.items():
            assert list(by) == [*FINDINGS, *MEANS], row
            assert all(set(own) == of[name] for own in by.values()), row
            if " − " not in row:
                for figure, value in by["mean"].items():
                    values = [by[finding][figure] for finding in FINDINGS]
                    assert value == pytest.approx(sum(values) / 8, abs=2e-5)
                    left = [by[finding][figure] for finding in FINDINGS if finding != "Cardiomegaly"]
                    assert by[MEANS[1]][figure] == pytest.approx(sum(left) / 7, abs=2e-5)
    rows = figures["chain"]
    for finding in FINDINGS:
        gained = rows["whole chain"][finding]["afp 0.1"] - rows["AM"][finding]["afp 0.1"]
        assert rows["whole chain − AM"][finding]["afp 0.1"] == pytest.approx(gained, abs=3e-5)


def check_runs(folder: Path) -> None:
    """Whence every run begins and which boxes it learned."""
    found = {}
    for path in sorted((folder / "runs").rglob("recipe.toml")):
        recipe, _ = read_recipe(RunFolder(path.parent))
        start = Path(recipe.train.start).name
        boxes = recipe.boxes
        told = (Path(boxes.source).name, boxes.annotated, boxes.masks) if boxes else None
        found[str(path.parent.relative_to(folder / "runs"))] = (recipe.method, start, told)
    assert found == {
        "base": ("cam", "", None),
        "am": ("am", "base", None),
        "sr/refiner": ("ham", "base", ("truth.parquet", 0.5, "boxes")),
        "mse": ("ham", "base", ("truth.parquet", 0.5, "boxes")),
        "am-refined/refiner": ("ham", "base", ("am-train.parquet", 1, "boxes")),
        "am-refined/ham": ("ham", "base", ("refined.parquet", 1, "regions")),
        "boxes-twice": ("ham", "refiner", ("truth.parquet", 0.5, "boxes")),
        "chain": ("ham", "ham", ("truth.parquet", 0.5, "boxes")),
    }
    tables = [path for path in (folder / "boxes").glob("*.parquet") if images_path(path).exists()]
    mined = {path.stem: (read_meta(path)["recipe"]["name"], read_meta(path)["split"]) for path in tables}
    assert mined == {
        "base": ("base", "boxed"), "am": ("am", "boxed"), "am-train": ("am", "train"), "mse": ("mse", "boxed"),
        "boxes": ("boxes", "boxed"), "am-refined": ("ham", "boxed"), "chain": ("chain", "boxed"),
        "boxes-twice": ("boxes-twice", "boxed"),
    }  # fmt: skip


def made(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the runs and the boxes: when it was written, and what is in it."""
    files = [p for sub in ("runs", "boxes") for p in (folder / sub).rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def flat(recipe: Any) -> dict[str, Any]:
    values = to_dict(recipe)
    return {f"{section}.{key}": v for section in values if values[section] and section not in ("name", "method")
            for key, v in values[section].items()}  # fmt: skip


def test_each_row_of_the_ablation_changes_its_keys_alone(runs: Any) -> None:
    """Against the full method of the recipe: what the row's name says."""
    asked = Namespace(data=None, layout="", set=[])
    full = flat(load_recipe("demo-ham"))
    changed = {}
    for run in (run for run, of in runs.RUNS.items() if of.method == "ham"):
        recipe = flat(runs.recipe(asked, 0, run))
        changed[run] = {key: v for key, v in recipe.items() if v != full.get(key) and not key.startswith("boxes.")}
    base, gap = {"train.start": "../runs/base"}, {"network.pool": "gap"}
    alone = dict.fromkeys(("ham.positive", "ham.bound", "ham.union"), False)
    bare = {"ham.foreground": "none", **alone}
    assert changed == {
        "rn50-32-gap": {"train.start": "../runs/base-32-gap", "network.stride": 32, **gap, **bare},
        "rn50-8-gap": {"train.start": "../runs/base-8-gap", **gap, **bare},
        "rn50-8-lse": base | bare,
        "fab-c": base | alone | {"ham.foreground": "channel"},
        "fab-p": base | alone | {"ham.foreground": "position"},
        "fab": base | alone,
        "fab-pa": base | {"ham.bound": False, "ham.union": False},
        "pa-abu": base | {"ham.foreground": "none"},
        "fab-pa-bound": base | {"ham.union": False},
        "ham": base,
        "boxes": base,
        "mse": base | {"ham.box_loss": "mse"},
        "boxes-twice": {"train.start": "../runs/sr/refiner"},
        "chain": {"train.start": "../runs/am-refined/ham"},
    }
    for run, at in (("base", (8, "lse")), ("base-8-gap", (8, "gap")), ("base-32-gap", (32, "gap"))):
        network = runs.recipe(asked, 3, run).network
        assert (network.stride, network.pool) == at
    boxes = runs.recipe(asked, 3, "boxes").boxes
    assert (boxes.source, boxes.annotated, boxes.listed) == ("../data/truth.parquet", 0.1, "")


@pytest.mark.skipif("ham-boxes" not in builtin_recipes(), reason="there is no recipe ham-boxes")
def test_recipes_of_real_data(runs: Any) -> None:
    """No start but that of attention mining; boxes of a fold's list; CheXpert's baselines have recipes of their own."""
    asked = Namespace(data=Path("x"), layout="ChestX-ray14", folds=Path("/lists"), set=["ham.alpha=50.0", "am.kp=none"])
    made = {run: runs.recipe(asked, 2, run, 4) for run in runs.RUNS}
    assert made["boxes-twice"].train.start == "../runs/sr-4/refiner"
    assert made["chain"].train.start == "../runs/am-refined/ham"
    assert {run for run, recipe in made.items() if recipe.train.start} == {"am", "boxes-twice", "chain"}
    assert made["am"].train.include == ()
    assert made["boxes"].boxes.source == "../truth.parquet"
    assert made["boxes"].boxes.listed == "/lists/fold4/train_0.8.txt"
    assert made["boxes"].train.share == 0.5
    assert made["mse"].ham.box_loss == "mse"
    assert (made["ham"].boxes, made["ham"].ham.alpha, made["ham"].train.seed) == (None, 50, 2)
    gap = made["rn50-32-gap"]
    assert (gap.network.stride, gap.network.pool, gap.ham.foreground, gap.ham.positive) == (32, "gap", "none", False)

    asked.layout, asked.folds = "CheXpert", None
    made = {run: runs.recipe(asked, 2, run) for run in ("rn50-32-gap", "rn50-8-lse", "ham", "boxes")}
    assert [recipe.method for recipe in made.values()] == ["cam", "cam", "ham", "ham"]
    assert [recipe.network.stride for recipe in made.values()] == [32, 8, 8, 8]
    assert made["boxes"].boxes.source == "../truth.parquet"


def test_every_row_is_made_and_the_paper_stands_beside(script: dict[str, Any], runs: Any) -> None:
    for name, of in script["TABLES"].items():
        assert set(of.rows.values()) <= runs.RUNS.keys() | runs.REFINED.keys()
        assert {row for pair in of.less for row in pair} <= of.rows.keys()
        if name != "chain":
            assert script["printed"](name)
    assert list(script["printed"]("VI")) == [f"{row}, ham2021:VI" for row in script["TABLES"]["VI"].rows]
    ours = script["printed"]("VI")["RN50-8-LSE+FAB+PA+ABU, ham2021:VI"]
    assert ours["Mass"] == {"iou 0.1": 0.69}
    assert ours["mean"] == {"auc": 0.819, "iou 0.1": 0.70}
    assert script["printed"]("V")["HAM+SR, ham2021:V"]["Nodule"]["ior 0.25"] == 0.59


def test_the_mean_alone_has_the_areas(script: dict[str, Any]) -> None:
    """AUC of Hernia counts, too, though nobody judges its boxes; Cardiomegaly does not in the second mean."""
    key, of = script["Key"], script["TABLES"]["VI"]
    values = {key("auc", f, "", "auc"): v for f, v in (("Cardiomegaly", 0.9), ("Mass", 0.6), ("Hernia", 0.9))}
    values |= {key("iou", f, "0.1", "share"): v for f, v in (("Cardiomegaly", 1.0), ("Mass", 0.5), ("mean", 9.0))}
    values |= {key("iou", "Mass", "0.3", "share"): 0.1, key("top1", "Mass", "0.1", "share"): 0.1}
    figures = script["Seed"](Namespace(data=None), 0).figures("VI", of, values)
    assert figures == {
        "Cardiomegaly": {"iou 0.1": 1.0}, "Mass": {"iou 0.1": 0.5},
        "mean": {"auc": pytest.approx(0.8), "iou 0.1": 0.75}, MEANS[1]: {"iou 0.1": 0.5},
    }  # fmt: skip
    assert [*script["Seed"](Namespace(data=Path("x")), 0).figures("VI", of, values)] == ["Cardiomegaly", "Mass", "mean"]


def test_a_fold_judges_what_is_not_listed(script: dict[str, Any], tmp_path: Path, dataset: Path) -> None:
    """And what is made without boxes is made once for all folds."""
    boxed = open_dataset(dataset).select("boxed").table["image_id"].to_pylist()
    (tmp_path / "fold2").mkdir()
    (tmp_path / "fold2" / "train_0.8.txt").write_text("\n".join(boxed[:3]))
    asked = Namespace(data=dataset, layout="ChestX-ray14", folds=tmp_path, out=tmp_path, set=[], seeds=[0])
    seed = script["Seed"](asked, 0, 2)
    seed.write_truth()
    assert read_table(seed.truth)["image_id"].to_pylist().count(boxed[0]) >= 1
    assert sorted(set(read_table(seed.judged)["image_id"].to_pylist())) == boxed[3:]
    assert [seed.place(name) for name in ("ham", "am-refined", "boxes", "sr", "mse", "chain")] == [
        "ham", "am-refined/ham", "sr-2/refiner", "sr-2/ham", "mse-2", "chain-2"
    ]  # fmt: skip


def test_which_tables_a_dataset_has(script: dict[str, Any], dataset: Path, tmp_path: Path) -> None:
    for words in (
        ["--tables", "11"],
        ["--data", str(dataset), "--tables", "7"],
        ["--data", str(dataset), "--tables", "9"],
    ):
        with pytest.raises(SystemExit):
            script["main"]([str(tmp_path), *words])
    with pytest.raises(SystemExit):
        script["main"]([str(tmp_path), "--folds", str(tmp_path)])


def measured(name: str, figures: dict[str, Any], of: dict[str, Any], **more: Any) -> dict[str, Any]:
    around = {"command": "typed", "date": "2026-01-02", "hardware": "abacus", "version": "9", "made_up": True}
    trees = {seed: {name: rows} for seed, rows in figures.items()}
    table = {"says": "Said.", "less": [], "of_mean": [], **of}
    return {
        **around,
        "seeds": [*trees],
        "tables": {name: table},
        "figures": trees,
        "intervals": {},
        "paper": {},
        **more,
    }


def test_two_seeds_by_hand(ham_tables: Any) -> None:
    """With two values the t-interval is mean ± 12.706 · |x − y| / 2."""
    rows = [
        {"a": {"Mass": {"acc 0.1": acc, "afp 0.1": afp}, "mean": {"acc 0.1": 0.5, "afp 0.1": 1.0}}}
        for acc, afp in ((0.4, 1.0), (0.6, 2.0))
    ]
    of = {"rows": {"a": "x"}, "cell": ["acc 0.1"]}
    said = ham_tables(measured("chain", {"0": rows[0], "1": rows[1]}, of)).splitlines()
    assert said[:6] == [
        "**The chain.** Said.",
        "",
        "| above |  | Mass | mean |",
        "| --- | --- | --- | --- |",
        "| Acc / AFP, IoU > 0.1 | a | 0.500 ± 1.271 / 1.50 | 0.500 ± 0.000 / 1.00 |",
        "",
    ]
    assert said[6] == "Mean over 2 seeds ± half of its 95 % t-interval; differences are taken seed by seed."
    assert said[-1] == "`typed`; 2026-01-02, abacus, cxrmine 9."


def test_an_ablation_by_hand(ham_tables: Any) -> None:
    """The mean's AUC stands first; the paper's row is shown where it has the figure."""
    rows = {"a": {"Mass": {"iou 0.1": 0.5}, "mean": {"auc": 0.8, "iou 0.1": 0.25}}}
    of = {"rows": {"a": "x"}, "cell": ["iou 0.1", "iou 0.3"], "of_mean": ["auc"]}
    paper = {"VI": {"A, printed": {"mean": {"auc": 0.816}, "Mass": {"iou 0.1": 0.38}}}}
    ends = {"0": {"VI": {"a": {"Mass": {"iou 0.1": [0.25, 0.75]}}}}}
    said = ham_tables(measured("VI", {"0": rows}, of, paper=paper, intervals=ends, made_up=False)).splitlines()
    assert said[2:7] == [
        "| above |  | mean AUC | Mass | mean |",
        "| --- | --- | --- | --- | --- |",
        "| IoU > 0.1 | a | 0.800 | 0.500 (0.250 to 0.750) | 0.250 |",
        "| IoU > 0.1 | A, printed | 0.816 | 0.380 | – |",
        "| IoU > 0.3 | a | 0.800 | – | – |",
    ]
    assert "Rows with ham2021 are the paper's, as printed." in said[-2]


def test_table_two_has_standard_deviations(ham_tables: Any) -> None:
    """Of 0.7 and 0.9: 0.1414; over folds each is a column of its own."""
    rows = [{"ours": {"Mass": {"auc": area}, "mean": {"auc": area}}} for area in (0.7, 0.9)]
    of = {"rows": {"ours": "x"}, "cell": ["auc"]}
    said = ham_tables(measured("II", {"0, fold 1": rows[0], "0, fold 2": rows[1]}, of, seeds=[0])).splitlines()
    assert said[2:5] == ["|  | Mass | mean |", "| --- | --- | --- |", "| ours | 0.800 ± 0.141 | 0.800 ± 0.141 |"]
    assert said[6].startswith("Mean over one seed × 5 folds, where boxes are learned, ±")
