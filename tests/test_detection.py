"""AP, FROC, the RSNA score and false boxes per normal image: by hand, by a slow way, and against pycocotools."""

import contextlib
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cxrmine.boxes.table import BOX_ORDER, SCHEMA, truth_table
from cxrmine.scoring.detection import (
    RATES,
    Found,
    Ranked,
    ap,
    ap_samples,
    by_patient,
    false_boxes,
    find,
    froc,
    froc_samples,
    macro,
    rank,
    rsna,
)
from cxrmine.scoring.greedy import COCO_IOUS, RSNA_IOUS, confident_first, falling_key, passes, true_positives
from cxrmine.scoring.judged import ABSENT, JUDGED, UNKNOWN, Absent, Cover, Judged, Matches, collect, match
from cxrmine.scoring.localization import centre_inside
from cxrmine.tables import COORDINATES, build, ordered

TRUTH = (0, 0, 10, 10)
FAR = (50, 50, 60, 60)
Box = tuple[float, float, float, float]
TruthRow = tuple[str, str, Box]  # image, finding
BoxRow = tuple[str, str, Box, float]  # and confidence; a pair's rows come in the order of their ranks


class World(NamedTuple):
    judged: Judged
    absent: Absent
    cover: Cover
    matches: Matches

    def true(self, thresholds: Sequence[float], strict: bool = False) -> np.ndarray:
        return true_positives(self.judged, self.matches, thresholds, strict)

    def ranked(self, most: int | None = None) -> list[Ranked]:
        return rank(self.judged, self.absent, self.cover, most)

    def ap(self, *thresholds: float, **options: Any) -> np.ndarray:
        return ap(self.ranked(), self.true(thresholds), **options)

    def found(self, threshold: float | None = 0.3) -> list[Found]:
        """By IoU above the threshold; without one, by the centre."""
        on = passes(self.matches.iou, threshold, True) if threshold is not None else self.centred()
        return find(self.ranked(), self.judged, self.matches, on)

    def centred(self) -> np.ndarray:
        return centre_inside(self.judged.boxes[self.matches.box], self.judged.truth[self.matches.truth])

    def froc(self, threshold: float | None = 0.3) -> np.ndarray:
        return froc(self.ranked(), self.found(threshold))


def world(
    truth: list[TruthRow],
    boxes: list[BoxRow],
    images: Sequence[str] = "abcd",
    findings: Sequence[str] = ("Mass",),
    patients: dict[str, int] | None = None,
    unknown: Sequence[tuple[str, str]] = (),
    normal: Sequence[str] = (),
) -> World:
    """Pairs without a truth box are absent, but for the unknown ones."""
    images, findings = sorted(images), sorted(findings)
    place, code = ({name: i for i, name in enumerate(names)} for names in (images, findings))
    state = np.full((len(images), len(findings)), ABSENT, np.int8)
    for image, finding in unknown:
        state[place[image], code[finding]] = UNKNOWN
    for image, finding, _ in truth:
        state[place[image], code[finding]] = JUDGED
    patient = np.array([i if patients is None else patients[name] for i, name in enumerate(images)], np.int64)
    is_normal = np.isin(images, list(normal))
    cover = Cover(
        list(findings), pa.array(images, pa.string()), patient, state, is_normal, np.full((len(images), 2), np.nan)
    )
    table = ordered(build(SCHEMA, _columns(boxes) | {"rank": _ranks(boxes), "score": [b[3] for b in boxes]}), BOX_ORDER)
    judged, absent, *_ = collect([table], truth_table(_columns(truth)), cover)
    return World(judged, absent, cover, match(judged))


def _columns(rows: Sequence[tuple]) -> dict[str, list]:
    names = {name: [row[i] for row in rows] for i, name in enumerate(("image_id", "finding"))}
    return names | {name: [float(row[2][i]) for row in rows] for i, name in enumerate(COORDINATES)}


def _ranks(boxes: list[BoxRow]) -> list[int]:
    seen: Counter[tuple[str, str]] = Counter()
    ranks = []
    for image, finding, *_ in boxes:
        seen[image, finding] += 1
        ranks.append(seen[image, finding])
    return ranks


def covers(tenths: float) -> Box:
    """A box inside TRUTH whose IoU with it is tenths / 10."""
    return (0, 0, tenths, 10)


class TestMatching:
    def test_no_box_and_no_truth(self):
        assert world([], []).true([0.5]).shape == (1, 0)
        assert world([("a", "Mass", TRUTH)], []).true([0.5]).shape == (1, 0)

    def test_the_most_confident_box_that_passes_takes_the_truth(self):
        boxes = [
            ("a", "Mass", covers(4), 0.9),
            ("a", "Mass", covers(6), 0.5),
            ("a", "Mass", covers(10), 0.4),
            ("a", "Mass", covers(8), 0.7),
        ]
        w = world([("a", "Mass", TRUTH)], boxes)
        assert confident_first(w.judged).tolist() == [0, 3, 1, 2]
        taken = w.true([0.3, 0.5, 0.8, 0.9])
        assert taken.tolist() == np.eye(4, dtype=bool)[[0, 3, 3, 2]].tolist()

    def test_equal_confidence_goes_by_rank(self):
        boxes = [("a", "Mass", covers(6), 0.5), ("a", "Mass", covers(8), 0.5)]
        assert world([("a", "Mass", TRUTH)], boxes).true([0.5]).tolist() == [[True, False]]

    def test_at_the_threshold(self):
        """IoU exactly 0.5: true at ≥, not above."""
        w = world([("a", "Mass", TRUTH)], [("a", "Mass", covers(5), 0.5)])
        assert w.true([0.5]).tolist() == [[True]]
        assert w.true([0.5], strict=True).tolist() == [[False]]

    def test_an_equal_box_passes_1_as_in_coco(self):
        w = world([("a", "Mass", TRUTH)], [("a", "Mass", TRUTH, 0.5)])
        assert (w.true([1.0]).tolist(), w.true([1.0], strict=True).tolist()) == ([[True]], [[False]])
        assert passes(np.array([1 - 1e-9, 1 - 1e-11]), 1.0, strict=False).tolist() == [False, True]

    def test_one_box_on_two_truth_boxes_takes_one(self):
        """Left and right half of a box of 10×10: IoU 0.5 with both; the next box gets the one that is left."""
        halves = [("a", "Mass", (0, 0, 5, 10)), ("a", "Mass", (5, 0, 10, 10))]
        w = world(halves, [("a", "Mass", TRUTH, 0.9), ("a", "Mass", TRUTH, 0.8), ("a", "Mass", TRUTH, 0.7)])
        assert w.true([0.5]).tolist() == [[True, True, False]]

    def test_a_tie_of_iou_takes_the_later_truth_box(self):
        """The first box takes the right half, so the second, which only passes with the right half, is false."""
        halves = [("a", "Mass", (0, 0, 5, 10)), ("a", "Mass", (5, 0, 10, 10))]
        w = world(halves, [("a", "Mass", TRUTH, 0.9), ("a", "Mass", (5, 0, 10, 10), 0.8)])
        assert w.true([0.5]).tolist() == [[True, False]]
        w = world(halves, [("a", "Mass", TRUTH, 0.9), ("a", "Mass", (0, 0, 5, 10), 0.8)])
        assert w.true([0.5]).tolist() == [[True, True]]

    def test_a_truth_box_that_is_free_is_taken_at_a_lower_iou(self):
        """Both boxes are nearest to the first truth box; the second passes with the other one at 0.3 only."""
        truth = [("a", "Mass", (0, 0, 10, 10)), ("a", "Mass", (4, 0, 14, 10))]
        boxes = [("a", "Mass", (0, 0, 10, 10), 0.9), ("a", "Mass", (1, 0, 11, 10), 0.8)]  # 9/11 and 7/13
        assert world(truth, boxes).true([0.3, 0.6]).tolist() == [[True, True], [True, False]]

    def test_keys_sort_as_confidences_do(self):
        values = np.array([np.inf, 2, 1, 0.5, 1e-30, 0, -1e-30, -0.5, -np.inf])
        assert (np.diff(falling_key(values).astype(np.int64)) > 0).all()
        assert falling_key(np.array([0.0]))[0] == falling_key(np.array([-0.0]))[0]


class TestAp:
    def test_by_hand(self):
        """Two truth boxes. True, false, true: precision 1 up to recall 1/2, then 2/3."""
        truth = [("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]
        boxes = [("a", "Mass", TRUTH, 0.9), ("a", "Mass", FAR, 0.8), ("b", "Mass", TRUTH, 0.7)]
        w = world(truth, boxes)
        assert w.ap(0.5)[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-15)
        assert w.ap(0.5, interpolation="voc2010")[0, 0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3, abs=1e-15)

    def test_a_later_higher_precision_counts_for_earlier_recalls(self):
        """False, true, true: 1/2 and 2/3, so 2/3 everywhere."""
        truth = [("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]
        boxes = [("a", "Mass", FAR, 0.9), ("a", "Mass", TRUTH, 0.8), ("b", "Mass", TRUTH, 0.7)]
        w = world(truth, boxes)
        assert w.ap(0.5)[0, 0] == pytest.approx(2 / 3)
        assert w.ap(0.5, interpolation="voc2010")[0, 0] == pytest.approx(2 / 3)

    def test_boxes_of_absent_pairs_are_false_and_those_of_unknown_pairs_nothing(self):
        boxes = [("a", "Mass", TRUTH, 0.5), ("b", "Mass", TRUTH, 0.9), ("c", "Mass", TRUTH, 0.8)]
        truth = [("a", "Mass", TRUTH)]
        assert world(truth, boxes).ap(0.5)[0, 0] == pytest.approx(1 / 3)
        assert world(truth, boxes, unknown=[("c", "Mass")]).ap(0.5)[0, 0] == pytest.approx(1 / 2)

    def test_ties_go_by_image(self):
        truth = [("b", "Mass", TRUTH)]
        for other, precision in (("a", 1 / 2), ("c", 1)):
            w = world(truth, [("b", "Mass", TRUTH, 0.5), (other, "Mass", TRUTH, 0.5)])
            assert w.ap(0.5)[0, 0] == pytest.approx(precision)

    def test_without_boxes_0_and_without_truth_nothing(self):
        w = world([("a", "Mass", TRUTH)], [("b", "Nodule", TRUTH, 0.5)], findings=("Mass", "Nodule"))
        assert np.array_equal(w.ap(0.5, 0.7), [[0, 0], [np.nan, np.nan]], equal_nan=True)
        assert macro(w.ap(0.5, 0.7)).tolist() == [0, 0]
        assert np.isnan(macro(world([], []).ap(0.5))).all()
        assert world([], [], findings=()).ap(0.5).shape == (0, 1)

    def test_recalls_are_reached_as_coco_divides(self):
        """All boxes true, k of n truth boxes found: as many recalls as are not above k / n, all rounded to float64."""
        for n, k in ((20, 19), (57, 57), (100, 7), (100, 29), (100, 35)):
            images = [f"{i:03}" for i in range(n)]
            truth, boxes = [(i, "Mass", TRUTH) for i in images], [(i, "Mass", TRUTH, 0.5) for i in images[:k]]
            assert world(truth, boxes, images).ap(0.5)[0, 0] == np.mean(np.linspace(0, 1, 101) <= k / n)

    def test_only_so_many_of_an_image(self):
        """Of image a the box at 0.9 only, and of b one: true, false."""
        truth = [("a", "Mass", TRUTH), ("c", "Mass", TRUTH)]
        boxes = [("a", "Mass", FAR, 0.2), ("a", "Mass", TRUTH, 0.9), ("b", "Mass", FAR, 0.8), ("b", "Mass", FAR, 0.7)]
        w = world(truth, [*boxes, ("c", "Mass", TRUTH, 0.6)])
        assert ap(w.ranked(1), w.true([0.5]), "voc2010")[0, 0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
        assert ap(w.ranked(2), w.true([0.5]), "voc2010")[0, 0] == pytest.approx(1 / 2 + 1 / 2 * 2 / 4)


class TestFroc:
    def test_by_hand(self):
        """Four images, two truth boxes: found, 1 false, found, 2 false. 1/4 an image is enough for both."""
        boxes = [("a", "Mass", TRUTH, 0.9), ("c", "Mass", FAR, 0.8), ("b", "Mass", TRUTH, 0.7), ("d", "Mass", FAR, 0.6)]
        w = world([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)], boxes)
        assert w.froc().tolist() == [[0.5, 1, 1, 1, 1, 1, 1]]
        assert w.froc(None).tolist() == [[0.5, 1, 1, 1, 1, 1, 1]]

    def test_equal_confidence_comes_together(self):
        """The truth box is found with 3 false boxes on 4 images at once."""
        boxes = [("a", "Mass", TRUTH, 0.5), *[(image, "Mass", FAR, 0.5) for image in "bcd"]]
        assert world([("a", "Mass", TRUTH)], boxes).froc().tolist() == [[0, 0, 0, 1, 1, 1, 1]]

    def test_images_of_unknown_pairs_do_not_count(self):
        """One false box before: 1 a image when only that image counts."""
        boxes = [("a", "Mass", FAR, 0.9), ("a", "Mass", TRUTH, 0.5)]
        w = world([("a", "Mass", TRUTH)], boxes, unknown=[(image, "Mass") for image in "bcd"])
        assert w.froc().tolist() == [[0, 0, 0, 1, 1, 1, 1]]

    def test_a_second_box_on_a_truth_box_is_neither_a_hit_nor_false(self):
        boxes = [("a", "Mass", TRUTH, 0.9 - k / 10) for k in range(5)] + [("b", "Mass", TRUTH, 0.1)]
        w = world([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)], boxes)
        assert w.froc().tolist() == w.froc(None).tolist() == [[1] * 7]

    def test_one_box_finds_two_truth_boxes(self):
        overlapping = [("a", "Mass", (0, 0, 10, 10)), ("a", "Mass", (1, 0, 11, 10))]
        w = world(overlapping, [("a", "Mass", (0, 0, 11, 10), 0.5)])
        assert w.froc().tolist() == w.froc(None).tolist() == [[1] * 7]

    def test_the_centre(self):
        """The centre of a huge box lies in the truth box though their IoU is 0.01; a truth box is half-open."""
        huge, edge = (-45, -45, 55, 55), (5, 0, 15, 10)
        assert world([("a", "Mass", TRUTH)], [("a", "Mass", huge, 0.5)]).froc(None).tolist() == [[1] * 7]
        assert world([("a", "Mass", TRUTH)], [("a", "Mass", huge, 0.5)]).froc(0.3).tolist() == [[0] * 7]
        assert world([("a", "Mass", TRUTH)], [("a", "Mass", edge, 0.5)]).froc(None).tolist() == [[0] * 7]

    def test_without_boxes_0_and_without_truth_nothing(self):
        w = world([("a", "Mass", TRUTH)], [("b", "Nodule", TRUTH, 0.5)], findings=("Mass", "Nodule"))
        assert np.array_equal(w.froc(), [[0] * 7, [np.nan] * 7], equal_nan=True)
        assert world([], [], findings=()).froc().shape == (0, 7)


class TestRsna:
    def test_by_hand(self):
        """a: found at 0.40 to 0.55 (IoU 0.6 is not above 0.6), with a false box: 1/2 four times of eight. b: missed.

        c has no truth box and a box: 0. d has neither and does not count.
        """
        boxes = [("a", "Mass", covers(6), 0.9), ("a", "Mass", FAR, 0.8), ("c", "Mass", FAR, 0.7)]
        w = world([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)], boxes)
        scored = rsna(w.judged, w.true(RSNA_IOUS, strict=True), false_boxes(w.absent, w.cover))
        assert scored.pair.tolist() == [0.25, 0]
        assert scored.images.tolist() == [3]
        assert scored.score[0] == pytest.approx(0.25 / 3)

    def test_several_truth_boxes(self):
        """Three truth boxes, two found, one false box: 2 / 4 at every threshold."""
        at = [(x, 0, x + 10, 10) for x in (0, 20, 40)]
        boxes = [("a", "Mass", at[0], 0.9), ("a", "Mass", at[1], 0.8), ("a", "Mass", at[1], 0.7)]
        w = world([("a", "Mass", box) for box in at], boxes)
        assert rsna(w.judged, w.true(RSNA_IOUS, strict=True), false_boxes(w.absent, w.cover)).score.tolist() == [0.5]

    def test_nothing(self):
        w = world([], [])
        scored = rsna(w.judged, w.true(RSNA_IOUS, strict=True), false_boxes(w.absent, w.cover))
        assert np.isnan(scored.score).all()
        assert scored.images.tolist() == [0]


class TestFalseBoxes:
    def test_by_patient(self):
        boxes = [(image, "Mass", FAR, 0.5) for image in "bbcd"]
        w = world([("a", "Mass", TRUTH)], boxes, patients={"a": 0, "b": 1, "c": 0, "d": 1})
        assert by_patient(false_boxes(w.absent, w.cover), w.cover, 3).tolist() == [[1], [3], [0]]


def random_world(rng: np.random.Generator, cases: int, images: int = 6, most: int = 5) -> World:
    """A finding a case, on a small grid: ties of IoU and confidence, IoUs at thresholds, no truth, no boxes."""
    truth: list[TruthRow] = []
    boxes: list[BoxRow] = []
    names = [f"{i:02}" for i in range(images)]
    for case in range(cases):
        finding = f"{case:04}"
        truths = rng.choice([0, 1, 2, 3], p=rng.dirichlet([1, 1, 1, 1]), size=images)
        predicted = rng.integers(0, most + 1, images) * (rng.random(images) < rng.random())
        if case % 100 == 7:
            predicted[1] = 110  # more than COCO takes of an image
        for image, t, p in zip(names, truths, predicted, strict=True):
            truth += [(image, finding, box) for box in random_boxes(rng, t)]
            confidence = rng.integers(1, 9, p) / 8 if case % 2 else rng.random(p, np.float32)
            boxes += [(image, finding, b, c) for b, c in zip(random_boxes(rng, p), confidence.tolist(), strict=True)]
    return world(truth, boxes, names, [f"{case:04}" for case in range(cases)])


def random_boxes(rng: np.random.Generator, count: int) -> list[Box]:
    low = rng.integers(0, 4, (count, 2))
    return [tuple(box) for box in np.concatenate([low, low + rng.integers(3, 8, (count, 2))], axis=1).tolist()]


def per_case(w: World) -> list[tuple[dict[int, tuple[list, list]], dict[int, list[float]], set[int]]]:
    """Of each finding: image → (truth boxes, [(confidence, box, its row)] of judged), image → absent, images."""
    result = []
    for f in range(len(w.cover.findings)):
        pairs = np.flatnonzero(w.judged.pair_finding == f)
        judged = {}
        for p in pairs:
            rows = np.flatnonzero(w.judged.pair == p)
            listed = [(float(w.judged.confidence[i]), w.judged.boxes[i], int(i)) for i in rows]
            judged[int(w.judged.pair_image[p])] = (list(w.judged.truth[w.judged.truth_pair == p]), listed)
        absent: dict[int, list[float]] = {}
        for i in np.flatnonzero(w.absent.finding == f):
            absent.setdefault(int(w.absent.image[i]), []).append(float(w.absent.confidence[i]))
        result.append((judged, absent, set(np.flatnonzero(w.cover.state[:, f] != UNKNOWN).tolist())))
    return result


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_voc(w: World, threshold: float) -> list[float]:
    """The area under the envelope, rectangle by rectangle."""
    true = w.true([threshold])[0]
    areas = []
    for judged, absent, _ in per_case(w):
        truths = sum(len(t) for t, _ in judged.values())
        listed = [(-c, image, i, true[i]) for image, (_, boxes) in judged.items() for c, _, i in boxes]
        listed += [(-c, image, 0, False) for image, all_c in absent.items() for c in all_c]
        hits = [hit for *_, hit in sorted(listed)]
        precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
        area = sum(max(precision[k:]) / truths for k, hit in enumerate(hits) if hit)
        areas.append(area if truths else np.nan)
    return areas


def slow_froc(w: World, on: Any) -> list[list[float]]:
    """Every operating point one by one; `on`(box, truth box) says whether the box finds it."""
    curves = []
    for judged, absent, images in per_case(w):
        truths = sum(len(t) for t, _ in judged.values())
        levels = {c for _, boxes in judged.values() for c, *_ in boxes} | {c for cs in absent.values() for c in cs}
        points = [(0.0, 0.0)]
        for level in levels if truths else ():
            false = sum(c >= level for cs in absent.values() for c in cs)
            hit = 0
            for drawn, boxes in judged.values():
                shown = [box for c, box, _ in boxes if c >= level]
                false += sum(not any(on(box, t) for t in drawn) for box in shown)
                hit += sum(any(on(box, t) for box in shown) for t in drawn)
            points.append((false / len(images), hit / truths))
        at = [max(hit for false, hit in points if false <= rate) for rate in RATES]
        curves.append(at if truths else [np.nan] * len(RATES))
    return curves


def close(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_voc_against_a_slow_way():
    w = random_world(np.random.default_rng(1), 150)
    for threshold in (0.3, 0.5):
        close(w.ap(threshold, interpolation="voc2010")[:, 0], slow_voc(w, threshold))


def test_froc_against_a_slow_way():
    w = random_world(np.random.default_rng(2), 150)
    close(w.froc(0.3), slow_froc(w, lambda box, t: overlap(box, t) > 0.3))
    close(w.froc(None), slow_froc(w, lambda box, t: bool(centre_inside(box[None], t[None])[0])))


def test_rsna_against_a_slow_way():
    w = random_world(np.random.default_rng(3), 100)
    true = w.true(RSNA_IOUS, strict=True)
    scored = rsna(w.judged, true, false_boxes(w.absent, w.cover))
    for f, (judged, absent, _) in enumerate(per_case(w)):
        values = [0.0] * len(absent)
        for drawn, boxes in judged.values():
            each = []
            for row in true:
                tp = sum(row[i] for *_, i in boxes)
                each.append(tp / (tp + (len(boxes) - tp) + (len(drawn) - tp)))
            values.append(float(np.mean(each)))
        assert scored.images[f] == len(values)
        close(scored.score[f], np.mean(values) if values else np.nan)


class TestSamples:
    def test_everyone_once_is_the_plain_figure(self):
        w = random_world(np.random.default_rng(4), 100)
        ranked, true, found = w.ranked(), w.true(COCO_IOUS), w.found()
        once = np.ones((3, 6), np.float32)
        for interpolation in ("coco", "voc2010"):
            plain = ap(ranked, true, interpolation)
            for sample in ap_samples(ranked, true, once, interpolation):
                np.testing.assert_array_equal(sample, plain)
        for sample in froc_samples(ranked, found, once):
            np.testing.assert_array_equal(sample, froc(ranked, found))

    def test_a_patient_drawn_twice_is_there_twice(self):
        """Against a dataset in which the images of a patient drawn k times stand k times, one after the other."""
        rng = np.random.default_rng(5)
        patients = {f"{i:02}": i // 2 for i in range(10)}
        rows = one_box_of_a_confidence(rng, cases=40, images=10)
        w = world(*rows, images=list(patients), findings=[f"{c:02}" for c in range(40)], patients=patients)
        weights = np.concatenate([rng.integers(0, 4, (6, 5)), [[2, 1, 1, 1, 1], [0] * 5]]).astype(np.float32)
        samples = ap_samples(w.ranked(), w.true([0.3, 0.5]), weights)
        areas = ap_samples(w.ranked(), w.true([0.3, 0.5]), weights, "voc2010")
        curves = froc_samples(w.ranked(), w.found(), weights)
        for b, drawn in enumerate(weights[:-1].astype(int)):
            again = copies(w, drawn)
            close(samples[b], again.ap(0.3, 0.5))
            close(areas[b], again.ap(0.3, 0.5, interpolation="voc2010"))
            close(curves[b], again.froc())
        assert all(np.isnan(last).all() for last in (samples[-1], areas[-1], curves[-1]))

    def test_blocks_and_threads_change_nothing(self, monkeypatch):
        w = random_world(np.random.default_rng(6), 20)
        weights = np.random.default_rng(7).integers(0, 3, (70, 6)).astype(np.float32)
        ranked, true = w.ranked(), w.true([0.1, 0.5])
        whole = ap_samples(ranked, true, weights)
        monkeypatch.setattr("cxrmine.scoring.detection.AT_ONCE", 1)
        monkeypatch.setattr("cxrmine.scoring.detection.cores.threads", lambda asked: 1)
        np.testing.assert_array_equal(ap_samples(ranked, true, weights), whole)


def one_box_of_a_confidence(rng: np.random.Generator, cases: int, images: int) -> tuple[list[TruthRow], list[BoxRow]]:
    """Boxes of one image have different confidences; those of two images often the same."""
    truth: list[TruthRow] = []
    boxes: list[BoxRow] = []
    for case in range(cases):
        for image in range(images):
            pair = (f"{image:02}", f"{case:02}")
            truth += [(*pair, box) for box in random_boxes(rng, rng.integers(0, 3))]
            confidence = rng.permutation(8)[: rng.integers(0, 5)] / 8
            shown = random_boxes(rng, len(confidence))
            boxes += [(*pair, box, c) for box, c in zip(shown, confidence.tolist(), strict=True)]
    return truth, boxes


def copies(w: World, drawn: np.ndarray) -> World:
    names = w.cover.images.to_pylist()
    times = dict(zip(names, drawn[w.cover.patient], strict=True))
    findings, judged = w.cover.findings, w.judged
    truth = [
        (names[judged.pair_image[p]], findings[judged.pair_finding[p]], tuple(box))
        for p, box in zip(judged.truth_pair, judged.truth.tolist(), strict=True)
    ]
    boxes = [
        (names[judged.pair_image[p]], findings[judged.pair_finding[p]], tuple(box), c)
        for p, box, c in zip(judged.pair, judged.boxes.tolist(), judged.confidence.tolist(), strict=True)
    ]
    absent = zip(w.absent.image, w.absent.finding, w.absent.confidence.tolist(), strict=True)
    boxes += [(names[i], findings[f], FAR, c) for i, f, c in absent]
    return world(
        [(f"{image}.{k}", *rest) for image, *rest in truth for k in range(times[image])],
        [(f"{image}.{k}", *rest) for image, *rest in boxes for k in range(times[image])],
        [f"{image}.{k}" for image in names for k in range(times[image])],
        findings,
    )


def coco_evaluation(w: World, thresholds: Sequence[float]) -> Any:
    """The same boxes through pycocotools: categories are findings, ids start at 1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, shown = coco_annotations(w)
        evaluation = COCOeval(truth, shown, "bbox")
        evaluation.params.iouThrs = np.array(thresholds)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def coco_annotations(w: World) -> tuple[Any, Any]:
    judged, absent = w.judged, w.absent
    pair = judged.pair
    far = np.tile(FAR, (len(absent.image), 1))
    images = [{"id": i + 1} for i in range(len(w.cover.images))]
    categories = [{"id": f + 1, "name": name} for f, name in enumerate(w.cover.findings)]
    both = []
    for image, finding, boxes, confidence in (
        (judged.pair_image[judged.truth_pair], judged.pair_finding[judged.truth_pair], judged.truth, None),
        (
            np.append(judged.pair_image[pair], absent.image),
            np.append(judged.pair_finding[pair], absent.finding),
            np.concatenate([judged.boxes, far]),
            np.append(judged.confidence, absent.confidence),
        ),
    ):
        scores = np.zeros(len(image)) if confidence is None else confidence
        rows = zip(image.tolist(), finding.tolist(), boxes.tolist(), scores.tolist(), strict=True)
        coco = COCO()
        coco.dataset = {
            "images": images,
            "categories": categories,
            "annotations": [
                {
                    "id": k,
                    "image_id": i + 1,
                    "category_id": f + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "score": score,
                }
                for k, (i, f, (x0, y0, x1, y1), score) in enumerate(rows, start=1)
            ],
        }
        coco.createIndex()
        both.append(coco)
    return both[0], both[1]


def test_ap_is_that_of_pycocotools():
    """1,200 cases, each a finding on six images; some have more than 100 boxes on one."""
    w = random_world(np.random.default_rng(0), 1200)
    thresholds = [0.1, 0.2, 0.3, 0.4, *COCO_IOUS]
    evaluation = coco_evaluation(w, thresholds)
    precision = evaluation.eval["precision"][..., 0, 0]  # T×101×findings; −1 for one without truth
    theirs = np.where((precision > -1).all(axis=1), precision.mean(axis=1), np.nan).T
    assert np.isnan(theirs).any()
    assert (theirs == 0).any()
    assert (np.bincount(w.judged.pair) > 100).any()
    true = w.true(thresholds)
    close(ap(w.ranked(100), true), theirs)
    taken = [one["dtIds"][k] for one in evaluation.evalImgs if one for k in np.flatnonzero(one["dtMatches"][4] > 0)]
    few = np.bincount(w.judged.pair)[w.judged.pair] <= 100
    assert set(np.flatnonzero(true[4] & few) + 1) == {i for i in taken if few[i - 1]}
