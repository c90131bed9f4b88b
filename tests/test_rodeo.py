"""RoDeO by hand, and against the authors' package."""

import warnings
from math import log, sqrt

import numpy as np
import pyarrow as pa
import pytest
from rodeo import RoDeO
from rodeo import rodeo as package
from sklearn.metrics import matthews_corrcoef

from cxrmine.scoring import rodeo as ours
from cxrmine.scoring.judged import ABSENT, JUDGED, UNKNOWN, Absent, Cover, Judged
from cxrmine.scoring.rodeo import image_level, rodeo, rodeo_of

SCORES = ("total", "localization", "shape", "classification")
NONE = np.empty(0, np.int64)


def harmonic(*scores: float) -> float:
    return len(scores) / sum(1 / (score + 1e-6) for score in scores)


def of(boxes: list, truth: list, findings: int = 2, **more: object) -> dict:
    """Rows of (image, finding, box)."""
    columns = []
    for rows in (boxes, truth):
        columns.append(np.array([row[2] for row in rows], float).reshape(-1, 4))
        columns += [np.array([row[i] for row in rows], np.int64) for i in (1, 0)]
    return rodeo(*columns, findings, **more)


def counts(scores: dict) -> tuple[int, int, int]:
    return scores["matched"], scores["over"], scores["missed"]


def test_the_same_boxes_are_perfect():
    rows = [(0, 0, (0, 0, 10, 10)), (0, 1, (50, 0, 70, 10)), (3, 1, (5, 5, 6, 9))]
    scores = of(rows, rows)
    assert [scores[name] for name in SCORES] == pytest.approx([1, 1, 1, 1], abs=2e-6)
    assert counts(scores) == (3, 0, 0)
    assert scores["class_weight"] == 1


def test_one_pair_by_hand():
    """The centre is off by 5 of 10 across and by 20 of 20 down: d² = 0.25 + 1. Sides 20×10 on 10×20: 100 of 300."""
    scores = of([(0, 0, (0, 25, 20, 35))], [(0, 0, (0, 0, 10, 20))])
    assert scores["localization"] == pytest.approx(2**-1.25)
    assert scores["shape"] == pytest.approx(1 / 3)
    assert scores["classification"] == 1
    assert scores["total"] == pytest.approx(harmonic(2**-1.25, 1 / 3, 1))


def test_what_is_left_alone_lowers_every_score():
    """One matched exactly, one box too many beside it, one missed elsewhere, one box where there is no truth."""
    place = (0, 0, 10, 10)
    boxes = [(0, 0, place), (0, 1, (80, 80, 90, 90)), (2, 1, place)]
    scores = of(boxes, [(0, 0, place), (1, 0, place)])
    assert counts(scores) == (1, 2, 1)
    assert [scores[name] for name in SCORES[1:]] == pytest.approx([0.25] * 3)
    first, second = scores["findings"]
    assert counts(first) == (1, 0, 1)
    assert counts(second) == (0, 2, 0)
    assert first["localization"] == first["classification"] == 0.5
    assert [second[name] for name in SCORES] == [0, 0, 0, 0]


def test_two_boxes_and_two_truths_cost_less_crossed():
    """Box a is nearer to both, but taking each its nearest would leave b to a far one: the sum decides."""
    a, b = (0, 0, 10, 10), (4, 0, 14, 10)
    left, right = (2, 0, 12, 10), (20, 0, 30, 10)
    scores = of([(0, 0, a), (0, 0, b)], [(0, 0, left), (0, 0, right)])
    # a–left, b–right: GIoU 8/12 and −6/26; the other way 8/12 and 0 − 10/30.
    assert scores["localization"] == pytest.approx((2**-0.04 + 2**-2.56) / 2)


def test_the_weight_of_the_finding_decides_between_near_and_right():
    near, right, place = (1, 0, 11, 10), (3, 0, 13, 10), (0, 0, 10, 10)
    boxes, truth = [(0, 1, near), (0, 0, right)], [(0, 0, place)]
    by_place, by_name = of(boxes, truth, class_weight=0.0), of(boxes, truth, class_weight=1.0)
    assert by_place["localization"] == pytest.approx(2**-0.01 / 2)
    assert by_place["classification"] == 0  # wrong, and (2·0 − 1) / 1 is below 0
    assert by_name["localization"] == pytest.approx(2**-0.09 / 2)
    assert by_name["classification"] == 0.5
    assert (by_place["class_weight"], by_name["class_weight"]) == (0, 1)


def test_classification_is_how_much_better_than_chance():
    """Three of four findings right: of two findings (2·¾ − 1)/1, of five (5·¾ − 1)/4."""
    place = (0, 0, 10, 10)
    truth = [(image, 0, place) for image in range(4)]
    boxes = [*truth[:3], (3, 1, place)]
    assert of(boxes, truth)["classification"] == pytest.approx(0.5)
    assert of(boxes, truth, findings=5)["classification"] == pytest.approx(11 / 16)


def test_of_one_finding_every_match_is_right():
    place = (0, 0, 10, 10)
    scores = of([(0, 0, place), (0, 0, (50, 50, 60, 60))], [(0, 0, place)], findings=1)
    assert [scores[name] for name in SCORES] == pytest.approx([0.5] * 4, abs=2e-6)
    assert scores["class_weight"] == 0  # with every pair positive there is nothing to tell apart
    assert scores["findings"][0]["classification"] == 0.5


def test_without_boxes_or_truth_all_is_nothing():
    place = (0, 0, 10, 10)
    for boxes, truth, left in (([], [], (0, 0, 0)), ([(0, 0, place)], [], (0, 1, 0)), ([], [(0, 1, place)], (0, 0, 1))):
        scores = of(boxes, truth)
        assert [scores[name] for name in SCORES] == [0, 0, 0, 0]
        assert counts(scores) == left
        assert scores["class_weight"] == 0
    scores = of([(0, 0, place)], [(1, 0, place)])
    assert counts(scores) == (0, 1, 1)
    assert scores["total"] == 0


def test_of_equal_costs_the_first_is_taken():
    place = (0, 0, 10, 10)
    scores = of([(0, 1, place), (0, 0, place)], [(0, 0, place)], class_weight=0.0)
    assert scores["classification"] == 0
    scores = of([(0, 0, place), (0, 1, place)], [(0, 0, place)], class_weight=0.0)
    assert scores["classification"] == 0.5


def test_the_weight_by_hand():
    """Pairs (image, finding): predicted 00 01 10, true 00 11. Of 3·2 pairs 1 both, 2 false, 1 missed, 2 neither."""
    arguments = np.array([0, 1, 0, 0]), np.array([0, 0, 1, 1]), np.array([0, 1]), np.array([0, 1])
    assert image_level(*arguments, 2, 6) == 0  # (1·2 − 2·1) / … = 0
    assert image_level(*arguments, 2, 10) == pytest.approx((1 * 6 - 2 * 1) / sqrt(3 * 7 * 2 * 8))
    assert image_level(*arguments, 2) == 0  # the two images that appear: below 0
    assert image_level(NONE, NONE, NONE, NONE, 2) == 0


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package wants a NumPy scalar, which scikit-learn no longer returns, and a finding without matches to pass."""

    def correlation(a: np.ndarray, b: np.ndarray) -> np.float64:
        return np.float64(matthews_corrcoef(a, b) if len(a) else 0)

    monkeypatch.setattr(package, "matthews_corrcoef", correlation)


def random_rows(chance: np.random.Generator, images: int, most: int, findings: int) -> np.ndarray:
    """N×6: image, finding, box."""
    image = np.repeat(np.arange(images), chance.integers(0, most + 1, images))
    corner, sides = chance.uniform(0, 60, (len(image), 2)), chance.uniform(2, 50, (len(image), 2))
    return np.column_stack([image, chance.integers(0, findings, len(image)), corner, corner + sides])


def by_package(boxes: np.ndarray, truth: np.ndarray, images: int, findings: int, weight: float | None) -> dict:
    metric = RoDeO(list(map(str, range(findings))), class_weight_matching=weight, return_per_class=True)
    for rows in ((boxes[boxes[:, 0] == i], truth[truth[:, 0] == i]) for i in range(images)):
        metric.add(*([np.column_stack([r[:, 2:4], r[:, 4:] - r[:, 2:4], r[:, 1]])] for r in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metric.compute()
        found["w"] = metric._get_class_cost_for_matching() if weight is None else weight
    return found


def same(mine: dict, theirs: dict, key: str) -> None:
    names = ("total", "localization", "shape_matching", "classification")
    np.testing.assert_allclose([mine[n] for n in SCORES], [theirs[f"{key}/{n}"] for n in names], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("weight", "most"), [(None, 3), (None, 7), (0.0, 4), (0.3, 6), (1.0, 4), (5.0, 5)])
@pytest.mark.usefixtures("oracle")
def test_as_the_authors_package(weight: float | None, most: int):
    """200 cases each: every weight, few boxes (all ways tried) and many (the Hungarian algorithm)."""
    chance, weights, compared = np.random.default_rng(most), [], 0
    for _ in range(200):
        images, findings = int(chance.integers(1, 7)), int(chance.integers(2, 6))
        truth = random_rows(chance, images, most, findings)
        boxes = random_rows(chance, images, most, findings)
        near = truth[chance.random(len(truth)) < 0.7]  # boxes near the truth, with its finding
        sides = (near[:, 4:] - near[:, 2:4]) * chance.uniform(0.6, 1.4, (len(near), 2))
        near[:, 2:4] += chance.normal(0, 3, (len(near), 2))
        near[:, 4:] = near[:, 2:4] + sides
        boxes = np.concatenate([boxes[chance.random(len(boxes)) < 0.6], near])
        theirs = by_package(boxes, truth, images, findings, weight)
        columns = [part for r in (boxes, truth) for part in (r[:, 2:], r[:, 1].astype(int), r[:, 0].astype(int))]
        mine = rodeo(*columns, findings, weight, images * findings)
        assert mine["class_weight"] == pytest.approx(theirs["w"], abs=1e-12)
        weights.append(mine["class_weight"])
        same(mine, theirs, "RoDeO")
        for f, scores in enumerate(mine["findings"]):
            if scores["matched"]:
                same(scores, theirs, f"RoDeO/{f}")
                compared += 1
            else:  # the package has no number there
                assert scores["total"] == scores["shape"] == 0
    assert compared > 300
    assert set(weights) == {weight} if weight is not None else len(set(weights)) > 50


def test_all_ways_and_the_hungarian_algorithm_agree(monkeypatch: pytest.MonkeyPatch):
    costs = np.random.default_rng(0).normal(size=(300, 5, 3))
    for cost in (costs, costs.transpose(0, 2, 1), costs[:, :1], costs[:, :, :1], costs[:0]):
        tried = ours._cheapest(cost)
        with monkeypatch.context() as m:
            m.setattr(ours, "MOST_WAYS", 0)
            assigned = ours._cheapest(cost)
            m.setattr(ours, "MOST_WAYS", 1000)
            m.setattr(ours, "AT_ONCE", 500)  # in parts
            parts = ours._cheapest(cost)
        each = np.arange(len(cost))[:, None]
        for rows, columns in (assigned, parts):
            np.testing.assert_allclose(cost[each, rows, columns].sum(1), cost[each, tried[0], tried[1]].sum(1))
            assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch):
    chance = np.random.default_rng(3)
    boxes, truth = random_rows(chance, 80, 5, 4), random_rows(chance, 80, 3, 4)
    columns = [part for r in (boxes, truth) for part in (r[:, 2:], r[:, 1].astype(int), r[:, 0].astype(int))]
    whole = rodeo(*columns, 4)
    monkeypatch.setattr(ours, "AT_ONCE", 40)
    assert rodeo(*columns, 4) == whole
    mixed = chance.permutation(len(boxes))
    assert rodeo(*(c[mixed] for c in columns[:3]), *columns[3:], 4)["total"] == pytest.approx(whole["total"], abs=1e-12)


def known(state: list[list[int]]) -> tuple[Judged, Absent, Cover]:
    """Image 0: truth and a box of Mass, and a box of Nodule (absent). Image 1: a box of Mass (absent)."""
    place = np.array([[0.0, 0, 10, 10]])
    zeros = np.zeros(1, np.int64)
    judged = Judged(
        findings=["Mass", "Nodule"],
        pair_finding=zeros,
        pair_image=zeros,
        pair_patient=zeros,
        truth=place,
        truth_pair=zeros,
        boxes=place + 30,
        pair=zeros,
        rank=zeros + 1,
        score=np.ones(1),
        confidence=np.ones(1),
        row=zeros,
    )
    absent = Absent(
        finding=np.array([0, 1], np.int16),
        image=np.array([1, 0], np.int32),
        confidence=np.ones(2, np.float32),
        beside=np.array([1]),
        boxes=place,
    )
    images = pa.array([*"abc"[: len(state)]])
    states = np.array(state, np.int8)
    many = len(state)
    cover = Cover(["Mass", "Nodule"], images, np.arange(many), states, np.zeros(many, bool), np.full((many, 2), np.nan))
    return judged, absent, cover


def test_from_the_projects_tables():
    """Nodule's box lies on Mass's truth. At w = 0 it is the match, under a wrong name."""
    parts = known([[JUDGED, ABSENT], [ABSENT, ABSENT]])
    scores = rodeo_of(*parts, class_weight=0.0)
    assert counts(scores["all"]) == (1, 2, 0)
    assert scores["all"]["localization"] == pytest.approx(1 / 3)
    assert scores["all"]["classification"] == 0
    assert set(scores["findings"]) == {"Mass", "Nodule"}
    assert counts(scores["findings"]["Mass"]) == (1, 2, 0)
    assert counts(scores["findings"]["Nodule"]) == (0, 0, 0)
    by_name = rodeo_of(*parts, class_weight=5.0)
    assert by_name["all"]["localization"] == pytest.approx(2**-18 / 3)  # Mass's own box is 3 sides off, both ways
    assert counts(by_name["findings"]["Nodule"]) == (0, 1, 0)
    assert "findings" not in scores["all"]


def test_the_weight_leaves_unknown_pairs_out():
    """Predicted: 3 pairs, 1 of them true. Of n known pairs n − 3 are neither: (n − 3) / √(3 (n − 3) (n − 1))."""
    for state, n in (([[JUDGED, ABSENT], [ABSENT, ABSENT]], 4), ([[JUDGED, ABSENT], [ABSENT, UNKNOWN]], 3)):
        expected = (n - 3) / sqrt(3 * (n - 3) * (n - 1)) if n > 3 else 0
        assert rodeo_of(*known(state))["all"]["class_weight"] == pytest.approx(expected)


def test_half_a_score_a_side():
    """exp(−ln 2 · d²) is a half where the centre is one side of the truth box away."""
    scores = of([(0, 0, (10, 0, 20, 10))], [(0, 0, (0, 0, 10, 10))])
    assert scores["localization"] == pytest.approx(np.exp(-log(2)))
