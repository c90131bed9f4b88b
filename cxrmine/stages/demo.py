"""From nothing to scored boxes in one folder. Run again on the same folder, it goes on where it stopped."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.boxes.door import read_truth
from cxrmine.boxes.geometry import iou
from cxrmine.boxes.maps import FINAL, read_maps
from cxrmine.boxes.table import COORDINATES, images_path
from cxrmine.config import Recipe
from cxrmine.data.images import read_image
from cxrmine.errors import CxrError
from cxrmine.files import write_json, write_text
from cxrmine.recipe_files import load_recipe, moved_paths, to_toml
from cxrmine.report.notes import BRACKETS
from cxrmine.report.overlay import Case, contact_sheet, save_png
from cxrmine.report.scores import Table, cell
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.second_lesions import second_lesions
from cxrmine.stages import mine, phantom, score, train

IMAGES, SIZE = 3600, 256  # the budget is a number of images, so that a slow machine gets the same result
CASES = 12
ROUNDS = 3
NAMES = {"cam": "CAM", f"cam/{ROUNDS}": "CAM with erasure", f"am/{ROUNDS}": "AM"}
SECOND_AT = (0.1, 0.3)
SAID = "The recipe that the demo trained with. Its base is the run of the recipe demo in run-cam."
SETTINGS = """\
# What the bare commands use in this folder: cxrmine train, cxrmine mine --out boxes.parquet, cxrmine score
data = "data"
run = "run"
recipe = "recipe.toml"
boxes = "boxes.parquet"
truth = "data/truth.parquet"
"""


@dataclass(frozen=True)
class Demo:
    directory: Path
    seed: int = 0
    images: int = IMAGES
    overrides: tuple[str, ...] = ()  # of the recipe
    workers: int | None = None


@dataclass(frozen=True)
class DemoResult:
    directory: Path
    trained: train.TrainResult
    boxed: score.ScoreResult  # the boxed test films
    rounds: list[list[str]]  # what each round of attention mining added there, as rows of a table
    mined: score.ScoreResult  # the training films, whose boxes are the product


def run(config: Demo) -> DemoResult:
    folder = config.directory
    data, plain, fitted = folder / "data", folder / "run-cam", folder / "run"
    if folder.exists() and any(folder.iterdir()) and not (folder / "cxrmine.toml").exists():
        raise CxrError(f"{folder} is not empty and holds no demo.", "Choose another folder: cxrmine demo DIR.")
    _refuse_another(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "cxrmine.toml", SETTINGS)
    if not data.exists():
        console.log(f"1/4 makes {config.images} films of {SIZE} pixels")
        phantom.run(phantom.Phantom(data, config.images, SIZE, "png", config.seed, config.workers))
    console.log("2/4 trains a small network on their labels, and then attention mining on from it")
    as_before = (f"train.seed={config.seed}", *config.overrides)
    train.run(train.Train(data, "demo", plain, as_before, device="cpu", workers=config.workers))
    write_text(folder / "recipe.toml", to_toml(_as_seen_from(folder, _recipe(config)), SAID))
    trained = train.run(train.Train(data, str(folder / "recipe.toml"), fitted, device="cpu", workers=config.workers))
    console.log("3/4 mines boxes: of the training films, and of the test films that have truth boxes")
    boxed, mined = _mine(config)
    console.log("4/4 scores them")
    truth, seen = data / "truth.parquet", fitted / "patients.parquet"
    scored = score.run(score.Score(tuple(boxed), truth, run_patients=seen))
    result = DemoResult(
        folder,
        trained,
        scored,
        _rounds(boxed[-ROUNDS:], truth, scored),
        mined=score.run(score.Score((mined,), truth, samples=0, controls=False)),
    )
    write_json(folder / "scores.json", result.boxed.document)
    heading = "Test films that were not trained on, from the best first box to the worst (AM)"
    sheet = contact_sheet(cases(folder, boxed[-1]), heading)
    save_png(sheet, folder / "contact-sheet.png")
    return result


def _recipe(config: Demo) -> Recipe:
    start = f"train.start={config.directory / 'run-cam'}"
    return load_recipe("demo-am", (f"train.seed={config.seed}", *config.overrides, start))


def _as_seen_from(folder: Path, recipe: Recipe) -> Recipe:
    return moved_paths(recipe, lambda path: str(Path(path).relative_to(folder)))


def _refuse_another(config: Demo) -> None:
    """A folder holds one demo: another seed or another recipe would mix two."""
    made, trained = config.directory / "data" / "phantom.json", config.directory / "recipe.toml"
    differs = made.is_file() and json.loads(made.read_text())["seed"] != config.seed
    if differs or (trained.is_file() and load_recipe(str(trained)) != _recipe(config)):
        raise CxrError(
            f"{config.directory} holds a demo with another seed or recipe.", "Choose another folder: cxrmine demo DIR."
        )


def _mine(config: Demo) -> tuple[list[Path], Path]:
    """Boxes of the boxed test films: plain maps, fixed weights, each round; and of the training films."""
    folder = config.directory

    def mined(name: str, split: str, run: str, *overrides: str, maps: Path | None = None) -> Path:
        asked = mine.Mine(
            folder / run, folder / "data", folder / name, split, "labelled", overrides, maps, device="cpu",
            workers=config.workers,
        )  # fmt: skip
        done = mine.run(asked)
        if split == "train" and not done.already_done:
            console.log(mine.summary(asked, done))
        return asked.out

    erased = (f"mine.rounds={ROUNDS}", "mine.fixed_weights=true")
    boxed = [
        mined("boxed-cam.parquet", "boxed", "run-cam"),
        mined("boxed-erasure.parquet", "boxed", "run-cam", *erased),
        *(mined(f"boxed-am-{t}.parquet", "boxed", "run", f"mine.rounds={t}") for t in range(1, ROUNDS)),
        mined("boxed-am.parquet", "boxed", "run", maps=folder / "maps"),
    ]
    return boxed, mined("boxes.parquet", "train", "run")


def _rounds(paths: Sequence[Path], truth: Path, scored: score.ScoreResult) -> list[list[str]]:
    """A row a round: boxes a pair, Acc, and second lesions hit, by all boxes and by as many as round 1 has."""
    true, tables = read_truth(truth), [pq.ParquetFile(path).read() for path in paths]
    pairs = pq.ParquetFile(images_path(paths[0])).read(["image_id", "finding"])
    pairs = pairs.filter(pc.is_valid(pairs["finding"]))
    true = true.join(pairs, ["image_id", "finding"], join_type="left semi")
    fewest = min(second_lesions(table, true, SECOND_AT[0]).boxes for table in tables)
    rows = []
    for t, table in enumerate(tables, start=1):
        values = next(row.values for row in scored.rows if row.name == f"am/{t}")
        acc = [f"{values[Key('acc_afp', MEAN, str(at), 'acc')]:.3f}" for at in SECOND_AT]
        found = [second_lesions(table, true, at, take) for take in (None, fewest) for at in SECOND_AT]
        name = "round 1" if t == 1 else f"rounds 1 to {t}"
        rows.append([name, f"{len(table) / len(pairs):.2f}", *acc, *(f"{of.hit}/{of.lesions}" for of in found)])
    return rows


def cases(folder: Path, boxes_path: Path) -> list[Case]:
    """Twelve pairs at equal steps from the best first box to the worst; at each step the finding shown least yet."""
    pairs = sorted(_judged(folder, boxes_path), key=lambda pair: (-pair["iou"], pair["image_id"], pair["finding"]))
    maps, arrays = read_maps(folder / "maps")
    where = {(r["image_id"], r["finding"]): (r["shard"], r["row"]) for r in maps.to_pylist() if r["round"] == FINAL}
    shown: dict[str, int] = {}
    chosen = []
    for window in np.array_split(np.arange(len(pairs)), min(CASES, len(pairs))):
        best = min(window, key=lambda i: (shown.get(pairs[i]["finding"], 0), abs(i - window.mean())))
        pair = pairs[best]
        shown[pair["finding"]] = shown.get(pair["finding"], 0) + 1
        shard, row = where[pair["image_id"], pair["finding"]]
        chosen.append(_case(folder, pair, arrays[shard][row] / np.float32(255)))
    return chosen


def _judged(folder: Path, boxes_path: Path) -> Iterator[dict[str, Any]]:
    """Every mined pair that has truth: its boxes, its truth, and the IoU of its first box with the nearest truth."""

    def by_pair(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
        grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault((row["image_id"], row["finding"]), []).append(row)
        return grouped

    truth = by_pair(read_truth(folder / "data" / "truth.parquet").to_pylist())
    for (image_id, finding), rows in by_pair(pq.ParquetFile(boxes_path).read().to_pylist()).items():
        if (image_id, finding) in truth:
            mined, true = (
                np.array([[row[c] for c in COORDINATES] for row in some]) for some in (rows, truth[image_id, finding])
            )
            best = float(iou(mined[:1], true).max())
            yield {
                "image_id": image_id,
                "finding": finding,
                "mined": mined,
                "truth": true,
                "iou": best,
                "first": rows[0],
            }


def _case(folder: Path, pair: dict[str, Any], map_: np.ndarray) -> Case:
    first = pair["first"]
    return Case(
        film=read_image(folder / "data" / "images" / f"{pair['image_id']}"),
        map=map_,
        mined=pair["mined"],
        truth=pair["truth"],
        title=f"{pair['finding']}   IoU {pair['iou']:.2f}",
        subtitle=f"{pair['image_id']}   P {first['probability']:.2f}   score {first['score']:.2f}",
    )


def lines(result: DemoResult) -> list[str]:
    """What was done, before the table."""
    figures = result.mined.rows[-1].values
    acc, afp = (figures[Key("acc_afp", MEAN, "0.3", name)] for name in ("acc", "afp"))
    return [
        f"AUC on validation patients, mean over findings: {result.trained.macro_auc:.3f}",
        f"Boxes of the films it was trained on (boxes.parquet): Acc {acc:.3f}, AFP {afp:.2f} at IoU > 0.3.",
        "",
    ]


def table(result: DemoResult) -> Table:
    """Every method by finding, and the mean."""
    shown = [column for column in result.boxed.protocol.columns if column.measure == "acc_afp"]
    findings = sorted({key.finding for key in result.boxed.rows[0].values if key.measure == "acc_afp"} - {MEAN})
    rows = []
    for finding in (*findings, MEAN):
        rows.append([finding if finding != MEAN else "mean over findings", *[""] * len(shown)])
        for row in result.boxed.rows:
            if row.name.startswith("am/") and row.name not in NAMES:
                continue  # the rounds have a table of their own
            plain = row._replace(intervals={})  # they are in scores.json; here the table would be twice as long
            rows.append([f"  {NAMES.get(row.name, row.name)}", *(cell(plain, c, finding) for c in shown)])
    header = ["", *(f"IoU > {column.at}" for column in shown)]
    title, above = "Acc (AFP) on boxed test films, against truth.parquet", result.boxed.protocol.sentence()
    notes = ["95 % intervals by bootstrap over patients are in scores.json."]
    notes += [note for note in result.boxed.notes if not note.startswith(BRACKETS)]  # there are none in this table
    return Table(title, header, rows, "\n".join(notes), above)


def rounds_table(result: DemoResult) -> Table:
    header = ["", "boxes a pair", *(f"IoU > {at}" for at in SECOND_AT), *2 * [f"second, {at}" for at in SECOND_AT]]
    above = "Acc, mean over findings; second lesions of pairs with two: by all boxes, then by as many as round 1 has."
    return Table("What each round of attention mining added", header, result.rounds, above=above)


def what_next(result: DemoResult) -> str:
    folder = result.directory
    cxrmine = "uv run cxrmine" if "UV" in os.environ else "cxrmine"  # uv run puts nothing on the PATH of the shell
    return (
        f"Look at {folder / 'contact-sheet.png'}; all figures are in {folder / 'scores.json'}.\n"
        f"Next: cd {folder}, then for instance\n"
        f"  {cxrmine} check\n"
        f"  {cxrmine} mine --split test --findings predicted --out predicted.parquet\n"
        f"  {cxrmine} score --findings\n"
        f"  {cxrmine} train --run run-2 --set train.seed=1"
    )
