"""Tables 2 and 3 of Fang et al. 2021, and what the prior of lungs and heart does to every method's boxes.

    python examples/irnet_tables.py OUT                                                       # made-up films
    python examples/irnet_tables.py OUT --data /data/ChestX-ray14 --organs-data /data/JSRT    # the paper's own

A seed makes its own films (without --data) and its own networks, among them the one that outlines organs, of whose
recipe a key is set with organs. before it: --set train.batch_size=8 organs.train.batch_size=4. Leaves
OUT/seed-K (runs, boxes, probabilities; what is done is not done again) and OUT/irnet-tables.json with the figures of
every seed, which docs/build.py makes tables of.
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cxrmine import console
from cxrmine.config import Recipe
from cxrmine.files import write_json
from cxrmine.recipe_files import load_recipe
from cxrmine.scoring import published
from cxrmine.scoring.figures import MEAN, POOLED, Key
from cxrmine.stages import mine, score, train

sys.path.insert(0, str(Path(__file__).parent))

from tables import LEFT_OUT, MINUS, Figures, Folder, Rows, around, by_finding, mean_of, minus, parser, rounded

IRNET = {  # run → what is else than in the recipe
    "plain": ("irnet.attention=false", "irnet.gate=false"),
    "attention": ("irnet.gate=false",),
    "gate": ("irnet.attention=false",),
    "whole": (),
    "code": ("irnet.sigmoid=true",),
}
STARTS = {"am": "base", "ham": "base"}  # with made-up films
GATED, DROPPED, MARGIN = "mine.organ_way=gate", "mine.organ_way=drop", "mine.margin=0.05"
PRIOR = {
    "": (), " gated": (GATED,), " gated, margin": (GATED, MARGIN),
    " dropped": (DROPPED,), " dropped, margin": (DROPPED, MARGIN),
}  # fmt: skip
NORMAL = "false per normal image"
ORGANS = "organs."


class TableOf(NamedTuple):
    says: str
    rows: dict[str, tuple[str, tuple[str, ...] | None]]  # row → run, and how organs are used in mining: None, not
    cell: tuple[str, ...]  # figures
    less: tuple[tuple[str, str], ...]  # which rows are compared: the first minus the second


def _rows(names: dict[str, str]) -> dict[str, tuple[str, tuple[str, ...] | None]]:
    return {row: (run, None) for row, run in names.items()}


FOUND = ("acc 0.1", "afp 0.1", "acc 0.3", "afp 0.3", NORMAL)
METHODS = {"CAM": "base", "AM": "am", "HAM": "ham"}
TABLES = {
    "2": TableOf(
        "AUC on the test split: without either, w/o Fl (attention alone), gate alone, both, and both as in the code.",
        _rows({"plain": "plain", "w/o Fl": "attention", "gate": "gate", "CXR-IRNet": "whole", "the code": "code"}),
        ("auc",),
        (("w/o Fl", "plain"), ("gate", "plain"), ("CXR-IRNet", "plain"), ("the code", "CXR-IRNet")),
    ),
    "3": TableOf(
        "Mean IoU of each pair's first box, whose size is the map's own; the gate is off.",
        _rows({"FE": "attention", "FE w/o MA": "plain"}), ("mean_iou",), (("FE", "FE w/o MA"),),
    ),
    "ablation": TableOf(
        "Boxes of the same networks.",
        _rows({"plain": "plain", "attention": "attention", "gate": "gate", "both": "whole", "the code": "code"}),
        FOUND, (("attention", "plain"), ("gate", "plain"), ("both", "plain")),
    ),
    "prior": TableOf(
        "Boxes of every method, without organs, from maps that are gated, and without boxes of which more than half "
        "lies outside; with a margin, of 5 % of the film's side around organs.",
        {f"{name}{way}": (run, keys or None) for name, run in METHODS.items() for way, keys in PRIOR.items()},
        FOUND, tuple((f"{name}{way}", name) for name in METHODS for way in PRIOR if way),
    ),
}  # fmt: skip


def main(words: Sequence[str]) -> None:
    made = parser(__doc__)
    made.add_argument("--organs-data", type=Path, help="films with masks of lungs and heart; with --data")
    made.add_argument("--tables", default=",".join(TABLES), help="some of these, with commas")
    asked = made.parse_args(words)
    asked.names = asked.tables.split(",")
    if not set(asked.names) <= set(TABLES):
        made.error(f"--tables are some of {', '.join(TABLES)}")
    if bool(asked.data) != bool(asked.organs_data):
        made.error("--data and --organs-data need each other")
    measured = measure(asked, words)
    write_json(asked.out / "irnet-tables.json", measured)
    build = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "build.py"))
    sys.stdout.write(build["irnet_tables"](measured))


def measure(asked: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Everything that is asked for, as the JSON has it: seed → table → row → finding → figure. No path is in it."""
    document = around("irnet_tables", asked, words) | {
        "tables": {name: TABLES[name]._asdict() for name in asked.names},
        "figures": {str(seed): Seed(asked, seed).tables() for seed in asked.seeds},
        "intervals": {},
        "paper": {name: printed(name) for name in asked.names if asked.data},
    }
    return rounded(document)


def printed(name: str) -> Rows:
    if not name.isdigit():
        return {}
    of = TABLES[name]
    return {one.name: by_finding(one.values, of.cell) for one in published.against(f"irnet2021:{name}")}


class Seed(Folder):
    def tables(self) -> dict[str, Rows]:
        if not self.asked.data:
            self.films()
        return {name: self.table(name) for name in self.asked.names}

    def table(self, name: str) -> Rows:
        """A difference of two rows is a row, too."""
        of, figures = TABLES[name], {}
        for row, (run, organs) in of.rows.items():
            console.log(f"seed {self.seed}: table {name}, {row}")
            self.fit_run(run)
            figures[row] = self.areas(run) if of.cell == ("auc",) else self.of_boxes(row, run, organs, of.cell)
        for one, other in of.less:
            figures[one + MINUS + other] = minus(figures[one], figures[other])
        return figures

    def fit_run(self, run: str) -> None:
        if run == "organs":
            changes = [f"train.seed={self.seed}"]
            changes += [change.removeprefix(ORGANS) for change in self.asked.set if change.startswith(ORGANS)]
            file = self.write(load_recipe("organs" if self.asked.data else "demo-organs", changes))
            source = self.asked.organs_data or self.data
            train.run(train.Train(source, str(file), self.folder / "runs" / run, device=self.asked.device))
            return
        for before in ("organs", STARTS.get(run, "")):
            if before:
                self.fit_run(before)
        self.fit(self.recipe(run), run)

    def recipe(self, run: str) -> Recipe:
        others = tuple(
            f"{key}." for key in ("organs", "irnet", "am", "ham") if key != ("irnet" if run in IRNET else run)
        )
        changes = [f"train.seed={self.seed}", *(change for change in self.asked.set if not change.startswith(others))]
        if run in IRNET:
            name = "irnet" if self.asked.data else "demo-irnet"
            changes += ["irnet.organs=../runs/organs", *IRNET[run]]
        else:
            name = {"base": "cam"}.get(run, run) if self.asked.data else {"base": "demo"}.get(run, f"demo-{run}")
            if run in STARTS and not self.asked.data:
                changes.append(f"train.start=../runs/{STARTS[run]}")
        return load_recipe(name, changes).model_copy(update={"name": run})

    def boxes(self, row: str, run: str, organs: tuple[str, ...] | None, split: str, findings: str) -> Path:
        out = self.folder / "boxes" / f"{row}-{split}.parquet".replace(",", "").replace(" ", "-")
        runs = self.folder / "runs"
        asked = mine.Mine(runs / run, self.data, out, split, findings, organs or (), device=self.asked.device)
        mine.run(replace(asked, organs=runs / "organs") if organs else asked)
        return out

    def of_boxes(self, row: str, run: str, organs: tuple[str, ...] | None, cell: tuple[str, ...]) -> Figures:
        labelled = self.boxes(row, run, organs, "boxed", "labelled")
        values = self.score(labelled, "irnet2021" if cell == ("mean_iou",) else "cai2018")
        figures = by_finding({key: value for key, value in values.items() if key.finding != MEAN}, cell)
        figures |= {MEAN: mean_of(figures), f"{MEAN} without {LEFT_OUT}": mean_of(figures, LEFT_OUT)}
        if NORMAL in cell:
            seen = self.score(self.boxes(row, run, organs, "test", "predicted"), "cai2018")
            figures[MEAN][NORMAL] = seen[Key("false_per_normal", POOLED, "", "boxes")]
        return figures

    def score(self, boxes: Path, protocol: str) -> dict[Key, float]:
        asked = score.Score((boxes,), self.data, protocol, samples=0, controls=False)
        return dict(score.run(asked).rows[0].values)

    def areas(self, run: str) -> Figures:
        values = score.run(score.Score((self.predicted(run, run),), self.data)).rows[0].values
        figures = by_finding({key: value for key, value in values.items() if key.finding != MEAN}, ("auc",))
        return figures | {MEAN: mean_of(figures)}


if __name__ == "__main__":
    main(sys.argv[1:])
