"""Areas under the ROC curve and DeLong's variance: worked out by hand, and against the definition and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrmine.scoring.classification import auc, auc_interval, delong, delong_test, placements

LABELS = np.array([1, 1, 0, 0, 0])
A = np.array([0.9, 0.4, 0.1, 0.4, 0.5])
B = np.array([0.9, 0.8, 0.1, 0.85, 0.2])


def components(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong's structural components as they are defined: every positive against every negative."""
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None, :]
    kernel = (positive > negative) + 0.5 * (positive == negative)
    return kernel.mean(axis=1), kernel.mean(axis=0)


def covariance(labels: np.ndarray, *scores: np.ndarray) -> np.ndarray:
    """Of the areas of several scores on the same images."""
    by_positive, by_negative = zip(*(components(labels, s) for s in scores), strict=True)
    of = [np.atleast_2d(np.cov(np.stack(rows))) / len(rows[0]) for rows in (by_positive, by_negative)]
    return of[0] + of[1]


def cases(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels with 1, 0, -1 and -128 among them, and two scores that go with them and with each other."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        n = int(rng.integers(1, 8 if k % 3 == 0 else 80))
        labels = rng.choice([1, 0, -1, -128], n, p=[0.4, 0.4, 0.1, 0.1]).astype(np.int8)
        a = rng.normal(size=n) + (labels == 1)
        b = a + rng.normal(size=n)
        levels = (1, 2, 3, 10, 1000)[k % 5]  # of one level all scores tie
        made.append((labels, *(np.floor(levels / (1 + np.exp(-s))) / levels for s in (a, b))))
    return made


def test_by_hand() -> None:
    """0.9 is above all three negatives, 0.4 above one, level with one: areas 1 and 1/2."""
    placed = placements(LABELS, A)
    assert (placed.positives / 6).tolist() == [1, 0.5]
    assert (placed.negatives / 4).tolist() == [1, 0.75, 0.5]
    area, variance = delong(LABELS, A)
    assert area == auc(LABELS, A) == 0.75
    assert variance == pytest.approx((1 / 8) / 2 + (1 / 16) / 3, abs=1e-15)
    low, high = auc_interval(LABELS, A)[1:]
    assert low == pytest.approx(0.75 - 1.959964 * math.sqrt(1 / 12), abs=1e-6)
    assert high == 1  # 1.32, clipped
    assert auc_interval(LABELS, -A)[:2] == (0.25, 0)


def test_a_difference_by_hand() -> None:
    """3/4 - 5/6; its variance is (1/72)/2 + (7/48)/3 = 1/18, so z is 1/4 times the root of 2."""
    found = delong_test(LABELS, A, B)
    assert found.difference == pytest.approx(-1 / 12, abs=1e-15)
    assert found.p == pytest.approx(math.erfc(0.25), abs=1e-12)
    assert found.low == pytest.approx(-1 / 12 - 1.959964 / math.sqrt(18), abs=1e-6)
    assert found.high == pytest.approx(-1 / 12 + 1.959964 / math.sqrt(18), abs=1e-6)
    turned = delong_test(LABELS, B, A)
    assert (turned.difference, turned.low, turned.high) == (-found.difference, -found.high, -found.low)
    assert turned.p == found.p


def test_the_area_is_scikit_learns_and_the_variance_the_definitions() -> None:
    areas = variances = 0
    for labels, scores, _ in cases(1500, seed=1):
        known = np.isin(labels, (0, 1))
        area, variance = delong(labels, scores)
        m, n = (labels == 1).sum(), (labels == 0).sum()
        assert math.isnan(area) == (m == 0 or n == 0)
        assert math.isnan(variance) == (m < 2 or n < 2)
        if m and n:
            assert area == auc(labels, scores) == pytest.approx(roc_auc_score(labels[known], scores[known]), abs=1e-12)
            areas += 1
        if m > 1 and n > 1:
            assert variance == pytest.approx(covariance(labels, scores)[0, 0], abs=1e-12)
            variances += 1
    assert areas > 1200
    assert variances > 1000


def test_the_paired_test_is_the_definitions() -> None:
    compared = 0
    for labels, a, b in cases(1500, seed=2):
        found = delong_test(labels, a, b)
        if min((labels == 1).sum(), (labels == 0).sum()) < 2:
            continue
        expected = covariance(labels, a, b)
        placed_a, placed_b = placements(labels, a), placements(labels, b)
        m, n = map(len, placed_a)
        ours = np.cov(placed_a.positives, placed_b.positives)[0, 1] / (4 * n**2 * m)
        ours += np.cov(placed_a.negatives, placed_b.negatives)[0, 1] / (4 * m**2 * n)
        assert ours == pytest.approx(expected[0, 1], abs=1e-12)
        variance = expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
        difference = auc(labels, a) - auc(labels, b)
        assert found.difference == pytest.approx(difference, abs=1e-12)
        if variance < 1e-12:
            assert found.p == 1 if abs(difference) < 1e-12 else math.isnan(found.p)
            continue
        assert found.p == pytest.approx(math.erfc(abs(difference) / math.sqrt(2 * variance)), abs=1e-9)
        assert found.low == pytest.approx(max(difference - 1.959964 * math.sqrt(variance), -1), abs=1e-6)
        assert found.high == pytest.approx(min(difference + 1.959964 * math.sqrt(variance), 1), abs=1e-6)
        compared += 1
    assert compared > 800


def test_intervals_hold_the_true_area_and_the_test_its_level() -> None:
    """Two scores that see the same image and are equally good: normal, apart by 1, an area of 0.7602."""
    rng = np.random.default_rng(3)
    true = 0.5 * math.erfc(-1 / 2)
    labels = np.repeat([1, 0], [60, 90])
    held = refused = 0
    for _ in range(2000):
        image = rng.normal(size=150) * math.sqrt(0.5)
        a, b = (image + rng.normal(size=150) * math.sqrt(0.5) + labels for _ in range(2))
        _, low, high = auc_interval(labels, a)
        held += low <= true <= high
        refused += delong_test(labels, a, b).p < 0.05
    assert 0.93 < held / 2000 < 0.965
    assert 0.035 < refused / 2000 < 0.07


def test_one_kind_of_label_has_no_area() -> None:
    for labels in ([], [1, 1], [0], [-1, -128]):
        given = np.array(labels, np.int8)
        scores = np.linspace(0, 1, len(given))
        assert all(map(math.isnan, (auc(given, scores), *delong(given, scores), *auc_interval(given, scores))))
        assert all(map(math.isnan, delong_test(given, scores, scores)))


def test_a_single_positive_has_an_area_and_no_interval() -> None:
    labels = np.array([1, 0, 0])
    area, low, high = auc_interval(labels, np.array([0.5, 0.1, 0.9]))
    assert area == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
    difference, low, high, p = delong_test(labels, np.array([0.5, 0.1, 0.9]), np.array([0.95, 0.1, 0.9]))
    assert difference == -0.5
    assert all(map(math.isnan, (low, high, p)))


def test_without_variance_nothing_is_claimed() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 0])
    perfect, level = labels * 0.5, np.full(7, 0.3)
    assert auc_interval(labels, perfect) == (1, 1, 1)
    assert auc_interval(labels, 1 - perfect) == (0, 0, 0)
    assert auc_interval(labels, level) == (0.5, 0.5, 0.5)
    difference, low, high, p = delong_test(labels, perfect, level)
    assert (difference, low, high) == (0.5, 0.5, 0.5)
    assert math.isnan(p)


def test_scores_in_the_same_order_do_not_differ() -> None:
    for labels, a, _ in cases(200, seed=4):
        if (labels == 1).any() and (labels == 0).any():
            assert delong_test(labels, a, a) == (0, 0, 0, 1)
            assert delong_test(labels, a, a**3 / 2) == (0, 0, 0, 1)
