"""What needs all images, as figures: AP, FROC, the RSNA score, RoDeO and false boxes per normal image, by hand."""

from math import sqrt

import numpy as np
import pytest

from cxrmine.scoring import scores as scoring
from cxrmine.scoring.figures import Key
from cxrmine.scoring.truth import Asked, read
from tests.by_hand import MISS, TRUTH, covers, mined, score, scored, table, truth

SEEN = {  # a, b, c, d and n were mined; b and n are normal; whether d has a Mass is uncertain
    "a": {"Mass": 1, "Nodule": 0},
    "b": {"Mass": 0, "Nodule": 0},
    "c": {"Mass": 0, "Nodule": 1},
    "d": {"Mass": -1, "Nodule": 0},
    "n": {"Mass": 0, "Nodule": 0},
}
DRAWN = [("a", "Mass", TRUTH), ("c", "Nodule", TRUTH)]
BOXES = [  # and their score
    ("a", "Mass", TRUTH, 0.9),
    ("b", "Mass", MISS, 0.8),
    ("b", "Mass", MISS, 0.7),
    ("b", "Nodule", MISS, 0.6),
    ("c", "Mass", (0, 0, 10, 8), 0.5),
    ("c", "Nodule", covers(5), 0.4),
    ("d", "Mass", TRUTH, 0.95),
]


def measured(boxes: list[tuple] = BOXES, drawn: list[tuple] = DRAWN, seen: dict = SEEN, **options: object) -> dict:
    made = table(boxes, score=[row[3] for row in boxes])
    return score(made, truth(drawn), looked_at=mined(seen), **options)


def test_what_counts_is_counted():
    counts = measured()["counts"]
    assert (counts["judged_pairs"], counts["absent_pairs"], counts["normal_images"]) == (2, 7, 2)
    assert (counts["boxes"], counts["judged"], counts["unjudged"], counts["unjudged_on_absent_pairs"]) == (7, 2, 5, 4)
    assert (counts["mined_pairs"], counts["unjudged_pairs"]) == (10, 8)


def test_false_boxes_per_normal_image():
    """b and n are normal: two Masses and a Nodule on two images. The box of c is false too, but c is not normal."""
    scores = measured()
    assert scores["false_per_normal"] == {
        "Mass": {"boxes": 1, "normal_images": 2},
        "Nodule": {"boxes": 0.5, "normal_images": 2},
        "pooled": {"boxes": 1.5},
    }
    assert scores["mean"]["false_per_normal"] == {"boxes": 0.75}


def test_an_image_is_normal_where_every_finding_was_asked_for_and_denied():
    def normal(asked: int = 2, seen: dict = SEEN, unreadable: str = "") -> int:
        looked_at = mined(seen, unreadable, asked)
        made = table(BOXES, score=[row[3] for row in BOXES])
        return score(made, truth(DRAWN), looked_at=looked_at)["counts"]["normal_images"]

    assert normal() == 2
    assert normal(asked=14) == 0  # the network knows twelve more
    assert normal(unreadable="n") == 1
    assert normal(seen=SEEN | {"n": {"Mass": 0}}) == 1
    scores = score(table([]), truth(DRAWN), looked_at=mined(SEEN, asked=14))
    assert "false_per_normal" not in scores


def test_an_image_with_a_box_of_any_finding_is_not_normal():
    """n has a box of a Hernia, which is not judged."""
    everything = truth([*DRAWN, ("n", "Hernia", TRUTH)])
    assert measured(everything=everything)["counts"]["normal_images"] == 1
    elsewhere = truth([*DRAWN, ("z", "Hernia", TRUTH)])  # not mined, and no matter of b's or n's
    assert measured(everything=elsewhere)["counts"]["normal_images"] == 2


def test_ap_is_over_judged_and_absent_pairs():
    """Mass: true, then three false. Nodule: false, then true at IoU 0.5. The Mass of d, the surest, is unknown."""
    scores = measured()
    assert scores["ap"]["Mass"]["0.3"] == 1
    assert scores["ap"]["Nodule"]["0.3"] == pytest.approx(0.5)
    assert scores["mean"]["ap"]["0.3"] == pytest.approx(0.75)
    assert (scores["ap"]["Nodule"]["0.5"], scores["ap"]["Nodule"]["0.5:0.95"]) == (0, 0)  # above 0.5
    coco = measured(rules="coco")["ap"]["Nodule"]  # or at it, once of ten
    assert (coco["0.5"], coco["0.5:0.95"]) == pytest.approx((0.5, 0.05))
    voc = measured(rules="vinbig")["ap"]["Nodule"]
    assert voc["0.4"] == pytest.approx(0.5)


def test_froc_is_over_the_images_that_count():
    """Nodule: one false box before the hit, on 5 images: 0.2 an image, so nothing at 1/8 and all from 1/4 on."""
    scores = measured()["froc"]
    assert set(scores["Mass"]["iou"].values()) == {1}
    assert list(scores["Nodule"]["iou"].values()) == pytest.approx([0, 1, 1, 1, 1, 1, 1, 6 / 7])
    assert scores["Nodule"]["centre"] == scores["Nodule"]["iou"]


def test_the_rsna_score_counts_an_absent_pair_with_a_box_as_0():
    """Mass: a 1, b and c 0. Nodule: c passes 0.4 and 0.45 of eight, b 0."""
    scores = measured()
    assert scores["rsna"]["Mass"] == {"score": pytest.approx(1 / 3), "images": 3}
    assert scores["rsna"]["Nodule"] == {"score": pytest.approx(1 / 8), "images": 2}
    assert scores["mean"]["rsna"]["score"] == pytest.approx((1 / 3 + 1 / 8) / 2)


def test_rodeo_is_over_all_findings_together():
    """Matched: a's box exactly, and on c the Nodule, half as wide and so off by a quarter. Over: 3 on b, 1 on c.

    On c a Mass of GIoU 0.8 is beside it: 0.5 + w is more, w being (2·9 − 5·2) / √(5·4·2·7) = 0.48.
    """
    scores = measured()["rodeo"]
    localization, shape, classification = (1 + 2 ** -(0.25**2)) / 6, (1 + 0.5) / 6, 2 / 6
    expected = {
        "localization": localization, "shape": shape, "classification": classification, "matched": 2, "over": 4,
        "missed": 0, "class_weight": 8 / sqrt(280),
        "total": 3 / sum(1 / (part + 1e-6) for part in (localization, shape, classification)),
    }  # fmt: skip
    assert scores["pooled"] == pytest.approx(expected)
    assert (scores["Mass"]["matched"], scores["Mass"]["over"], scores["Nodule"]["over"]) == (1, 3, 1)


def test_rodeo_of_very_many_boxes_is_made_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(scoring, "MOST_FOR_RODEO", 6)
    assert "rodeo" not in measured()
    assert measured(rules="rodeo")["rodeo"]["pooled"]["matched"] == 2
    monkeypatch.setattr(scoring, "MOST_FOR_RODEO", 7)
    assert measured()["rodeo"]["pooled"]["matched"] == 2


def test_ties_go_by_image():
    """One hit and one false box of the same score: 1 where the hit's image is first, else 1/2."""
    for hit, other, ap in (("a", "b", 1), ("b", "a", 0.5)):
        boxes = [(hit, "Mass", TRUTH, 0.5), (other, "Mass", MISS, 0.5)]
        scores = measured(boxes, [(hit, "Mass", TRUTH)], {hit: {"Mass": 1}, other: {"Mass": 0}})
        assert scores["ap"]["Mass"]["0.5"] == pytest.approx(ap)
        assert scores["froc"]["Mass"]["iou"]["0.25"] == 0  # boxes of one score come together: 1 false on 2 images
        assert scores["froc"]["Mass"]["iou"]["0.5"] == 1


def test_one_box_on_two_truth_boxes():
    """IoU 0.5 with either half. AP and RSNA give it one of them; FROC both."""
    halves = [("a", "Mass", (0, 0, 5, 10)), ("a", "Mass", (5, 0, 10, 10))]
    scores = measured([("a", "Mass", TRUTH, 0.5)], halves, {"a": {"Mass": 1}})
    assert scores["ap"]["Mass"]["0.4"] == pytest.approx(51 / 101)
    assert scores["froc"]["Mass"]["iou"]["0.125"] == 1
    assert scores["rsna"]["Mass"]["score"] == pytest.approx(2 / 8 * 1 / 2)
    rodeo = scores["rodeo"]["pooled"]
    assert (rodeo["matched"], rodeo["over"], rodeo["missed"]) == (1, 0, 1)


def test_two_boxes_on_one_truth_box():
    """The surer one takes it; the other is false for AP and RSNA, and nothing for FROC."""
    boxes = [("a", "Mass", covers(8), 0.9), ("a", "Mass", TRUTH, 0.8), ("b", "Mass", TRUTH, 0.7)]
    scores = measured(boxes, [("a", "Mass", TRUTH), ("b", "Mass", TRUTH)], {"a": {"Mass": 1}, "b": {"Mass": 1}})
    assert scores["ap"]["Mass"]["0.5"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores["froc"]["Mass"]["iou"]["0.125"] == 1
    assert scores["rsna"]["Mass"]["score"] == pytest.approx((1 / 2 + 1) / 2)


def test_how_sure_a_box_is_may_take_the_pairs_probability():
    """By score b's false box is first; times the probability, 0.45 is before 0.09. A pair without one counts as 1."""
    boxes = table([("a", "Mass", TRUTH), ("b", "Mass", MISS)], score=[0.5, 0.9], probability=[0.9, 0.1])
    seen, drawn = mined({"a": {"Mass": 1}, "b": {"Mass": 0}}), truth([("a", "Mass", TRUTH)])
    assert score(boxes, drawn, looked_at=seen)["ap"]["Mass"]["0.5"] == pytest.approx(0.5)
    assert score(boxes, drawn, looked_at=seen, by="product")["ap"]["Mass"]["0.5"] == 1
    bare = table([("a", "Mass", TRUTH), ("b", "Mass", MISS)], score=[0.5, 0.9], probability=[0.9, None])
    assert score(bare, drawn, looked_at=seen, by="product")["ap"]["Mass"]["0.5"] == pytest.approx(0.5)


def test_readers_who_looked_at_every_image_make_what_has_no_box_absent(tmp_path):
    """b was looked at and has no box: its Mass is false, and it is normal. Without that word nothing is known of b."""
    path = tmp_path / "truth.csv"
    path.write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "a,Nodule/Mass,8,R1,0,0,10,10\nb,No finding,14,R1,,,,\n"
    )
    drawn = read(Asked(path))
    size = {"image_width": [None] * 2, "image_height": [None] * 2}
    boxes = table([("a", "Nodule/Mass", TRUTH), ("b", "Nodule/Mass", MISS)], score=[0.5, 0.9], **size)
    scores = score(boxes, drawn.judged, labels=drawn.labels)
    assert scores["ap"]["Nodule/Mass"]["0.5"] == pytest.approx(0.5)
    assert scores["false_per_normal"]["Nodule/Mass"] == {"boxes": 1, "normal_images": 1}
    scores = score(boxes, drawn.judged)
    assert scores["ap"]["Nodule/Mass"]["0.5"] == 1
    assert "false_per_normal" not in scores
    assert (scores["counts"]["unjudged"], scores["counts"]["images_without_truth"]) == (1, 1)


def test_ap_has_an_interval_where_the_tables_show_it():
    shown = {rules: measured(rules=rules, samples=20)["intervals"]["ap"]["Mass"] for rules in ("cai2018", "coco")}
    assert {t for t, ends in shown["cai2018"].items() if ends} == {"0.3", "0.5"}
    assert {"0.5", "0.75", "0.5:0.95"} <= {t for t, ends in shown["coco"].items() if ends}


def test_false_boxes_of_normal_images_have_an_interval_by_patient():
    """b and n are two patients of five: none, one or more of them is drawn."""
    low, high = measured(samples=300)["intervals"]["false_per_normal"]["Mass"]["boxes"]
    assert (low, high) == (0, 2)


def test_the_normal_images_of_a_patient_come_together():
    """b has two boxes and n none: one an image in every sample that has the patient of both, and else no figure."""
    looked_at = mined({name: {"Mass": int(name == "a")} for name in "abn"}, patients={"a": "p", "b": "q", "n": "q"})
    boxes = table([("a", "Mass", TRUTH), ("b", "Mass", MISS), ("b", "Mass", MISS)])
    made = scored(boxes, truth([("a", "Mass", TRUTH)]), looked_at=looked_at, samples=100).figures
    assert made.samples is not None
    column = made.samples[:, list(made.values).index(Key("false_per_normal", "Mass", "", "boxes"))]
    assert set(column[np.isfinite(column)]) == {1}
    assert np.isnan(column).any()
