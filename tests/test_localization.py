"""The measures of boxes on judged pairs, worked out by hand: Acc and AFP, the list B, IoBB, first boxes, sizes."""

from dataclasses import replace

import pytest

from cxrmine.errors import CxrError, UsageError
from cxrmine.scoring.protocols import PROTOCOLS, protocol
from tests.by_hand import MISS, TRUTH, covers, mined, score, table, truth

CAI = PROTOCOLS["cai2018"]
HALVES = [("a", "Mass", (0, 0, 5, 10)), ("a", "Mass", (5, 0, 10, 10))]


def at(scores: dict, t: str, finding: str = "Mass") -> dict:
    return scores["acc_afp"][finding][t]


# --- nothing to score


def test_no_boxes_at_all():
    scores = score(table([]), truth([("a", "Mass", TRUTH)]))
    assert at(scores, "0.1") == {"acc": 0, "afp": 0, "truth": 1, "hit": 0, "taken": 0, "false": 0, "images": 1}
    assert scores["acc_afp_iobb"]["Mass"]["0.1"] == at(scores, "0.1")
    assert scores["iobb"]["Mass"] == {"recall": 0, "precision": None, "detected": 0, "true": 0, "truth": 1, "hit": 0}
    assert scores["top1"]["Mass"] == {"mean_iou": 0, "pairs": 1, "missing": 1}
    assert scores["centre"]["Mass"] == {"share": 0, "pairs": 1, "missing": 1}
    assert scores["iou"]["Mass"]["0.1"] == scores["ior"]["Mass"]["0.1"] == 0
    assert scores["ap"]["Mass"]["0.5"] == scores["froc"]["Mass"]["iou"]["8"] == scores["rsna"]["Mass"]["score"] == 0
    rodeo = scores["rodeo"]["pooled"]
    assert (rodeo["total"], rodeo["matched"], rodeo["over"], rodeo["missed"]) == (0, 0, 0, 1)
    assert scores["by_size"]["Mass"]["0.1"] == {"small": 0, "middle": None, "large": None}
    assert scores["counts"]["judged_pairs_without_box"] == 1


def test_no_truth_at_all():
    scores = score(table([]), truth([]))
    assert "acc_afp" not in scores
    assert "top1" not in scores
    assert scores["mean"]["acc_afp"]["0.1"] == {"acc": None, "afp": None}
    assert scores["mean"]["ap"]["0.5"] is None
    assert scores["rodeo"]["pooled"]["total"] == 0
    assert (scores["counts"]["judged_pairs"], scores["size_thirds"]["up_to"]) == (0, {})


# --- Acc and AFP


def test_hit_and_false_by_hand():
    """Two images. a: hit at 0.1 to 0.5, and a miss. b: IoU 0.2."""
    boxes = table([("a", "Mass", covers(6)), ("a", "Mass", MISS), ("b", "Mass", covers(2))])
    scores = score(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]))
    assert at(scores, "0.1") == {"acc": 1, "afp": 0.5, "truth": 2, "hit": 2, "taken": 3, "false": 1, "images": 2}
    assert at(scores, "0.5") == {"acc": 0.5, "afp": 1, "truth": 2, "hit": 1, "taken": 3, "false": 2, "images": 2}
    assert at(scores, "0.7") == {"acc": 0, "afp": 1.5, "truth": 2, "hit": 0, "taken": 3, "false": 3, "images": 2}
    assert scores["top1"]["Mass"] == {"mean_iou": pytest.approx(0.4), "pairs": 2, "missing": 0}


@pytest.mark.parametrize("tenths", [1, 2, 3, 4, 5, 6, 7])
def test_a_box_at_the_threshold_is_no_hit_and_one_below_it_is(tenths):
    """IoU exactly T: Cai's rule is above T, the code of HAM takes it."""
    boxes, drawn, t = table([("a", "Mass", covers(tenths))]), truth([("a", "Mass", TRUTH)]), f"0.{tenths}"
    for rules, hit in (("cai2018", 0), ("ham2021", 0), ("ham2021-code", 1)):
        scores = score(boxes, drawn, rules)
        assert (at(scores, t)["hit"], at(scores, t)["false"]) == (hit, 1 - hit)
        assert scores["iou"]["Mass"][t] == hit
    if tenths > 1:
        assert at(score(boxes, drawn), f"0.{tenths - 1}")["hit"] == 1


def test_an_area_is_width_times_height():
    """1×1 in 3×3 is 1 of 9. With 1 added to each side it would be 4 of 16, and pass 0.2."""
    scores = score(table([("a", "Mass", (0, 0, 1, 1))]), truth([("a", "Mass", (0, 0, 3, 3))]))
    assert (at(scores, "0.1")["hit"], at(scores, "0.2")["hit"]) == (1, 0)
    assert scores["top1"]["Mass"]["mean_iou"] == pytest.approx(1 / 9)


def test_neighbours_share_nothing():
    """Half-open: a box that ends where the other begins does not touch it."""
    scores = score(table([("a", "Mass", (10, 0, 20, 10))]), truth([("a", "Mass", TRUTH)]))
    assert scores["top1"]["Mass"]["mean_iou"] == 0
    assert at(scores, "0.1")["false"] == 1


def test_a_second_box_on_a_truth_already_hit_is_not_false():
    boxes = table([("a", "Mass", covers(8)), ("a", "Mass", covers(9))])
    assert at(score(boxes, truth([("a", "Mass", TRUTH)])), "0.5")["false"] == 0


def test_one_box_may_hit_two_truths_and_each_counts():
    drawn = truth([("a", "Mass", (0, 0, 10, 6)), ("a", "Mass", (0, 4, 10, 10))])
    scores = at(score(table([("a", "Mass", TRUTH)]), drawn), "0.5")
    assert (scores["truth"], scores["hit"], scores["images"], scores["acc"]) == (2, 2, 1, 1)


def test_each_of_several_truth_boxes_is_hit_or_missed_on_its_own():
    """The box is the left half: IoU 1 with it and 0 with the right half."""
    scores = score(table([HALVES[0]]), truth(HALVES))
    assert at(scores, "0.7") == {"acc": 0.5, "afp": 0, "truth": 2, "hit": 1, "taken": 1, "false": 0, "images": 1}
    assert scores["top1"]["Mass"] == {"mean_iou": 1, "pairs": 1, "missing": 0}


def test_a_box_of_another_finding_does_not_count():
    boxes = table([("a", "Nodule", TRUTH), ("b", "Mass", TRUTH), ("z", "Mass", TRUTH)])
    scores = score(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]))
    assert at(scores, "0.1") == {"acc": 0.5, "afp": 0, "truth": 2, "hit": 1, "taken": 1, "false": 0, "images": 2}
    counts = scores["counts"]
    assert (counts["boxes"], counts["judged"], counts["unjudged"]) == (3, 1, 2)
    assert counts["images_without_truth"] == 1
    assert counts["findings_without_truth"] == ["Nodule"]


def test_the_denominators_of_afp():
    """Mass: 2 images, 3 truth boxes, 3 false boxes. Nodule: 1 image. 10 images mined. Any other denominator fails."""
    drawn = truth([("a", "Mass", TRUTH), ("a", "Mass", TRUTH), ("b", "Mass", TRUTH), ("b", "Nodule", TRUTH)])
    boxes = table([("a", "Mass", MISS), ("a", "Mass", MISS), ("b", "Mass", MISS)])
    looked_at = mined({name: {"Mass": 1} for name in "abcdefghi"} | {"j": {}, "k": {}}, unreadable="k")

    def afp(per: str, finding: str = "Mass") -> tuple[float, int]:
        scores = score(boxes, drawn, protocol("cai2018", per), looked_at=looked_at)
        return at(scores, "0.1", finding)["afp"], at(scores, "0.1", finding)["images"]

    assert afp("finding") == (3 / 2, 2)
    assert afp("finding", "Nodule") == (0, 1)
    assert afp("rows") == (3 / 4, 4)
    assert afp("rows", "Nodule") == (0, 4)
    assert afp("all") == (3 / 10, 10)  # one has no pair and counts; one could not be read and does not
    with pytest.raises(CxrError, match="table of mined images"):
        score(boxes, drawn, protocol("cai2018", "all"))


def test_the_mean_is_over_findings_not_over_boxes():
    drawn = truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH), ("c", "Mass", TRUTH), ("a", "Nodule", TRUTH)])
    scores = score(table([("a", "Nodule", TRUTH)]), drawn)
    assert scores["mean"]["acc_afp"]["0.1"]["acc"] == 0.5
    assert scores["mean"]["top1"]["mean_iou"] == 0.5


# --- the list B


def list_of_three(t: str = "0.3", order: str = "image", **more: object):
    """What is taken of a1 b1 c1 a2 b2 for a largest AFP: (taken, hit, false). a1, c1 and b2 are false."""
    drawn = truth([(image, "Mass", TRUTH) for image in "abc"])
    rows = [("a", MISS), ("a", TRUTH), ("b", TRUTH), ("b", MISS), ("c", MISS)]
    boxes = table([(image, "Mass", box) for image, box in rows], **more)

    def taken(most: float) -> tuple[int, int, int]:
        figures = at(score(boxes, drawn, replace(CAI, order=order), bounds={"Mass": {t: most}}), t)
        return figures["taken"], figures["hit"], figures["false"]

    return taken


def test_the_list_goes_by_rank_first_and_stops_at_the_bound():
    """With at most one false box for three images, c1 and what follows is not taken."""
    taken = list_of_three()
    assert taken(0) == (0, 0, 0)
    assert taken(1 / 3) == (2, 1, 1)
    assert taken(0.66) == (2, 1, 1)
    assert taken(2 / 3) == (4, 2, 2)  # a2 hits and is before b2
    assert taken(1) == (5, 2, 3)
    assert taken(9) == (5, 2, 3)


def test_inside_a_rank_the_order_may_be_by_score():
    """c1 0.9, b1 0.8, a1 0.1; then b2 0.7, a2 0.6: rank 1 is before rank 2 whatever the score."""
    taken = list_of_three(order="score", score=[0.1, 0.6, 0.8, 0.7, 0.9])
    assert taken(0) == (0, 0, 0)
    assert taken(1 / 3) == (2, 1, 1)  # c1, b1
    assert taken(2 / 3) == (3, 1, 2)  # and a1
    assert taken(1) == (5, 2, 3)


def test_equal_scores_go_by_image():
    """Both boxes of rank 1 score the same: a is first and false, so b's hit is not taken."""
    drawn = truth([(image, "Mass", TRUTH) for image in "ab"])
    boxes = table([("b", "Mass", TRUTH), ("a", "Mass", MISS)])
    for order in ("image", "score"):
        assert at(score(boxes, drawn, replace(CAI, order=order), bounds={"Mass": {"0.1": 0.0}}), "0.1")["taken"] == 0
    boxes = table([("b", "Mass", MISS), ("a", "Mass", TRUTH)])
    for order in ("image", "score"):
        assert at(score(boxes, drawn, replace(CAI, order=order), bounds={"Mass": {"0.1": 0.0}}), "0.1")["hit"] == 1


def test_a_bound_is_of_its_finding_and_its_threshold():
    drawn = truth([("a", "Mass", TRUTH), ("a", "Nodule", TRUTH)])
    scores = score(table([("a", "Mass", MISS), ("a", "Nodule", MISS)]), drawn, bounds={"Nodule": {"0.1": 0.0}})
    assert (at(scores, "0.1")["taken"], at(scores, "0.1", "Nodule")["taken"]) == (1, 0)
    assert at(scores, "0.2", "Nodule")["taken"] == 1
    assert scores["acc_afp_iobb"]["Nodule"]["0.1"]["taken"] == 1  # bounds are of AFP by IoU
    assert score(table([("a", "Mass", MISS)]), drawn, bounds={})["acc_afp"]["Mass"]["0.1"]["taken"] == 1


def test_a_bound_is_over_the_protocols_images():
    """2 false boxes; 1 image has a Mass, 4 truth boxes are in all: 0.5 an image allows none, and 2 per 4 rows both."""
    drawn = truth([("a", "Mass", TRUTH), *((image, "Nodule", TRUTH) for image in "abc")])
    boxes = table([("a", "Mass", MISS), ("a", "Mass", MISS)])
    for per, taken in (("finding", 0), ("rows", 2)):
        scores = score(boxes, drawn, protocol("cai2018", per), bounds={"Mass": {"0.1": 0.5}})
        assert at(scores, "0.1")["taken"] == taken


# --- by the predicted box's own area


def test_iobb_by_hand():
    """The first box is 10×10 with a quarter on the truth, the second 4×10 with half: IoBB 0.25 and 0.5; one is far."""
    boxes = table([("a", "Mass", (7.5, 0, 17.5, 10)), ("a", "Mass", (8, 0, 12, 10)), ("b", "Mass", MISS)])
    scores = score(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]))
    by_iobb = scores["acc_afp_iobb"]["Mass"]
    assert by_iobb["0.1"] == {"acc": 0.5, "afp": 0.5, "truth": 2, "hit": 1, "taken": 3, "false": 1, "images": 2}
    assert by_iobb["0.25"] == {"acc": 0.5, "afp": 1, "truth": 2, "hit": 1, "taken": 3, "false": 2, "images": 2}
    assert by_iobb["0.5"] == {"acc": 0, "afp": 1.5, "truth": 2, "hit": 0, "taken": 3, "false": 3, "images": 2}
    assert set(by_iobb) == {"0.1", "0.25", "0.5", "0.75", "0.9"}
    assert at(scores, "0.1")["hit"] == 1  # 25 of 175, and 20 of 120
    assert at(scores, "0.2")["hit"] == 0


def test_iobb_counts_boxes_for_precision_and_truth_for_recall():
    """a: three boxes on the left half, none on the right one. b: a box that is at IoBB 0.25, which is not above."""
    inside = [("a", "Mass", (0, 0, 1 + k, 10)) for k in range(3)]
    boxes = table([*inside, ("b", "Mass", (0, 0, 20, 20))])
    scores = score(boxes, truth([*HALVES, ("b", "Mass", TRUTH)]))
    figures = {"detected": 4, "true": 3, "truth": 3, "hit": 1, "recall": pytest.approx(1 / 3), "precision": 0.75}
    assert scores["iobb"]["Mass"] == scores["iobb"]["pooled"] == figures
    at_it = score(boxes, truth([*HALVES, ("b", "Mass", TRUTH)]), "ham2021-code")["iobb"]["Mass"]
    assert (at_it["true"], at_it["hit"]) == (4, 2)


def test_iobb_pools_boxes_and_its_mean_is_over_findings():
    """Mass: 1 of 1 box true. Nodule: 0 of 3. Precision 1/4 pooled, 1/2 as a mean."""
    boxes = table([("a", "Mass", TRUTH), *[("a", "Nodule", MISS)] * 3])
    scores = score(boxes, truth([("a", "Mass", TRUTH), ("a", "Nodule", TRUTH)]))
    assert scores["iobb"]["pooled"] == {
        "detected": 4, "true": 1, "truth": 2, "hit": 1, "recall": 0.5, "precision": 0.25,
    }  # fmt: skip
    assert scores["mean"]["iobb"] == {"recall": 0.5, "precision": 0.5}


# --- first boxes


def test_top1_is_the_lowest_rank_and_a_missing_pair_counts_0():
    boxes = table([("a", "Mass", covers(9)), ("a", "Mass", covers(4))], rank=[2, 1])
    scores = score(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]))
    assert scores["top1"]["Mass"] == {"mean_iou": pytest.approx(0.2), "pairs": 2, "missing": 1}


def test_top1_is_with_the_nearest_truth_box():
    """The first box is the left half, which is the second truth box."""
    boxes = table([("a", "Mass", (0, 0, 5, 10)), ("a", "Mass", TRUTH)])
    assert score(boxes, truth(HALVES[::-1]))["top1"]["Mass"]["mean_iou"] == 1


def test_each_truth_box_counts_with_the_first_box_of_its_pair():
    """a has two truth boxes: the first box is one of them (IoU 1) and beside the other (0). b: 0.2; of c it is missing.

    Over the pairs it would be (1 + 0.2 + 0) / 3. The Nodule's truth box is met exactly: over all five boxes 2.2 / 5.
    """
    boxes = table(
        [("a", "Mass", (0, 0, 5, 10)), ("a", "Mass", TRUTH), ("b", "Mass", covers(2)), ("b", "Nodule", TRUTH)]
    )
    drawn = truth([*HALVES, ("b", "Mass", TRUTH), ("c", "Mass", TRUTH), ("b", "Nodule", TRUTH)])
    scores = score(boxes, drawn, "irnet2021")
    assert scores["truth_iou"]["Mass"] == {"mean_iou": pytest.approx(1.2 / 4), "truth": 4, "missing": 1}
    assert scores["truth_iou"]["pooled"] == {"mean_iou": pytest.approx(2.2 / 5), "truth": 5, "missing": 1}
    assert scores["mean"]["truth_iou"]["mean_iou"] == pytest.approx((0.3 + 1) / 2)
    assert scores["top1"]["Mass"]["mean_iou"] == pytest.approx(1.2 / 3)


def test_two_truth_boxes_of_a_pair_that_has_no_box_are_both_missing():
    scores = score(table([]), truth(HALVES))
    assert scores["truth_iou"]["Mass"] == {"mean_iou": 0, "truth": 2, "missing": 2}


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((0, 0, 10, 10), 1),  # centre 5, 5
        ((-5, -5, 5, 5), 1),  # 0, 0: the truth begins there
        ((5, 5, 15, 15), 0),  # 10, 10: it ends before
        ((0, 0, 20, 8), 0),  # 10, 4
        ((0, 0, 18, 18), 1),  # 9, 9
        ((0, 0, 40, 2), 0),
    ],
)
def test_whether_the_first_boxs_centre_lies_in_the_truth(box, inside):
    scores = score(table([("a", "Mass", box), ("a", "Mass", TRUTH)]), truth([("a", "Mass", TRUTH)]))
    assert scores["centre"]["Mass"] == {"share": inside, "pairs": 1, "missing": 0}


def test_a_centre_may_lie_in_any_truth_box_and_counts_once():
    overlapping = [("a", "Mass", TRUTH), ("a", "Mass", (2, 2, 12, 12)), ("b", "Mass", TRUTH)]
    scores = score(table([("a", "Mass", (6, 6, 8, 8))]), truth(overlapping))
    assert scores["centre"]["Mass"] == {"share": 0.5, "pairs": 2, "missing": 1}


# --- by the size of the truth


def squares(*areas: int) -> list[tuple]:
    return [(f"{i}", "Mass", (0, 0, area, 1)) for i, area in enumerate(areas)]


@pytest.mark.parametrize(
    ("areas", "edges", "sizes"),
    [
        ((1, 2, 3), (1, 2), (1, 1, 1)),
        ((6, 5, 4, 3, 2, 1), (2, 4), (2, 2, 2)),
        ((1, 1, 1, 1, 5, 9), (1, 1), (4, 0, 2)),  # equal areas are in one third, whatever becomes of the others
        ((3, 3, 3), (3, 3), (3, 0, 0)),
        ((1, 2, 2, 2, 2, 9), (2, 2), (5, 0, 1)),
        ((7,), (7, 7), (1, 0, 0)),
    ],
)
def test_thirds_by_area_keep_equal_areas_together(areas, edges, sizes):
    """A perfect box for each: the share that is hit is 1 wherever a third has a truth box."""
    rows = squares(*areas)
    scores = score(table(rows), truth(rows))
    assert scores["size_thirds"] == {
        "unit": "square pixels", "up_to": {"small": edges[0], "middle": edges[1]},
    }  # fmt: skip
    by_size = scores["by_size"]["Mass"]["0.5"]
    assert by_size == {name: 1 if n else None for name, n in zip(by_size, sizes, strict=True)}


def test_hits_are_counted_in_the_truths_third():
    """Six truth boxes in two findings, 1 to 6 wide. Boxes on 1, 3, 4 and 6: 1 of 2, 2 of 2 and 1 of 2 are hit."""
    drawn = [(f"{n}", "Mass" if n % 2 else "Nodule", (0, 0, n, 1)) for n in range(1, 7)]
    scores = score(table([row for row in drawn if row[0] in "1346"]), truth(drawn))
    assert scores["size_thirds"]["up_to"] == {"small": 2, "middle": 4}
    assert scores["by_size"]["Mass"]["0.7"] == {"small": 1, "middle": 1, "large": 0}  # 1, 3, 5
    assert scores["by_size"]["Nodule"]["0.7"] == {"small": 0, "middle": 1, "large": 1}  # 2, 4, 6
    assert scores["mean"]["by_size"]["0.7"] == {"small": 0.5, "middle": 1, "large": 0.5}


# --- what is refused


def test_boxes_in_another_frame_are_refused():
    boxes = table([("a", "Mass", covers(5))], image_width=[50])
    with pytest.raises(CxrError, match="a has image_width 50 here and 100 in the truth"):
        score(boxes, truth([("a", "Mass", TRUTH)]))


def test_boxes_of_other_images_are_refused():
    with pytest.raises(CxrError, match="None of the 1 images"):
        score(table([("z", "Mass", TRUTH)]), truth([("a", "Mass", TRUTH)]))


def test_unknown_rules_name_the_nearest():
    for wrong in (("cai",), ("cai2018", "findings"), ("cai2018", None, "scores")):
        with pytest.raises(UsageError, match="Did you mean"):
            protocol(*wrong)


def test_boxacc_is_a_share_of_pairs_and_takes_the_threshold_itself():
    """Of two pairs one has a box at exactly .5; with >, at .5 none would be hit."""
    boxes = table([("a", "Mass", MISS, 1), ("a", "Mass", covers(5), 2), ("b", "Mass", MISS, 1)])
    scores = score(boxes, truth([("a", "Mass", TRUTH), ("b", "Mass", TRUTH)]))["boxacc"]["Mass"]
    assert [scores[t]["acc"] for t in ("0.3", "0.5", "0.7")] == [0.5, 0.5, 0]
    assert scores["mean"] == pytest.approx(1 / 3)
