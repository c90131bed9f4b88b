"""Whose rules a score follows. Every figure is printed with its protocol: the rule, the unit, the order, the choice."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

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


@dataclass(frozen=True)
class Protocol:
    name: str
    strict: bool = True  # a figure must be above the threshold, not at it
    order: Order = "image"  # of the list of boxes, inside a rank
    region: Literal["region", "boxes"] = "region"  # what IoU and IoR of a pair take as predicted
    afp_per: AfpPer = "finding"

    def passes(self, values: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
        return values > threshold if self.strict else values >= threshold

    @property
    def rule(self) -> str:
        return ">" if self.strict else "≥"

    def describe(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "name": self.name,
            "rule": self.rule,
            "unit": {"acc_afp": "box", "iou": "pair", "ior": "pair", "top1": "pair"},
            "predicted_region": self.region,
            "order": f"rank, then {'image_id' if self.order == 'image' else 'score'}",
            "afp_per": self.afp_per,
            "afp_images": IMAGES[self.afp_per],
            "judged": "pairs with a truth box",
            "threshold_choice": "fixed",
        }

    def sentence(self) -> str:
        """For the foot of a table."""
        return (
            f"Protocol {self.name}: a truth box is hit at IoU {self.rule} T; AFP = boxes that hit none / "
            f"{IMAGES[self.afp_per]}; only pairs with a truth box are judged; thresholds fixed beforehand."
        )


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("cai2018"),
        Protocol("ham2021", region="boxes"),
        Protocol("ham2021-code", strict=False, region="region"),
    )
}


def protocol(name: str, afp_per: str | None = None) -> Protocol:
    """The rules called `name`, with another denominator where one is given."""
    rules = _known("protocol", name, PROTOCOLS)
    if afp_per is not None:
        rules = replace(rules, afp_per=_known("AFP denominator", afp_per, {word: word for word in get_args(AfpPer)}))
    return rules


def _known(kind: str, word: str, known: Mapping[str, Any]) -> Any:
    if word not in known:
        near = get_close_matches(word, known, 1, cutoff=0)
        raise UsageError(
            f"There is no {kind} called {word!r}.", f"Did you mean {near[0]!r}? Known: {', '.join(known)}."
        )
    return known[word]
