"""Boxes against truth. Only judged pairs count, those with a truth box; boxes of other pairs are counted as unjudged.

A box passes T when its IoU with some truth box of its pair is above T (at T, where the protocol says so). Acc is truth
boxes hit over truth boxes; a box that passes with none is false, and a second box on a truth already hit is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.geometry import iou
from cxrmine.boxes.table import COORDINATES
from cxrmine.errors import CxrError
from cxrmine.scoring.protocols import Protocol

IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bounds = Mapping[str, Mapping[str, float]]  # finding → T ("0.3") → largest AFP


@dataclass(frozen=True)
class Judged:
    """Truth and the boxes of judged pairs as arrays. Pairs are sorted by finding, then image."""

    findings: list[str]
    pair_finding: Ints  # P
    truth: Floats  # T×4, sorted by pair
    truth_pair: Ints  # T
    boxes: Floats  # N×4, sorted by pair, then rank
    pair: Ints  # N
    rank: Ints  # N
    score: Floats  # N
    row: Ints  # N: its row in the table of boxes

    @property
    def finding(self) -> Ints:
        return self.pair_finding[self.pair]


@dataclass(frozen=True)
class Matches:
    """Every box with every truth box of its pair: K of them."""

    box: Ints  # K
    truth: Ints  # K
    iou: Floats  # K
    best: Floats  # N: the highest IoU of each box


def judge(boxes: pa.Table, truth: pa.Table) -> Judged:
    """Join two boxes tables on (image, finding); what has no truth box stays out."""
    findings = sorted(pc.unique(truth["finding"].cast(pa.string())).to_pylist())
    images = pa.array(sorted(pc.unique(truth["image_id"].cast(pa.string())).to_pylist()), pa.string())

    def pair_codes(table: pa.Table) -> Ints:
        finding = _codes(table["finding"], pa.array(findings, pa.string()))
        image = _codes(table["image_id"], images)
        return np.where((finding < 0) | (image < 0), -1, finding * len(images) + image)

    truth_codes, codes = pair_codes(truth), pair_codes(boxes)
    pairs = np.unique(truth_codes)
    truth_order = np.argsort(truth_codes, kind="stable")
    rank = numbers(boxes, "rank")
    order = np.lexsort([rank, codes])
    order = order[np.isin(codes[order], pairs)]
    _same_frame(boxes, order, codes, truth, truth_codes)
    return Judged(
        findings=findings,
        pair_finding=pairs // max(len(images), 1),
        truth=corners(truth)[truth_order],
        truth_pair=np.searchsorted(pairs, truth_codes[truth_order]),
        boxes=corners(boxes)[order],
        pair=np.searchsorted(pairs, codes[order]),
        rank=rank[order].astype(np.int64),
        score=np.nan_to_num(numbers(boxes, "score")[order], nan=-np.inf),
        row=order,
    )


def match(judged: Judged) -> Matches:
    counts = np.bincount(judged.truth_pair, minlength=len(judged.pair_finding))
    starts = np.cumsum(counts) - counts
    each = counts[judged.pair]  # at least 1: a judged pair has a truth box
    first = np.cumsum(each) - each
    box = np.repeat(np.arange(len(each)), each)
    truth = np.arange(len(box)) - first[box] + starts[judged.pair[box]]
    overlaps = iou(judged.boxes[box], judged.truth[truth])
    best = np.maximum.reduceat(overlaps, first) if len(first) else np.empty(0)
    return Matches(box, truth, overlaps, best)


def acc_afp(
    judged: Judged, matches: Matches, protocol: Protocol, images: Ints, bounds: Bounds | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Acc and AFP by finding and T; `images` is AFP's denominator by finding.

    With bounds, the list (rank 1 of all images, then rank 2, …) is taken up to the box that would bring AFP above.
    """
    finding, names = judged.finding, judged.findings
    truth_finding = judged.pair_finding[judged.truth_pair]
    inside = -judged.score if protocol.order == "score" else judged.pair
    order = np.lexsort([judged.pair, inside, judged.rank, finding]) if bounds is not None else None

    def per_finding(of: Ints, chosen: Bools) -> Ints:
        return np.bincount(of[chosen], minlength=len(names))

    truths = np.bincount(truth_finding, minlength=len(names))
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    for threshold in IOU_THRESHOLDS:
        key = f"{threshold:g}"
        false = ~protocol.passes(matches.best, threshold)
        taken = np.ones(len(false), dtype=bool)
        if bounds is not None:
            limits = np.array([bounds.get(name, {}).get(key, np.inf) for name in names])
            taken[order] = _within(false[order], finding[order], limits * images)
        hit = np.zeros(len(judged.truth), dtype=bool)
        hit[matches.truth[protocol.passes(matches.iou, threshold) & taken[matches.box]]] = True
        hits, wrong, used = (
            per_finding(truth_finding, hit),
            per_finding(finding, false & taken),
            per_finding(finding, taken),
        )
        for f, name in enumerate(names):
            counts = {"truth": truths, "hit": hits, "taken": used, "false": wrong, "images": images}
            rates = {"acc": hits[f] / truths[f], "afp": wrong[f] / images[f]}
            result[name][key] = {k: float(v) for k, v in rates.items()} | {k: int(v[f]) for k, v in counts.items()}
    return result


def afp_images(judged: Judged, truth: pa.Table, protocol: Protocol, mined_images: int | None) -> Ints:
    """What AFP is divided by, for each finding."""
    if protocol.afp_per == "finding":
        return np.bincount(judged.pair_finding, minlength=len(judged.findings))
    if protocol.afp_per == "all" and mined_images is None:
        raise CxrError(
            "AFP per all images needs the table of mined images, which these boxes have not beside them.",
            "Keep B.images.parquet beside B.parquet, or say --afp-per finding.",
        )
    return np.full(len(judged.findings), len(truth) if protocol.afp_per == "rows" else mined_images)


def top1(judged: Judged, matches: Matches) -> dict[str, dict[str, Any]]:
    """Mean IoU of each judged pair's first box; a pair without a box counts 0 and is reported as missing."""
    pair, first = np.unique(judged.pair, return_index=True)
    value = np.zeros(len(judged.pair_finding))
    value[pair] = matches.best[first]
    has = np.zeros(len(value), dtype=bool)
    has[pair] = True
    result = {}
    for f, name in enumerate(judged.findings):
        mine = judged.pair_finding == f
        result[name] = {
            "mean_iou": float(value[mine].mean()),
            "pairs": int(mine.sum()),
            "missing": int((mine & ~has).sum()),
        }
    return result


def corners(table: pa.Table) -> Floats:
    return np.stack([numbers(table, name) for name in COORDINATES], axis=1)


def numbers(table: pa.Table, name: str) -> Floats:
    """A column as float64, NaN for null."""
    return table[name].cast(pa.float64()).to_numpy()


def _codes(column: pa.ChunkedArray, words: pa.Array) -> Ints:
    """The place of each value in `words`, -1 where it is not among them."""
    encoded = column.combine_chunks()
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    place = pc.fill_null(pc.index_in(encoded.dictionary, words), -1).to_numpy().astype(np.int64)
    return np.append(place, -1)[encoded.indices.fill_null(len(place)).to_numpy()]


def _within(false: Bools, finding: Ints, most_false: Floats) -> Bools:
    """Which boxes of the list come before the one that brings their finding's false ones above its limit."""
    so_far = np.cumsum(false)
    starts = np.searchsorted(finding, np.arange(len(most_false)))
    before = np.concatenate([[0], so_far])[starts]
    return so_far - before[finding] <= most_false[finding] + 1e-9


def _same_frame(boxes: pa.Table, order: Ints, codes: Ints, truth: pa.Table, truth_codes: Ints) -> None:
    """Refuse boxes in the pixels of another image size than the truth's, where both say theirs."""
    if len(order) == 0:
        return
    by_code = np.argsort(truth_codes, kind="stable")
    partner = by_code[np.searchsorted(truth_codes[by_code], codes[order])]
    for name in ("image_width", "image_height"):
        ours, theirs = numbers(boxes, name)[order], numbers(truth, name)[partner]
        other = np.isfinite(ours) & np.isfinite(theirs) & (ours != theirs)
        if other.any():
            i = int(np.argmax(other))
            image = boxes["image_id"][int(order[i])].as_py()
            raise CxrError(
                f"{int(other.sum())} boxes are in the pixels of another image size than the truth's: {image} has "
                f"{name} {ours[i]:g} here and {theirs[i]:g} in the truth.",
                "Mine and score with the same files of the dataset.",
            )
