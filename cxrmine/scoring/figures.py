"""Figures: ratios of two sums over pairs, by finding, as a macro mean and where it makes sense pooled.

A figure is known by its key (measure, finding, threshold, name), in the JSON, the CSV, a table, a bootstrap.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrmine.scoring.judged import Judged
from cxrmine.scoring.localization import BOXACC_THRESHOLDS, IOBB_THRESHOLDS, IOU_THRESHOLDS, THIRDS, Columns
from cxrmine.scoring.statistics import draws, interval

MEAN, POOLED = "mean", "pooled"
BARE = {"iou": "share", "ior": "share", "ap": "ap"}  # measures of one figure a threshold: in the JSON it has no name
IOR_THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Key(NamedTuple):
    measure: str
    finding: str
    at: str  # a threshold, or "" where the measure has none
    name: str


class Ratio(NamedTuple):
    measure: str
    at: str
    name: str
    top: tuple[str, str]  # of Columns, or of the sums by patient
    bottom: tuple[str, str]
    pooled: Literal["", "sum", "shared"] = ""  # over findings; shared: all have the same bottom


@dataclass(frozen=True)
class Figures:
    """`samples` are bootstrap samples of `values`, in the same order of keys; `counts` is what they were made from."""

    values: dict[Key, float]
    counts: dict[Key, int] = field(default_factory=dict)
    samples: Floats32 | None = None  # B×K

    @property
    def intervals(self) -> dict[Key, tuple[float, float]]:
        if self.samples is None:
            return {}
        low, high = interval(self.samples)
        return {key: (float(low[k]), float(high[k])) for k, key in enumerate(self.values)}


def _ratios() -> Iterator[Ratio]:
    for t in (f"{t:g}" for t in IOU_THRESHOLDS):
        yield Ratio("acc_afp", t, "acc", ("hit", t), ("truth", ""))
        yield Ratio("acc_afp", t, "afp", ("false", t), ("images", ""))
    for t in (f"{t:g}" for t in IOBB_THRESHOLDS):
        yield Ratio("acc_afp_iobb", t, "acc", ("hit_iobb", t), ("truth", ""))
        yield Ratio("acc_afp_iobb", t, "afp", ("false_iobb", t), ("images", ""))
    for measure, thresholds in (("iou", IOU_THRESHOLDS), ("ior", IOR_THRESHOLDS)):
        yield from (Ratio(measure, f"{t:g}", "share", (measure, f"{t:g}"), ("one", "")) for t in thresholds)
    yield Ratio("iobb", "", "recall", ("hit_iobb", "0.25"), ("truth", ""), pooled="sum")
    yield Ratio("iobb", "", "precision", ("true_iobb", "0.25"), ("boxes", ""), pooled="sum")
    yield Ratio("boxacc", "", "mean", ("any", "mean"), ("one", ""))
    for t in (f"{t:g}" for t in BOXACC_THRESHOLDS):
        yield Ratio("boxacc", t, "acc", ("any", t), ("one", ""))
    yield Ratio("top1", "", "mean_iou", ("top1", ""), ("one", ""))
    yield Ratio("truth_iou", "", "mean_iou", ("truth iou", ""), ("truth", ""), pooled="sum")
    yield Ratio("centre", "", "share", ("centre", ""), ("one", ""))
    yield Ratio("rsna", "", "score", ("rsna", ""), ("rsna images", ""))
    yield Ratio("false_per_normal", "", "boxes", ("normal boxes", ""), ("normal images", ""), pooled="shared")
    for t in (f"{t:g}" for t in IOU_THRESHOLDS):
        yield from (Ratio("by_size", t, name, (f"hit {name}", t), (f"truth {name}", "")) for name in THIRDS)


RATIOS = tuple(_ratios())
T = "T"  # stands for the measure's threshold
COUNTS = {  # measure → name → column
    "acc_afp": {
        "truth": ("truth", ""), "hit": ("hit", T), "taken": ("taken", T), "false": ("false", T),
        "images": ("images", ""),
    },
    "acc_afp_iobb": {
        "truth": ("truth", ""), "hit": ("hit_iobb", T), "taken": ("taken_iobb", T), "false": ("false_iobb", T),
        "images": ("images", ""),
    },
    "iobb": {
        "detected": ("boxes", ""), "true": ("true_iobb", "0.25"), "truth": ("truth", ""), "hit": ("hit_iobb", "0.25"),
    },
    "top1": {"pairs": ("one", ""), "missing": ("missing", "")},
    "truth_iou": {"truth": ("truth", ""), "missing": ("truth missing", "")},
    "centre": {"pairs": ("one", ""), "missing": ("missing", "")},
    "rsna": {"images": ("rsna images", "")},
    "false_per_normal": {"normal_images": ("normal images", "")},
}  # fmt: skip


@dataclass(frozen=True)
class Sums:
    """What is summed: columns over judged pairs, and sums by patient of what is no judged pair."""

    judged: Judged
    columns: Columns
    by_patient: Mapping[tuple[str, str], Floats32]  # patients×F, added to the column of that name where there is one
    patients: int

    def keys(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys([*self.columns, *self.by_patient]))


def figures(sums: Sums, samples: int = 0, seed: int = 0) -> Figures:
    """Every ratio whose sums are there."""
    names = sums.keys()
    ratios = [r for r in RATIOS if r.top in names and r.bottom in names]
    findings = sums.judged.findings
    keys = _keys(ratios, findings)
    totals = _totals(sums, names)
    values = dict(zip(keys, _divided(totals, names, ratios)[0].tolist(), strict=True))
    matrices = _matrices(sums) if samples else []
    blocks = [
        _divided(_drawn_totals(sums, names, matrices, block), names, ratios).astype(np.float32)
        for block in draws(sums.patients, samples, seed)
    ]
    return Figures(values, _counts(totals[0], names, findings, ratios), np.concatenate(blocks) if blocks else None)


def _keys(ratios: Iterable[Ratio], findings: list[str]) -> list[Key]:
    return [
        Key(r.measure, finding, r.at, r.name)
        for r in ratios
        for finding in (*findings, MEAN, *([POOLED] * bool(r.pooled)))
    ]


def _totals(sums: Sums, names: list[tuple[str, str]]) -> Floats:
    """1×F×K: the sum of each column over the pairs of a finding."""
    findings = len(sums.judged.findings)
    totals = np.zeros((1, findings, len(names)))
    starts = np.searchsorted(sums.judged.pair_finding, np.arange(findings))  # each finding has a judged pair
    for k, name in enumerate(names):
        if name in sums.columns and findings:
            totals[0, :, k] = np.add.reduceat(sums.columns[name], starts, dtype=np.float64)
        if name in sums.by_patient:
            totals[0, :, k] += sums.by_patient[name].sum(axis=0, dtype=np.float64)
    return totals


def _matrices(sums: Sums) -> list[tuple[Ints, Floats32]]:
    """Of each finding: its pairs' patients, and its pairs × columns."""
    judged = sums.judged
    ends = np.searchsorted(judged.pair_finding, np.arange(len(judged.findings) + 1))
    rows = [slice(*pair) for pair in pairwise(ends)]
    columns = [column.astype(np.float32) for column in sums.columns.values()]
    return [(judged.pair_patient[of], np.stack([column[of] for column in columns], axis=1)) for of in rows]


def _drawn_totals(
    sums: Sums, names: list[tuple[str, str]], matrices: list[tuple[Ints, Floats32]], weights: Floats32
) -> Floats32:
    """b×F×K: the same sums, each pair as often as its patient was drawn."""
    place = {name: k for k, name in enumerate(names)}
    at = [place[name] for name in sums.columns]
    totals = np.zeros((len(weights), len(matrices), len(names)), np.float32)
    for f, (patients, matrix) in enumerate(matrices):
        totals[:, f, at] = weights[:, patients] @ matrix
    for name, extra in sums.by_patient.items():
        totals[:, :, place[name]] += weights @ extra
    return totals


def _divided(totals: npt.NDArray, names: list[tuple[str, str]], ratios: list[Ratio]) -> Floats:
    """b×keys: the ratios by finding, their mean over the findings that have one, and where asked for the pooled one."""
    place = {name: k for k, name in enumerate(names)}
    result = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for r in ratios:
            top, bottom = totals[:, :, place[r.top]], totals[:, :, place[r.bottom]]
            by_finding = np.where(bottom > 0, top / bottom, np.nan)
            known = np.isfinite(by_finding)
            mean = np.where(known, by_finding, 0).sum(axis=1) / known.sum(axis=1)
            result += [*by_finding.T, mean]
            if r.pooled:
                result.append(top.sum(axis=1) / (bottom.sum(axis=1) if r.pooled == "sum" else bottom[:, 0]))
    return np.stack(result, axis=1)


def _counts(totals: Floats, names: list[tuple[str, str]], findings: list[str], ratios: list[Ratio]) -> dict[Key, int]:
    place = {name: k for k, name in enumerate(names)}
    pooled = {r.measure for r in ratios if r.pooled == "sum"}
    result: dict[Key, int] = {}
    for measure, at in dict.fromkeys((r.measure, r.at) for r in ratios):
        for name, (what, t) in COUNTS.get(measure, {}).items():
            values = totals[:, place[what, at if t == T else t]]
            result |= {Key(measure, f, at, name): round(float(v)) for f, v in zip(findings, values, strict=True)}
            if measure in pooled:
                result[Key(measure, POOLED, at, name)] = round(float(values.sum()))
    return result


def nested(values: Mapping[Key, Any]) -> dict[str, Any]:
    """measure → finding → threshold → name; the macro mean under `mean` → measure, as the JSON has it."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        path = [MEAN, key.measure] if key.finding == MEAN else [key.measure, key.finding]
        path += [part for part in (key.at, key.name) if part and BARE.get(key.measure) != part]
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return tree
