"""The tables of Tang et al. 2018: the script at toy size, what a seed's map points into, and its Markdown by hand."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cxrmine.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent
SMALL = (
    "data.size=64", "network.channels=[8, 8, 16, 16]", "train.batch_size=16", "agcl.threshold=0.1",
    'data.findings=["Cardiomegaly", "Effusion"]', "train.phases.0.epochs=1", "train.phases.1.epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "agcl_tables.py"))


def test_all_tables_and_nothing_twice(
    script: dict[str, Any], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "seed-7"
    shutil.copytree(dataset, folder / "data")
    words = [str(tmp_path), "--seeds", "7", "--images", "160", "--device", "cpu", "--set", *SMALL]
    script["main"](words)
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    script["main"](words)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == first
    text = (tmp_path / "agcl-tables.json").read_text()
    assert str(tmp_path) not in text
    figures = json.loads(text)["figures"]["7"]
    rows = ["BSL", "longer", "AGL-1", "AGL-2", "AGCL-1", "AGCL-2", "channels"]
    for name in ("1", "2", "acc"):
        assert [row for row in figures[name] if "−" not in row] == rows
    assert figures["1"]["AGL-2 − longer"]["mean"]["auc"] == pytest.approx(
        figures["1"]["AGL-2"]["mean"]["auc"] - figures["1"]["longer"]["mean"]["auc"], abs=2e-5
    )
    for own in figures["2"].values():
        assert own["all"].keys() >= {"detected", "true", "recall", "precision"}
    plain = figures["2"]["BSL"]["all"]
    assert plain["precision"] == pytest.approx(plain["true"] / plain["detected"], abs=1e-5)
    check_seeds(figures["seeds"])
    assert "**Seeds.**" in capsys.readouterr().out


def check_seeds(rows: Any) -> None:
    assert {"AGL-1", "AGCL-1"} <= rows.keys()
    for own in rows.values():
        together = own.pop("all")
        assert together["seeds"] == sum(of["seeds"] for of in own.values()) > 0
        assert together["precision"] == pytest.approx(together["hit"] / together["seeds"], abs=1e-5)
        assert all(0 <= of["hit"] <= of["seeds"] <= of["present"] for of in own.values())


def test_a_map_points_into_a_box(script: dict[str, Any]) -> None:
    """Input 128 for a film of 256, cells of 8: cell (2, 3) has its centre at x 24, y 16 of the input, so 48, 32."""
    recipe = load_recipe("demo-agl")
    map_ = np.zeros((16, 16), np.float32)
    map_[2, 3] = 1

    def boxes(*corners: float) -> pa.Table:
        names = ("x_min", "y_min", "x_max", "y_max")
        return pa.table(
            {n: [v] for n, v in zip(names, corners, strict=True)} | {"image_width": [256], "image_height": [256]}
        )

    assert script["points_into"](map_, boxes(48, 32, 49, 33), recipe)
    assert not script["points_into"](map_, boxes(40, 20, 48, 40), recipe)
    assert not script["points_into"](map_, boxes(40, 20, 60, 32), recipe)
    assert not script["points_into"](map_, boxes(0, 0, 1, 1).slice(1), recipe)


def test_markdown_by_hand() -> None:
    build = runpy.run_path(str(ROOT / "docs" / "build.py"))["agcl_tables"]
    two = {"BSL": {"all": {"detected": 20, "recall": 0.5}, "Mass": {"recall": 0.25}}}
    seeds = {"AGL-1": {"all": {"seeds": 8, "new": 8, "of present": 0.4, "precision": 0.75}, "Mass": {"precision": 0.5}}}
    measured = {
        "seeds": [0], "command": "python x", "date": "2026-01-01", "hardware": "a machine", "version": "1",
        "tables": {
            "1": {"says": "AUC.", "cell": ["auc"]},
            "2": {"says": "Boxes.", "cell": ["detected", "recall"]},
            "seeds": {"says": "Seeds are.", "cell": []},
        },
        "figures": {"0": {"1": {"BSL": {"Mass": {"auc": 0.7}, "mean": {"auc": 0.7}}}, "2": two, "seeds": seeds}},
        "intervals": {}, "paper": {},
    }  # fmt: skip
    lines = build(measured).splitlines()
    assert [line for line in lines if line.startswith("|") and "---" not in line] == [
        "|  | Mass | mean |", "| BSL | 0.700 | 0.700 |",
        "|  | detected | recall | recall of Mass |", "| BSL | 20.000 | 0.500 | 0.250 |",
        "|  | seeds | new | of those present | highest in a box | Mass |",
        "| AGL-1 | 8.000 | 8.000 | 0.400 | 0.750 | 0.500 |",
    ]  # fmt: skip
    assert lines[-1] == "`python x`; 2026-01-01, a machine, cxrmine 1."
