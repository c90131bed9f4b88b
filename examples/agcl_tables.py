"""Tables 1 and 2 of Tang et al. 2018, and the seeds of every iteration.

    python examples/agcl_tables.py OUT                              # made-up films
    python examples/agcl_tables.py OUT --data /data/MIMIC-CXR       # with severity.parquet in it

A seed (of random numbers) makes its own films (without --data) and its own networks: BSL, the baseline; from it, AGL
and AGCL, of two iterations each; `longer`, which learns on as AGL does with a weight of 0 for maps; and `channels`,
AGCL with regression = channels. Leaves OUT/seed-K (what is done is not done again) and OUT/agcl-tables.json, which
docs/build.py makes tables of.
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.boxes.door import read_table
from cxrmine.config import Recipe
from cxrmine.data.datasets import open_dataset
from cxrmine.files import write_json
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder, read_recipe
from cxrmine.scoring import published
from cxrmine.scoring.figures import MEAN, POOLED, Key
from cxrmine.stages import mine, score

sys.path.insert(0, str(Path(__file__).parent))

from tables import LEFT_OUT, MINUS, Figures, Folder, Rows, around, by_finding, mean_of, minus, parser, rounded

RUNS = {  # run → recipe, its changes
    "base": ("agl", ("agcl.iterations=0",)),
    "longer": ("agl", ("agcl.weight=0",)),
    "agl": ("agl", ()),
    "agcl": ("agcl", ()),
    "channels": ("agcl", ("agcl.regression=channels", "agcl.weight=0.005")),
}
NETWORKS = {  # row → run, after so many iterations
    "BSL": ("base", 0),
    "longer": ("longer", 2),
    "AGL-1": ("agl", 1),
    "AGL-2": ("agl", 2),
    "AGCL-1": ("agcl", 1),
    "AGCL-2": ("agcl", 2),
    "channels": ("channels", 2),
}
LESS = (
    *((row, "BSL") for row in NETWORKS if row != "BSL"),
    ("AGL-2", "longer"),
    ("AGCL-2", "longer"),
    ("AGCL-2", "AGL-2"),
)
FOUND = ("detected", "true", "recall", "precision")
ALL = "all"


class TableOf(NamedTuple):
    says: str
    cell: tuple[str, ...]
    less: tuple[tuple[str, str], ...] = LESS


TABLES = {
    "1": TableOf("AUC on the test split.", ("auc",)),
    "2": TableOf("Boxes and truth boxes that meet at IoBB > 0.25, of all findings together.", FOUND),
    "acc": TableOf("The same boxes by IoU.", ("acc 0.1", "afp 0.1", "acc 0.3", "afp 0.3")),
    "seeds": TableOf("Seeds among the training films, and the share whose map is highest in a truth box.", (), ()),
}


def main(words: Sequence[str]) -> None:
    made = parser(__doc__)
    made.add_argument("--tables", default=",".join(TABLES), help="some of these, with commas")
    asked = made.parse_args(words)
    asked.names = asked.tables.split(",")
    if not set(asked.names) <= set(TABLES):
        made.error(f"--tables are some of {', '.join(TABLES)}")
    measured = measure(asked, words)
    write_json(asked.out / "agcl-tables.json", measured)
    build = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "build.py"))
    sys.stdout.write(build["agcl_tables"](measured))


def measure(asked: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Everything that is asked for, as the JSON has it: seed → table → row → finding → figure. No path is in it."""
    document = around("agcl_tables", asked, words) | {
        "tables": {name: TABLES[name]._asdict() for name in asked.names},
        "figures": {str(seed): Seed(asked, seed).tables() for seed in asked.seeds},
        "intervals": {},
        "paper": {name: printed(name) for name in asked.names if asked.data},
    }
    return rounded(document)


def printed(name: str) -> Rows:
    if not name.isdigit():
        return {}
    return {one.name: by_finding(one.values, TABLES[name].cell) for one in published.against(f"agcl2018:{name}")}


class Seed(Folder):
    def tables(self) -> dict[str, Rows]:
        if not self.asked.data:
            self.films()
        for run in RUNS:
            console.log(f"seed {self.seed}: {run}")
            self.fit(self.recipe(run), run)
        return {name: self.table(name) for name in self.asked.names}

    def recipe(self, run: str) -> Recipe:
        name, own = RUNS[run]
        changes = [f"train.seed={self.seed}", *self.asked.set, *own]
        changes += ["train.start=../runs/base"] if run != "base" else []
        return load_recipe(name if self.asked.data else f"demo-{name}", changes).model_copy(update={"name": run})

    def table(self, name: str) -> Rows:
        """A difference of two rows is a row, too."""
        if name == "seeds":
            return self.seeds()
        of = TABLES[name]
        figures = {row: self.areas(row) if name == "1" else self.boxes(row, name) for row in NETWORKS}
        for one, other in of.less:
            figures[one + MINUS + other] = minus(figures[one], figures[other])
        return figures

    def network(self, row: str) -> str:
        """The run of a row, below runs/; the last one where there were fewer iterations."""
        run, t = NETWORKS[row]
        folder = RunFolder(self.folder / "runs" / run)
        return f"{run}/iterations/{t}" if t and folder.iteration(t).finished else run

    def areas(self, row: str) -> Figures:
        values = score.run(score.Score((self.predicted(row, self.network(row)),), self.data)).rows[0].values
        figures = by_finding({key: value for key, value in values.items() if key.finding != MEAN}, ("auc",))
        return figures | {MEAN: mean_of(figures)}

    def boxes(self, row: str, name: str) -> Figures:
        """Table 2 pools findings, from boxes cut as in Wang 2017; `acc` is of the recipe's own boxes."""
        wang = ("mine.way=wang", "mine.top=1000") if name == "2" else ()
        out = self.folder / "boxes" / f"{row}-{'wang' if wang else 'own'}.parquet"
        run = self.folder / "runs" / self.network(row)
        mine.run(mine.Mine(run, self.data, out, "boxed", overrides=wang, device=self.asked.device))
        asked = score.Score((out,), self.data, "agcl2018" if wang else "cai2018", samples=0, controls=False)
        values = dict(score.run(asked).rows[0].values)
        if wang:
            return {f or ALL: own for f, own in iobb(values).items()}
        figures = by_finding({key: value for key, value in values.items() if key.finding != MEAN}, TABLES[name].cell)
        return figures | {MEAN: mean_of(figures), f"{MEAN} without {LEFT_OUT}": mean_of(figures, LEFT_OUT)}

    def seeds(self) -> Rows:
        index = open_dataset(self.data).select("train")
        truth = read_table(self.data / "truth.parquet") if not self.asked.data else index.boxes
        rows = {}
        for run in ("agl", "agcl"):
            whole = RunFolder(self.folder / "runs" / run)
            recipe, _ = read_recipe(whole)
            for t in (1, 2):
                files = {finding: whole.iteration(t).seeds(c) for c, finding in enumerate(recipe.data.findings)}
                if all(path.is_file() for path in files.values()):
                    rows[f"{run.upper()}-{t}"] = {
                        finding: of_seeds(path, t, (index.labels([finding]) == 1).sum(), truth, recipe)
                        for finding, path in files.items()
                    }
        for own in rows.values():
            together = {name: sum(of[name] for of in own.values()) for name in ("seeds", "new", "hit", "present")}
            own[ALL] = shares(together)
        return rows


def iobb(values: dict[Key, float]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        if key.measure == "iobb" and key.name in FOUND and key.finding != MEAN:
            found.setdefault("" if key.finding == POOLED else key.finding, {})[key.name] = value
    return found


def of_seeds(path: Path, t: int, present: int, truth: Any, recipe: Recipe) -> dict[str, float]:
    """Of one finding in iteration t: its seeds, which are new, and of how many the map is highest in a truth box."""
    table = pq.ParquetFile(path).read()
    maps = np.load(path.with_suffix(".npy"), allow_pickle=False).astype(np.float32).sum(axis=1)
    new = table["since"].to_pylist().count(t)
    hit = 0
    for name, finding, map_ in zip(table["image_id"].to_pylist(), table["finding"].to_pylist(), maps, strict=True):
        own = truth.filter(pc.and_(pc.equal(truth["image_id"], name), pc.equal(truth["finding"], finding)))
        hit += bool(points_into(map_, own, recipe))
    return shares({"seeds": len(table), "new": new, "hit": hit, "present": int(present)})


def shares(counts: dict[str, float]) -> dict[str, float]:
    return {
        **counts,
        "of present": counts["seeds"] / counts["present"] if counts["present"] else 0.0,
        "precision": counts["hit"] / counts["seeds"] if counts["seeds"] else 0.0,
    }


def points_into(map_: np.ndarray, boxes: Any, recipe: Recipe) -> bool:
    """Whether the centre of the highest cell lies in a box. Cell i is centred at pixel i × stride of the input."""
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    stride = recipe.network.stride
    for box in boxes.to_pylist():
        scale = box["image_width"] / recipe.data.size, box["image_height"] / recipe.data.size
        x, y = column * stride * scale[0], row * stride * scale[1]
        if box["x_min"] <= x < box["x_max"] and box["y_min"] <= y < box["y_max"]:
            return True
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
