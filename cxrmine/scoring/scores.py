"""One boxes table against truth: every figure its inputs allow."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.scan import NOT_MINED, Mined
from cxrmine.data.images import Fit
from cxrmine.errors import CxrError
from cxrmine.scoring import detection
from cxrmine.scoring.by_severity import BY, PairSeverities
from cxrmine.scoring.cover import labels_of
from cxrmine.scoring.figures import MEAN, Figures, Sums, figures, nested
from cxrmine.scoring.judged import ABSENT, JUDGED, Absent, Collected, Confidence, Cover, Judged, collect, match
from cxrmine.scoring.localization import THIRDS, Bounds, Columns, box_columns, size_edges
from cxrmine.scoring.overall import MOST_FOR_RODEO, Sampling, joined, list_figures, rodeo_figures, rsna_columns
from cxrmine.scoring.pairs import pair_columns
from cxrmine.scoring.protocols import Protocol

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]
ByPatient = dict[tuple[str, str], Floats32]


@dataclass(frozen=True)
class Prediction:
    """One boxes table, and what is known of how it came to be."""

    name: str
    chunks: Callable[[], Iterable[pa.Table]]
    regions: Callable[[Ints], pa.Table] | None = None
    mined: Mined | None = None
    fit: Fit = "stretch"  # how the film became the regions' square frame
    by: Confidence = "score"
    dataset: pa.Array | None = None  # all images of the dataset that is the truth
    control: bool = False


@dataclass(frozen=True)
class Rules:
    """What is the same for every prediction that is scored beside others."""

    protocol: Protocol
    people: int  # patients a bootstrap draws from
    bounds: Bounds | None = None
    samples: int = 0
    seed: int = 0
    share: float = 1.0  # of all pairs, those that are scored: of images that count for all of them, as many
    overall: bool = True  # also what needs all images: AP, FROC, RoDeO, the RSNA score, false boxes per normal image
    severities: PairSeverities | None = None  # the figures of mild, moderate and severe pairs too


@dataclass(frozen=True)
class Scores:
    figures: Figures
    counts: dict[str, Any]
    edges: list[float]  # of small and of middle truth boxes, in square pixels
    by_severity: Mapping[str, "Scores"] = field(default_factory=dict)  # where it was asked for

    def document(self) -> dict[str, Any]:
        """The plain dictionary that goes into the JSON."""
        values = {key: None if value != value else value for key, value in self.figures.values.items()}
        tree = nested({**values, **self.figures.counts})
        tree.setdefault(MEAN, {})
        intervals = {key: None if low != low else [low, high] for key, (low, high) in self.figures.intervals.items()}
        size = {"unit": "square pixels", "up_to": dict(zip(THIRDS, self.edges, strict=False))}
        parts = {name: part.document() for name, part in self.by_severity.items()}
        by = {"by": {BY: parts}} if parts else {}
        return {"counts": self.counts, **tree, "size_thirds": size, "intervals": nested(intervals), **by}


def score_boxes(prediction: Prediction, truth: pa.Table, cover: Cover, rules: Rules) -> Scores:
    """Every figure; `truth` is the judged one."""
    collected = collect(prediction.chunks(), truth, cover, prediction.by)
    judged = collected.judged
    counts = _counts(collected, truth, cover, prediction)
    matches = match(judged)
    by_patient = _images(judged, cover, rules, prediction.mined) | _normal(judged, collected.absent, cover, rules)
    images = _afp_images(judged, by_patient)
    columns = box_columns(judged, matches, rules.protocol, images, rules.bounds)
    columns |= pair_columns(
        judged, _regions(prediction, judged), cover.sizes[judged.pair_image], rules.protocol, prediction.fit
    )
    if ("images", "") not in by_patient:
        columns["images", ""] = columns["one", ""]
    edges = size_edges(judged).tolist()
    by_severity = _by_severity(judged, columns, cover, rules, prediction.mined, edges)
    absent, sampling = collected.absent, Sampling(rules.people, rules.samples, rules.seed)
    parts = []
    if rules.overall:
        pairs, others = rsna_columns(judged, absent, matches, cover, rules.people)
        columns, by_patient = columns | pairs, by_patient | others
        parts.append(list_figures(judged, absent, matches, cover, rules.protocol, sampling))
        if rules.protocol.name == "rodeo" or collected.boxes <= MOST_FOR_RODEO:
            parts.append(rodeo_figures(judged, absent, cover))
    made = figures(Sums(judged, columns, by_patient, rules.people), rules.samples, rules.seed)
    return Scores(joined([made, *parts]), counts, edges, by_severity)


def _by_severity(
    judged: Judged, columns: Columns, cover: Cover, rules: Rules, mined: Mined | None, edges: list[float]
) -> dict[str, Scores]:
    """What sums up over judged pairs, of those of each severity. A box's part in it is the one it has in the whole."""
    if rules.severities is None:
        return {}
    groups = {}
    for word, kept in rules.severities.of(judged, cover).items():
        part = judged.only(kept)
        summed = Sums(part, {n: c[kept] for n, c in columns.items()}, _images(part, cover, rules, mined), rules.people)
        counts = {
            "findings": len(part.findings),
            "truth_boxes": len(part.truth),
            "judged_pairs": len(part.pair_finding),
            "judged_images": len(np.unique(part.pair_image)),
            "judged_pairs_without_box": len(part.pair_finding) - len(part.first),
            "judged": len(part.pair),
        }
        groups[word] = Scores(figures(summed, rules.samples, rules.seed), counts, edges)
    return groups


def _regions(prediction: Prediction, judged: Judged) -> pa.Table | None:
    """The regions of the judged boxes, in their order."""
    if prediction.regions is None:
        return None
    ascending = np.argsort(judged.row)
    back = np.empty_like(ascending)
    back[ascending] = np.arange(len(ascending))
    return prediction.regions(judged.row[ascending]).take(pa.array(back))


def _images(judged: Judged, cover: Cover, rules: Rules, mined: Mined | None) -> ByPatient:
    """AFP's images where they are the same for every finding, by patient: patients×F."""
    if rules.protocol.afp_per == "all":
        if mined is None:
            raise CxrError(
                "AFP per all images needs the table of mined images, which these boxes have not beside them.",
                "Keep B.images.parquet beside B.parquet, or say --afp-per finding.",
            )
        counted = _everywhere(cover.patient[mined.readable], judged, rules) * np.float32(rules.share)
    elif rules.protocol.afp_per == "rows":
        counted = _everywhere(judged.pair_patient[judged.truth_pair], judged, rules)
    else:
        return {}
    return {("images", ""): counted}


def _normal(judged: Judged, absent: Absent, cover: Cover, rules: Rules) -> ByPatient:
    """Normal images, which have no judged pair, and the boxes on them: patients×F each."""
    if not rules.overall or not cover.normal.any():
        return {}
    on_normal = detection.false_boxes(absent, cover) * cover.normal[:, None]
    images = _everywhere(cover.patient[cover.normal], judged, rules) * np.float32(rules.share)
    return {("normal images", ""): images, ("normal boxes", ""): detection.by_patient(on_normal, cover, rules.people)}


def _everywhere(patients: Ints, judged: Judged, rules: Rules) -> Floats32:
    counted = np.bincount(patients, minlength=rules.people).astype(np.float32)
    return np.repeat(counted[:, None], len(judged.findings), axis=1)


def _afp_images(judged: Judged, by_patient: ByPatient) -> Ints:
    """AFP's denominator by finding, over everybody."""
    if ("images", "") in by_patient:
        return by_patient["images", ""].sum(axis=0).astype(np.int64)
    return np.bincount(judged.pair_finding, minlength=len(judged.findings))


def _counts(collected: Collected, truth: pa.Table, cover: Cover, prediction: Prediction) -> dict[str, Any]:
    judged, absent, mined = collected.judged, collected.absent, prediction.mined
    judged_images = pc.unique(truth["image_id"].cast(pa.string()))
    seen = collected.images if mined is None else pc.unique(pa.concat_arrays([collected.images, cover.images]))
    strangers = len(seen) - pc.sum(pc.is_in(seen, value_set=judged_images)).as_py() if len(seen) else 0
    if len(seen) and strangers == len(seen) and not prediction.control:
        raise CxrError(
            f"None of the {len(seen)} images of these boxes has a truth box (for instance {pc.min(seen)}; "
            f"the truth has {pc.min(judged_images)}).",
            "Score boxes and truth of one dataset and split.",
        )
    pairs = len(judged.pair_finding)
    counts: dict[str, Any] = {
        "findings": len(judged.findings),
        "truth_boxes": len(truth),
        "judged_pairs": pairs,
        "judged_images": len(judged_images),
        "judged_pairs_without_box": pairs - len(judged.first),
        "absent_pairs": int((cover.state == ABSENT).sum()),
        "boxes": collected.boxes,
        "judged": len(judged.pair),
        "unjudged": collected.boxes - len(judged.pair),
        "unjudged_on_absent_pairs": len(absent.finding),
        "images_without_truth": strangers,
        "normal_images": int(cover.normal.sum()),
        "findings_without_truth": sorted(collected.findings - set(judged.findings)),
    }
    if prediction.dataset is not None:
        known = pc.is_in(collected.images, value_set=prediction.dataset)
        counts["images_not_in_dataset"] = pc.sum(pc.invert(known)).as_py() or 0
    if mined is not None:
        there = (labels_of(mined, cover.findings) != NOT_MINED) & (cover.state == JUDGED)
        counts["mined_pairs"], counts["unjudged_pairs"] = mined.pairs, mined.pairs - int(there.sum())
    return counts
