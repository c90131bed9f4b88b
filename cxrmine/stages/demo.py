"""From nothing to scored boxes in one folder. Run again on the same folder, it goes on where it stopped."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.boxes.door import read_truth
from cxrmine.boxes.table import images_path
from cxrmine.config import Recipe
from cxrmine.errors import CxrError
from cxrmine.files import write_json, write_text
from cxrmine.recipe_files import load_recipe, moved_paths, to_toml
from cxrmine.report.notes import BRACKETS
from cxrmine.report.overlay import contact_sheet, save_png
from cxrmine.report.scores import Table, cell
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.second_lesions import second_lesions
from cxrmine.stages import mine, phantom, refine, score, train
from cxrmine.stages.demo_sheet import cases

IMAGES, SIZE = 3600, 256  # the budget is a number of images, so that a slow machine gets the same result
ROUNDS, ANNOTATED = 3, 0.1
NAMES = {
    "cam": "CAM",
    f"cam/{ROUNDS}": "CAM with erasure",
    f"am/{ROUNDS}": "AM",
    "ham-refined": "AM + refine",
    "ham-boxes": f"and {ANNOTATED:.0%} true boxes",
}
SECOND_AT = (0.1, 0.3)
SAID = {
    "recipe.toml": "The recipe that the demo trained with. Its base is the run of the recipe demo in run-cam.",
    "refine.toml": "The recipe that the demo refined boxes with. Its networks start from the run in run-cam.",
}
RECIPES = {"recipe.toml": "demo-am", "refine.toml": "demo-ham"}
SETTINGS = """\
# What the bare commands use in this folder: cxrmine train, cxrmine mine --out boxes.parquet,
# cxrmine refine --out refined.parquet, cxrmine score
data = "data"
run = "run"
recipe = "recipe.toml"
refine_run = "refine"
refine_recipe = "refine.toml"
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
    data = folder / "data"
    if folder.exists() and any(folder.iterdir()) and not (folder / "cxrmine.toml").exists():
        raise CxrError(f"{folder} is not empty and holds no demo.", "Choose another folder: cxrmine demo DIR.")
    _refuse_another(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "cxrmine.toml", SETTINGS)
    if not data.exists():
        console.log(f"1/5 makes {config.images} films of {SIZE} pixels")
        phantom.run(phantom.Phantom(data, config.images, SIZE, "png", config.seed, config.workers))
    console.log("2/5 trains a small network on their labels, and then attention mining on from it")
    as_before = (f"train.seed={config.seed}", *config.overrides)
    train.run(train.Train(data, "demo", folder / "run-cam", as_before, device="cpu", workers=config.workers))
    for name, said in SAID.items():
        write_text(folder / name, to_toml(_as_seen_from(folder, _recipe(config, name)), said))
    trained = _train(config, "recipe.toml", "run")
    console.log("3/5 mines boxes of the training films")
    mined = _mined(config, "boxes.parquet", "run", "train")
    console.log("4/5 refines them with networks that learn boxes, and then shows these a few patients' true boxes")
    refined = folder / "refined.parquet"
    asked = refine.Refine(mined, data, folder / "refine", refined, str(folder / "refine.toml"), device="cpu")
    refine.run(replace(asked, workers=config.workers))
    true = (f"boxes.source={data / 'truth.parquet'}", f"boxes.annotated={ANNOTATED}")
    _train(config, "refine.toml", "run-boxes", f"train.start={folder / 'refine' / refine.FINAL}", *true)
    console.log("5/5 boxes test films and scores them")
    boxed, truth = _boxed(config), data / "truth.parquet"
    patients = folder / "run-boxes" / "patients.parquet"  # all runs have the same
    scored = score.run(score.Score(tuple(boxed), truth, run_patients=patients))
    of_am = [path for path in boxed if path.name.startswith("boxed-am")]
    again = score.run(score.Score((mined, refined), truth, samples=0, controls=False))
    result = DemoResult(folder, trained, scored, _rounds(of_am, truth, scored), mined=again)
    write_json(folder / "scores.json", result.boxed.document)
    heading = "Test films that were not trained on, from the best first box to the worst (AM)"
    save_png(contact_sheet(cases(folder, folder / "boxed-am.parquet"), heading), folder / "contact-sheet.png")
    return result


def _recipe(config: Demo, name: str) -> Recipe:
    start = f"train.start={config.directory / 'run-cam'}"
    return load_recipe(RECIPES[name], (f"train.seed={config.seed}", *config.overrides, start))


def _as_seen_from(folder: Path, recipe: Recipe) -> Recipe:
    return moved_paths(recipe, lambda path: str(Path(path).relative_to(folder)))


def _train(config: Demo, recipe: str, run: str, *overrides: str) -> train.TrainResult:
    folder = config.directory
    asked = (folder / "data", str(folder / recipe), folder / run, overrides)
    return train.run(train.Train(*asked, device="cpu", workers=config.workers))


def _refuse_another(config: Demo) -> None:
    """A folder holds one demo: another seed or another recipe would mix two."""
    made = config.directory / "data" / "phantom.json"
    differs = made.is_file() and json.loads(made.read_text())["seed"] != config.seed
    for name in SAID:
        trained = config.directory / name
        differs = differs or (trained.is_file() and load_recipe(str(trained)) != _recipe(config, name))
    if differs:
        raise CxrError(
            f"{config.directory} holds a demo with another seed or recipe.", "Choose another folder: cxrmine demo DIR."
        )


def _mined(config: Demo, name: str, run: str, split: str, *overrides: str, maps: Path | None = None) -> Path:
    folder = config.directory
    asked = mine.Mine(
        folder / run, folder / "data", folder / name, split, "labelled", overrides, maps, device="cpu",
        workers=config.workers,
    )  # fmt: skip
    done = mine.run(asked)
    if split == "train" and not done.already_done:
        console.log(mine.summary(asked, done))
    return asked.out


def _boxed(config: Demo) -> list[Path]:
    """Boxes of the boxed test films: plain maps, fixed weights, each round, refined, and with true boxes."""

    def mined(name: str, run: str, *overrides: str, maps: Path | None = None) -> Path:
        return _mined(config, f"boxed-{name}.parquet", run, "boxed", *overrides, maps=maps)

    return [
        mined("cam", "run-cam"),
        mined("erasure", "run-cam", f"mine.rounds={ROUNDS}", "mine.fixed_weights=true"),
        *(mined(f"am-{t}", "run", f"mine.rounds={t}") for t in range(1, ROUNDS)),
        mined("am", "run", maps=config.directory / "maps"),
        mined("refined", "refine/ham"),
        mined("ham", "run-boxes"),
    ]


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


def lines(result: DemoResult) -> list[str]:
    """What was done, before the table."""
    said = [f"AUC on validation patients, mean over findings: {result.trained.mean('auc'):.3f}"]
    for name, row in zip(("boxes.parquet", "refined.parquet"), result.mined.rows, strict=True):
        acc, afp = (row.values[Key("acc_afp", MEAN, "0.3", figure)] for figure in ("acc", "afp"))
        said.append(f"Boxes of the films it was trained on ({name}): Acc {acc:.3f}, AFP {afp:.2f} at IoU > 0.3.")
    return [*said, ""]


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
