"""Boxes from maps by hand, components against scikit-image, regions against pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from skimage.measure import label, regionprops

from cxrmine.boxes import regions
from cxrmine.boxes.extract import WAYS, component_boxes, extract, to_input
from cxrmine.errors import CxrError

masks = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda shape: arrays(bool, shape))


def two_lesions() -> np.ndarray:
    """12×12: a bright lesion with a core, a fainter one apart from it, and a speck."""
    final = np.zeros((12, 12), dtype=np.float32)
    final[1:5, 1:5] = 0.55
    final[2:4, 2:4] = 1.0
    final[7:11, 6:11] = 0.4
    final[8:10, 7:9] = 0.6
    final[0, 11] = 0.5
    return final


@pytest.mark.parametrize("way", WAYS)
def test_an_all_zero_map_has_no_box(way):
    cut = extract(np.zeros((8, 8)), way)
    assert cut.boxes.shape == (0, 4)
    assert len(cut.scores) == len(cut.thresholds) == len(cut.regions) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_negative_map_has_no_box(way):
    assert len(extract(np.full((8, 8), -1.0), way, cuts=(-2.0,)).boxes) == 0


def test_a_map_that_is_not_finite_is_an_error():
    with pytest.raises(CxrError, match="NaN"):
        extract([[0.0, np.nan], [1.0, 0.0]])


def test_an_unknown_way_names_the_nearest():
    with pytest.raises(CxrError, match="Did you mean 'peak'"):
        extract(np.ones((2, 2)), "peek")


def test_peak_by_hand():
    cut = extract(two_lesions(), "peak", cuts=(0.5, 0.9))
    assert cut.boxes.tolist() == [[2, 2, 4, 4], [1, 1, 5, 5]]  # half-open; the mean is higher in the core
    assert cut.scores.tolist() == [1.0, np.float32((12 * 0.55 + 4) / 16)]
    assert cut.thresholds.tolist() == np.float32([0.9, 0.5]).tolist()
    assert regions.decode(cut.regions[1], 12, 12).sum() == 16


def test_peak_cannot_box_the_second_lesion_and_components_can():
    final = two_lesions()
    assert (extract(final, "peak", cuts=(0.35, 0.5, 0.9)).boxes[:, 0] < 5).all()
    found = extract(final, "components", cuts=(0.35,), min_area=2 / 144).boxes.tolist()
    assert found == [[1, 1, 5, 5], [6, 7, 11, 11]]


def test_small_components_are_left_out_by_the_share_of_the_image():
    final = two_lesions()
    assert len(extract(final, "components", cuts=(0.35,), min_area=1 / 144).boxes) == 3
    assert len(extract(final, "components", cuts=(0.35,), min_area=1.1 / 144).boxes) == 2


def test_wang_cuts_at_60_and_180():
    final = np.zeros((10, 10), dtype=np.float32)
    final[2:8, 2:8] = 60 / 255
    final[4:6, 4:6] = 180 / 255
    final[0, 0] = 59 / 255
    cut = extract(final, "wang", top=0)
    assert cut.boxes.tolist() == [[4, 4, 6, 6], [2, 2, 8, 8]]


def test_nested_gives_every_lesion_a_box_before_a_second_one():
    cut = extract(two_lesions(), "nested", top=2, cuts=(0.35, 0.5, 0.9), min_area=2 / 144)
    assert cut.boxes.tolist() == [[2, 2, 4, 4], [7, 8, 9, 10]]
    assert len(extract(two_lesions(), "nested", top=0, cuts=(0.35, 0.5, 0.9), min_area=2 / 144).boxes) == 4


def test_a_box_of_two_cuts_is_kept_once_with_the_first_cut():
    final = np.zeros((6, 6), dtype=np.float32)
    final[1:3, 1:4] = 0.8
    assert extract(final, "peak", cuts=(0.3, 0.5)).thresholds.tolist() == [np.float32(0.3)]
    assert extract(final, "peak", cuts=(0.5, 0.3)).thresholds.tolist() == [0.5]


def test_at_the_cut_counts():
    assert extract([[0.5, 0.25]], "peak", cuts=(0.25,)).boxes.tolist() == [[0, 0, 2, 1]]


def test_equal_scores_rank_the_larger_box_then_the_upper_left():
    final = np.zeros((9, 9), dtype=np.float32)
    for rows, columns in (((6, 8), (5, 7)), ((3, 5), (0, 2)), ((3, 5), (5, 7)), ((0, 2), (0, 3))):
        final[slice(*rows), slice(*columns)] = 1
    ranked = extract(final, "components", top=0, min_area=0).boxes.tolist()
    assert ranked == [[0, 0, 3, 2], [0, 3, 2, 5], [5, 3, 7, 5], [5, 6, 7, 8]]


def test_top_limits():
    assert len(extract(two_lesions(), "components", top=1, cuts=(0.35,), min_area=0).boxes) == 1


def test_a_region_is_its_component_alone():
    """A ring with an island in it: the island lies in the ring's box and is not of its region."""
    final = np.zeros((9, 9), dtype=np.float32)
    final[1:8, 1:8] = 0.6
    final[2:7, 2:7] = 0
    final[4, 4] = 0.9
    cut = extract(final, "components", top=0, cuts=(0.5,), min_area=0)
    assert cut.boxes.tolist() == [[4, 4, 5, 5], [1, 1, 8, 8]]
    ring = regions.decode(cut.regions[1], 9, 9)
    assert ring.sum() == 24
    assert not ring[4, 4]


@settings(deadline=None, max_examples=150)
@given(masks)
def test_component_boxes_are_scikit_images(above):
    ours = sorted(box for box, _ in component_boxes(np.ascontiguousarray(above)))
    theirs = sorted((x0, y0, x1, y1) for y0, x0, y1, x1 in (p.bbox for p in regionprops(label(above, connectivity=2))))
    assert ours == theirs


@settings(deadline=None, max_examples=150)
@given(masks)
def test_regions_are_scikit_images(above):
    cut = extract(above.astype(np.float32), "components", top=0, cuts=(0.5,), min_area=0)
    labels = label(above, connectivity=2)
    boxed = {p.bbox: labels == p.label for p in reversed(regionprops(labels))}
    assert len(cut.boxes) == len(boxed)
    for box, rle in zip(cut.boxes.astype(int), cut.regions, strict=True):
        region = regions.decode(rle, *above.shape)
        same_box = [labels == p.label for p in regionprops(labels) if p.bbox == (box[1], box[0], box[3], box[2])]
        assert any(np.array_equal(region, other) for other in same_box)


@settings(deadline=None, max_examples=300)
@given(masks)
def test_run_lengths_are_pycocotools(mask):
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert regions.encode(mask) == theirs
    assert np.array_equal(regions.decode(theirs, *mask.shape), mask)
    assert regions.pixels(theirs) == mask.sum()


@settings(deadline=None, max_examples=150)
@given(masks, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_a_crop_is_encoded_where_it_lies(crop, left, top, right, bottom):
    frame = np.pad(crop, ((top, bottom), (left, right)))
    assert regions.encode_crop(crop, left, top, frame.shape) == regions.encode(frame)


def test_long_runs():
    frame = np.zeros((3000, 4000), dtype=bool)
    frame[5, 5] = frame[2999, 3999] = True
    assert regions.encode(frame) == coco.encode(np.asfortranarray(frame.astype(np.uint8)))["counts"]


@pytest.mark.parametrize("damaged", [b"", b"\x00", b"Z", b"oooooooooooo0", regions.encode(np.ones((3, 3), bool))])
def test_a_damaged_region_is_an_error(damaged):
    with pytest.raises(CxrError):
        regions.decode(damaged, 4, 4)


def test_area_inside_counts_parts_of_pixels():
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    assert regions.area_inside(mask, []) == 0
    assert regions.area_inside(mask, [[0, 0, 4, 4]]) == 4
    assert regions.area_inside(mask, [[1.5, 1.25, 9, 9]]) == 1.5 * 1.75
    assert regions.area_inside(mask, [[1, 1, 2, 3], [1.5, 1, 3, 2]]) == 3  # a union, not a sum
    assert regions.area_inside(mask, [[0, 0, 1, 1]]) == 0


def test_centres_puts_a_cell_on_pixel_i_times_stride():
    cells = np.array([[0, 8, 4]], dtype=np.float32)
    assert to_input(cells, (1, 12), stride=4)[0].tolist() == [0, 2, 4, 6, 8, 7, 6, 5, 4, 4, 4, 4]
    assert to_input(cells.T, (12, 1), stride=4)[:, 0].tolist() == [0, 2, 4, 6, 8, 7, 6, 5, 4, 4, 4, 4]


def test_resize_puts_a_cell_in_the_middle_of_its_tile():
    cells = np.array([[0, 8, 4]], dtype=np.float32)
    expected = [0, 0, 1, 3, 5, 7, 7.5, 6.5, 5.5, 4.5, 4, 4]
    assert to_input(cells, (1, 12), align="resize")[0].tolist() == expected


def test_resize_is_half_a_stride_to_the_lower_right():
    """A single bright cell: its weight's centre is on pixel i·stride, and (stride - 1) / 2 further with resize."""
    cells = np.zeros((9, 9), dtype=np.float32)
    cells[4, 3] = 1
    for align, shift in (("centres", 0), ("resize", 3.5)):
        final = to_input(cells, (72, 72), stride=8, align=align)
        x = (final.sum(axis=0) * np.arange(72)).sum() / final.sum()
        y = (final.sum(axis=1) * np.arange(72)).sum() / final.sum()
        assert (x, y) == pytest.approx((3 * 8 + shift, 4 * 8 + shift), abs=1e-4)


def test_stride_defaults_to_the_ratio_and_need_not_be_whole():
    cells = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(to_input(cells, (8, 12)), to_input(cells, (8, 12), stride=4))
    assert to_input(cells, (5, 7)).shape == (5, 7)
    assert to_input(cells, (200, 150), stride=70).max() <= 5  # several strips
    assert to_input([[3.0]], (4, 4)).tolist() == [[3.0] * 4] * 4


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 8, 16]))
def test_centres_is_linear_interpolation(rows, columns, stride):
    cells = np.random.default_rng(rows * 10 + columns).random((rows, columns)).astype(np.float32)
    final = to_input(cells, (rows * stride, columns * stride), stride)
    across = [np.interp(np.arange(columns * stride), np.arange(columns) * stride, row) for row in cells]
    down = [np.interp(np.arange(rows * stride), np.arange(rows) * stride, column) for column in np.transpose(across)]
    assert np.allclose(final, np.transpose(down), atol=1e-6)


def test_a_lesion_with_a_high_peak_ranks_before_a_speck_with_a_higher_mean():
    final = np.zeros((9, 9), np.float32)
    final[1:5, 1:5] = 0.35
    final[2, 2] = 1.0
    final[7, 7] = 0.6
    cut = extract(final, "components", min_area=0)
    assert cut.boxes.tolist() == [[1, 1, 5, 5], [7, 7, 8, 8]]
    np.testing.assert_allclose(cut.scores, [(15 * 0.35 + 1) / 16, 0.6], rtol=1e-6)
