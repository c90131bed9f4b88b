"""Where a finding can be: unions of organs, margins, shares of boxes and of cells, all counted by hand."""

import numpy as np
import pytest

from cxrmine.boxes.extract import extract
from cxrmine.boxes.prior import Prior, gated, make_prior, outside
from cxrmine.config import Mine
from cxrmine.data.cells import covered, parts, windows
from cxrmine.data.organs import ORGANS
from cxrmine.errors import CxrError, UsageError
from cxrmine.recipe_files import load_recipe

LEFT, RIGHT, HEART = ORGANS


def outlines(*of: tuple[int, int, int, int], side: int = 8) -> np.ndarray:
    """A layer a rectangle x, y, x, y."""
    masks = np.zeros((len(of), side, side), bool)
    for mask, (x_min, y_min, x_max, y_max) in zip(masks, of, strict=True):
        mask[y_min:y_max, x_min:x_max] = True
    return masks


THREE = outlines((5, 1, 7, 6), (1, 1, 3, 6), (3, 4, 6, 7))  # left lung 10, right lung 10, heart 9; 2 are shared


def of_organs(mine: Mine | None = None, outlined: tuple[str, ...] = ORGANS) -> Prior:
    return make_prior(mine or Mine(), ("Mass", "Cardiomegaly"), outlined)


# --- the mask of a finding


def test_the_mask_is_the_union_of_lungs_and_heart() -> None:
    mask = of_organs().mask(THREE, "Mass")
    assert mask is not None
    assert mask.dtype == bool
    assert mask.sum() == 10 + 10 + 9 - 2
    np.testing.assert_array_equal(mask, THREE[0] | THREE[1] | THREE[2])


@pytest.mark.parametrize(
    ("named", "layers"),
    [(("heart",), [2]), (("lungs",), [0, 1]), (("lungs", "heart"), [0, 1, 2]), (("right_lung",), [1])],
)
def test_a_finding_may_have_its_own_organs(named: tuple[str, ...], layers: list[int]) -> None:
    prior = of_organs(Mine(organs_of={"Cardiomegaly": named}))
    np.testing.assert_array_equal(prior.mask(THREE, "Cardiomegaly"), THREE[layers].any(axis=0))
    np.testing.assert_array_equal(prior.mask(THREE, "Mass"), THREE.any(axis=0))


def test_layers_are_taken_by_name_whatever_their_order() -> None:
    order = (HEART, LEFT, RIGHT)
    prior = of_organs(Mine(organs_of={"Cardiomegaly": ("heart",), "Mass": ("left_lung",)}), order)
    turned = THREE[[2, 0, 1]]
    np.testing.assert_array_equal(prior.mask(turned, "Cardiomegaly"), THREE[2])
    np.testing.assert_array_equal(prior.mask(turned, "Mass"), THREE[0])


def test_a_run_that_outlines_no_heart_has_lungs_alone() -> None:
    lungs = THREE[:2]
    prior = of_organs(outlined=(LEFT, RIGHT))
    assert prior.of == {"Mass": (LEFT, RIGHT), "Cardiomegaly": (LEFT, RIGHT)}
    np.testing.assert_array_equal(prior.mask(lungs, "Cardiomegaly"), lungs.any(axis=0))


@pytest.mark.parametrize(
    ("named", "outlined", "missing"),
    [
        (("heart",), (LEFT, RIGHT), "heart"),
        (("lungs", "heart"), (HEART,), "left_lung, right_lung"),
        (("lungs",), (LEFT, HEART), "right_lung"),
    ],
)
def test_an_organ_that_is_named_and_not_outlined_is_refused(
    named: tuple[str, ...], outlined: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(UsageError, match=rf"organs_of\.Cardiomegaly names {missing}, which.*outlines {outlined[0]}.*"):
        of_organs(Mine(organs_of={"Cardiomegaly": named}), outlined)


def test_without_any_of_its_organs_a_finding_has_no_mask() -> None:
    prior = of_organs(Mine(organs_of={"Cardiomegaly": ("heart",)}, margin=0.25))
    without_heart = THREE * np.array([1, 1, 0], bool)[:, None, None]
    assert prior.mask(without_heart, "Cardiomegaly") is None
    assert prior.mask(without_heart, "Mass") is not None
    assert prior.mask(np.zeros_like(THREE), "Mass") is None


# --- the margin


@pytest.mark.parametrize(("reach", "pixels"), [(0, 1), (0.9, 1), (1, 5), (1.5, 9), (2, 13), (3, 29), (4, 49)])
def test_the_margin_is_a_disc(reach: float, pixels: int) -> None:
    """Points of a grid in a circle: 1, 5, 13, 29, 49 for radii 0 to 4, and 9 from the square root of 2 on."""
    point = outlines((6, 6, 7, 7), side=16)
    mask = Prior(("heart",), {"Mass": ("heart",)}, {"Mass": reach / 16}).mask(point, "Mass")
    assert mask is not None
    assert mask.dtype == bool
    assert mask.sum() == pixels
    away = np.hypot(*(np.indices((16, 16)) - 6))
    np.testing.assert_array_equal(mask, away <= reach)


def test_a_reach_of_whole_pixels_is_not_lost_by_rounding() -> None:
    assert 0.29 * 100 < 29
    mask = Prior(("heart",), {"Mass": ("heart",)}, {"Mass": 0.29}).mask(outlines((0, 0, 1, 1), side=100), "Mass")
    assert mask is not None
    assert mask[0].sum() == 30  # the point, and 29 pixels to its right


def test_the_margin_grows_the_union_and_stops_at_the_edge() -> None:
    prior = of_organs(Mine(margin=1 / 8, margin_of={"Cardiomegaly": 0.0}, organs_of={"Cardiomegaly": ("lungs",)}))
    lungs = outlines((0, 0, 2, 8), (6, 0, 8, 8), (0, 0, 0, 0))
    grown, plain = prior.mask(lungs, "Mass"), prior.mask(lungs, "Cardiomegaly")
    assert grown is not None
    assert plain is not None
    assert np.flatnonzero(grown[3]).tolist() == [0, 1, 2, 5, 6, 7]
    assert np.flatnonzero(plain[3]).tolist() == [0, 1, 6, 7]


# --- shares of boxes


def test_the_share_of_a_box_with_fractional_edges() -> None:
    (mask,) = outlines((1, 1, 3, 3), side=4)
    boxes = np.array(
        [
            [0, 0, 4, 4],  # 4 of 16
            [1, 1, 3, 3],  # all
            [0.5, 1, 1.5, 3],  # half across
            [1.5, 1.5, 3.5, 2.5],  # 1.5 of 2 across
            [0.5, 0.5, 1.5, 1.5],  # a quarter
            [3, 0, 4, 4],  # nothing
        ]
    )
    share = [0.25, 1, 0.5, 0.75, 0.25, 0]
    np.testing.assert_allclose(covered(mask, boxes, 4), share, atol=1e-6)
    np.testing.assert_allclose(outside(mask, boxes, 4), 1 - np.array(share), atol=1e-6)


def test_what_of_a_box_lies_beyond_the_film_does_not_count() -> None:
    (mask,) = outlines((0, 1, 2, 3), side=4)
    boxes = np.array([[-2, 1, 4, 3], [-9, 1, 1, 3], [-3, 1, -1, 3], [5, 5, 9, 9]])
    np.testing.assert_allclose(outside(mask, boxes, 4), [0.5, 0, 1, 1], atol=1e-6)


def test_a_box_inside_has_nothing_outside_by_rounding() -> None:
    mask = np.ones((96, 96), bool)
    edges = np.linspace(0.1, 62.9, 23)
    boxes = np.array([[x, y, x + 1.3, y + 29.7] for x in edges for y in edges / 2])
    assert (covered(mask, boxes, 64) != 1).any()
    assert not outside(mask, boxes, 64).any()


def test_no_box_has_no_share() -> None:
    assert outside(np.ones((4, 4), bool), np.empty((0, 4)), 4).shape == (0,)


def test_a_mask_may_be_coarser_or_finer_than_the_input() -> None:
    (coarse,) = outlines((0, 0, 1, 1), side=2)  # pixels 0 and 1 of 4, both ways
    (fine,) = outlines((0, 0, 3, 8), side=8)  # columns 0 to 1.5 of 4
    box = np.array([[1, 1, 3, 3]])
    np.testing.assert_allclose(covered(coarse, box, 4), [0.25], atol=1e-6)
    np.testing.assert_allclose(covered(fine, box, 4), [0.25], atol=1e-6)


def test_shares_are_those_of_counted_pixels() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        mask = rng.random((9, 9)) < 0.5
        x, y = rng.integers(0, 8, 2)
        right, bottom = x + rng.integers(1, 10 - x), y + rng.integers(1, 10 - y)
        share = covered(mask, np.array([[x, y, right, bottom]]), 9)
        np.testing.assert_allclose(share, [mask[y:bottom, x:right].mean()], atol=1e-6)


# --- cells


def test_parts_add_up_to_one_or_to_nothing() -> None:
    weights = parts(np.array([-1.0, 0.25, 7.0]), np.array([1.0, 2.25, 9.0]), 4, 4)
    np.testing.assert_allclose(weights, [[1, 0, 0, 0], [0.375, 0.5, 0.125, 0], [0, 0, 0, 0]])


def test_a_cell_s_window_lies_about_its_centre_and_ends_with_the_film() -> None:
    """Stride 8: cell 0 is centred at 0.5, so from -3.5 to 4.5, of which 4.5 are film; cell 1 from 4.5 to 12.5."""
    first, second, *_ = windows(4, 32, 32, 8, 0)
    np.testing.assert_allclose(first[:6] * 4.5, [1, 1, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(second[3:14] * 8, [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 0.5, 0], atol=1e-6)


def kept(stride: float, offset: float, x_min: int, x_max: int, size: int = 128, side: int = 128) -> list[int]:
    """The columns of cells that are left of a map of ones, for a mask of these columns of `side`."""
    (mask,) = outlines((x_min, 0, x_max, side), side=side)
    cells = -(-size // int(stride))
    left = gated(np.ones((1, cells, cells), np.float32), mask, size, stride, offset)[0]
    assert (left == left[0]).all()
    return np.flatnonzero(left[0]).tolist()


@pytest.mark.parametrize(("stride", "middle"), [(8, 8), (16, 4), (32, 2)])
def test_the_cell_on_the_border_looks_to_its_right(stride: int, middle: int) -> None:
    """Without an offset the cell at pixel 64 covers from 64.5 - s/2 to 64.5 + s/2: more than half of it from 64 on."""
    cells = 128 // stride
    assert kept(stride, 0, 64, 128) == list(range(middle, cells))
    assert kept(stride, 0, 0, 64) == list(range(middle))
    assert kept(stride, 0, 0, 64, side=128) == kept(stride, 0, 0, 32, side=64)


def test_the_offset_of_a_densenet_moves_the_cells() -> None:
    """Stride 32, offset 14: windows from -1.5, 30.5, 62.5, 94.5 on; with a ResNet from -15.5, 16.5, 48.5, 80.5."""
    assert kept(32, 14, 46, 128) == [1, 2, 3]  # 16.5 of 32 pixels of cell 1
    assert kept(32, 14, 47, 128) == [2, 3]  # 15.5
    assert kept(32, 0, 46, 128) == [2, 3]  # 2.5
    assert kept(32, 14, 0, 47) == [0, 1]
    assert kept(32, 0, 0, 33) == [0, 1]
    assert kept(32, 0, 0, 32) == [0]


def test_the_last_cell_may_reach_beyond_the_film() -> None:
    """100 pixels at stride 32: with offset 14 the last cell sees from 94.5 on, of which 5.5 pixels are film."""
    assert kept(32, 14, 98, 100, size=100, side=100) == []  # 2 of 5.5
    assert kept(32, 14, 97, 100, size=100, side=100) == [3]  # 3 of 5.5


def test_half_a_cell_is_enough() -> None:
    assert kept(4, 1.5, 2, 8, size=8, side=8) == [0, 1]  # cell 0 is pixels 0 to 4
    assert kept(4, 1.5, 3, 8, size=8, side=8) == [1]


def test_a_corner_counts_by_both_sides() -> None:
    """Stride 8, a mask from pixel 16 on both ways: cell (2, 2) is covered by 4.5 / 8 of 4.5 / 8, which is 0.32."""
    (mask,) = outlines((16, 16, 32, 32), side=32)
    left = gated(np.ones((4, 4), np.float32), mask, 32, 8, 0)
    np.testing.assert_array_equal(left, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]])


def test_what_is_kept_is_as_it_was_in_every_round() -> None:
    raw = np.arange(-8, 24, dtype=np.float32).reshape(2, 4, 4)
    (mask,) = outlines((0, 0, 16, 32), side=32)
    left = gated(raw, mask, 32, 8, 0)
    np.testing.assert_array_equal(left[:, :, :2], raw[:, :, :2])
    assert not left[:, :, 2:].any()
    assert left.dtype == np.float32
    assert raw[0, 0, 3] == -5  # what was given stays


# --- boxes that go


def test_a_cut_without_some_of_its_boxes() -> None:
    final = np.zeros((8, 8), np.float32)
    final[1:3, 1:3], final[5:7, 1:3], final[4:8, 5:8] = 1, 0.6, 0.8
    cut = extract(final, "components", top=0)
    assert cut.boxes.tolist() == [[1, 1, 3, 3], [5, 4, 8, 8], [1, 5, 3, 7]]
    two = cut.kept(np.array([True, False, True]))
    assert two.boxes.tolist() == [[1, 1, 3, 3], [1, 5, 3, 7]]
    assert two.scores.tolist() == pytest.approx([1, 0.6])
    assert two.regions == [cut.regions[0], cut.regions[2]]
    assert (len(two.thresholds), two.peaks.tolist()) == (2, [[1, 1], [1, 5]])
    none = cut.kept(np.zeros(3, bool))
    assert (none.boxes.shape, none.regions, none.peaks.shape) == ((0, 4), [], (0, 2))


# --- the recipe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("mine.organs_of.Mass=[]", "mine.organs_of.Mass names no organ"),
        ('mine.organs_of.Mass=["liver"]', "mine.organs_of.Mass.0.*liver"),
        ("mine.organs_of.Mass=heart", r"mine\.organs_of\.Mass is a list: write \[heart\]"),
        ("mine.margin_of.Mass=0.3", "mine.margin_of.Mass must lie between 0 and 0.25"),
        ("mine.margin=0.3", "mine.margin.*0.25"),
        ("mine.outside=1", "mine.outside.*less than 1"),
        ("mine.organ_way=cut", "mine.organ_way.*'gate', 'drop' or 'mark'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: str, said: str) -> None:
    with pytest.raises(CxrError, match=said):
        load_recipe("demo", [change])


def test_a_finding_that_is_none_is_refused() -> None:
    for key, value in (("organs_of", '["heart"]'), ("margin_of", "0.1")):
        with pytest.raises(CxrError, match=rf"mine\.{key} names Cardiomegly, and the findings are Cardiomegaly"):
            load_recipe("demo", ['data.findings=["Cardiomegaly"]', f"mine.{key}.Cardiomegly={value}"])
