"""The tables of Fang et al. 2021 and of the prior: the script at toy size, and its Markdown by hand."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from cxrmine.boxes.door import read_table
from cxrmine.boxes.table import read_meta
from cxrmine.data.phantom.findings import FINDINGS
from cxrmine.runs import RunFolder, read_recipe

ROOT = Path(__file__).parent.parent
SMALL = (
    "data.size=64", "network.channels=[8, 8, 16, 16]", "am.msa_channels=[8, 8]", "ham.channels=8", "mine.top=1",
    "train.share=0.5", "train.phases.0.epochs=1", "irnet.cut=0.4", "organs.data.size=32",
    "organs.train.phases.0.epochs=1", "organs.network.channels=[4, 4, 8, 8]",
)  # fmt: skip
MEANS = ["mean", "mean without Cardiomegaly"]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "irnet_tables.py"))


def test_two_tables_and_nothing_twice(
    script: dict[str, Any], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "seed-7"
    shutil.copytree(dataset, folder / "data")
    few = {"CAM": ("base", None), "CAM dropped": ("base", ("mine.organ_way=drop",))}
    tables = script["main"].__globals__["TABLES"]
    kept = dict(tables)
    tables["prior"] = tables["prior"]._replace(rows=few, less=(("CAM dropped", "CAM"),))
    words = [str(tmp_path), "--seeds", "7", "--images", "160", "--device", "cpu", "--set", *SMALL]
    try:
        script["main"]([*words, "--tables", "3,prior"])
        first = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
        boxes = {path: path.stat().st_mtime_ns for path in folder.rglob("boxes/*.parquet")}
        script["main"]([*words, "--tables", "3,prior"])
    finally:
        tables.update(kept)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("boxes/*.parquet")} == boxes
    text = (tmp_path / "irnet-tables.json").read_text()
    assert str(tmp_path) not in text
    figures = json.loads(text)["figures"]["7"]
    assert {name: list(rows) for name, rows in figures.items()} == {
        "3": ["FE", "FE w/o MA", "FE − FE w/o MA"], "prior": ["CAM", "CAM dropped", "CAM dropped − CAM"],
    }  # fmt: skip
    check_figures(figures)
    check_runs(folder)
    printed = capsys.readouterr().out
    assert "**Table 3.**" in printed
    assert "| CAM dropped − CAM |" in printed


def check_figures(figures: Any) -> None:
    for row in ("FE", "FE w/o MA"):
        assert sorted(figures["3"][row]) == sorted([*FINDINGS, *MEANS])
        assert all(0 <= own["mean_iou"] <= 1 for own in figures["3"][row].values())
    plain, dropped = figures["prior"]["CAM"]["mean"], figures["prior"]["CAM dropped"]["mean"]
    assert set(plain) == {"acc 0.1", "afp 0.1", "acc 0.3", "afp 0.3", "false per normal image"}
    assert all(dropped[name] <= plain[name] for name in plain)  # boxes only go
    less = figures["prior"]["CAM dropped − CAM"]["mean"]["afp 0.1"]
    assert less == pytest.approx(dropped["afp 0.1"] - plain["afp 0.1"], abs=2e-5)


def check_runs(folder: Path) -> None:
    assert {path.name for path in (folder / "runs").iterdir()} == {"organs", "attention", "plain", "base"}
    attention, _ = read_recipe(RunFolder(folder / "runs" / "attention"))
    assert attention.irnet is not None
    assert (attention.irnet.attention, attention.irnet.gate, attention.irnet.cut) == (True, False, 0.4)
    assert attention.train.seed == 7
    organs, _ = read_recipe(RunFolder(folder / "runs" / "organs"))
    assert (organs.data.size, organs.network.channels, organs.train.seed) == (32, (4, 4, 8, 8), 7)
    whole, dropped = (folder / "boxes" / f"{name}-boxed.parquet" for name in ("CAM", "CAM-dropped"))
    assert "outside" not in read_table(whole).column_names
    assert all(share <= 0.5 for share in read_table(dropped)["outside"].to_pylist() if share is not None)
    assert read_meta(dropped)["organs_sha256"] != ""


def test_markdown_by_hand(script: dict[str, Any]) -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))["irnet_tables"]
    row = {"Mass": {"auc": 0.7}, "Nodule": {"auc": 0.6}, "mean": {"auc": 0.65}}
    cells = {"acc 0.3": 0.5, "afp 0.3": 1.25, "false per normal image": 0.1}
    prior = {"CAM": {"mean": cells, "mean without Cardiomegaly": {"acc 0.3": 0.4}}}
    measured = {
        "seeds": [0], "command": "python x", "date": "2026-01-01", "hardware": "a machine", "version": "1",
        "tables": {
            "2": {"says": "AUC.", "rows": {"plain": []}, "cell": ["auc"]},
            "prior": {"says": "Boxes.", "rows": {"CAM": []}, "cell": list(cells)},
        },
        "figures": {"0": {"2": {"plain": row}, "prior": prior}}, "intervals": {}, "paper": {},
    }  # fmt: skip
    lines = build(measured).splitlines()
    assert lines[:5] == [
        "**Table 2.** AUC.", "", "|  | Mass | Nodule | mean |", "| --- | --- | --- | --- |",
        "| plain | 0.700 | 0.600 | 0.650 |",
    ]  # fmt: skip
    assert lines[6:11] == [
        "**The prior.** Boxes.", "",
        "|  | Acc 0.3 | AFP 0.3 | false per normal image | Acc 0.3, without Cardiomegaly |",
        "| --- | --- | --- | --- | --- |", "| CAM | 0.500 | 1.250 | 0.100 | 0.400 |",
    ]  # fmt: skip
    assert lines[-1] == "`python x`; 2026-01-01, a machine, cxrmine 1."
