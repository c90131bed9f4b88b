"""Every table of Ouyang et al. 2021, and the chain's: the runs, the boxes, the figures, and the tables as Markdown.

    python examples/ham_tables.py OUT                                              # made-up films, seeds 0, 1 and 2
    python examples/ham_tables.py OUT --data /data/ChestX-ray14 --folds FOLDS      # the paper's own
    python examples/ham_tables.py OUT --tables 6 --seeds 1 --set train.batch_size=8
    python examples/ham_tables.py OUT --tables chain --seeds 0,1,2,3,4

A seed makes its own films (without --data) and its own networks; there every network begins with a run of class
activation maps that has the same backbone, and boxes are those of a tenth of the training patients. FOLDS holds the
published lists fold1/train_0.8.txt to fold5: boxes are those of the listed films, and the films that are not listed
are judged. Tables 8 to 10 are CheXpert's: on made-up films they show the same methods. Leaves OUT/seed-K (runs, boxes;
what is done is not done again, so one table at a time will do) and OUT/ham-tables.json with the figures of every seed,
which docs/build.py makes tables of.
"""

import argparse
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from cxrmine import console
from cxrmine.boxes.door import read_table
from cxrmine.data.datasets import open_dataset
from cxrmine.files import write_json
from cxrmine.report.scores import Row
from cxrmine.scoring import published
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.probabilities import read_probabilities, write_probabilities
from cxrmine.stages import score

sys.path.insert(0, str(Path(__file__).parent))

from ham_runs import CHEXPERT, Steps, is_in
from tables import LEFT_OUT, MINUS, Figures, Rows, around, by_finding, mean_of, minus, parser, rounded

SAMPLES, FOLDS = 1000, 5
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural_Effusion")  # of table VIII


class TableOf(NamedTuple):
    says: str
    rows: dict[str, str]  # row → run, or what `refine` makes
    cell: tuple[str, ...]  # figures by finding
    less: tuple[tuple[str, str], ...] = ()  # which rows are compared: the first minus the second
    of_mean: tuple[str, ...] = ()  # figures of the mean alone


def _at(measure: str, thresholds: str) -> tuple[str, ...]:
    return tuple(f"{measure} {t}" for t in thresholds.split())


OURS, BOXES, SR = "ours", "ours + boxes", "ours + boxes + SR"
FIVE = {"RN50": "rn50-32-gap", "DRN50": "rn50-8-lse", OURS: "ham", BOXES: "boxes", SR: "sr"}
PAIRS = ((OURS, "DRN50"), (BOXES, OURS), (SR, BOXES))
FULL = "RN50-8-LSE+FAB+PA+ABU"
TABLES = {
    "I": TableOf("AUC on the test split, learned from labels alone.", {OURS: "ham"}, ("auc",)),
    "II": TableOf("The same; after ± the standard deviation.", {OURS: "ham"}, ("auc",)),
    "III": TableOf("IoU, learned from labels alone.", {OURS: "ham"}, _at("iou", "0.1 0.3")),
    "IV": TableOf("IoU, learned with boxes.", {OURS: "boxes"}, _at("iou", "0.1 0.2 0.3 0.4 0.5 0.6 0.7")),
    "V": TableOf(
        "IoR, learned with boxes, and with boxes that were refined.",
        {OURS: "boxes", "ours + SR": "sr"}, _at("ior", "0.1 0.25 0.5 0.75 0.9"), (("ours + SR", OURS),),
    ),
    "VI": TableOf(
        "Ablation: mean AUC, and IoU.",
        {
            "RN50-32-GAP": "rn50-32-gap", "RN50-8-GAP": "rn50-8-gap", "RN50-8-LSE": "rn50-8-lse",
            "RN50-8-LSE+FAB-C": "fab-c", "RN50-8-LSE+FAB-P": "fab-p", "RN50-8-LSE+FAB": "fab",
            "RN50-8-LSE+FAB+PA": "fab-pa", "RN50-8-LSE+PA+ABU": "pa-abu",
            "RN50-8-LSE+FAB+PA+Bound": "fab-pa-bound", FULL: "ham",
        },
        _at("iou", "0.1"), ((FULL, "RN50-8-LSE"), (FULL, "RN50-8-LSE+FAB")), ("auc",),
    ),
    "VII": TableOf(
        "AMSE against MSE.", {OURS: "boxes", "ours, MSE": "mse"}, _at("iou", "0.1 0.3"), ((OURS, "ours, MSE"),)
    ),
    "VIII": TableOf("AUC on the test split.", FIVE, ("auc",), PAIRS),
    "IX": TableOf("IoU of the same.", FIVE, _at("iou", "0.1 0.3 0.5"), PAIRS),
    "X": TableOf("IoR of the same.", FIVE, _at("ior", "0.1 0.5 0.75"), PAIRS),
    "chain": TableOf(
        "Boxes that attention mining made become what hierarchical attention learns, and then the true boxes of a few "
        "patients: Acc / AFP of all boxes, and IoR.",
        {
            "CAM": "base", "AM": "am", "AM + refine": "am-refined", "HAM + true boxes": "boxes",
            "HAM + true boxes, twice as long": "boxes-twice", "whole chain": "chain",
        },
        _at("acc", "0.1 0.3 0.5") + _at("ior", "0.1 0.25 0.5"),
        (
            ("AM + refine", "AM"), ("HAM + true boxes", "AM"), ("whole chain", "AM"),
            ("whole chain", "HAM + true boxes, twice as long"),
        ),
    ),
}  # fmt: skip
OF_LAYOUT = {CHEXPERT: ("VIII", "IX", "X")}
WITH_FOLDS = ("II", "IV", "V", "VII", "chain")


def main(words: Sequence[str]) -> None:
    made = parser(__doc__)
    made.add_argument("--tables", help="some of 1 to 10 and chain, with commas; without it all that the data allows")
    made.add_argument("--folds", type=Path, help="of ChestX-ray14, the folder with fold1/train_0.8.txt and so on")
    asked = made.parse_args(words)
    asked.layout = open_dataset(asked.data).layout if asked.data else ""
    if asked.folds and (not asked.data or asked.layout == CHEXPERT):
        made.error("--folds are ChestX-ray14's: name it with --data")
    of_nih = tuple(
        name for name in TABLES if name not in OF_LAYOUT[CHEXPERT] and (asked.folds or name not in WITH_FOLDS)
    )
    allowed = OF_LAYOUT.get(asked.layout, of_nih) if asked.data else tuple(TABLES)
    wanted = asked.tables.split(",") if asked.tables else allowed
    asked.names = [published.ROMAN.get(name, name) for name in wanted]
    if others := [name for name in asked.names if name not in allowed]:
        needs = "need --folds" if set(others) <= set(WITH_FOLDS) else "are not of this data"
        made.error(f"--tables {', '.join(others)} {needs}; here are {', '.join(allowed)}")
    measured = measure(asked, words)
    write_json(asked.out / "ham-tables.json", measured)
    build = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "build.py"))
    sys.stdout.write(build["ham_tables"](measured))


def measure(asked: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Everything that is asked for, as the JSON has it: seed (and fold) → table → row → finding → figure."""
    made: dict[str, dict[str, tuple[Rows, Rows]]] = {}
    for seed in asked.seeds:
        for fold in range(FOLDS + 1) if asked.folds else (0,):
            names = [name for name in asked.names if bool(asked.folds and name in WITH_FOLDS) == bool(fold)]
            if names:
                made[f"{seed}, fold {fold}" if fold else str(seed)] = Seed(asked, seed, fold).tables(names)
    document = around("ham_tables", asked, words) | {
        "tables": {name: table_of(asked, name)._asdict() for name in asked.names},
        "figures": {one: {name: rows for name, (rows, _) in tables.items()} for one, tables in made.items()},
        "intervals": {one: {name: ends for name, (_, ends) in tables.items() if ends} for one, tables in made.items()},
        "paper": {name: printed(name) for name in asked.names if asked.data and name != "chain"},
    }
    return rounded(document)


def table_of(asked: argparse.Namespace, name: str) -> TableOf:
    of = TABLES[name]
    if name == "II" and asked.folds:
        return of._replace(says="AUC, learned with boxes, of the patients of the test split that a fold did not see; "
                           "after ± the standard deviation.", rows={OURS: "boxes"})  # fmt: skip
    return of


@dataclass(frozen=True)
class Seed(Steps):
    scores: dict[str, Row] = field(default_factory=dict)  # of what was scored already

    def tables(self, names: Sequence[str]) -> dict[str, tuple[Rows, Rows]]:
        """The figures of every table; and the intervals of a seed alone."""
        if self.asked.data:
            self.write_truth()
        else:
            self.films()
        return {name: self.table(name, table_of(self.asked, name)) for name in names}

    def table(self, name: str, of: TableOf) -> tuple[Rows, Rows]:
        """A difference of two rows is a row, too. Intervals: by bootstrap over patients, of the AUC DeLong's."""
        figures, intervals = {}, {}
        alone = len(self.asked.seeds) == 1 and not self.fold
        for row, made in of.rows.items():
            console.log(f"seed {self.seed}{f', fold {self.fold}' * bool(self.fold)}: table {name}, {row}")
            kinds = dict.fromkeys("areas" if figure == "auc" else "boxes" for figure in (*of.of_mean, *of.cell))
            scored = [self.scored(kind, made) for kind in kinds]
            figures[row] = self.figures(name, of, {key: v for one in scored for key, v in one.values.items()})
            if alone:
                ends = {key: v for one in scored for key, v in one.intervals.items()}
                intervals[row] = by_finding(ends, {*of.cell, *of.of_mean})
        for one, other in of.less:
            figures[one + MINUS + other] = minus(figures[one], figures[other])
        return figures, intervals

    def figures(self, name: str, of: TableOf, values: Mapping[Key, float]) -> Figures:
        beside = {figure.replace("acc", "afp") for figure in of.cell}
        everything = by_finding(
            {key: value for key, value in values.items() if key.finding != MEAN}, {*of.cell, *of.of_mean, *beside}
        )
        if name == "VIII" and self.asked.data:
            everything = {finding: own for finding, own in everything.items() if finding in COMPETITION}
        figures = {f: {n: v for n, v in own.items() if n not in of.of_mean} for f, own in everything.items()}
        figures = {finding: own for finding, own in figures.items() if own} | {MEAN: mean_of(everything)}
        if of.cell != ("auc",) and (name == "chain" or not self.asked.data):
            without = mean_of({finding: own for finding, own in figures.items() if finding != MEAN}, LEFT_OUT)
            figures[f"{MEAN} without {LEFT_OUT}"] = without
        return figures

    def scored(self, kind: str, name: str) -> Row:
        if f"{kind} {name}" not in self.scores:
            self.scores[f"{kind} {name}"] = self.areas(name) if kind == "areas" else self.of_boxes(name)
        return self.scores[f"{kind} {name}"]

    def of_boxes(self, name: str) -> Row:
        splits = ("val", "test") if self.asked.layout == CHEXPERT else ()
        samples = SAMPLES if len(self.asked.seeds) == 1 and not self.fold else 0
        boxes = (self.boxes(name),)
        asked = score.Score(boxes, self.judged, "ham2021", splits=splits, samples=samples, controls=False)
        return score.run(asked).rows[0]

    def areas(self, name: str) -> Row:
        """Of the test split; where a fold's films joined training, of the patients that were not seen."""
        self.fit_run(name)
        path = self.predicted(self.own(name), self.place(name))
        if self.fold:
            table, meta, *_ = read_probabilities(path)
            patients = read_table(self.folder / "runs" / self.place(name) / "patients.parquet")["patient_id"]
            path = path.with_name(f"{path.stem}-unseen.parquet")
            new = pc.invert(is_in(table["patient_id"], patients.combine_chunks()))
            write_probabilities(path, table.filter(new), meta)
        return score.run(score.Score((path,), self.data)).rows[0]


def printed(name: str) -> Rows:
    """The paper's own rows."""
    of = TABLES[name]
    return {
        reference.name: figures
        for reference in published.against(f"ham2021:{name}")
        if (figures := by_finding(reference.values, {*of.cell, *of.of_mean}))
    }


if __name__ == "__main__":
    main(sys.argv[1:])
