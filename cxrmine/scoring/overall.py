"""The measures over all images as figures: AP, FROC and RoDeO here; what sums up by pair goes to figures.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxrmine.scoring import detection
from cxrmine.scoring.figures import MEAN, POOLED, Figures, Key
from cxrmine.scoring.from_maps import IOU, maxboxacc2
from cxrmine.scoring.greedy import COCO_IOUS, RSNA_IOUS, true_positives
from cxrmine.scoring.judged import Absent, Cover, Judged, Matches
from cxrmine.scoring.localization import IOU_THRESHOLDS, Columns, centre_inside
from cxrmine.scoring.protocols import Protocol
from cxrmine.scoring.rodeo import rodeo_of
from cxrmine.scoring.statistics import draws

IOUS = tuple(sorted({*IOU_THRESHOLDS, *COCO_IOUS}))
ALL_IOUS = "0.5:0.95"  # the mean over COCO's ten
SAMPLED = (0.3, 0.5)  # IoUs at which AP has an interval whatever the tables show
FROC_IOU = 0.3
RATES = [*(f"{rate:g}" for rate in detection.RATES), MEAN]
MOST_FOR_RODEO = 100_000  # boxes that are matched unasked; more where the protocol is RoDeO's

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]


class Sampling(NamedTuple):
    patients: int
    samples: int
    seed: int


def list_figures(
    judged: Judged, absent: Absent, matches: Matches, cover: Cover, protocol: Protocol, sampling: Sampling
) -> Figures:
    """AP and FROC by finding and as a mean; an interval at the IoUs that the tables show, and at a few others."""
    ranked = detection.rank(judged, absent, cover)
    true = true_positives(judged, matches, IOUS, protocol.strict)
    centres = centre_inside(judged.boxes[matches.box], judged.truth[matches.truth])
    found = {
        "iou": detection.find(ranked, judged, matches, protocol.passes(matches.iou, FROC_IOU)),
        "centre": detection.find(ranked, judged, matches, centres),
    }
    every = [*(f"{t:g}" for t in IOUS), ALL_IOUS]
    asked = {column.at for column in protocol.columns if column.measure == "ap"} | {f"{t:g}" for t in SAMPLED}
    sampled = [t for t in IOUS if f"{t:g}" in asked or (ALL_IOUS in asked and t in COCO_IOUS)]
    keys = [Key("ap", f, at, "ap") for f in (*cover.findings, MEAN) for at in every]
    keys += [Key("froc", f, by, rate) for by in found for f in (*cover.findings, MEAN) for rate in RATES]

    def measured(weights: Floats32, ious: Sequence[float]) -> Floats:
        areas = np.full((len(weights), len(cover.findings), len(every)), np.nan)
        at = [IOUS.index(t) for t in ious]
        areas[..., at] = detection.ap_samples(ranked, true[at], weights, protocol.interpolation)
        areas[..., -1] = areas[..., [IOUS.index(t) for t in COCO_IOUS]].mean(axis=-1)
        parts = [_with_mean(areas)]
        for lists in found.values():
            shares = detection.froc_samples(ranked, lists, weights)
            parts.append(_with_mean(np.concatenate([shares, shares.mean(axis=-1, keepdims=True)], axis=-1)))
        return np.concatenate([part.reshape(len(weights), -1) for part in parts], axis=1)

    once = np.ones((1, sampling.patients), np.float32)
    values = dict(zip(keys, measured(once, IOUS)[0].tolist(), strict=True))
    blocks = [measured(block, sampled).astype(np.float32) for block in draws(*sampling)]
    return Figures(values, samples=np.concatenate(blocks) if blocks else None)


def rodeo_figures(judged: Judged, absent: Absent, cover: Cover) -> Figures:
    """RoDeO over all findings together, and each finding's own; without an interval."""
    scores = rodeo_of(judged, absent, cover)
    values: dict[Key, float] = {}
    counts: dict[Key, int] = {}
    for finding, own in ((POOLED, scores["all"]), *scores["findings"].items()):
        for name, value in own.items():
            kind = counts if name in ("matched", "over", "missed") else values
            kind[Key("rodeo", finding, "", name)] = value
    return Figures(values, counts)


def maxboxacc2_figures(maps: Path, truth: pa.Table) -> Figures:
    """MaxBoxAccV2 by finding, each at its own best cuts; `pooled`: all pairs at one cut. Without an interval."""
    scores = maxboxacc2(maps, truth)
    values: dict[Key, float] = {}
    counts: dict[Key, int] = {}
    for finding, own in ((POOLED, scores["all"]), *scores["findings"].items()):
        values[Key("maxboxacc2", finding, "", MEAN)] = own["maxboxacc2"]
        for at in (f"{t:g}" for t in IOU):
            values |= {Key("maxboxacc2", finding, at, name): own[at][name] for name in ("acc", "threshold")}
        counts |= {Key("maxboxacc2", finding, "", name): own[name] for name in ("pairs", "missing")}
    for at, name in (("", MEAN), *((f"{t:g}", "acc") for t in IOU)):
        by_finding = [values[Key("maxboxacc2", finding, at, name)] for finding in scores["findings"]]
        values[Key("maxboxacc2", MEAN, at, name)] = float(np.mean(by_finding))
    return Figures(values, counts)


def rsna_columns(
    judged: Judged, absent: Absent, matches: Matches, cover: Cover, patients: int
) -> tuple[Columns, dict[tuple[str, str], Floats32]]:
    """(each judged pair's value of the RSNA score, how many absent pairs with a box each patient has)."""
    false = detection.false_boxes(absent, cover)
    scored = detection.rsna(judged, true_positives(judged, matches, RSNA_IOUS, strict=True), false)
    columns: Columns = {("rsna", ""): scored.pair, ("rsna images", ""): np.ones(len(scored.pair), np.int64)}
    return columns, {("rsna images", ""): detection.by_patient(false > 0, cover, patients)}


def joined(parts: Sequence[Figures]) -> Figures:
    """Several sets of figures as one; those without samples have NaN for each."""
    values = {key: value for part in parts for key, value in part.values.items()}
    counts = {key: value for part in parts for key, value in part.counts.items()}
    drawn = next((len(part.samples) for part in parts if part.samples is not None), 0)
    if not drawn:
        return Figures(values, counts)
    blank = [np.full((drawn, len(part.values)), np.nan, np.float32) for part in parts]
    samples = [part.samples if part.samples is not None else none for part, none in zip(parts, blank, strict=True)]
    return Figures(values, counts, np.concatenate(samples, axis=1))


def _with_mean(values: Floats) -> Floats:
    """B×F×T → B×(F+1)×T: the macro mean as a last finding."""
    return np.concatenate([values, detection.macro(values)[:, None]], axis=1)
