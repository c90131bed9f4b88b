"""What the tests of scoring share: truth, boxes and probabilities in files, small enough to score by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cxrmine import settings
from cxrmine.boxes.table import BoxWriter, truth_table, write_boxes
from cxrmine.cli import app

IMAGES = [f"{i:03}.png" for i in range(20)]
META = {"recipe": {"mine": {"way": "peak", "top": 2}, "data": {"size": 64}}, "weights_sha256": "w", "dataset": "d"}
BOX = ("x_min", "y_min", "x_max", "y_max")
HEADER = f"image_id,finding,{','.join(BOX)},score"
SIZED = f"{HEADER},image_width,image_height"


def draw(path: Path) -> Path:
    """Twenty patients with a Mass each, the last five in split val, and one Nodule."""
    n = len(IMAGES)
    columns = {
        "image_id": [*IMAGES, IMAGES[0]],
        "finding": ["Mass"] * n + ["Nodule"],
        "split": ["test"] * 15 + ["val"] * 5 + ["test"],
        "patient_id": [name[:3] for name in IMAGES] + ["000"],
        "x_min": np.arange(n + 1.0),
        "y_min": np.zeros(n + 1),
        "x_max": np.arange(n + 1.0) + 20,
        "y_max": np.full(n + 1, 20.0),
        "image_width": [128] * (n + 1),
        "image_height": [128] * (n + 1),
    }
    write_boxes(path, truth_table(columns), {})
    return path


def mine(path: Path, images: Sequence[str] = IMAGES, source: str = "cam", shift: float = 0.0, **meta: object) -> Path:
    """A first box for Mass, perfect but for the shift, and a bad second one; and a box of a finding without truth."""
    with BoxWriter(path, META | meta) as writer:
        for name in images:
            x = float(name[:3]) + shift
            row = {"image_id": name, "image_width": 128, "image_height": 128, "source": source, "score": 0.5}
            place = {"x_min": x, "y_min": 0.0, "x_max": x + 20, "y_max": 20.0}
            far = {"x_min": 90.0, "y_min": 90.0, "x_max": 99.0, "y_max": 99.0}
            boxes = [
                {**row, **far, "finding": "Hernia", "rank": 1},
                {**row, **place, "finding": "Mass", "rank": 1},
                {**row, **far, "finding": "Mass", "rank": 2},
            ]
            image = {"image_id": name, "width": 128, "height": 128, "status": "ok"}
            pairs = [image | {"finding": finding, "boxes": k} for finding, k in (("Hernia", 1), ("Mass", 2))]
            writer.write(boxes, pairs)
    return path


def lines(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def drawn_by_hand(folder: Path) -> tuple[Path, Path]:
    """(boxes, truth) of three films that were searched for two findings.

    Of a's Mass one box is exact and one far off, of b's the box lies half beside it (IoU 1/3, IoBB 1/2), a's Nodule has
    none, and the film without a finding has a box of Mass.
    """
    boxes = lines(
        folder / "ours.csv",
        SIZED,
        "a.png,Mass,0,0,10,10,0.9,100,100",
        "a.png,Mass,80,80,90,90,0.3,100,100",
        "b.png,Mass,5,0,15,10,0.8,100,100",
        "normal.png,Mass,20,20,30,30,0.5,100,100",
    )
    rows = [("a.png", "Mass", 0, 0, 10, 10), ("b.png", "Mass", 0, 0, 10, 10), ("a.png", "Nodule", 50, 50, 60, 60)]
    return boxes, coco(folder / "truth.json", rows, ["a.png", "b.png", "normal.png"])


def coco(path: Path, rows: Sequence[tuple[Any, ...]], images: Sequence[str], side: int = 100) -> Path:
    """Rows of (image, finding, four corners) as COCO writes them; `images` were all looked at."""
    kinds = sorted({row[1] for row in rows})
    document = {
        "images": [{"id": i, "file_name": name, "width": side, "height": side} for i, name in enumerate(images)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(kinds)],
        "annotations": [
            {"id": n, "image_id": images.index(i), "category_id": kinds.index(f), "bbox": [x, y, right - x, low - y]}
            for n, (i, f, x, y, right, low) in enumerate(rows)
        ],
    }
    path.write_text(json.dumps(document))
    return path


def cell(table: Any, row: str, column: str) -> str:
    """The first line of a cell of a printed table."""
    rows = {words[0]: words for words in table.rows}
    return rows[row][table.header.index(column)].split("\n")[0]


def command(*words: object, cwd: Path, code: int = 0, **given: object) -> str:
    """What `cxrmine score` says, its blanks made one: stdout, or of an error stderr. `given`: its environment."""
    done = typed(*words, cwd=cwd, **given)
    assert done[0] == code, done[1] + done[2]
    assert "Traceback" not in done[2]
    return " ".join(done[1 if code == 0 else 2].split())


def typed(*words: object, cwd: Path, **given: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)"""
    settings._file.cache_clear()  # as a new process would read it
    environment = dict.fromkeys(("CXRMINE_DATA", "CXRMINE_RUN")) | {k: str(v) for k, v in given.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        done = CliRunner().invoke(app, ["score", *map(str, words)], env=environment)
    settings._file.cache_clear()
    return done.exit_code, done.stdout, done.stderr
