"""One boxes table against truth: every figure its inputs allow, as the plain dictionary that goes into the JSON."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.images import Fit
from cxrmine.errors import CxrError
from cxrmine.scoring.localization import IOU_THRESHOLDS, Judged, acc_afp, afp_images, judge, match, top1
from cxrmine.scoring.pairs import IOR_THRESHOLDS, pair_overlaps, shares
from cxrmine.scoring.protocols import Protocol


def score_boxes(
    boxes: pa.Table,
    truth: pa.Table,
    protocol: Protocol,
    *,
    images: pa.Table | None = None,
    mined_images: int | None = None,
    fit: Fit = "stretch",
) -> dict[str, Any]:
    """counts, acc_afp, iou, ior, top1 and their macro mean; `fit` is how the film became the regions' square frame.

    `mined_images` is AFP's denominator per all images; it defaults to the readable ones of the images table.
    """
    if mined_images is None and images is not None:
        mined_images = readable_images(images)
    judged = judge(boxes, truth)
    matches = match(judged)
    denominators = afp_images(judged, truth, protocol, mined_images)
    overlap, inside = pair_overlaps(judged, boxes, protocol.region, fit)
    figures: dict[str, Any] = {
        "acc_afp": acc_afp(judged, matches, protocol, denominators),
        "iou": shares(judged, overlap, IOU_THRESHOLDS, protocol),
        "ior": shares(judged, inside, IOR_THRESHOLDS, protocol),
        "top1": top1(judged, matches),
    }
    return {"counts": _counts(judged, boxes, truth, images), **figures, "mean": macro(figures)}


def readable_images(images: pa.Table) -> int:
    """Images that were mined, with or without a pair: what "all images" divides by."""
    read = pc.invert(pc.starts_with(images["status"].cast(pa.string()), "unreadable"))
    return len(pc.unique(images.filter(read)["image_id"].cast(pa.string())))


def macro(figures: dict[str, Any]) -> dict[str, Any]:
    """The mean over findings of every rate."""

    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    acc, one = figures["acc_afp"].values(), figures["top1"].values()
    result: dict[str, Any] = {
        "acc_afp": {
            f"{t:g}": {rate: mean([at[f"{t:g}"][rate] for at in acc]) for rate in ("acc", "afp")}
            for t in IOU_THRESHOLDS
        }
    }
    for measure, thresholds in (("iou", IOU_THRESHOLDS), ("ior", IOR_THRESHOLDS)):
        by_finding = figures[measure].values()
        result[measure] = {f"{t:g}": mean([at[f"{t:g}"] for at in by_finding]) for t in thresholds}
    return {**result, "top1": {"mean_iou": mean([at["mean_iou"] for at in one])}}


def _counts(judged: Judged, boxes: pa.Table, truth: pa.Table, images: pa.Table | None) -> dict[str, Any]:
    seen = boxes if images is None else images
    judged_images, seen_images = _words(truth["image_id"]), _words(boxes["image_id"]) | _words(seen["image_id"])
    if seen_images and not seen_images & judged_images:
        raise CxrError(
            f"None of the {len(seen_images)} images of these boxes has a truth box (for instance {min(seen_images)}; "
            f"the truth has {min(judged_images, default='none')}).",
            "Score boxes and truth of one dataset and split.",
        )
    pairs = len(judged.pair_finding)
    counts: dict[str, Any] = {
        "findings": len(judged.findings),
        "truth_boxes": len(truth),
        "judged_pairs": pairs,
        "judged_images": len(judged_images),
        "judged_pairs_without_box": pairs - len(np.unique(judged.pair)),
        "boxes": len(boxes),
        "judged": len(judged.pair),
        "unjudged": len(boxes) - len(judged.pair),
        "images_without_truth": len(seen_images - judged_images),
        "findings_without_truth": sorted(_words(boxes["finding"]) - set(judged.findings)),
    }
    return counts


def _words(column: pa.ChunkedArray) -> set[str]:
    return set(pc.unique(column.cast(pa.string())).to_pylist()) - {None}
