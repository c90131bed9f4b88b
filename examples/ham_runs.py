"""The runs behind the tables of Ouyang et al. 2021: their recipes, what each begins with, and what it learns."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from tables import Folder

from cxrmine.boxes.shards import read_boxes
from cxrmine.boxes.table import truth_table, write_boxes
from cxrmine.config import Recipe
from cxrmine.data.datasets import open_dataset
from cxrmine.recipe_files import load_recipe
from cxrmine.stages import refine
from cxrmine.tables import COORDINATES

CHEXPERT = "CheXpert"
ALONE = ("ham.positive=false", "ham.bound=false", "ham.union=false")
BARE = ("ham.foreground=none", *ALONE)
GAP = "network.pool=gap"


class Run(NamedTuple):
    method: str
    changes: tuple[str, ...] = ()  # of the recipe
    start: str = "base"  # the run whose weights it begins with: see begins()
    boxes: bool = False  # whether it learns true boxes


RUNS = {
    "base": Run("cam", start=""),
    "base-8-gap": Run("cam", ("network.stride=8", GAP), start=""),
    "base-32-gap": Run("cam", ("network.stride=32", GAP), start=""),
    "am": Run("am"),
    "rn50-32-gap": Run("ham", ("network.stride=32", GAP, *BARE), "base-32-gap"),
    "rn50-8-gap": Run("ham", (GAP, *BARE), "base-8-gap"),
    "rn50-8-lse": Run("ham", BARE),
    "fab-c": Run("ham", ("ham.foreground=channel", *ALONE)),
    "fab-p": Run("ham", ("ham.foreground=position", *ALONE)),
    "fab": Run("ham", ALONE),
    "fab-pa": Run("ham", ("ham.bound=false", "ham.union=false")),
    "pa-abu": Run("ham", ("ham.foreground=none",)),
    "fab-pa-bound": Run("ham", ("ham.union=false",)),
    "ham": Run("ham"),
    "boxes": Run("ham", boxes=True),
    "mse": Run("ham", ("ham.box_loss=mse",), boxes=True),
    "boxes-twice": Run("ham", start="boxes", boxes=True),  # learns as long as the chain
    "chain": Run("ham", start="am-refined", boxes=True),
}
REFINED = {"sr": "boxes", "am-refined": "ham"}  # what `refine` makes → by the recipe of this run
PLACES = {"boxes": "sr/refiner"} | {name: f"{name}/{refine.FINAL}" for name in REFINED}  # the refiner is that run
OF_FOLDS = ("boxes", "boxes-twice", "mse", "sr", "chain")  # what is another with another fold
OWN_KEYS = {  # method → keys of --set that the others' recipes lack
    "cam": ("am.", "ham.", "boxes.", "mine.rounds", *(f"train.phases.{i}" for i in (1, 2, 3))),
    "am": ("ham.", "boxes."),
    "ham": ("am.", "mine.rounds", *(f"train.phases.{i}" for i in (1, 2, 3))),
}
OF_CHEXPERT = {  # run → its recipe there; of any other: ham-chexpert
    "rn50-32-gap": ("ham-chexpert-rn50", Run("cam", start="")),
    "rn50-8-lse": ("ham-chexpert-drn50", Run("cam", start="")),
}


def recipe(asked: argparse.Namespace, seed: int, run: str, fold: int = 0) -> Recipe:
    """That of a run: a built-in one, and what is else in this run."""
    of = RUNS[run]
    if not asked.data:
        name = {"cam": "demo", "am": "demo-am", "ham": "demo-ham"}[of.method]
    elif asked.layout == CHEXPERT:
        name, of = OF_CHEXPERT.get(run, ("ham-chexpert", of))
    else:
        name = "ham-boxes" if of.boxes else of.method
    changes = [f"train.seed={seed}"]
    if of.boxes:
        changes += [f"boxes.source={'..' if asked.data else '../data'}/truth.parquet"]
        changes += [f"boxes.listed={listed(asked, fold)}"] if fold else []
        changes += [] if asked.data else ["boxes.annotated=0.1"]
    lacks = OWN_KEYS[of.method] + (() if of.boxes else ("boxes.",))
    changes += [*(change for change in asked.set if not change.startswith(lacks)), *of.changes]
    if start := begins(asked, of):
        changes.append(f"train.start=../runs/{Steps(asked, seed, fold).place(start)}")
    if of.method == "am" and asked.data:
        changes.append("train.include=[]")  # the judged films are new to every row
    return load_recipe(name, changes).model_copy(update={"name": run})


def begins(asked: argparse.Namespace, of: Run) -> str:
    """The run that one begins with. On real data hierarchical attention begins with ImageNet's weights, but for the
    chain's last step and what is compared with it."""
    return of.start if of.start in (*REFINED, "boxes") or not (asked.data and of.method == "ham") else ""


def listed(asked: argparse.Namespace, fold: int) -> Path:
    path: Path = asked.folds / f"fold{fold}" / "train_0.8.txt"
    return path.resolve()


@dataclass(frozen=True)
class Steps(Folder):
    """What a seed leaves, and where there are folds one of them: 1 to 5; 0: what has none."""

    fold: int = 0
    fitted: set[str] = field(default_factory=set)

    def own(self, name: str) -> str:
        return f"{name}-{self.fold}" if self.fold and name in OF_FOLDS else name

    def place(self, name: str) -> str:
        first, _, inside = PLACES.get(name, name).partition("/")
        return f"{self.own(first)}/{inside}".rstrip("/")

    @property
    def truth(self) -> Path:
        return (self.folder if self.asked.data else self.data) / "truth.parquet"

    @property
    def judged(self) -> Path:
        return self.folder / f"truth-{self.fold}.parquet" if self.fold else self.data

    def write_truth(self) -> None:
        """All boxes of the dataset; and those of a fold, which are judged."""
        index = open_dataset(self.data)
        if not self.truth.exists():
            write_boxes(self.truth, truth_table({n: index.boxes[n] for n in ("image_id", "finding", *COORDINATES)}), {})
        if self.fold:
            names = pa.array(listed(self.asked, self.fold).read_text().split())
            true = read_boxes(self.truth).table
            write_boxes(self.judged, true.filter(pc.invert(is_in(true["image_id"], names))), {})

    def boxes(self, name: str) -> Path:
        self.fit_run(name)
        return self.mined(self.own(name), self.place(name))

    def fit_run(self, name: str) -> None:
        """A run, after those that it needs."""
        if name in self.fitted:
            return
        if name in REFINED:
            self.refine(name)
        else:
            if start := begins(self.asked, RUNS[name]):
                self.fit_run(start)
            self.fit(recipe(self.asked, self.seed, name, self.fold), self.place(name))
        self.fitted.add(name)

    def refine(self, name: str) -> None:
        by = REFINED[name]
        if start := begins(self.asked, RUNS[by]):
            self.fit_run(start)
        given = self.truth if name == "sr" else self.mined_by_am()
        out, run = self.folder / "boxes" / f"{self.own(name)}.parquet", self.folder / "runs" / self.own(name)
        file = str(self.write(recipe(self.asked, self.seed, by, self.fold)))
        refine.run(refine.Refine(given, self.data, run, out, file, "boxed", device=self.asked.device))

    def mined_by_am(self) -> Path:
        self.fit_run("am")
        return self.mined("am-train", "am", split="train")


def is_in(column: pa.ChunkedArray, names: pa.Array) -> pa.ChunkedArray:
    return pc.is_in(column.cast(pa.string()), value_set=names.cast(pa.string()))
