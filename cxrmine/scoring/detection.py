"""Measures over all images: AP, FROC, the score of the RSNA challenge, false boxes per normal image.

They take the boxes of judged pairs and those of absent ones, each of which is false. An image counts for a finding
when its pair is one of these; the boxes of unknown pairs are in nothing here. AP and FROC are made from a list of each
finding's boxes, `Ranked`. Under a bootstrap a patient that is drawn twice has all boxes, truth boxes and images twice,
the copies of a box one right after the other.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrmine import cores
from cxrmine.scoring.greedy import falling_key
from cxrmine.scoring.judged import UNKNOWN, Absent, Cover, Judged, Matches

RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # false boxes an image, at which FROC is read
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision
AT_ONCE = 32  # bootstrap samples: their sums fit the cache

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Interpolation = Literal["coco", "voc2010"]


@dataclass(frozen=True)
class Ranked:
    """All boxes of a finding, the most confident first; equal ones by image, then rank. Confidences are float32."""

    rows: Ints  # m: the boxes of judged pairs, in Judged
    place: Ints  # m: where each is in the list
    through: Ints  # m: how many boxes are at least as confident
    patient: Ints32  # n: of each box of the list, absent ones too, as far down as there are judged ones
    truths: Floats  # patients: truth boxes of each
    images: Floats  # patients: images of each that count


@dataclass(frozen=True)
class Found:
    """Which truth boxes of a finding are found, and how far down the list, when a box may find any number of them."""

    near: Ints  # places in the list of the boxes that lie on a truth box: they are not false
    through: Ints  # E, rising: how many boxes are at least as confident as the first that finds the truth box
    patient: Ints32  # E: of that truth box


class Rsna(NamedTuple):
    score: Floats  # F: the mean over the images that count, NaN where there are none
    pair: Floats  # P: the value of each judged pair; that of an absent pair with a box is 0
    images: Ints  # F: judged pairs, and absent ones with a box


def rank(judged: Judged, absent: Absent, cover: Cover, most: int | None = None) -> list[Ranked]:
    """The list of each finding; with `most`, of the most confident boxes of each pair only (COCO has 100)."""
    with ThreadPoolExecutor(cores.threads(None)) as pool:
        return list(pool.map(lambda f: _rank(judged, absent, cover, f, most), range(len(cover.findings))))


def ap(ranked: Sequence[Ranked], true: Bools, interpolation: Interpolation = "coco") -> Floats:
    """F×T: average precision, `true` being the T×N true boxes of `greedy`. A finding without truth has none (NaN).

    `coco`: the mean of the precision at 101 recalls; `voc2010`: the area under the whole curve. At each recall stands
    the highest precision at that recall or a higher one.
    """
    return ap_samples(ranked, true, _once(ranked), interpolation)[0]


def ap_samples(
    ranked: Sequence[Ranked], true: Bools, weights: Floats32, interpolation: Interpolation = "coco"
) -> Floats:
    """B×F×T: the same where each patient counts as often as it was drawn: `weights` is B×patients, whole numbers."""

    def one(f: int, drawn: Ints32) -> Floats:
        return _ap(ranked[f], true, drawn, interpolation)

    return _sampled(one, ranked, weights, len(true))


def find(ranked: Sequence[Ranked], judged: Judged, matches: Matches, passed: Bools) -> list[Found]:
    """What each finding's boxes find where `passed` (K) says which box lies on which truth box."""
    places = np.full(len(judged.pair), np.iinfo(np.int64).max)  # of each box among the judged ones of its finding
    for one in ranked:
        places[one.rows] = np.arange(len(one.rows))
    box, truth = matches.box[passed], matches.truth[passed]
    first = np.full(len(judged.truth), np.iinfo(np.int64).max)
    np.minimum.at(first, truth, places[box])
    on_truth = np.zeros(len(judged.pair), dtype=bool)
    on_truth[box] = True
    truth_finding = judged.pair_finding[judged.truth_pair]
    truth_patient = judged.pair_patient[judged.truth_pair].astype(np.int32)
    result = []
    for f, one in enumerate(ranked):
        found = np.flatnonzero((truth_finding == f) & (first < len(one.rows)))
        found = found[np.argsort(first[found], kind="stable")]
        result.append(Found(one.place[on_truth[one.rows]], one.through[first[found]], truth_patient[found]))
    return result


def froc(ranked: Sequence[Ranked], found: Sequence[Found]) -> Floats:
    """F×7: the share of truth boxes found at 1/8 … 8 false boxes an image; their mean is the usual single figure.

    A box is false when it lies on no truth box of its pair. One that lies on a truth box which another has found is
    neither a hit nor false. Boxes of equal confidence come together, and the share at a rate is the highest at which
    there are no more false boxes than that. A finding without truth has none (NaN).
    """
    return froc_samples(ranked, found, _once(ranked))[0]


def froc_samples(ranked: Sequence[Ranked], found: Sequence[Found], weights: Floats32) -> Floats:
    """B×F×7: the same where each patient counts as often as it was drawn."""

    def one(f: int, drawn: Ints32) -> Floats:
        return _froc(ranked[f], found[f], drawn)

    return _sampled(one, ranked, weights, len(RATES))


def macro(values: Floats) -> Floats:
    """…×F×T → …×T: the mean over the findings that have a figure."""
    known = np.isfinite(values)
    return _share(np.where(known, values, 0).sum(axis=-2), known.sum(axis=-2))


def false_boxes(absent: Absent, cover: Cover) -> Ints32:
    """I×F: the boxes of absent pairs."""
    counts = np.zeros(cover.state.shape, np.int32)
    for f in range(len(cover.findings)):
        counts[:, f] = np.bincount(absent.image[absent.finding == f], minlength=len(cover.images))
    return counts


def rsna(judged: Judged, true: Bools, false: Ints32) -> Rsna:
    """The mean over images and thresholds of TP / (TP + FP + FN); `true`: T×N, above the challenge's thresholds.

    Each finding has its own images. One without truth counts only when it has a box, and then counts 0.
    """
    pairs, findings = len(judged.pair_finding), false.shape[1]
    most = np.bincount(judged.pair, minlength=pairs) + np.bincount(judged.truth_pair, minlength=pairs)
    each = [(hit := np.bincount(judged.pair[row], minlength=pairs)) / (most - hit) for row in true]
    value = np.mean(each, axis=0)
    images = np.bincount(judged.pair_finding, minlength=findings) + np.count_nonzero(false, axis=0)
    total = np.bincount(judged.pair_finding, weights=value, minlength=findings)
    return Rsna(_share(total, images), value, images)


def by_patient(counts: npt.NDArray, cover: Cover, patients: int) -> Floats32:
    """I×F → patients×F: the sums over each patient's images."""
    columns = [np.bincount(cover.patient, weights=column, minlength=patients) for column in counts.T]
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((patients, 0), np.float32)


def _rank(judged: Judged, absent: Absent, cover: Cover, finding: int, most: int | None) -> Ranked:
    pairs = np.searchsorted(judged.pair_finding, [finding, finding + 1])
    boxes, truths = (slice(*np.searchsorted(of, pairs)) for of in (judged.pair, judged.truth_pair))
    confident = falling_key(judged.confidence[boxes]) << 32  # the lower half breaks ties: the row, or the image
    order = np.sort(confident | np.arange(len(confident), dtype=np.uint64)) & 0xFFFFFFFF
    rows, confident = order.astype(np.int64) + boxes.start, confident[order]
    image = judged.pair_image[judged.pair[rows]]
    of_finding = np.flatnonzero(absent.finding == finding)
    false = falling_key(absent.confidence[of_finding]) << 32 | absent.image[of_finding].astype(np.uint64)
    false.sort()
    if most is not None:
        kept = _first_of_image(image, most)
        rows, confident, image = rows[kept], confident[kept], image[kept]
        false = false[_first_of_image((false & 0xFFFFFFFF).astype(np.int64), most)]
    place = np.arange(len(rows)) + np.searchsorted(false, confident | image.astype(np.uint64))
    below = confident + (1 << 32)
    through = np.searchsorted(confident, below) + np.searchsorted(false, below)
    patient = np.full(len(rows) + len(false), -1, np.int32)
    patient[place] = cover.patient[image]
    patient[patient < 0] = cover.patient[(false & 0xFFFFFFFF).astype(np.int64)]
    counted = cover.patient[cover.state[:, finding] != UNKNOWN]
    with_truth = judged.pair_patient[judged.truth_pair[truths]]
    people = int(cover.patient.max(initial=-1)) + 1
    sums = [np.bincount(who, minlength=people).astype(np.float64) for who in (with_truth, counted)]
    return Ranked(rows, place, through, patient[: through.max(initial=0)].copy(), *sums)


def _first_of_image(image: Ints, most: int) -> Bools:
    """Which of a list are among the first `most` of their image."""
    if np.bincount(image).max(initial=0) <= most:
        return np.ones(len(image), dtype=bool)
    order = np.argsort(image, kind="stable")
    sorted_image = image[order]
    kept = np.empty(len(image), dtype=bool)
    kept[order] = np.arange(len(image)) - np.searchsorted(sorted_image, sorted_image) < most
    return kept


def _once(ranked: Sequence[Ranked]) -> Floats32:
    return np.ones((1, max((len(one.truths) for one in ranked), default=0)), np.float32)


def _sampled(
    measure: Callable[[int, Ints32], Floats], ranked: Sequence[Ranked], weights: Floats32, figures: int
) -> Floats:
    """B×F×figures: `measure` of each finding, of so many samples at once that they fit the cache."""
    result = np.empty((len(weights), len(ranked), figures))
    with ThreadPoolExecutor(cores.threads(None)) as pool:
        for start in range(0, len(weights), AT_ONCE):
            drawn = np.ascontiguousarray(weights[start : start + AT_ONCE].T, np.int32)  # patients×b
            every = pool.map(measure, range(len(ranked)), [drawn] * len(ranked))
            for f, values in enumerate(every):
                result[start : start + AT_ONCE, f] = values
    return result


def _ap(one: Ranked, true: Bools, drawn: Ints32, interpolation: Interpolation) -> Floats:
    """b×T."""
    hits = true[:, one.rows]
    some = np.flatnonzero(hits.any(axis=0))  # only where a box is true is precision needed
    worth = np.ones(len(one.patient), np.int32)
    seen = np.maximum(_drawn_before(one.patient, worth, one.place[some] + 1, drawn), 1)
    weight = np.ascontiguousarray(drawn[one.patient[one.place[some]]].T)
    truths = _total(drawn, one.truths)
    needed = _needed(truths)
    result = np.empty((len(truths), len(true)))
    for t, row in enumerate(hits[:, some]):
        at = np.flatnonzero(row)
        own = np.take(weight, at, axis=1)
        tp = own.cumsum(axis=1, dtype=np.int32)
        precision = np.zeros((len(tp), len(at) + 1))  # past the last there is none
        np.divide(tp, np.take(seen, at, axis=1), out=precision[:, :-1])
        if interpolation == "coco":
            result[:, t] = _read(precision, _places(tp, needed)).mean(axis=1)
        else:
            highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, :0:-1]
            result[:, t] = _share((own * highest).sum(axis=1), truths)
    return np.where(truths[:, None] > 0, result, np.nan)


def _needed(truths: Floats) -> Ints:
    """b×101: how many true boxes it takes that true boxes / truth boxes, as a float64, is not below each recall."""
    whole = np.maximum(truths, 1)[:, None]
    needed = np.ceil(RECALLS * truths[:, None])
    needed -= (needed - 1) / whole >= RECALLS
    return (needed + (needed / whole < RECALLS)).astype(np.int64)


def _read(values: Floats, places: Ints) -> Floats:
    """b×101: the highest of the values from each place on; places rise."""
    between = np.stack([np.maximum.reduceat(row, start) for row, start in zip(values, places, strict=True)])
    return np.maximum.accumulate(between[:, ::-1], axis=1)


def _froc(one: Ranked, found: Found, drawn: Ints32) -> Floats:
    """b×7."""
    worth = np.ones(len(one.patient), np.int32)
    worth[found.near] = 0
    false = _drawn_before(one.patient, worth, found.through, drawn)
    hit = np.zeros((len(false), len(found.patient) + 1), np.int32)  # before any box, after the first that finds one, …
    np.cumsum(np.ascontiguousarray(drawn[found.patient].T), axis=1, dtype=np.int32, out=hit[:, 1:])
    most_false = (_total(drawn, one.images)[:, None] * RATES).astype(np.int64)
    counts = np.take_along_axis(hit, _places(false, most_false, "right"), axis=1)
    return _share(counts, _total(drawn, one.truths)[:, None])


def _places(rising: Ints32, values: Ints, side: Literal["left", "right"] = "left") -> Ints:
    """searchsorted row by row."""
    rows = zip(rising, values.astype(np.int32), strict=True)
    return np.stack([np.searchsorted(row, wanted, side) for row, wanted in rows])


def _drawn_before(patient: Ints32, worth: Ints32, ends: Ints, drawn: Ints32) -> Ints32:
    """b×E: the sum of the first `ends` boxes of a list, each times how often its patient was drawn."""
    if drawn.shape[1] == 1:
        return np.append(0, np.cumsum(worth * drawn[patient, 0]))[ends][None].astype(np.int32)
    from scipy.sparse import csr_array  # here: slow to import

    starts = np.append(0, ends).astype(np.int32)
    between = csr_array((worth[: starts[-1]], patient[: starts[-1]], starts), shape=(len(ends), len(drawn)))
    return np.ascontiguousarray((between @ drawn).T).cumsum(axis=1, dtype=np.int32)


def _total(drawn: Ints32, counts: Floats) -> Floats:
    """b: a count by patient, each as often as drawn."""
    return drawn[: len(counts)].T.astype(np.float64) @ counts


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """NaN where the whole is nothing."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
