"""The demo at toy size: every file, the table's rows, and that a second call goes on instead of starting again."""

from pathlib import Path

import numpy as np
import pytest

from cxrmine.boxes.table import read_meta
from cxrmine.cli import app
from cxrmine.errors import CxrError
from cxrmine.scoring.statistics import mean_interval
from cxrmine.stages import demo
from tests.conftest import TINY


def test_the_demo_leaves_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    result = demo.run(demo.Demo(folder, seed=3, images=160, overrides=TINY, workers=2))
    names = {p.name for p in folder.iterdir()}
    assert names >= {"data", "run", "boxes.parquet", "boxes.images.parquet", "scores.json", "contact-sheet.png"}
    assert names >= {"refine", "refined.parquet", "run-boxes"}
    assert not [name for name in names if name.endswith(".tmp")]
    assert (folder / "contact-sheet.png").read_bytes().startswith(b"\x89PNG")
    methods = ["cam", "cam/3", "am/1", "am/2", "am/3", "ham-refined", "ham-boxes"]
    assert [row.name for row in result.boxed.rows] == ["mean box", "typical box", "random map", *methods]
    _, header, rows, note, _ = demo.table(result)
    assert header == ["", "IoU > 0.1", "IoU > 0.3", "IoU > 0.5"]
    assert [row[0].strip() for row in rows[-9:]] == [
        "mean over findings", "mean box", "typical box", "random map", "CAM", "CAM with erasure", "AM", "AM + refine",
        "and 10% true boxes",
    ]  # fmt: skip
    assert "None of the" in note, "who was trained on is told apart from who is judged"
    assert "boxes.parquet" in demo.what_next(result) or "mine" in demo.what_next(result)

    _, header, rounds, *_ = demo.rounds_table(result)
    assert [row[0] for row in rounds] == ["round 1", "rounds 1 to 2", "rounds 1 to 3"]
    assert all(len(row) == len(header) for row in rounds)

    before = {p.name: p.read_bytes() for p in folder.glob("*.parquet")}
    demo.run(demo.Demo(folder, seed=3, images=160, overrides=TINY, workers=1))
    assert {p.name: p.read_bytes() for p in folder.glob("*.parquet")} == before

    monkeypatch.chdir(folder)
    refine = ["refine", "--out", "refined.parquet"]
    for words in (["train"], ["mine", "--split", "train", "--out", "boxes.parquet"], refine, ["score"]):
        with pytest.raises(SystemExit) as end:
            app(words)
        assert end.value.code == 0, words
    assert read_meta(folder / "boxes.parquet")["split"] == "train"


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(CxrError, match="holds no demo"):
        demo.run(demo.Demo(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_interval_by_hand() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)
    assert mean - low == pytest.approx(high - mean)
    assert np.isnan(mean_interval([1.0])[1])
