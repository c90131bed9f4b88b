"""Every table of Cai et al. 2018: the runs, the boxes, the figures, and the tables as Markdown.

    python examples/am_tables.py OUT                                # made-up films, seeds 0, 1 and 2
    python examples/am_tables.py OUT --data /data/ChestX-ray14      # the paper's own
    python examples/am_tables.py OUT --data /data/ChestX-ray14 --tables 1 --set data.size=1024 train.batch_size=32

A seed makes its own films (without --data) and its own networks. Runs that share stages start from one another, and as
in the paper the box images join attention mining by their labels; the networks before it never see them. Leaves
OUT/seed-K (runs, boxes; what is done is not done again) and OUT/am-tables.json with the figures of every seed, which
docs/build.py makes tables of.
"""

import argparse
import csv
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.config import Recipe
from cxrmine.files import atomic, write_json
from cxrmine.recipe_files import load_recipe
from cxrmine.scoring import published, truth
from cxrmine.scoring.bounds import THRESHOLDS, WANG
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.second_lesions import second_lesions
from cxrmine.stages import score

sys.path.insert(0, str(Path(__file__).parent))

from tables import LEFT_OUT, MINUS, Figures, Folder, Rows, around, by_finding, mean_of, minus, numbers, parser, rounded

ROUNDS, SAMPLES = 3, 1000
REFERENCE = "ref."
STARTS = {  # run → the run whose weights it begins with
    "base": "", "msa-bilinear": "base", "msa-deconv": "base", "am": "msa-bilinear", "am-vanilla": "msa-bilinear",
    "am-none": "msa-bilinear", "am-baseline": "msa-bilinear",
}  # fmt: skip
KP = {"am": "full", "am-vanilla": "vanilla", "am-none": "none", "am-baseline": "vanilla"}  # the runs with rounds
NOT_IN_BASE = ("am.", "mine.rounds", "train.phases.1", "train.phases.2", "train.phases.3")  # keys that cam lacks
BOXES = {  # box table → (run, how it is mined); any other: the run of that name, as it is
    "am-t1": ("am", ("mine.rounds=1",)),
    "am-t2": ("am", ("mine.rounds=2",)),
    "wang": ("base", ("mine.way=wang", "mine.cuts=[]", "mine.top=10")),  # Wang's boxes have no limit
}


class TableOf(NamedTuple):
    says: str
    rows: dict[str, str]  # row → box table; in table 4: run
    less: tuple[tuple[str, str], ...]  # which rows are compared: the first minus the second
    at: tuple[str, ...]  # T(IoU)
    cell: tuple[str, ...]  # figures of a cell


TABLES = {
    "1": TableOf(
        "Multi-scale aggregation: Acc by all boxes.",
        {"baseline": "base", "bilinear": "msa-bilinear", "deconv.": "msa-deconv"},
        (("bilinear", "baseline"), ("deconv.", "bilinear")), ("0.3",), ("acc",),
    ),
    "2 and 5": TableOf(
        f"Acc / AFP by the boxes of the list B until AFP would go beyond that of {REFERENCE}",
        {REFERENCE: "wang", "baseline": "am-baseline", "t=1": "am-t1", "ours": "am"},
        (("ours", "baseline"), ("ours", REFERENCE)), tuple(THRESHOLDS), ("acc", "afp"),
    ),
    "3": TableOf(
        "Rounds of attention mining, and knowledge preservation: Acc by all boxes.",
        {"t=1": "am-t1", "t=2": "am-t2", "t=3": "am", "w/o KP": "am-none", "KP-Vanilla": "am-vanilla", "KP": "am"},
        (("t=3", "t=1"), ("KP", "KP-Vanilla"), ("KP", "w/o KP")), ("0.1", "0.3"), ("acc",),
    ),
    "4": TableOf(
        "AUC on the test split.",
        {"ResNet": "base", "ResNet-MSA": "msa-bilinear"}, (("ResNet-MSA", "ResNet"),), ("",), ("auc",),
    ),
}  # fmt: skip
SECOND = {"second lesions": False, "second lesions, as many boxes": True}  # column → whether at equal box counts
SECOND_OF = (("t=1", "t=2", "t=3"), ("w/o KP", "KP-Vanilla", "KP"))  # rows of table 3 that have as many boxes


def main(words: Sequence[str]) -> None:
    made = parser(__doc__)
    made.add_argument("--tables", type=numbers, default=[1, 2, 3, 4, 5])
    asked = made.parse_args(words)
    if not set(asked.tables) <= {1, 2, 3, 4, 5}:
        made.error("--tables are some of 1,2,3,4,5")
    asked.names = [name for name in TABLES if set(map(int, name.split(" and "))) & set(asked.tables)]
    measured = measure(asked, words)
    write_json(asked.out / "am-tables.json", measured)
    build = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "build.py"))
    sys.stdout.write(build["am_tables"](measured))


def measure(asked: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Everything that is asked for, as the JSON has it: seed → table → row → finding → figure. No path is in it."""
    measured = {str(seed): Seed(asked, seed).tables() for seed in asked.seeds}
    document = around("am_tables", asked, words) | {
        "tables": {name: TABLES[name]._asdict() for name in asked.names},
        "figures": {seed: figures for seed, (figures, _) in measured.items()},
        "intervals": {seed: ends for seed, (_, ends) in measured.items() if len(measured) == 1},
        "paper": {name: printed(name) for name in asked.names if asked.data},
    }
    return rounded(document)


def recipe(asked: argparse.Namespace, seed: int, run: str) -> Recipe:
    """That of a run: the built-in one with other phases, from the run before."""
    plain, whole = ("cam", "am") if asked.data else ("demo", "demo-am")
    changes = (f"train.seed={seed}", *asked.set)
    if run == "base":
        made = load_recipe(plain, [change for change in changes if not change.startswith(NOT_IN_BASE)])
        return made.model_copy(update={"name": run})
    made = load_recipe(whole, changes)
    assert made.am is not None
    phases = tuple(phase for phase in made.train.phases if phase.kind == ("round" if run in KP else "plain"))
    if run == "am-baseline":
        until = {"until": "level", "epochs": load_recipe(run).train.phases[-1].epochs}
        phases = tuple(phase.model_copy(update=until) for phase in phases)
    stages = {"start": f"../runs/{STARTS[run]}", "phases": phases, "include": ("boxed",) if run in KP else ()}
    am = {"kp": KP[run]} if run in KP else {"msa": run.removeprefix("msa-")}
    rounds = ROUNDS if run in KP and run != "am-baseline" else 1
    sections = {
        "train": made.train.model_copy(update=stages),
        "am": made.am.model_copy(update=am),
        "mine": made.mine.model_copy(update={"rounds": rounds}),
    }
    return made.model_copy(update={"name": run, **sections})


def runs_of(tables: Iterable[str]) -> Iterable[str]:
    """The runs whose figures are wanted, each after the one it starts from."""

    def chain(run: str) -> list[str]:
        return [*chain(STARTS[run]), run] if run else []

    made = [name for table in tables for name in TABLES[table].rows.values()]
    return dict.fromkeys(run for name in made for run in chain(BOXES.get(name, (name, ()))[0]))


class Seed(Folder):
    def boxes(self, name: str) -> Path:
        run, changes = BOXES.get(name, (name, ()))
        return self.mined(name, run, *changes)

    def tables(self) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """The figures of every table; and the intervals of a seed alone."""
        if not self.asked.data:
            self.films()
        for run in runs_of(self.asked.names):
            console.log(f"seed {self.seed}: run {run}")
            self.fit(recipe(self.asked, self.seed, run), run)
        both = {name: self.table(name, TABLES[name]) for name in self.asked.names}
        return {name: rows for name, (rows, _) in both.items()}, {name: ends for name, (_, ends) in both.items()}

    def table(self, name: str, of: TableOf) -> tuple[Rows, Rows]:
        """A difference of two rows is a row, too. Intervals: by bootstrap over patients, of the AUC DeLong's."""
        figures, intervals, bounds = {}, {}, ""
        console.log(f"seed {self.seed}: table {name}")
        for row in of.rows:
            if row == REFERENCE and self.asked.data:
                figures[row], bounds = printed(name)[f"{WANG}, cai2018:2"], WANG
                continue
            scored = self.scored(of, (row,), bounds).rows[0]
            figures[row], intervals[row] = self.figures(of, scored.values), by_finding(scored.intervals, shown(of))
            bounds = self.write_bounds(scored.values) if row == REFERENCE else bounds
        for rows in SECOND_OF if name == "3" else ():
            self.add_second_lesions(figures, of, rows)
        for one, other in of.less:
            figures[one + MINUS + other] = minus(figures[one], figures[other])
            if len(self.asked.seeds) == 1 and {one, other} <= intervals.keys():
                (found,) = self.scored(of, (other, one), bounds).compared.values()
                ends = {key: (at["low"], at["high"]) for key, at in found.items() if at["low"] is not None}
                intervals[one + MINUS + other] = by_finding(ends, shown(of))
        return figures, intervals

    def scored(self, of: TableOf, rows: Sequence[str], bounds: str) -> score.ScoreResult:
        """One row; or two, to compare the second with the first."""
        made = [of.rows[row] for row in rows]
        if of.cell == ("auc",):
            return score.run(score.Score(tuple(self.predicted(run, run) for run in made), self.data))
        samples = SAMPLES if len(self.asked.seeds) == 1 else 0
        boxes = tuple(map(self.boxes, made))
        return score.run(score.Score(boxes, self.data, bounds=bounds, samples=samples, controls=False))

    def figures(self, of: TableOf, values: Mapping[Key, float]) -> Figures:
        figures = by_finding({key: value for key, value in values.items() if key.finding != MEAN}, shown(of))
        for finding, own in figures.items() if of.cell == ("acc",) else ():
            taken, films = (values[Key("acc_afp", finding, "0.1", count)] for count in ("taken", "images"))
            own["boxes"] = taken / films
        second = {} if self.asked.data or of.cell == ("auc",) else {f"{MEAN} without {LEFT_OUT}": LEFT_OUT}
        return figures | {mean: mean_of(figures, but) for mean, but in ({MEAN: ""} | second).items()}

    def write_bounds(self, values: Mapping[Key, float]) -> str:
        """The AFP of made-up films' ref.: our base network, boxed Wang's way."""
        afp = [(f, at, v) for (of, f, at, what), v in values.items() if (of, what) == ("acc_afp", "afp") and f != MEAN]
        with atomic(self.folder / "bounds.csv") as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([("finding", "threshold", "afp"), *afp])
        return str(self.folder / "bounds.csv")

    def add_second_lesions(self, figures: Rows, of: TableOf, rows: Sequence[str]) -> None:
        """Two columns: share hit by all boxes, and by as many as the row that has the fewest."""
        true = truth.read(truth.Asked(self.data)).judged
        boxes = {row: pq.ParquetFile(self.boxes(of.rows[row])).read() for row in rows}
        fewest = min(second_lesions(table, true, 0.1).boxes for table in boxes.values())
        for row, column, t in product(rows, SECOND, of.at):
            found = second_lesions(boxes[row], true, float(t), fewest if SECOND[column] else None)
            hit = {f"acc {t}": found.hit / max(found.lesions, 1), f"hit {t}": found.hit}
            figures[row].setdefault(column, {}).update(hit, lesions=found.lesions, boxes=found.boxes)


def shown(of: TableOf) -> set[str]:
    return {f"{word} {t}".strip() for word in ("acc", "afp", "auc") for t in of.at}


def printed(name: str) -> Rows:
    """The paper's own rows."""
    return {of.name: by_finding(of.values, shown(TABLES[name])) for of in published.against(f"cai2018:{name[0]}")}


if __name__ == "__main__":
    main(sys.argv[1:])
