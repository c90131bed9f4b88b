"""Boxes by hand: half-open, no +1, and nothing breaks on none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrmine.boxes import geometry as g

NONE = np.empty((0, 4))
LEFT, RIGHT = [0, 0, 2, 2], [1, 0, 3, 2]  # share one column of two: 2 of 6
whole = st.integers(0, 8)
some_boxes = st.lists(st.tuples(whole, whole, st.integers(1, 5), st.integers(1, 5)), max_size=6).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=float).reshape(-1, 4)
)


@pytest.mark.parametrize("function", [g.area, g.mean_box, g.typical_box, g.disjoint, g.as_boxes])
def test_no_box_in_none_out(function):
    assert len(function([])) == 0
    assert len(function(NONE)) == 0


def test_no_box_in_pairs():
    assert g.iou(NONE, NONE).shape == (0,)
    assert g.iou_matrix(NONE, [LEFT]).shape == (0, 1)
    assert g.clip([], 5, 5).shape == (0, 4)
    assert g.scale(NONE, 2, 3).shape == (0, 4)
    assert g.union_overlap([], []) == (0, 0, 0)
    assert g.union_overlap([LEFT], []) == (0, 4, 0)


@pytest.mark.parametrize(
    ("a", "b", "shared", "iou", "ior"),
    [
        (LEFT, LEFT, 4, 1, 1),
        (LEFT, RIGHT, 2, 2 / 6, 2 / 4),
        ([0, 0, 4, 4], [1, 1, 3, 3], 4, 4 / 16, 4 / 16),
        ([1, 1, 3, 3], [0, 0, 4, 4], 4, 4 / 16, 1),  # IoR is over the first, the predicted one
        ([0, 0, 2, 2], [2, 0, 4, 2], 0, 0, 0),  # half-open: neighbours share nothing
        ([0, 0, 1, 1], [0, 0, 10, 1], 1, 0.1, 1),
        ([3, 3, 3, 5], [0, 0, 9, 9], 0, 0, 0),  # no width, no area
        ([5, 5, 2, 2], [0, 0, 9, 9], 0, 0, 0),  # inverted
        ([0.5, 0, 1.5, 1], [1, 0, 2, 1], 0.5, 1 / 3, 0.5),
    ],
)
def test_overlap_by_hand(a, b, shared, iou, ior):
    assert g.intersection([a], [b])[0] == shared
    assert g.iou([a], [b])[0] == pytest.approx(iou)
    assert g.ior([a], [b])[0] == pytest.approx(ior)


def test_a_ratio_that_is_a_threshold_is_it_exactly():
    tenth = np.array([[0, 0, 1, 1]], dtype=np.float32)
    assert g.iou(tenth, np.array([[0, 0, 10, 1]], dtype=np.float32))[0] == 0.1


@given(some_boxes, some_boxes)
def test_matrix_is_row_by_row(a, b):
    i, j = np.meshgrid(np.arange(len(a)), np.arange(len(b)), indexing="ij")
    for rows, matrix in ((g.iou, g.iou_matrix), (g.intersection, g.intersection_matrix)):
        assert np.array_equal(matrix(a, b).ravel(), rows(a[i.ravel()], b[j.ravel()]))


@given(some_boxes, some_boxes)
def test_union_is_what_pixels_say(a, b):
    def painted(boxes):
        canvas = np.zeros((16, 16), dtype=bool)
        for x0, y0, x1, y1 in boxes.astype(int):
            canvas[y0:y1, x0:x1] = True
        return canvas

    in_a, in_b = painted(a), painted(b)
    assert g.union_overlap(a, b) == ((in_a & in_b).sum(), in_a.sum(), in_b.sum())
    cells = g.disjoint(a)
    assert g.area(cells).sum() == in_a.sum()
    assert np.array_equal(painted(cells), in_a)


def test_clip_and_scale():
    assert g.clip([[-1, 2, 12, 30], [20, 20, 30, 30]], 10, 25).tolist() == [[0, 2, 10, 25], [10, 20, 10, 25]]
    assert g.scale([[1, 2, 3, 4]], 2, 10).tolist() == [[2, 20, 6, 40]]
    assert g.scale([LEFT, RIGHT], [1, 2], [1, 3]).tolist() == [[0, 0, 2, 2], [2, 0, 6, 6]]


def test_mean_box():
    assert g.mean_box([[0, 0, 2, 2], [2, 4, 6, 10]]).tolist() == [[1, 2, 4, 6]]


def test_typical_box_is_one_of_them():
    crowd = [[0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 5, 5], [50, 50, 60, 60]]
    assert g.typical_box(crowd).tolist() == [[0, 0, 4, 5]]
    assert g.typical_box([RIGHT]).tolist() == [RIGHT]


def test_typical_box_tie_takes_the_first():
    assert g.typical_box([LEFT, RIGHT]).tolist() == [LEFT]
    assert g.typical_box([RIGHT, LEFT]).tolist() == [RIGHT]
    assert g.typical_box([[9, 9, 9, 9], LEFT]).tolist() == [[9, 9, 9, 9]]  # both overlap nothing
