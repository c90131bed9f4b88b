"""A pair's whole prediction against all its truth: unions of boxes, and regions in every frame, by hand."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cxrmine.boxes import regions
from cxrmine.boxes.geometry import union_overlap, union_overlaps
from cxrmine.errors import CxrError
from cxrmine.scoring import pairs
from tests.by_hand import MISS, TRUTH, Box, covers, score, table, truth

LEFT, RIGHT = (0, 0, 5, 10), (5, 0, 10, 10)
FILM = (0, 0, 100, 100)


def region(*masks: npt.ArrayLike) -> dict[str, Any]:
    """Columns of the regions of as many boxes."""
    arrays = [np.asarray(mask, dtype=bool) for mask in masks]
    return {
        "region": [regions.encode(mask) for mask in arrays],
        "region_height": [len(mask) for mask in arrays],
        "region_width": [mask.shape[1] for mask in arrays],
    }


def frame(rows: slice, columns: slice, side: int = 4) -> npt.NDArray[np.bool_]:
    mask = np.zeros((side, side), dtype=bool)
    mask[rows, columns] = True
    return mask


def passed(scores: dict, measure: str, finding: str = "Mass") -> list[str]:
    """The thresholds that all pairs pass; every other one no pair does."""
    shares = scores[measure][finding]
    assert set(shares.values()) <= {0, 1}
    return [t for t, share in shares.items() if share]


# --- boxes


def test_iou_and_ior_of_a_pair_are_of_the_union():
    """Two predicted halves of the truth and one box beside it: union 15 × 10, of which 10 × 10 is truth."""
    boxes = table([("a", "Mass", covers(5)), ("a", "Mass", (5, 0, 15, 10)), ("a", "Mass", covers(5))])
    scores = score(boxes, truth([("a", "Mass", TRUTH)]))
    assert passed(scores, "iou") == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]  # 100 / 150
    assert passed(scores, "ior") == ["0.1", "0.25", "0.5"]


def test_several_truth_boxes_are_one_too():
    """Halves of the truth that overlap: 10 × 6 and 10 × 6 make 10 × 10, and the box is 4 of it."""
    drawn = truth([("a", "Mass", (0, 0, 10, 6)), ("a", "Mass", (0, 4, 10, 10))])
    scores = score(table([("a", "Mass", covers(4))]), drawn)
    assert passed(scores, "iou") == ["0.1", "0.2", "0.3"]  # exactly 0.4, and not above it
    assert passed(scores, "ior") == ["0.1", "0.25", "0.5", "0.75", "0.9"]
    assert passed(score(table([("a", "Mass", covers(4))]), drawn, "ham2021-code"), "iou")[-1] == "0.4"


@pytest.mark.parametrize(("width", "t"), [(100, "0.1"), (40, "0.25"), (20, "0.5")])
def test_ior_at_the_threshold_passes_only_where_the_protocol_says_so(width, t):
    """The predicted box is 1/T of the truth and has it all."""
    boxes, drawn = table([("a", "Mass", (0, 0, width, 10))]), truth([("a", "Mass", TRUTH)])
    for rules, share in (("ham2021", 0), ("ham2021-code", 1)):
        assert score(boxes, drawn, rules)["ior"]["Mass"][t] == share


def test_each_pair_has_its_own_boxes():
    """a: all of one truth box of two; b: nothing; c: a miss, and a truth box of another finding where the miss is."""
    drawn = [
        ("a", "Mass", LEFT),
        ("a", "Mass", RIGHT),
        ("b", "Mass", TRUTH),
        ("c", "Mass", TRUTH),
        ("c", "Nodule", MISS),
    ]
    boxes = [("a", "Mass", LEFT), ("c", "Mass", MISS), ("c", "Nodule", MISS)]
    scores = score(table(boxes), truth(drawn))
    assert scores["iou"]["Mass"]["0.4"] == pytest.approx(1 / 3)
    assert scores["iou"]["Mass"]["0.5"] == 0
    assert scores["ior"]["Mass"]["0.9"] == pytest.approx(1 / 3)
    assert passed(scores, "iou", "Nodule")[-1] == "0.7"
    assert scores["mean"]["ior"]["0.9"] == pytest.approx(2 / 3)


def test_many_groups_of_boxes_at_once_are_each_group_alone():
    """Whole and broken coordinates; boxes that touch, repeat, or lie within each other."""
    noise = np.random.default_rng(0)
    for k, m, whole in ((1, 1, True), (3, 2, True), (2, 5, False), (6, 1, True), (0, 2, True)):
        low = noise.integers(0, 8, (40, k + m, 2)) + (0 if whole else noise.random((40, k + m, 2)))
        boxes = np.concatenate([low, low + noise.integers(1, 6, (40, k + m, 2))], axis=2).astype(float)
        boxes[::4, -1] = boxes[::4, 0]
        together = np.stack(union_overlaps(boxes[:, :k], boxes[:, k:]), axis=1)
        alone = [union_overlap(group[:k], group[k:]) for group in boxes]
        assert together == pytest.approx(np.array(alone), rel=1e-12, abs=1e-12)
        assert (together[:, 1:] > 0).all(axis=0).tolist() == [k > 0, True]


def test_no_group_at_all():
    none = np.empty((0, 3, 4))
    assert [values.shape for values in union_overlaps(none, none[:, :1])] == [(0,)] * 3


def test_pairs_are_measured_the_same_however_many_go_together(monkeypatch):
    noise = np.random.default_rng(1)
    rows = []
    for image in range(60):
        for _ in range(1 + image % 4):
            x, y, w, h = noise.integers(1, 30, 4)
            rows.append((f"{image:02}", "Mass", (x, y, x + w, y + h)))
    boxes, drawn = table(rows[::2] + rows[:40]), truth(rows[1::2])
    images = set(drawn["image_id"].to_pylist())
    boxes = boxes.filter([image in images for image in boxes["image_id"].to_pylist()])
    at_once = score(boxes, drawn)
    monkeypatch.setattr(pairs, "CELLS", 500)  # a few groups at a time
    assert score(boxes, drawn) == at_once
    assert 0 < at_once["iou"]["Mass"]["0.3"] < 1


# --- regions


def test_regions_are_scored_where_the_protocol_says_so():
    """A region of the left column of a 4×4 frame, in a box over all of it; the truth is the left half of 100×100."""
    boxes = table([("a", "Mass", FILM)], **region(frame(slice(4), slice(1))))
    drawn = truth([("a", "Mass", (0, 0, 50, 100))])
    by_region = score(boxes, drawn)
    assert passed(by_region, "ior")[-1] == "0.9"  # all of the region is truth
    assert passed(by_region, "iou")[-1] == "0.4"  # 25 of 50
    by_boxes = score(boxes, drawn, "ham2021")
    assert passed(by_boxes, "ior")[-1] == "0.25"
    assert passed(score(boxes, drawn, "ham2021-code"), "iou")[-1] == "0.5"


def test_the_regions_of_a_pair_are_one():
    """Two columns of four, one of them twice: half of the film, and all of the truth."""
    first, second = frame(slice(4), slice(1)), frame(slice(4), slice(1, 2))
    boxes = table([("a", "Mass", FILM)] * 3, **region(first, second, first))
    scores = score(boxes, truth([("a", "Mass", (0, 0, 50, 100))]))
    assert (passed(scores, "iou")[-1], passed(scores, "ior")[-1]) == ("0.7", "0.9")


def test_truth_is_cut_to_the_regions_frame_exactly():
    """The truth is 30 of 100 wide, 1.2 columns of the 4×4 frame: the region of one column has 4 of 4.8 cells."""
    boxes = table([("a", "Mass", FILM)], **region(frame(slice(4), slice(1))))
    drawn = truth([("a", "Mass", (0, 0, 30, 100))])
    scores = score(boxes, drawn)
    assert (passed(scores, "iou")[-1], passed(scores, "ior")[-1]) == ("0.7", "0.9")
    drawn = truth([("a", "Mass", (0, 0, 11, 100))])  # 0.44 of one column
    scores = score(boxes, drawn)
    assert (passed(scores, "iou")[-1], passed(scores, "ior")[-1]) == ("0.4", "0.25")


def test_a_pair_of_which_a_region_is_missing_counts_by_its_boxes():
    columns = region(frame(slice(4), slice(1)), frame(slice(4), slice(1)), frame(slice(4), slice(1)))
    columns["region"][1] = columns["region_height"][1] = columns["region_width"][1] = None
    boxes = table([("a", "Mass", FILM), ("a", "Mass", TRUTH), ("b", "Mass", FILM)], **columns)
    scores = score(boxes, truth([(image, "Mass", (0, 0, 25, 100)) for image in "ab"]))
    assert scores["iou"]["Mass"]["0.7"] == 0.5  # b by its region, a by a box over all the film
    assert scores["ior"]["Mass"]["0.1"] == 1
    assert scores["ior"]["Mass"]["0.25"] == 0.5


def test_regions_belong_to_their_boxes_whatever_their_order():
    """Findings are judged one after another, but come image by image: each still has its own region."""
    masks = [frame(slice(4), slice(i, i + 1)) for i in range(4)]
    rows = [("a", "Mass", FILM), ("a", "Nodule", FILM), ("b", "Mass", FILM), ("b", "Nodule", FILM)]
    drawn = [(*row[:2], (25 * i, 0, 25 * i + 25, 100)) for i, row in enumerate(rows)]
    scores = score(table(rows, **region(*masks)), truth(drawn))
    assert scores["mean"]["iou"]["0.7"] == 1
    wrong = score(table(rows, **region(*masks[::-1])), truth(drawn))
    assert wrong["mean"]["iou"]["0.1"] == 0


def test_regions_of_which_none_is_judged():
    """Every box is of a finding without truth on an image with truth: nothing is matched, and nothing breaks."""
    boxes = table([("a", "Nodule", TRUTH)], **region(np.ones((4, 4))))
    scores = score(boxes, truth([("a", "Mass", TRUTH)]))
    assert scores["counts"]["unjudged"] == 1
    assert passed(scores, "iou") == []


def padded(mask: npt.NDArray[np.bool_], fit: str, box: Box = (0, 0, 50, 50)) -> dict:
    """A film 100 wide and 50 high, of which the left half is truth."""
    boxes = table([("a", "Mass", box)], image_height=[50], **region(mask))
    return score(boxes, truth([("a", "Mass", (0, 0, 50, 50))], image_height=[50]), fit=fit)


def test_a_region_in_a_padded_frame():
    """In a 4×4 frame the film lies in rows 1 and 2; what is beside it is no prediction."""
    upper = frame(slice(0, 3), slice(0, 2))
    assert passed(padded(upper, "pad"), "iou")[-1] == "0.7"
    assert passed(padded(upper, "stretch"), "iou")[-1] == "0.7"  # 3 of 4 rows
    everything = frame(slice(4), slice(2))
    assert passed(padded(everything, "pad"), "ior")[-1] == "0.9"
    beside = frame(slice(0, 1), slice(4))
    assert passed(padded(beside, "pad"), "iou") == passed(padded(beside, "pad"), "ior") == []
    assert passed(padded(beside, "stretch"), "ior")[-1] == "0.25"  # half of the row, exactly 0.5


def test_regions_that_cannot_be_compared_are_refused():
    drawn = truth([("a", "Mass", TRUTH)])
    two_frames = table([("a", "Mass", FILM)] * 2, **region(np.ones((4, 4)), np.ones((8, 8))))
    with pytest.raises(CxrError, match="not in one square frame"):
        score(two_frames, drawn)
    with pytest.raises(CxrError, match="not in one square frame"):
        score(table([("a", "Mass", FILM)], **region(np.ones((4, 8)))), drawn)
    unsized = {"image_width": [None], "image_height": [None]}
    with pytest.raises(CxrError, match="of known size"):
        score(
            table([("a", "Mass", FILM)], **region(np.ones((4, 4))), **unsized), truth([("a", "Mass", TRUTH)], **unsized)
        )
