"""Predictions joined to truth: what is judged, what is known to be false, and what nobody can tell.

A pair is an image and a finding. It is judged when it has a truth box, absent when the truth or a label says that the
image has no such finding, and unknown otherwise. The papers' measures see judged pairs only; those that need all images
see the absent ones too. Boxes of unknown pairs are counted, and judged by nothing.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.geometry import area, intersection
from cxrmine.errors import CxrError
from cxrmine.tables import COORDINATES

UNKNOWN, JUDGED, ABSENT = 0, 1, 2
SIZES = ("image_width", "image_height")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Confidence = Literal["score", "product"]  # of a box among the boxes of all images; product: score × probability


@dataclass(frozen=True)
class Cover:
    """The images that count, and what is known of each pair. A finding's code is its place in `findings`."""

    findings: list[str]  # F, sorted
    images: pa.StringArray  # I, sorted
    patient: Ints  # I
    state: npt.NDArray[np.int8]  # I×F: UNKNOWN, JUDGED or ABSENT
    normal: Bools  # I: known to have no finding at all
    sizes: Floats  # I×2: width and height as the truth has them, NaN where it does not say


@dataclass(frozen=True)
class Judged:
    """Truth and the boxes of judged pairs as arrays. Pairs are sorted by finding, then image."""

    findings: list[str]
    pair_finding: Ints  # P
    pair_image: Ints  # P: in Cover.images
    pair_patient: Ints  # P
    truth: Floats  # T×4, sorted by pair
    truth_pair: Ints  # T
    boxes: Floats  # N×4, sorted by pair, then rank
    pair: Ints  # N
    rank: Ints  # N
    score: Floats  # N; −inf where none is given
    confidence: Floats  # N: the same, or times the pair's probability
    row: Ints  # N: its row among all boxes that were read

    @property
    def finding(self) -> Ints:
        return self.pair_finding[self.pair]

    @property
    def first(self) -> Ints:
        """The first box of each pair that has one."""
        return np.flatnonzero(np.diff(self.pair, prepend=-1))

    def only(self, kept: Bools) -> "Judged":
        """The same with those pairs alone, their truth and their boxes; boxes of other pairs are of nothing then."""
        there, finding = np.unique(self.pair_finding[kept], return_inverse=True)
        place, truth, boxes = np.cumsum(kept) - 1, kept[self.truth_pair], kept[self.pair]
        return Judged(
            findings=[self.findings[f] for f in there],
            pair_finding=finding.astype(np.int64),
            pair_image=self.pair_image[kept],
            pair_patient=self.pair_patient[kept],
            truth=self.truth[truth],
            truth_pair=place[self.truth_pair[truth]],
            boxes=self.boxes[boxes],
            pair=place[self.pair[boxes]],
            rank=self.rank[boxes],
            score=self.score[boxes],
            confidence=self.confidence[boxes],
            row=self.row[boxes],
        )


@dataclass(frozen=True)
class Absent:
    """The boxes of absent pairs: each one is false, wherever it lies."""

    finding: npt.NDArray[np.int16]  # M
    image: npt.NDArray[np.int32]  # M: in Cover.images
    confidence: npt.NDArray[np.float32]  # M
    beside: Ints  # the rows of the above whose image has a truth box of another finding …
    boxes: Floats  # … and these boxes: they may have found it under a wrong name


@dataclass(frozen=True)
class Matches:
    """Every box with every truth box of its pair: K of them, sorted by box."""

    box: Ints  # K
    truth: Ints  # K
    iou: Floats  # K
    ior: Floats  # K: over the predicted box's own area
    best: Floats  # N: the highest IoU of each box
    best_ior: Floats  # N


class Collected(NamedTuple):
    judged: Judged
    absent: Absent
    boxes: int  # that were read
    images: pa.StringArray  # that they are on, in no order
    findings: set[str]  # that they are of


def collect(chunks: Iterable[pa.Table], truth: pa.Table, cover: Cover, by: Confidence = "score") -> Collected:
    """Join chunks of a boxes table, each sorted by image, finding and rank, with truth on (image, finding)."""
    findings = pa.array(cover.findings, pa.string())
    kept: list[tuple[npt.NDArray, ...]] = []
    false: list[tuple[npt.NDArray, ...]] = []
    seen_images, seen_findings, first = [], set(), 0
    for chunk in chunks:
        image, finding = codes(chunk["image_id"], cover.images), codes(chunk["finding"], findings)
        state = cover.state[np.maximum(image, 0), np.maximum(finding, 0)]
        state[(image < 0) | (finding < 0)] = UNKNOWN
        rows = np.flatnonzero(state == JUDGED)
        kept.append(_judged_rows(chunk, rows, image[rows], finding[rows], cover, by, first))
        rows = np.flatnonzero(state == ABSENT)
        if len(rows):
            false.append(_absent_rows(chunk, rows, image[rows], finding[rows], cover, by))
        seen_images.append(_words(chunk["image_id"]))
        seen_findings |= set(_words(chunk["finding"]).to_pylist())
        first += len(chunk)
    images = pa.concat_arrays(seen_images) if seen_images else pa.array([], pa.string())
    judged = _join(kept, truth, cover, codes(truth["image_id"], cover.images), codes(truth["finding"], findings))
    return Collected(judged, _absent(false), first, pc.unique(images), seen_findings)


def match(judged: Judged) -> Matches:
    counts = np.bincount(judged.truth_pair, minlength=len(judged.pair_finding))
    starts = np.cumsum(counts) - counts
    each = counts[judged.pair]  # at least 1: a judged pair has a truth box
    first = np.cumsum(each) - each
    box = np.repeat(np.arange(len(each)), each)
    truth = np.arange(len(box)) - first[box] + starts[judged.pair[box]]
    sizes = area(judged.boxes)
    shared = intersection(judged.boxes[box], judged.truth[truth])
    overlap = shared / (sizes[box] + area(judged.truth)[truth] - shared)
    inside = shared / sizes[box]
    best, best_ior = (np.maximum.reduceat(v, first) if len(first) else np.empty(0) for v in (overlap, inside))
    return Matches(box, truth, overlap, inside, best, best_ior)


def corners(table: pa.Table) -> Floats:
    return np.stack([numbers(table, name) for name in COORDINATES], axis=1)


def numbers(table: pa.Table, name: str) -> Floats:
    """A column as float64, NaN for null."""
    return table[name].cast(pa.float64()).to_numpy()


def codes(column: pa.ChunkedArray | pa.Array, words: pa.Array) -> Ints:
    """The place of each value in `words`, which are sorted; -1 where it is not among them."""
    encoded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    # A chunk has a small stretch of the images: only that is searched, not a million names for each chunk anew.
    ends = pc.min_max(encoded.dictionary.cast(pa.string())).as_py()
    first = 0 if ends["min"] is None else bisect_left(words, ends["min"], key=pa.StringScalar.as_py)
    last = 0 if ends["max"] is None else bisect_right(words, ends["max"], key=pa.StringScalar.as_py)
    found = pc.index_in(encoded.dictionary, words[first:last]).to_numpy(zero_copy_only=False)
    place = np.where(np.isnan(found), -1, found + first).astype(np.int64)
    return np.append(place, -1)[encoded.indices.fill_null(len(place)).to_numpy()]


def _words(column: pa.ChunkedArray) -> pa.StringArray:
    return pc.drop_null(pc.unique(column.cast(pa.string())))


def _confidence(chunk: pa.Table, rows: Ints, by: Confidence) -> Floats:
    score = np.nan_to_num(numbers(chunk, "score")[rows], nan=-np.inf)
    return score * np.nan_to_num(numbers(chunk, "probability")[rows], nan=1.0) if by == "product" else score


def _judged_rows(
    chunk: pa.Table, rows: Ints, image: Ints, finding: Ints, cover: Cover, by: Confidence, first: int
) -> tuple[npt.NDArray, ...]:
    """(pair code, box, rank, score, confidence, row) of those rows of a chunk whose pair is judged."""
    _same_frame(chunk, rows, image, cover)
    score = np.nan_to_num(numbers(chunk, "score")[rows], nan=-np.inf)
    confidence = _confidence(chunk, rows, by)
    code = finding * len(cover.images) + image
    return code, corners(chunk)[rows], numbers(chunk, "rank")[rows].astype(np.int64), score, confidence, rows + first


def _absent_rows(
    chunk: pa.Table, rows: Ints, image: Ints, finding: Ints, cover: Cover, by: Confidence
) -> tuple[npt.NDArray, ...]:
    """(finding, image, confidence, whether the image has truth, and if so the box)."""
    beside = (cover.state == JUDGED).any(axis=1)[image]
    confidence = _confidence(chunk, rows, by).astype(np.float32)
    return finding.astype(np.int16), image.astype(np.int32), confidence, beside, corners(chunk)[rows[beside]]


def _join(kept: list[tuple[npt.NDArray, ...]], truth: pa.Table, cover: Cover, image: Ints, finding: Ints) -> Judged:
    """Everything sorted by pair; `image` and `finding` are truth's codes."""
    nothing = (
        *(np.empty(0, np.int64),),
        np.empty((0, 4)),
        *(np.empty(0, np.int64),),
        *(np.empty(0),) * 2,
        *(np.empty(0, np.int64),),
    )
    code, boxes, rank, score, confidence, row = (
        np.concatenate(parts) for parts in zip(*(kept or [nothing]), strict=True)
    )
    truth_code = finding * len(cover.images) + image
    truth_order = np.argsort(truth_code, kind="stable")
    in_order = truth_code[truth_order]
    pairs = in_order[np.diff(in_order, prepend=-1) != 0]
    order = _by_pair(code, max(len(cover.images), 1))
    pair = np.searchsorted(pairs, code[order])
    again = (np.diff(pair) == 0) & (np.diff(rank[order]) <= 0)
    if again.any():
        name = cover.images[int(pairs[pair[np.argmax(again)]] % len(cover.images))]
        raise CxrError(f"Several boxes tables have the same pair, for instance of {name}.", "Give every table once.")
    pair_finding, pair_image = np.divmod(pairs, max(len(cover.images), 1))
    return Judged(
        findings=cover.findings,
        pair_finding=pair_finding,
        pair_image=pair_image,
        pair_patient=cover.patient[pair_image],
        truth=corners(truth)[truth_order],
        truth_pair=np.searchsorted(pairs, in_order),
        boxes=boxes[order],
        pair=pair,
        rank=rank[order],
        score=score[order],
        confidence=confidence[order],
        row=row[order],
    )


def _by_pair(code: Ints, images: int) -> Ints:
    """The order by pair, ranks as they are. Chunks come by image: then it is the order by finding, a quick one."""
    order = np.argsort((code // images).astype(np.int16), kind="stable")
    return order if (np.diff(code[order]) >= 0).all() else np.argsort(code, kind="stable")


def _absent(false: list[tuple[npt.NDArray, ...]]) -> Absent:
    if not false:
        empty = np.empty(0, np.int64)
        return Absent(empty.astype(np.int16), empty.astype(np.int32), empty.astype(np.float32), empty, np.empty((0, 4)))
    finding, image, confidence, beside, boxes = (np.concatenate(parts) for parts in zip(*false, strict=True))
    return Absent(finding, image, confidence, np.flatnonzero(beside), boxes)


def _same_frame(chunk: pa.Table, rows: Ints, image: Ints, cover: Cover) -> None:
    """Refuse boxes in the pixels of another image size than the truth's, where both say theirs."""
    for axis, name in enumerate(SIZES):
        ours, theirs = numbers(chunk, name)[rows], cover.sizes[image, axis]
        other = np.isfinite(ours) & np.isfinite(theirs) & (ours != theirs)
        if other.any():
            i = int(np.argmax(other))
            raise CxrError(
                f"{int(other.sum())} boxes are in the pixels of another image size than the truth's: "
                f"{cover.images[int(image[i])]} has {name} {ours[i]:g} here and {theirs[i]:g} in the truth.",
                "Mine and score with the same files of the dataset.",
            )
