"""Whose rules a score follows. Every figure is printed with its protocol: the rule, the unit, the order, the choice.

A protocol decides rules, order and what the tables show. Which figures there are is decided by what there is to judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from cxrmine.errors import UsageError

AfpPer = Literal["finding", "all", "rows"]
Order = Literal["image", "score"]

IMAGES = {
    "finding": "images with a truth box of the finding",
    "all": "all images that were mined",
    "rows": "truth boxes of all findings",
}
ORDERS = {"image": "rank, then image_id", "score": "rank, then score"}


OVERALL = frozenset({"ap", "froc", "rsna", "rodeo", "false_per_normal"})  # measures that see absent pairs too
JUDGED = {False: "pairs with a truth box", True: "pairs with a truth box, and pairs known to be absent"}


class Column(NamedTuple):
    """A column of a protocol's tables: a measure at a threshold ("" where it has none), and the figures of a cell."""

    measure: str
    at: str
    figures: tuple[str, ...]
    heading: str


@dataclass(frozen=True)
class Protocol:
    name: str
    source: str  # who defined it, and where
    says: str  # what its figures are, in one sentence
    columns: tuple[Column, ...]
    strict: bool = True  # a figure must be above the threshold, not at it
    order: Order = "image"  # of the list of boxes, inside a rank
    region: Literal["region", "boxes"] = "region"  # what IoU and IoR of a pair take as predicted
    afp_per: AfpPer = "finding"
    unit: str = "box"
    choice: str = "fixed"  # of thresholds: fixed beforehand, or oracle
    interpolation: Literal["coco", "voc2010"] = "coco"  # of the precision-recall curve
    departs: str = ""  # where ours differs from what was published

    def passes(self, values: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
        return values > threshold if self.strict else values >= threshold

    @property
    def overall(self) -> bool:
        """Whether the tables show what needs all images."""
        return any(column.measure in OVERALL for column in self.columns)

    @property
    def rule(self) -> str:
        return ">" if self.strict else "≥"

    def describe(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "name": self.name,
            "source": self.source,
            "says": self.sentence(),
            "rule": self.rule,
            "unit": self.unit,
            "predicted_region": self.region,
            "order": ORDERS[self.order],
            "afp_per": self.afp_per,
            "afp_images": IMAGES[self.afp_per],
            "interpolation": self.interpolation,
            "judged": JUDGED[self.overall],
            "threshold_choice": self.choice,
            "departs": self.departs,
        }

    def sentence(self) -> str:
        """The one line above a table."""
        said = self.says.format(rule=self.rule, images=IMAGES[self.afp_per], order=ORDERS[self.order])
        departs = f" {self.departs}" if self.departs else ""
        if self.overall:
            said += f" Judged: {JUDGED[True]}."
        return f"Protocol {self.name} ({self.source}): {said} Unit: {self.unit}. Thresholds: {self.choice}.{departs}"


def _each(measure: str, thresholds: str, figures: str, heading: str) -> tuple[Column, ...]:
    return tuple(Column(measure, t, tuple(figures.split()), heading.replace("{t}", t)) for t in thresholds.split())


ACC = (
    "a truth box is hit at IoU {rule} T; AFP = boxes that hit none / {images}; only pairs with a truth box are judged."
)
PAIRS = (
    "share of pairs whose whole prediction ({what}) has IoU {{rule}} T, or IoR (over the predicted area) {{rule}} T, "
    "with the pair's truth boxes."
)
TOP1 = Column("top1", "", ("mean_iou",), "top-1 IoU")
BOXES, REGIONS = (PAIRS.format(what=what) for what in ("the boxes around its regions", "its regions"))

PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "cai2018",
            "Cai et al. 2018, section 3",
            ACC,
            (*_each("acc_afp", "0.1 0.3 0.5", "acc afp", "Acc (AFP) {rule} {t}"), TOP1),
        ),
        Protocol(
            "wang2017",
            "Wang et al. 2017, table 4 and supplement",
            "a truth box is hit at IoU, or at IoBB (intersection over the predicted box), {rule} T; "
            "AFP = boxes that hit none / {images}.",
            (
                *_each("acc_afp", "0.1 0.3 0.5", "acc afp", "Acc (AFP) IoU {rule} {t}"),
                *_each("acc_afp_iobb", "0.1 0.25 0.5", "acc afp", "Acc (AFP) IoBB {rule} {t}"),
            ),
            afp_per="rows",
        ),
        Protocol(
            "ham2021",
            "Ouyang et al. 2021, section IV",
            BOXES,
            (
                *_each("iou", "0.1 0.3 0.5 0.7", "share", "IoU {rule} {t}"),
                *_each("ior", "0.1 0.25 0.5", "share", "IoR {rule} {t}"),
            ),
            region="boxes",
            unit="pair",
        ),
        Protocol(
            "ham2021-code",
            "the public code of Ouyang et al. 2021",
            REGIONS,
            (
                *_each("iou", "0.1 0.3 0.5 0.7", "share", "IoU {rule} {t}"),
                *_each("ior", "0.1 0.25 0.5", "share", "IoR {rule} {t}"),
            ),
            strict=False,
            unit="pair",
        ),
        Protocol(
            "agcl2018",
            "Tang et al. 2018, table 2",
            "a predicted box is true at IoBB (intersection over the predicted box) {rule} 0.25 with a truth box; "
            "recall counts truth boxes, precision predicted ones.",
            (
                Column("iobb", "", ("detected",), "detected"),
                Column("iobb", "", ("true",), "true"),
                Column("iobb", "", ("recall",), "recall"),
                Column("iobb", "", ("precision",), "precision"),
            ),
        ),
        Protocol(
            "irnet2021",
            "Fang et al. 2021, table 3",
            "mean over truth boxes of the IoU with their pair's first box; a truth box whose pair has no box counts 0.",
            (Column("truth_iou", "", ("mean_iou",), "mean IoU"), Column("centre", "", ("share",), "centre inside")),
            unit="truth box",
            departs="The published boxes have the truth's size, and of the map's peaks the one that fits it best; ours "
            "never take anything from the truth.",
        ),
        Protocol(
            "maxboxacc2",
            "Choe et al. 2020, MaxBoxAccV2",
            "share of pairs of which any component's box has IoU {rule} 0.3, 0.5 and 0.7, each at the cut that is "
            "best for it; their mean.",
            (
                Column("maxboxacc2", "", ("mean",), "MaxBoxAccV2"),
                *_each("maxboxacc2", "0.3 0.5 0.7", "acc", "IoU {rule} {t}"),
            ),
            strict=False,
            unit="pair",
            choice="oracle (the cut is chosen on the scored pairs)",
        ),
        Protocol(
            "rodeo",
            "Meissen et al. 2023",
            "harmonic mean of localization, shape and classification after matching boxes and truth one to one, image "
            "by image, over all findings.",
            tuple(Column("rodeo", "", (name,), name) for name in ("total", "localization", "shape", "classification")),
            unit="image",
        ),
        Protocol(
            "rsna",
            "RSNA pneumonia detection challenge 2018",
            "mean over IoU {rule} 0.40, 0.45 … 0.75 and over images of TP / (TP + FP + FN).",
            (Column("rsna", "", ("score",), "RSNA score"),),
            unit="image",
        ),
        Protocol(
            "vinbig",
            "VinBigData chest X-ray challenge 2021",
            "average precision at IoU {rule} 0.4, area under the curve as in PASCAL VOC 2010.",
            (*_each("ap", "0.4", "ap", "AP {rule} {t}"), Column("froc", "iou", ("mean",), "FROC")),
            interpolation="voc2010",
            departs="The challenge's fifteenth class, no finding, is no box here and is left out.",
        ),
        Protocol(
            "coco",
            "Lin et al. 2014, COCO",
            "average precision at IoU {rule} T, at 101 points of recall.",
            (*_each("ap", "0.5 0.75 0.5:0.95", "ap", "AP {rule} {t}"), Column("froc", "iou", ("mean",), "FROC")),
            strict=False,
        ),
    )
}

AUC = Protocol(
    "auc",
    "DeLong et al. 1988",
    "area under the ROC curve of image-level probabilities, with DeLong's 95 % interval, in which images count as "
    "independent; uncertain and unmentioned labels are left out.",
    (Column("auc", "", ("auc",), "AUC"),),
    unit="image",
    choice="none",
)


def protocol(name: str, afp_per: str | None = None, order: str | None = None) -> Protocol:
    """The rules called `name`, with another denominator or order where one is given."""
    rules = known_word("protocol", name, PROTOCOLS)
    if afp_per is not None:
        rules = replace(rules, afp_per=known_word("AFP denominator", afp_per, dict.fromkeys(get_args(AfpPer)), afp_per))
    if order is not None:
        rules = replace(rules, order=known_word("order", order, dict.fromkeys(get_args(Order)), order))
    return rules


def known_word(kind: str, word: str, known: Mapping[str, Any], value: Any = None) -> Any:
    """What `word` stands for, or `value`; a usage error with the nearest word where it is not known."""
    if word not in known:
        near = get_close_matches(word, known, 1, cutoff=0)
        raise UsageError(
            f"There is no {kind} called {word!r}.", f"Did you mean {near[0]!r}? Known: {', '.join(known)}."
        )
    return value if value is not None else known[word]
