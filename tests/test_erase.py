"""Erasure by hand on 5×5 maps, and against scikit-image on random ones."""

import numpy as np
import pytest
from skimage.measure import label

from cxrmine.boxes.erase import aggregate, erase, next_mask, normalise, peak_component
from cxrmine.errors import CxrError

DIAGONAL = np.array(
    [
        [4, 0, 0, 0, 0],
        [0, 3, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 2, 3],
        [0, 0, 0, 0, -8],
    ],
    dtype=np.float32,
)


def every_round(raw, rounds):
    """The same weights in every round: what Mine.fixed_weights does."""
    return erase(np.broadcast_to(raw, (rounds, *np.shape(raw))))


def test_a_map_with_nothing_positive_stays_nothing():
    for nothing in (np.zeros((3, 3)), np.full((3, 3), -1.0), np.empty((0, 4))):
        assert not normalise(nothing).any()
    maps, masks = erase(np.full((2, 3, 3), -2.0))
    assert not maps.any()
    assert masks.all()
    assert not aggregate(maps, masks).any()


def test_normalise_is_relu_over_max_and_not_min_max():
    assert normalise([[-4, 0, 1, 2]]).tolist() == [[0, 0, 0.5, 1]]
    assert normalise([[3, 4]]).tolist() == [[0.75, 1]]  # min-max would make the 3 a 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_an_error(bad):
    with pytest.raises(CxrError, match="NaN or infinite"):
        normalise([[1, bad]])


def test_a_diagonal_neighbour_belongs_to_the_component():
    expected = np.zeros((5, 5), dtype=bool)
    expected[0, 0] = expected[1, 1] = True  # with 4 neighbours (1, 1) would stay
    assert np.array_equal(peak_component(normalise(DIAGONAL)), expected)


def test_at_the_threshold_counts():
    assert peak_component(np.array([[1, 0.5, 0.49]], dtype=np.float32)).tolist() == [[True, True, False]]


def test_a_tie_goes_to_the_first_in_row_order():
    tied = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=np.float32)
    assert np.argwhere(peak_component(tied)).tolist() == [[0, 2]]


def test_an_all_zero_map_and_a_map_below_the_threshold_have_no_component():
    assert not peak_component(np.zeros((4, 4), dtype=np.float32)).any()
    assert not peak_component(np.full((4, 4), 0.3, dtype=np.float32)).any()


def test_rounds_by_hand():
    maps, masks = every_round(DIAGONAL, 3)
    assert maps[0].max() == 1
    assert maps[0][1, 1] == 0.75
    assert masks[0].sum() == 23  # (0, 0) and (1, 1)
    assert maps[1][3, 4] == 1
    assert maps[1][3, 3] == np.float32(2) / np.float32(3)
    assert maps[1][0, 0] == maps[1][1, 1] == 0  # erased, although (4, 4) is negative: min-max would lift it
    assert maps[1][4, 4] == 0
    assert masks[1].sum() == 21
    assert not maps[2].any()
    assert np.array_equal(masks[2], masks[1])
    final = aggregate(maps, masks)
    assert final[0, 0] == 1  # once seen, twice filled in
    assert final[1, 1] == 0.75
    # (3, 4): 3/4 in round 1, then 1, then filled in with 1
    assert final[3, 4] == pytest.approx((0.75 + 1 + 1) / 3)
    assert final[3, 3] == pytest.approx((0.5 + 2 / 3 + 2 / 3) / 3)
    assert final[4, 4] == 0


def test_rounds_with_weights_of_their_own_by_hand():
    """Two lesions, top left and bottom right; round 2 has learnt the second's other half, round 3 one more place."""
    raw = np.zeros((3, 5, 5), dtype=np.float32)
    raw[0, 0, :2], raw[0, 4, 4] = (4, 2), 1
    raw[1, 0, :2], raw[1, 4, 3:] = (8, 9), (1, 2)  # stronger where round 1 has erased: it must not show
    raw[2, 0, :2], raw[2, 4, 3:] = (6, 6), (7, 7)
    raw[2, 2, 2], raw[2, 0, 4] = 3, 1
    maps, masks = erase(raw)
    assert maps[0, [0, 0, 4], [0, 1, 4]].tolist() == [1, 0.5, 0.25]
    assert np.argwhere(~masks[0]).tolist() == [[0, 0], [0, 1]]
    assert maps[1, [0, 0, 4, 4], [0, 1, 3, 4]].tolist() == [0, 0, 0.5, 1]
    assert np.argwhere(~masks[1]).tolist() == [[0, 0], [0, 1], [4, 3], [4, 4]]
    assert maps[2, [0, 4, 2, 0], [0, 4, 2, 4]].tolist() == [0, 0, 1, np.float32(1 / 3)]
    assert np.argwhere(~masks[2]).tolist() == [[0, 0], [0, 1], [2, 2], [4, 3], [4, 4]]
    expected = np.zeros((5, 5))
    expected[0, 0] = (1 + 1 + 1) / 3  # once seen, twice filled in
    expected[0, 1] = (0.5 + 0.5 + 0.5) / 3
    expected[4, 4] = (0.25 + 1 + 1) / 3  # faint, then seen, then filled in
    expected[4, 3] = (0 + 0.5 + 0.5) / 3
    expected[2, 2] = (0 + 0 + 1) / 3
    expected[0, 4] = 1 / 9
    assert aggregate(maps, masks) == pytest.approx(expected)


def test_equation_8_without_normalisation_by_hand():
    """Fixed weights on 3 5 1: the 5 is erased, then the 3, and what is filled in is the first map again."""
    maps = [[[3, 5, 1]], [[3, 0, 1]], [[0, 0, 1]]]
    masks = [[[True, False, True]], [[False, False, True]], [[False, False, False]]]
    # the 3: seen twice, filled in once; the 5: seen once, filled in twice; the 1: seen three times
    assert aggregate(maps, masks).tolist() == [[3, 5, 1]]


def test_masks_are_cumulative():
    mask = np.ones((5, 5), dtype=bool)
    mask[2, 2] = False
    after = next_mask(normalise(DIAGONAL), mask)
    assert not after[2, 2]
    assert not after[0, 0]
    assert after.sum() == 22


def test_one_round_is_the_map():
    maps, masks = erase(DIAGONAL[None])
    assert np.array_equal(aggregate(maps, masks), normalise(DIAGONAL))


@pytest.mark.parametrize("seed", range(20))
def test_equation_8_without_normalisation_is_the_first_map(seed):
    """Fixed weights: what is erased is what is filled in. Whole numbers and 4 rounds, so that nothing is rounded."""
    raw = np.random.default_rng(seed).integers(0, 1000, (12, 12)).astype(np.float32)
    mask, maps, masks = np.ones(raw.shape, dtype=bool), [], []
    for _ in range(4):
        maps.append(raw * mask)
        mask = next_mask(normalise(maps[-1]), mask)
        masks.append(mask)
    assert masks[2].sum() < masks[0].sum()
    assert np.array_equal(aggregate(np.stack(maps), np.stack(masks)), raw)


@pytest.mark.parametrize("seed", range(400))
def test_the_same_as_scikit_image(seed):
    noise = np.random.default_rng(seed)
    shape = tuple(noise.integers(1, 24, 2))
    raw = noise.normal(size=(3, *shape)).astype(np.float32).round(int(noise.integers(0, 3)))  # rounded: with ties
    maps, masks = erase(raw)
    mask = np.ones(shape, dtype=bool)
    for t in range(3):
        positive = np.maximum(raw[t] * mask, 0)
        expected = positive / positive.max() if positive.max() > 0 else positive
        assert np.array_equal(maps[t], expected)
        if positive.max() > 0:
            labels = label(expected >= 0.5, connectivity=2)
            mask = mask & (labels != labels.ravel()[np.argmax(expected)])
        assert np.array_equal(masks[t], mask)
