"""Scores worked out by hand: a row of boxes whose IoU with the truth is a known fraction."""

import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cxrmine.boxes import regions
from cxrmine.boxes.geometry import mean_box
from cxrmine.boxes.table import COORDINATES, IMAGES_SCHEMA, SCHEMA, build, truth_table
from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.controls import box_controls, fold, random_control, random_map
from cxrmine.scoring.localization import acc_afp, judge, match
from cxrmine.scoring.protocols import PROTOCOLS, protocol
from cxrmine.scoring.scores import score_boxes

CAI = PROTOCOLS["cai2018"]
NIH = Path(__file__).parents[2] / "shared" / "data" / "nih" / "BBox_List_2017.csv"
TRUTH = (0, 0, 10, 10)


def covers(tenths: float) -> tuple[float, ...]:
    """A box inside TRUTH whose IoU with it is tenths / 10."""
    return (0, 0, tenths, 10)


MISS = (50, 50, 60, 60)


def table(rows: list[tuple], schema: pa.Schema = SCHEMA, **more: object) -> pa.Table:
    """Rows of (image, finding, box) or (image, finding, box, rank)."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("image_id", "finding"))}
    columns |= {name: [float(row[2][i]) for row in rows] for i, name in enumerate(COORDINATES)}
    columns |= {"image_width": [100] * len(rows), "image_height": [100] * len(rows), **more}
    if schema is SCHEMA:
        columns |= {"rank": [row[3] if len(row) > 3 else 1 for row in rows], "score": [0.5] * len(rows)}
        return build(schema, columns | more)
    return truth_table(columns)


def truth(rows: list[tuple], **more: object) -> pa.Table:
    return table(rows, schema=None, **more)


def at(scores: dict, t: str, finding: str = "Mass") -> dict:
    return scores["acc_afp"][finding][t]


def test_no_boxes_at_all():
    scores = score_boxes(table([]), truth([("a", "Mass", TRUTH)]), CAI)
    assert at(scores, "0.1") == {"acc": 0, "afp": 0, "truth": 1, "hit": 0, "taken": 0, "false": 0, "images": 1}
    assert scores["top1"]["Mass"] == {"mean_iou": 0, "pairs": 1, "missing": 1}
    assert scores["iou"]["Mass"]["0.1"] == scores["ior"]["Mass"]["0.1"] == 0
    assert scores["counts"]["judged_pairs_without_box"] == 1


def test_no_truth_at_all():
    scores = score_boxes(table([]), truth([]), CAI)
    assert scores["acc_afp"] == scores["top1"] == {}
    assert scores["mean"]["acc_afp"]["0.1"] == {"acc": None, "afp": None}


def test_hit_and_false_by_hand():
    """Two images. a: hit at 0.1 to 0.5, and a miss. b: IoU 0.2."""
    boxes = table([("a", "Mass", covers(6), 1), ("a", "Mass", MISS, 2), ("b", "Mass", covers(2), 1)])
    scores = score_boxes(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]), CAI)
    assert at(scores, "0.1") == {"acc": 1, "afp": 0.5, "truth": 2, "hit": 2, "taken": 3, "false": 1, "images": 2}
    assert at(scores, "0.5") == {"acc": 0.5, "afp": 1, "truth": 2, "hit": 1, "taken": 3, "false": 2, "images": 2}
    assert at(scores, "0.7") == {"acc": 0, "afp": 1.5, "truth": 2, "hit": 0, "taken": 3, "false": 3, "images": 2}
    assert scores["top1"]["Mass"] == {"mean_iou": pytest.approx(0.4), "pairs": 2, "missing": 0}


def test_cai_is_strictly_above_and_the_code_of_ham_is_not():
    boxes, drawn = table([("a", "Mass", covers(5))]), truth([("a", "Mass", TRUTH)])
    assert at(score_boxes(boxes, drawn, CAI), "0.5")["hit"] == 0
    assert at(score_boxes(boxes, drawn, PROTOCOLS["ham2021"]), "0.5")["hit"] == 0
    assert at(score_boxes(boxes, drawn, PROTOCOLS["ham2021-code"]), "0.5")["hit"] == 1
    assert score_boxes(boxes, drawn, PROTOCOLS["ham2021"])["iou"]["Mass"]["0.5"] == 0
    assert score_boxes(boxes, drawn, PROTOCOLS["ham2021-code"])["iou"]["Mass"]["0.5"] == 1


def test_a_second_box_on_a_truth_already_hit_is_not_false():
    boxes = table([("a", "Mass", covers(8), 1), ("a", "Mass", covers(9), 2)])
    assert at(score_boxes(boxes, truth([("a", "Mass", TRUTH)]), CAI), "0.5")["false"] == 0


def test_one_box_may_hit_two_truths_and_each_counts():
    drawn = truth([("a", "Mass", (0, 0, 10, 6)), ("a", "Mass", (0, 4, 10, 10))])
    scores = at(score_boxes(table([("a", "Mass", TRUTH)]), drawn, CAI), "0.5")
    assert (scores["truth"], scores["hit"], scores["images"], scores["acc"]) == (2, 2, 1, 1)


def test_a_box_of_another_finding_does_not_count():
    boxes = table([("a", "Nodule", TRUTH), ("b", "Mass", TRUTH), ("z", "Mass", TRUTH)])
    drawn = truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)])
    scores = score_boxes(boxes, drawn, CAI)
    assert at(scores, "0.1") == {"acc": 0.5, "afp": 0, "truth": 2, "hit": 1, "taken": 1, "false": 0, "images": 2}
    counts = scores["counts"]
    assert (counts["boxes"], counts["judged"], counts["unjudged"]) == (3, 1, 2)
    assert counts["images_without_truth"] == 1
    assert counts["findings_without_truth"] == ["Nodule"]


def test_the_denominators_of_afp():
    """Mass: 2 images, 3 truth boxes, 3 false boxes. Nodule: 1 image. 10 images mined. Any other denominator fails."""
    drawn = truth([("a", "Mass", TRUTH), ("a", "Mass", TRUTH), ("b", "Mass", TRUTH), ("b", "Nodule", TRUTH)])
    boxes = table([("a", "Mass", MISS, 1), ("a", "Mass", MISS, 2), ("b", "Mass", MISS, 1)])
    found = ["Mass"] * 9 + [None, None]
    status = ["ok"] * 9 + ["no pair", "unreadable: cut off"]
    images = build(IMAGES_SCHEMA, {"image_id": [*"abcdefghijk"], "finding": found, "status": status})

    def afp(per: str, finding: str = "Mass") -> tuple[float, int]:
        scores = score_boxes(boxes, drawn, protocol("cai2018", per), images=images)
        return at(scores, "0.1", finding)["afp"], at(scores, "0.1", finding)["images"]

    assert afp("finding") == (3 / 2, 2)
    assert afp("finding", "Nodule") == (0, 1)
    assert afp("rows") == (3 / 4, 4)
    assert afp("all") == (3 / 10, 10)  # one has no pair and counts; one could not be read and does not
    with pytest.raises(CxrError, match="table of mined images"):
        score_boxes(boxes, drawn, protocol("cai2018", "all"))


def test_the_list_goes_by_rank_first_and_stops_at_the_bound():
    """List B is a1 b1 c1 a2 b2: with at most one false box for three images, c1 and what follows is not taken."""
    drawn = truth([(image, "Mass", TRUTH) for image in "abc"])
    boxes = table(
        [
            ("a", "Mass", MISS, 1),
            ("a", "Mass", TRUTH, 2),
            ("b", "Mass", TRUTH, 1),
            ("b", "Mass", MISS, 2),
            ("c", "Mass", MISS, 1),
        ]
    )
    judged = judge(boxes, drawn)

    def taken(most: float) -> tuple[int, int, int]:
        bounds = {"Mass": {"0.3": most}}
        figures = acc_afp(judged, match(judged), CAI, np.array([3]), bounds)["Mass"]["0.3"]
        return figures["taken"], figures["hit"], figures["false"]

    assert taken(0) == (0, 0, 0)
    assert taken(1 / 3) == (2, 1, 1)
    assert taken(2 / 3) == (4, 2, 2)  # a2 hits and is before b2
    assert taken(1) == (5, 2, 3)
    assert taken(0.66) == (2, 1, 1)
    unbounded = acc_afp(judged, match(judged), CAI, np.array([3]), {})["Mass"]["0.3"]
    assert unbounded["taken"] == 5


def test_inside_a_rank_the_order_is_by_image_or_by_score():
    drawn = truth([(image, "Mass", TRUTH) for image in "ab"])
    boxes = table([("a", "Mass", MISS), ("b", "Mass", TRUTH)], score=[0.1, 0.9])
    judged = judge(boxes, drawn)
    for order, hit in (("image", 0), ("score", 1)):
        rules = replace(CAI, order=order)
        figures = acc_afp(judged, match(judged), rules, np.array([2]), {"Mass": {"0.1": 0.0}})
        assert figures["Mass"]["0.1"]["hit"] == hit


def test_bounds_are_per_finding():
    drawn = truth([("a", "Mass", TRUTH), ("a", "Nodule", TRUTH)])
    boxes = table([("a", "Mass", MISS), ("a", "Nodule", MISS)])
    judged = judge(boxes, drawn)
    figures = acc_afp(judged, match(judged), CAI, np.array([1, 1]), {"Nodule": {"0.1": 0.0}})
    assert figures["Mass"]["0.1"]["taken"] == 1
    assert figures["Nodule"]["0.1"]["taken"] == 0


def test_iou_and_ior_of_a_pair_are_of_the_union():
    """Two predicted halves of the truth and one box beside it: union 15 × 10, of which 10 × 10 is truth."""
    boxes = table([("a", "Mass", covers(5), 1), ("a", "Mass", (5, 0, 15, 10), 2), ("a", "Mass", covers(5), 3)])
    scores = score_boxes(boxes, truth([("a", "Mass", TRUTH)]), CAI)
    assert scores["iou"]["Mass"]["0.6"] == 1
    assert scores["iou"]["Mass"]["0.7"] == 0  # 100 / 150
    assert scores["ior"]["Mass"]["0.5"] == 1
    assert scores["ior"]["Mass"]["0.75"] == 0


def test_regions_of_which_none_is_judged():
    """Every box is of a finding without truth on an image with truth: nothing is matched, and nothing breaks."""
    region = {"region": [regions.encode(np.ones((4, 4), dtype=bool))], "region_height": [4], "region_width": [4]}
    scores = score_boxes(table([("a", "Nodule", TRUTH)], **region), truth([("a", "Mass", TRUTH)]), CAI)
    assert scores["counts"]["unjudged"] == 1
    assert scores["iou"]["Mass"]["0.1"] == 0


def test_regions_are_scored_where_the_protocol_says_so():
    """A region of the left column of a 4×4 frame, in a box over all of it; the truth is the left half of 100×100."""
    frame = np.zeros((4, 4), dtype=bool)
    frame[:, 0] = True
    region = {"region": [regions.encode(frame)], "region_height": [4], "region_width": [4]}
    boxes = table([("a", "Mass", (0, 0, 100, 100))], **region)
    drawn = truth([("a", "Mass", (0, 0, 50, 100))])
    by_region = score_boxes(boxes, drawn, CAI)
    assert by_region["ior"]["Mass"]["0.9"] == 1  # all of the region is truth
    assert by_region["iou"]["Mass"]["0.4"] == 1  # 25 of 50
    assert by_region["iou"]["Mass"]["0.5"] == 0
    by_boxes = score_boxes(boxes, drawn, PROTOCOLS["ham2021"])
    assert by_boxes["ior"]["Mass"]["0.25"] == 1
    assert by_boxes["ior"]["Mass"]["0.5"] == 0


def test_a_region_in_a_padded_frame():
    """A film 100 wide and 50 high in a 4×4 frame lies in rows 1 and 2."""
    frame = np.zeros((4, 4), dtype=bool)
    frame[0:3, 0:2] = True  # the first row is beside the film
    region = {"region": [regions.encode(frame)], "region_height": [4], "region_width": [4]}
    boxes = table([("a", "Mass", (0, 0, 50, 50))], image_height=[50], **region)
    drawn = truth([("a", "Mass", (0, 0, 50, 50))], image_height=[50])
    assert score_boxes(boxes, drawn, CAI, fit="pad")["iou"]["Mass"]["0.7"] == 1
    assert score_boxes(boxes, drawn, CAI, fit="stretch")["iou"]["Mass"]["0.7"] == 1  # 3 of 4 rows
    frame[3, :2] = True
    boxes = table([("a", "Mass", (0, 0, 50, 50))], image_height=[50], **region | {"region": [regions.encode(frame)]})
    assert score_boxes(boxes, drawn, CAI, fit="pad")["ior"]["Mass"]["0.9"] == 1


def test_top1_is_the_lowest_rank_and_a_missing_pair_counts_0():
    boxes = table([("a", "Mass", covers(9), 2), ("a", "Mass", covers(4), 1)])
    scores = score_boxes(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]), CAI)
    assert scores["top1"]["Mass"] == {"mean_iou": pytest.approx(0.2), "pairs": 2, "missing": 1}


def test_the_mean_is_over_findings_not_over_boxes():
    drawn = truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH), ("c", "Mass", TRUTH), ("a", "Nodule", TRUTH)])
    scores = score_boxes(table([("a", "Nodule", TRUTH)]), drawn, CAI)
    assert scores["mean"]["acc_afp"]["0.1"]["acc"] == 0.5
    assert scores["mean"]["top1"]["mean_iou"] == 0.5


def test_boxes_in_another_frame_are_refused():
    boxes = table([("a", "Mass", covers(5))], image_width=[50])
    with pytest.raises(CxrError, match="a has image_width 50 here and 100 in the truth"):
        score_boxes(boxes, truth([("a", "Mass", TRUTH)]), CAI)


def test_boxes_of_other_images_are_refused():
    with pytest.raises(CxrError, match="None of the 1 images"):
        score_boxes(table([("z", "Mass", TRUTH)]), truth([("a", "Mass", TRUTH)]), CAI)


def test_unknown_rules_name_the_nearest():
    for wrong in (("cai",), ("cai2018", "findings")):
        with pytest.raises(UsageError, match="Did you mean"):
            protocol(*wrong)


def patients_truth(n: int, split: str, start: int = 0) -> pa.Table:
    """One box a patient, 10 wide at x = its number, on films of 100×50."""
    rows = [(f"i{k}", "Mass", (k % 40, 0, k % 40 + 10, 10)) for k in range(start, start + n)]
    patients = [f"p{k}" for k in range(start, start + n)]
    return truth(rows, patient_id=patients, split=[split] * n, image_height=[50] * n)


def test_controls_come_from_training_patients_where_there_are_any():
    scored, train = patients_truth(3, "test"), patients_truth(4, "train", start=2)  # p2 is in both
    tables, origin = box_controls(scored, pa.concat_tables([scored, train]))
    assert origin == {"Mass": "train split, other patients"}
    mean = tables["mean box"]
    assert mean["x_min"].to_pylist() == [4, 4, 4]  # of 3, 4, 5
    assert mean["x_max"].to_pylist() == [14, 14, 14]
    assert set(mean["source"].to_pylist()) == {"mean box"}
    assert tables["typical box"]["x_min"].to_pylist() == [4, 4, 4]


def test_controls_otherwise_come_from_the_other_folds():
    scored = patients_truth(30, "test")
    tables, origin = box_controls(scored, scored)
    assert origin == {"Mass": "scored patients, 5 folds by patient"}
    for row in tables["mean box"].to_pylist():
        others = [k for k in range(30) if fold(f"p{k}") != fold(row["patient_id"])]
        assert row["x_min"] == pytest.approx(np.mean(others), rel=1e-6)


def test_controls_are_scaled_to_the_image():
    train = truth([("t", "Mass", (10, 10, 20, 20))], patient_id=["t"], split=["train"])
    scored = truth([("a", "Mass", (0, 0, 1, 1))], patient_id=["a"], split=["test"], image_width=[200])
    box = box_controls(scored, pa.concat_tables([scored, train]))[0]["mean box"].to_pylist()[0]
    assert [box[name] for name in COORDINATES] == [20, 10, 40, 20]


def test_controls_without_references_or_sizes_give_no_box():
    lone = patients_truth(1, "test")
    assert len(box_controls(lone, lone)[0]["typical box"]) == 0
    unsized = truth([("a", "Mass", TRUTH)], image_width=[None])
    assert len(box_controls(unsized, unsized)[0]["mean box"]) == 0
    assert len(random_control(unsized, {})) == 0
    empty = truth([])
    assert len(random_control(empty, {})) == 0
    assert box_controls(empty, empty)[1] == {}


def test_the_random_map_is_its_names_and_seeds():
    first = random_map("a", "Mass", 64)
    assert np.array_equal(first, random_map("a", "Mass", 64))
    assert not np.array_equal(first, random_map("a", "Nodule", 64))
    assert not np.array_equal(first, random_map("a", "Mass", 64, seed=1))
    assert 0 <= first.min() < first.max() <= 1


def test_the_random_control_is_cut_as_the_recipe_says():
    scored = patients_truth(5, "test")
    recipe = {"mine": {"way": "components", "top": 2, "cuts": [0.4], "rounds": 3}, "data": {"size": 96}}
    boxes = random_control(scored, recipe)
    assert set(boxes["threshold"].to_pylist()) == {np.float32(0.4)}
    assert max(boxes["rank"].to_pylist()) <= 2
    assert set(boxes["region_height"].to_pylist()) == {96}
    assert max(boxes["x_max"].to_pylist()) <= 100
    assert max(boxes["y_max"].to_pylist()) <= 50
    assert len(random_control(scored, {"data": {"fit": "pad"}})) > 0


def nih() -> dict:
    if not NIH.exists():
        pytest.skip("the NIH box list is not beside this checkout")
    with NIH.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    x, y, w, h = np.array([[float(v) for v in row[2:6]] for row in rows]).T
    return {
        "image_id": [row[0] for row in rows],
        "finding": [row[1] for row in rows],
        "patient_id": [row[0][:8] for row in rows],
        "image_width": [1024] * len(rows),
        "image_height": [1024] * len(rows),
        "x_min": x,
        "y_min": y,
        "x_max": x + w,
        "y_max": y + h,
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_nih_truth_against_itself(name):
    drawn = truth_table(nih())
    scores = score_boxes(drawn, drawn, PROTOCOLS[name])
    for t in ("0.1", "0.7"):
        assert scores["mean"]["acc_afp"][t] == {"acc": 1, "afp": 0}
        assert scores["mean"]["iou"][t] == 1
    assert scores["mean"]["top1"] == {"mean_iou": 1}
    assert scores["counts"]["judged_pairs"] == scores["counts"]["judged"] == 984
    assert scores["counts"]["judged_images"] == 880


def test_a_mean_box_finds_hearts_and_nothing_else():
    columns = nih()
    drawn, finding = truth_table(columns), np.array(columns["finding"])
    corners = np.stack([columns[name] for name in COORDINATES], axis=1)
    means = np.concatenate([mean_box(corners[finding == name]) for name in finding])
    boxes = build(SCHEMA, columns | dict(zip(COORDINATES, means.T, strict=True)) | {"rank": [1] * len(finding)})
    acc = score_boxes(boxes, drawn, CAI)["acc_afp"]
    heart = [round(acc["Cardiomegaly"][t]["acc"], 3) for t in ("0.1", "0.3", "0.5")]
    assert heart == [1.000, 0.993, 0.856]
    assert max(acc[name]["0.5"]["acc"] for name in acc if name != "Cardiomegaly") < 0.0085


def test_half_a_million_boxes_are_matched_in_seconds():
    pairs, each = 60_000, 3
    names = [f"{i // 2:08}.png" for i in range(pairs)]
    noise = np.random.default_rng(0)
    low = noise.random((pairs, 2)) * 60
    corners = np.concatenate([low, low + 5 + noise.random((pairs, 2)) * 30], axis=1)
    findings = [("Mass", "Nodule")[i % 2] for i in range(pairs)]
    drawn = truth(list(zip(names, findings, corners, strict=True)))
    repeated = {name: np.repeat(corners[:, i], each) for i, name in enumerate(COORDINATES)}
    boxes = build(
        SCHEMA,
        {"image_id": np.repeat(names, each), "finding": np.repeat(findings, each), "rank": [1, 2, 3] * pairs}
        | repeated,
    )
    start = time.perf_counter()
    judged = judge(boxes, drawn)
    figures = acc_afp(judged, match(judged), CAI, np.array([1, 1]))
    assert time.perf_counter() - start < 5  # 0.1 s where nothing else runs
    assert figures["Mass"]["0.7"]["acc"] == 1
