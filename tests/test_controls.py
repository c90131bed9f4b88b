"""What would be scored without looking: where the boxes come from, how they are placed, and that they are told."""

import numpy as np
import pyarrow as pa
import pytest

from cxrmine.scoring import controls
from cxrmine.scoring.controls import (
    IN_SAMPLE,
    MOST_RANDOM,
    SOME_RANDOM,
    box_controls,
    fold,
    placed_on,
    random_control,
    random_map,
)
from cxrmine.tables import COORDINATES
from tests.by_hand import TRUTH, score, truth


def patients_truth(n: int, split: str, start: int = 0, each: int = 1) -> pa.Table:
    """`each` images of a patient, one box an image, 10 wide at x = the patient's number, on films of 100×50."""
    people = np.repeat(np.arange(start, start + n), each).tolist()
    rows = [(f"i{k}-{i % each}", "Mass", (k % 40, 0, k % 40 + 10, 10)) for i, k in enumerate(people)]
    columns = {"patient_id": [f"p{k}" for k in people], "split": [split] * len(rows)}
    return truth(rows, **columns, image_height=[50] * len(rows))


def test_controls_come_from_training_patients_where_there_are_any():
    scored, train = patients_truth(3, "test"), patients_truth(4, "train", start=2)  # p2 is in both
    tables, origin = box_controls(scored, pa.concat_tables([scored, train]))
    assert origin == {"Mass": "train split, other patients"}
    mean = tables["mean box"]
    assert mean["x_min"].to_pylist() == [4, 4, 4]  # of 3, 4, 5
    assert mean["x_max"].to_pylist() == [14, 14, 14]
    assert set(mean["source"].to_pylist()) == {"mean box"}
    assert tables["typical box"]["x_min"].to_pylist() == [4, 4, 4]
    assert tables[IN_SAMPLE]["x_min"].to_pylist() == [1, 1, 1]  # of 0, 1, 2: what is scored


def test_controls_otherwise_come_from_the_other_folds():
    scored = patients_truth(30, "test", each=2)
    tables, origin = box_controls(scored, scored)
    assert origin == {"Mass": "scored patients, 5 folds by patient"}
    for row in tables["mean box"].to_pylist():
        others = [k for k in range(30) if fold(f"p{k}") != fold(row["patient_id"])]
        assert row["x_min"] == pytest.approx(np.mean(others), rel=1e-6)
    assert set(tables[IN_SAMPLE]["x_min"].to_pylist()) == {np.float32(np.mean(range(30)))}


def test_one_patient_alone_has_no_other():
    """However many images: they are all in one fold."""
    lone = patients_truth(1, "test", each=7)
    tables, _ = box_controls(lone, lone)
    assert [len(tables[name]) for name in ("mean box", "typical box", IN_SAMPLE)] == [0, 0, 7]


def test_an_image_without_a_patient_stands_for_itself():
    rows = [(f"i{k}", "Mass", (k, 0, k + 10, 10)) for k in range(30)]
    scored = truth(rows)
    for row in box_controls(scored, scored)[0]["mean box"].to_pylist():
        others = [k for k in range(30) if fold(f"i{k}") != fold(row["image_id"])]
        assert row["x_min"] == pytest.approx(np.mean(others), rel=1e-6)


def test_each_finding_has_its_own_box():
    train = truth([("t", "Mass", (10, 10, 20, 20)), ("t", "Nodule", (60, 60, 70, 70))], split=["train"] * 2)
    scored = truth([("a", "Mass", TRUTH), ("a", "Nodule", TRUTH), ("a", "Effusion", TRUTH)], split=["test"] * 3)
    tables, origin = box_controls(scored, pa.concat_tables([scored, train]))
    mean = tables["mean box"]
    assert list(zip(*(mean[name].to_pylist() for name in ("finding", "x_min")), strict=True)) == [
        ("Mass", 10), ("Nodule", 60),
    ]  # fmt: skip
    assert origin["Effusion"] == "scored patients, 5 folds by patient"  # where nobody else has one


def test_controls_are_scaled_to_the_image():
    train = truth([("t", "Mass", (10, 10, 20, 20))], patient_id=["t"], split=["train"])
    scored = truth([("a", "Mass", (0, 0, 1, 1))], patient_id=["a"], split=["test"], image_width=[200])
    box = box_controls(scored, pa.concat_tables([scored, train]))[0]["mean box"].to_pylist()[0]
    assert [box[name] for name in COORDINATES] == [20, 10, 40, 20]


def test_controls_may_be_put_on_further_pairs():
    """b has no Mass: the box is the same; where b's size is not known, there is none."""
    train = truth([("t", "Mass", (10, 10, 20, 20))], split=["train"])
    scored = truth([("a", "Mass", TRUTH)], split=["test"])
    for width, images in ((100, ["a", "b"]), (None, ["a"])):
        others = truth([("b", "Mass", TRUTH)], image_width=[width]).select(controls.PAIR)
        tables, _ = box_controls(scored, pa.concat_tables([scored, train]), others)
        for name in ("mean box", "typical box"):
            assert tables[name]["image_id"].to_pylist() == images
            assert set(tables[name]["x_min"].to_pylist()) == {10}


def test_controls_without_references_or_sizes_give_no_box():
    lone = patients_truth(1, "test")
    assert len(box_controls(lone, lone)[0]["typical box"]) == 0
    unsized = truth([("a", "Mass", TRUTH)], image_width=[None])
    for name, boxes in box_controls(unsized, unsized)[0].items():
        assert len(boxes) == 0, name
    assert len(random_control(placed_on(unsized, None), {})[0]) == 0
    empty = truth([])
    assert len(random_control(placed_on(empty, None), {})[0]) == 0
    assert box_controls(empty, empty)[1] == {}


def test_of_many_references_some_at_equal_steps_are_compared(monkeypatch):
    """The first, the fifth and the last, at x = 0, 1 and 2; the other seven are at 30."""
    monkeypatch.setattr(controls, "MOST_REFERENCES", 3)
    places = {0: 0, 4: 1, 9: 2}
    rows = [(f"t{k}", "Mass", (places.get(k, 30), 0, places.get(k, 30) + 10, 10)) for k in range(10)]
    train = truth(rows, split=["train"] * 10)
    scored = truth([("a", "Mass", TRUTH)], split=["test"])
    tables, _ = box_controls(scored, pa.concat_tables([scored, train]))
    assert tables["typical box"]["x_min"].to_pylist() == [1]
    assert tables["mean box"]["x_min"].to_pylist() == [np.float32(21.3)]  # of all ten


def test_the_in_sample_mean_box_looks_better_than_one_of_other_patients():
    """Of a single box it is that box, and nobody else has one."""
    drawn = truth([("a", "Mass", TRUTH)], patient_id=["p"])
    tables, _ = box_controls(drawn, drawn)
    assert score(tables[IN_SAMPLE], drawn)["top1"]["Mass"]["mean_iou"] == 1
    assert score(tables["mean box"], drawn)["top1"]["Mass"] == {"mean_iou": 0, "pairs": 1, "missing": 1}


# --- the random map


def test_the_random_map_is_its_names_and_seeds():
    first = random_map("a", "Mass", 64)
    assert np.array_equal(first, random_map("a", "Mass", 64))
    assert not np.array_equal(first, random_map("a", "Nodule", 64))
    assert not np.array_equal(first, random_map("a", "Mass", 64, seed=1))
    assert 0 <= first.min() < first.max() <= 1


def test_the_random_control_is_cut_as_the_recipe_says():
    pairs = placed_on(patients_truth(5, "test"), None)
    recipe = {"mine": {"way": "components", "top": 2, "cuts": [0.4], "rounds": 3}, "data": {"size": 96}}
    boxes, on = random_control(pairs, recipe)
    assert on.equals(pairs)
    assert set(boxes["threshold"].to_pylist()) == {np.float32(0.4)}
    assert max(boxes["rank"].to_pylist()) <= 2
    assert set(boxes["region_height"].to_pylist()) == {96}
    assert max(boxes["x_max"].to_pylist()) <= 100
    assert max(boxes["y_max"].to_pylist()) <= 50
    assert len(random_control(pairs, {"data": {"fit": "pad"}})[0]) > 0


def test_of_many_pairs_some_at_equal_steps_have_a_random_map(monkeypatch):
    monkeypatch.setattr(controls, "MOST_RANDOM", 3)
    monkeypatch.setattr(controls, "SOME_RANDOM", 3)
    boxes, on = random_control(placed_on(patients_truth(9, "test"), None), {})
    assert on["image_id"].to_pylist() == ["i0-0", "i4-0", "i8-0"]
    assert set(boxes["image_id"].to_pylist()) == set(on["image_id"].to_pylist())


def test_of_a_thousand_pairs_all_get_a_random_map_and_of_more_five_hundred():
    for many, expected in ((MOST_RANDOM, MOST_RANDOM), (MOST_RANDOM + 1, SOME_RANDOM)):
        drawn = truth([(f"{i:05}", "Mass", TRUTH) for i in range(many)])
        assert len(random_control(placed_on(drawn, None), {})[1]) == expected
