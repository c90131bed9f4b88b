"""Intervals by patient, p-values and differences: what a bootstrap draws, and what it says that can be counted."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from cxrmine.scoring import figures, overall, statistics
from cxrmine.scoring.comparison import differences
from cxrmine.scoring.figures import MEAN, POOLED, Figures, Key
from cxrmine.scoring.protocols import PROTOCOLS, protocol
from cxrmine.scoring.scores import Scores
from cxrmine.scoring.statistics import draws, holm, interval, p_values
from tests.by_hand import MISS, TRUTH, covers, scored, table, truth

ACC = Key("acc_afp", "Mass", "0.1", "acc")
Weights = list[list[int]]


def drawn(units: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.concatenate([*draws(units, samples, seed), np.empty((0, units), np.float32)])


# --- draws


def test_every_sample_draws_as_many_as_there_are():
    for units, samples in ((1, 3), (5, 200), (726, 65)):
        weights = drawn(units, samples)
        assert weights.shape == (samples, units)
        assert (weights.sum(axis=1) == units).all()
        assert (weights == weights.round()).all()
    assert drawn(3, 0).shape == (0, 3)


def test_a_sample_is_the_same_whatever_the_block_and_their_number(monkeypatch):
    many = drawn(9, 200)
    assert np.array_equal(drawn(9, 70), many[:70])
    for block in (1, 7, 500):
        monkeypatch.setattr(statistics, "BLOCK", block)
        assert np.array_equal(drawn(9, 200), many)
    assert not np.array_equal(drawn(9, 200, seed=1), many)
    assert len(np.unique(many, axis=0)) > 190


def test_everybody_is_drawn_as_often():
    """Once a sample in the mean; of three, a sample without the first has a share of (2/3)³."""
    weights = drawn(3, 4000)
    assert weights.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.05)
    assert (weights[:, 0] == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.03)


# --- intervals and p-values


def test_the_interval_is_between_the_percentiles():
    column = np.arange(1001, dtype=np.float32)
    low, high = interval(np.stack([column, np.full(1001, 7), np.full(1001, np.nan)], axis=1))
    assert low.tolist()[:2] == [25, 7]
    assert high.tolist()[:2] == [975, 7]
    assert math.isnan(low[2])
    column[::2] = np.nan  # 1, 3, 5 … 999 are left
    assert interval(column[:, None])[0][0] == pytest.approx(1 + 0.025 * 998, rel=1e-6)


def test_p_is_twice_the_smaller_side():
    columns = [[-1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [-1, 0, 1, 1], [np.nan, np.nan, 1, 1], [np.nan] * 4]
    p = p_values(np.array(columns, np.float32).T)
    assert p[:5] == pytest.approx([2 * 2 / 5, 2 * 1 / 5, 1, 1, 2 * 1 / 3])
    assert math.isnan(p[5])
    assert p_values(np.ones((1000, 1), np.float32))[0] == pytest.approx(2 / 1001)


def test_holm_by_hand():
    """0.01 × 4, 0.02 × 3, 0.03 × 2 and 0.04 × 1, none below the one before it."""
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([0.2]) == pytest.approx([0.2])
    assert len(holm([])) == 0


def test_holm_leaves_out_what_has_no_p():
    corrected = holm([math.nan, 0.01, math.nan, 0.02])
    assert np.isnan(corrected).tolist() == [True, False, True, False]
    assert corrected[[1, 3]] == pytest.approx([0.02, 0.02])


# --- by patient


def two_images(*patients: str, samples: int = 200) -> Scores:
    """Image a is hit at 0.9, image b has a miss at 0.5, for as many pairs of images as there are patients' names."""
    rows = [(f"{i}", "Mass", TRUTH) for i in range(len(patients))]
    boxes = [(f"{i}", "Mass", MISS if i % 2 else covers(9)) for i in range(len(patients))]
    drawn_boxes = truth(rows, patient_id=list(patients))
    return scored(
        table(boxes, score=[0.5 if i % 2 else 0.9 for i in range(len(patients))]), drawn_boxes, samples=samples
    )


def sampled(scores: Scores, key: Key) -> np.ndarray:
    assert scores.figures.samples is not None
    return scores.figures.samples[:, list(scores.figures.values).index(key)]


BY_PATIENT = [
    ACC,
    ACC._replace(name="afp"),
    ACC._replace(finding=MEAN),
    Key("acc_afp_iobb", "Mass", "0.25", "afp"),
    Key("iou", "Mass", "0.5", "share"),
    Key("iobb", POOLED, "", "precision"),
    Key("top1", "Mass", "", "mean_iou"),
    Key("truth_iou", "Mass", "", "mean_iou"),
    Key("truth_iou", POOLED, "", "mean_iou"),
    Key("centre", "Mass", "", "share"),
    Key("rsna", "Mass", "", "score"),
    Key("ap", "Mass", "0.5", "ap"),
    Key("ap", MEAN, "0.3", "ap"),
    Key("froc", "Mass", "iou", "mean"),
    Key("by_size", "Mass", "0.5", "small"),
]


@pytest.mark.parametrize("key", BY_PATIENT, ids=lambda key: "-".join(key))
def test_the_images_of_a_patient_come_together(key):
    """One patient with a hit and a miss: every sample is the same. Two patients of one image each: they are not."""
    together, apart = two_images("p", "p"), two_images("p", "q")
    assert set(sampled(together, key)) == {np.float32(together.figures.values[key])}
    assert together.figures.values[key] == apart.figures.values[key]
    assert len(set(sampled(apart, key))) == 3
    assert together.document()["intervals"]


def test_two_patients_are_drawn_in_three_ways():
    """Twice the first, each once, twice the second: Acc 1, 1/2 or 0 and AFP its complement, 1/4, 1/2 and 1/4 of all."""
    scores = two_images("p", "q", "p", "q", samples=2000)
    values, counts = np.unique(sampled(scores, ACC), return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts / 2000 == pytest.approx([0.25, 0.5, 0.25], abs=0.05)
    assert (sampled(scores, ACC._replace(name="afp")) == 1 - sampled(scores, ACC)).all()
    assert scores.document()["intervals"]["acc_afp"]["Mass"]["0.1"] == {"acc": [0, 1], "afp": [0, 1]}


def test_an_image_without_a_patient_stands_for_itself():
    rows = [("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]
    scores = scored(table([("a", "Mass", TRUTH)]), truth(rows), samples=200)
    assert set(sampled(scores, ACC)) == {0, 0.5, 1}


def test_without_samples_there_is_no_interval():
    scores = two_images("p", "q", samples=0)
    assert scores.figures.samples is None
    assert scores.document()["intervals"] == {}


def test_intervals_are_seeded():
    rows = [(f"{i}", "Mass", TRUTH) for i in range(12)]
    boxes = table([(f"{i}", "Mass", covers(1 + i % 9)) for i in range(12)])

    def intervals(seed: int) -> dict:
        return scored(boxes, truth(rows), samples=50, seed=seed).document()["intervals"]

    assert intervals(3) == intervals(3)
    assert intervals(3)["top1"] != intervals(4)["top1"]


# --- what is drawn is what is scored


@pytest.fixture
def weigh(monkeypatch) -> Callable[[Weights], None]:
    """Draw these patients instead: a row a sample."""

    def given(weights: Weights) -> None:
        def blocks(units: int, samples: int, seed: int) -> Iterator[np.ndarray]:
            assert all(len(row) == units for row in weights) or not samples
            yield from [np.array(weights, np.float32)] if samples else []

        for module in (figures, overall):
            monkeypatch.setattr(module, "draws", blocks)

    return given


def film(image: str, noise: np.random.Generator, confidence: float) -> tuple[list[tuple], list[tuple]]:
    """(truth rows, boxes with their score) of a patient's image, of two findings."""
    drawn_rows, boxes = [], []
    for finding in ("Mass", "Nodule"):
        for _ in range(noise.integers(0, 3) if finding == "Nodule" else noise.integers(1, 3)):
            x, y, w, h = noise.integers(0, 30, 2).tolist() + noise.integers(8, 30, 2).tolist()
            drawn_rows.append((image, finding, (x, y, x + w, y + h)))
            for _ in range(noise.integers(0, 3)):
                shift, confidence = noise.integers(0, 12), confidence - 1e-4
                boxes.append((image, finding, (x + shift, y, x + shift + w, y + h), confidence))
    return drawn_rows, boxes


def world(counts: list[int], rules: str = "cai2018", samples: int = 0) -> Scores:
    """Seven patients with three images each, patient k's as often as `counts` says."""
    drawn_rows, boxes, names = [], [], []
    for patient, times in enumerate(counts):
        noise = np.random.default_rng(patient)
        of_patient = [film(f"{patient}-{i}", noise, 1 - (patient * 3 + i) / 30) for i in range(3)]
        for copy in range(times):
            for its_truth, its_boxes in of_patient:
                drawn_rows += [(f"{row[0]}-{copy}", *row[1:]) for row in its_truth]
                boxes += [(f"{row[0]}-{copy}", *row[1:]) for row in its_boxes]
                names += [f"{patient}"] * len(its_truth)
    scores = [row[3] for row in boxes]
    per = "finding" if rules != "wang2017" else "rows"
    return scored(
        table(boxes, score=scores), truth(drawn_rows, patient_id=names), protocol(rules, per), samples=samples
    )


def same(some: dict[Key, float], others: dict[Key, float]) -> None:
    assert len(some) > 100
    for key, value in some.items():
        assert others[key] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), key


def of_sample(made: Figures, k: int) -> dict[Key, float]:
    """A sample's figures, those left out that have none in any sample, or that are RoDeO's."""
    assert made.samples is not None
    never = np.isnan(made.samples).all(axis=0)
    rows = zip(made.values, made.samples[k].tolist(), never, strict=True)
    return {key: value for key, value, missing in rows if not missing}


@pytest.mark.parametrize("rules", ["cai2018", "wang2017", "coco", "rsna"])
def test_everybody_drawn_once_is_the_figure_itself(weigh, rules):
    weigh([[1] * 7] * 2)
    made = world([1] * 7, rules, samples=2).figures
    for k in (0, 1):
        same(of_sample(made, k), made.values)


def test_a_patient_drawn_twice_counts_as_two(weigh):
    """Sample by sample: the same figures as of truth and boxes in which that patient's images are there twice.

    Not by size: where its thirds end changes with the truth that is there.
    """
    ways = [[2, 0, 1, 1, 1, 1, 1], [0, 3, 1, 0, 2, 0, 1], [1, 1, 0, 4, 0, 1, 0]]
    weigh(ways)
    for rules in ("cai2018", "wang2017"):
        made = world([1] * 7, rules, samples=3).figures
        for k, way in enumerate(ways):
            once = {key: value for key, value in of_sample(made, k).items() if key.measure != "by_size"}
            same(once, world(way, rules).figures.values)


# --- two predictions


def test_a_prediction_does_not_differ_from_itself():
    scores = world([1] * 7, samples=100)
    found = differences(scores.figures, world([1] * 7, samples=100).figures)
    assert set(found) == set(scores.figures.values)
    without = {key for key in found if key.measure == "rodeo" or found[key]["low"] is None}
    assert len(without) < len(found) / 2
    for key in set(found) - without:
        assert found[key] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}, key


def pair(good: str, samples: int = 99) -> tuple[Figures, Figures]:
    """Five patients with a Mass and a Nodule each; the second prediction hits every box of the findings in `good`."""
    rows = [(f"{i}", finding, TRUTH) for i in range(5) for finding in ("Mass", "Nodule")]
    first = table([(image, finding, covers(5)) for image, finding, _ in rows])
    second = table([(image, finding, TRUTH if finding in good else covers(5)) for image, finding, _ in rows])
    return tuple(scored(boxes, truth(rows), samples=samples).figures for boxes in (first, second))  # type: ignore[return-value]


def test_differences_by_hand():
    """IoU 1 instead of 0.5 for everybody: 0.5 in every sample. Of 99 samples none is on the other side: p = 2/100."""
    found = differences(*pair("Mass"))
    key = Key("top1", "Mass", "", "mean_iou")
    assert found[key] == pytest.approx({"difference": 0.5, "low": 0.5, "high": 0.5, "p": 0.02, "p_holm": 0.04})
    assert found[key._replace(finding="Nodule")] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}
    mean = found[key._replace(finding=MEAN)]
    assert mean == pytest.approx({"difference": 0.25, "low": 0.25, "high": 0.25, "p": 0.02, "p_holm": 0.02})
    backwards = differences(*pair("Mass")[::-1])
    assert backwards[key]["difference"] == -0.5


def test_holm_is_over_the_findings_of_one_figure():
    """Both findings are better in every figure that changes: 0.02 × 2 each, whatever other figures there are."""
    found = differences(*pair("Mass Nodule"))
    for key in (Key("top1", "Mass", "", "mean_iou"), Key("acc_afp", "Nodule", "0.5", "afp")):
        assert (found[key]["p"], found[key]["p_holm"]) == pytest.approx((0.02, 0.04))
    for finding in (MEAN, POOLED):
        assert found[Key("iobb", finding, "", "recall")]["p_holm"] == 1  # both are wholly inside the truth


def test_differences_are_paired():
    """First boxes of IoU 0.1, 0.2 … 0.8, and one tenth more: a tenth in every sample, however far samples lie apart."""
    rows = [(f"{i}", "Mass", TRUTH) for i in range(8)]
    ours, theirs = (
        scored(table([(f"{i}", "Mass", covers(i + more)) for i in range(8)]), truth(rows), samples=99).figures
        for more in (1, 2)
    )
    key = Key("top1", "Mass", "", "mean_iou")
    assert differences(ours, theirs)[key] == pytest.approx(
        {"difference": 0.1, "low": 0.1, "high": 0.1, "p": 0.02, "p_holm": 0.02}, abs=1e-6
    )
    low, high = ours.intervals[key]
    assert high - low > 0.2


def test_without_samples_nothing_is_compared():
    assert differences(*pair("Mass", samples=0)) == {}
    made = pair("Mass")[0]
    assert differences(made, replace(made, values={}, samples=np.empty((99, 0), np.float32))) == {}


def test_the_rules_do_not_change_who_is_drawn():
    """The same patients for every protocol, so that a sample of one can be compared with that of another."""
    of = [sampled(world([1] * 7, rules, samples=30), ACC) for rules in ("cai2018", "wang2017", "ham2021")]
    assert np.array_equal(of[0], of[1])
    assert np.array_equal(of[0], of[2])
    assert len(PROTOCOLS) == 11
