"""The figures that the papers print, as rows beside ours, with what differs in how they were made."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cxrmine.errors import UsageError
from cxrmine.scoring.figures import MEAN, POOLED, Key
from cxrmine.scoring.localization import Bounds
from cxrmine.scoring.protocols import known_word

METRICS = {  # as published.csv calls it → (measure, figures of value and value2)
    "acc@iou": ("acc_afp", ("acc",)),
    "acc|afp@iou": ("acc_afp", ("acc", "afp")),
    "acc@ior": ("ior", ("share",)),
    "mean iou": ("top1", ("mean_iou",)),
    "boxes": ("iobb", ("truth",)),
    "detected boxes": ("iobb", ("detected",)),
    "true positives": ("iobb", ("true",)),
    "recall": ("iobb", ("recall",)),
    "precision": ("iobb", ("precision",)),
    "auc": ("auc", ("auc",)),
}
BY_TRUTH = {"top1": "truth_iou"}  # the same figure twice: every pair of NIH's box images has one truth box
BY_PAIR = {"ham2021"}  # whose acc@iou is a share of pairs: the measure iou
UNTHRESHOLDED = {"iobb"}
COUNTED = {"truth", "detected", "true"}  # of which a mean over findings says nothing
MEANS = {"Mean": MEAN, "All": POOLED}
ROMAN = {str(n): word for n, word in enumerate(["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"], start=1)}
DIFFERS = {
    "cai2018": "NIH's 880 box images were in AM's training by their image labels",
    "cai2018:2": "boxes of the list B taken until Wang's AFP was reached; Wang's AFP is per 984 rows, the others' per "
    "image with the finding",
    "ham2021": "one prediction a pair, boxes around regions; the public code picks the checkpoint on the test boxes",
    "ham2021:III": "668 of the 726 box patients have other images in training",
    "ham2021:IV": "folds by image: 39 to 47 patients of each test fold are also in training",
    "ham2021:V": "folds by image: 39 to 47 patients of each test fold are also in training",
    "ham2021:IX": "CheXpert, boxes of one radiologist",
    "ham2021:X": "CheXpert, boxes of one radiologist",
    "irnet2021:2": "IRNet's public code picks the checkpoint by its AUC on the test images",
    "irnet2021:3": "the predicted box has the truth's size, and in the public code lies on that peak of the map which "
    "fits the truth best",
    "agcl2018": "3.6 to 4.0 boxes a pair; a predicted box is counted, not a truth box, as true",
}


@dataclass(frozen=True)
class Reference:
    name: str  # AM+KP, cai2018:2
    values: dict[Key, float]
    differs: str  # from ours, in its protocol
    own_mean: bool  # whether the paper prints none, so that ours stands there


def against(table: str) -> list[Reference]:
    """Every method of a published table that is called PAPER:TABLE, for instance cai2018:2 or ham2021:IV."""
    paper, _, number = table.partition(":")
    tables: dict[str, dict[str, None]] = {}
    for row in _rows():
        tables.setdefault(row["paper"], {})[row["table"]] = None
    known_word("paper", paper, tables)
    number = ROMAN.get(number, number) if ROMAN.get(number) in tables[paper] else number
    if number not in tables[paper]:
        raise UsageError(
            f"{paper} has no table {number!r} here.",
            f"Its tables are {', '.join(f'{paper}:{t}' for t in tables[paper])}.",
        )
    rows = [row for row in _rows() if (row["paper"], row["table"]) == (paper, number)]
    differs = "; ".join(DIFFERS[key] for key in (paper, f"{paper}:{number}") if key in DIFFERS)
    result = []
    for method in dict.fromkeys(row["method"] for row in rows):
        printed = dict(_figures(rows, method))
        own_mean = not any(key.finding in (MEAN, POOLED) for key in printed)
        said = f"{rows[0]['setting']}; {differs}"
        result.append(Reference(f"{method}, {paper}:{number}", _with_mean(printed), said, own_mean))
    return result


def bounds(table: str, method: str) -> Bounds:
    """The AFP of a published method by finding and T: where the list of boxes stops."""
    limits: dict[str, dict[str, float]] = {}
    for reference in against(table):
        if reference.name == f"{method}, {table}":
            for key, value in reference.values.items():
                if key.name == "afp" and key.finding != MEAN:
                    limits.setdefault(key.finding, {})[key.at] = value
    return limits


@cache
def _rows() -> list[dict[str, str]]:
    text = (files("cxrmine.scoring") / "published.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def _figures(rows: list[dict[str, str]], method: str) -> Iterator[tuple[Key, float]]:
    for row in rows:
        if row["method"] != method:
            continue
        measure, names = METRICS[row["metric"]]
        if measure == "acc_afp" and row["paper"] in BY_PAIR:
            measure, names = "iou", ("share",)
        at = "" if measure in UNTHRESHOLDED else row["threshold"]
        finding = MEANS.get(row["finding"], row["finding"])
        for name, value in zip(names, (row["value"], row["value2"]), strict=False):
            for of in (measure, *([BY_TRUTH[measure]] if measure in BY_TRUTH else [])):
                yield Key(of, finding, at, name), float(value)


def _with_mean(values: dict[Key, float]) -> dict[Key, float]:
    """With the mean over findings where the paper prints none."""
    groups: dict[Key, list[float]] = {}
    for key, value in values.items():
        if key.finding not in (MEAN, POOLED) and key.name not in COUNTED:
            groups.setdefault(key._replace(finding=MEAN), []).append(value)
    return {key: sum(group) / len(group) for key, group in groups.items()} | values
