"""CXR-IRNet by hand on films and maps of a few pixels: attention, gate, loss, maps; and what of it learns."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrmine.config import Recipe
from cxrmine.data.cells import covered as covered_boxes
from cxrmine.data.cells import parts
from cxrmine.learn.loop import set_mode
from cxrmine.learn.organs import UNet
from cxrmine.methods.cam import Cam
from cxrmine.methods.organ_weighted import OrganWeighted, ScaleAttention, about_organs, covered
from cxrmine.recipe_files import load_recipe

NAN = math.nan
TINY = ("data.size=32", "network.channels=[4, 4, 8, 8]", "irnet.organ_channels=[2, 2, 2, 2]")
ORGANS = ("irnet.organ_names=['left_lung', 'right_lung', 'heart']", "irnet.organ_size=32")


def recipe(*keys: str) -> Recipe:
    return load_recipe("demo-irnet", [*TINY, *ORGANS, *keys])


def untrained(*keys: str, findings: int = 3) -> OrganWeighted:
    torch.manual_seed(0)
    return OrganWeighted(recipe(*keys), torch.full((findings,), 0.25))


def films(count: int, side: int = 32) -> Tensor:
    numbers = torch.Generator().manual_seed(1)
    return torch.randint(0, 255, (count, 1, side, side), generator=numbers, dtype=torch.uint8)


class Said(nn.Module):
    """A network of organs that says what it is given, whatever the film; of films of one size."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == self.masks.shape[2:]
        return self.masks.float() * 3 - 1  # logits of 2 and -1


def given(features: Tensor, masks: Tensor, *keys: str, size: int = 32, offset: float = 7.5) -> OrganWeighted:
    """`features` N×D×h×w of films of `size`, whose organs are `masks` N×C×s×s."""
    findings, width = 2, features.shape[1]
    model = untrained("network.pool=gap", "irnet.attention=false", *keys, findings=findings)
    model.backbone.features = lambda films: features  # type: ignore[method-assign]
    model.backbone.stride = -(-size // features.shape[3])  # type: ignore[assignment]
    model.recipe = model.recipe.model_copy(update={"data": model.recipe.data.model_copy(update={"size": size})})
    model.irnet = model.irnet.model_copy(update={"organ_size": masks.shape[3]})
    model.offset, model.organs = offset, Said(masks)  # type: ignore[assignment]
    model.head = nn.Linear(width, findings)
    return model


def masks_of(*drawn: tuple[int, int, int, int, int], side: int = 32) -> Tensor:
    """One film's masks of three organs: (organ, left, top, right, bottom) each."""
    masks = torch.zeros(1, 3, side, side)
    for organ, left, top, right, bottom in drawn:
        masks[0, organ, top:bottom, left:right] = 1
    return masks


# --- attention


def test_attention_by_hand() -> None:
    """A film of 1×5 pixels and three channels; each kernel has taps at its ends, so that another size would show."""
    attention = ScaleAttention(3)
    assert all(layer.bias is None for layer in attention.modules() if isinstance(layer, nn.Conv2d))
    weights = dict(attention.named_parameters())
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "scales.0.weight": (3, 3, 5, 5),
        "scales.1.weight": (3, 3, 9, 9),
        "join.weight": (1, 6, 3, 3),
    }
    with torch.no_grad():
        for weight in weights.values():
            weight.zero_()
        five, nine, join = weights.values()
        five[0, 0, 2, 4], five[1, 1, 2, 2], five[2, 2, 2, 2] = 1, 1, -1  # the first sees two pixels to its right
        nine[0, 0, 4, 0], nine[1, 2, 4, 4] = 1, 3  # the first sees four to its left, the second the third channel
        join[0, :, 1, 1] = torch.tensor([1.0, -1, 2, 3, -2, 1]) / 20
        join[0, 0, 1, 0] = 10 / 20  # and of the largest one to the left
    film = torch.tensor([[[[1.0, 2, 3, 4, 5]], [[0, 0, 6, 0, 0]], [[2, 1, 0, -1, -2]]]])
    # X:  max 2 2 6 4 5, mean 1 1 3 1 1
    # X5: 3 4 5 0 0, 0 0 6 0 0, -2 -1 0 1 2: max 3 4 6 1 2, mean 1/3 1 11/3 1/3 2/3
    # X9: 0 0 0 0 1, 6 3 0 -3 -6, 0: max 6 3 0 0 1, mean 2 1 0 -1 -5/3
    # joined 2 - 1 + 6 + 1 - 12 + 2, …, and 10 × 0 2 2 6 4
    joined = [-2, 7 + 20, 26 + 20, 5 + 60, 19 / 3 + 40]
    by_hand = film * torch.tensor([1 / (1 + math.exp(-value / 20)) for value in joined])
    torch.testing.assert_close(attention(film), by_hand)


def test_the_film_is_weighed_after_it_is_standardised_and_reaches_the_backbone() -> None:
    model = untrained("irnet.gate=false").eval()
    assert isinstance(model.attention, ScaleAttention)
    with torch.no_grad():
        model.attention.join.weight.zero_()  # σ(0)
        seen = model.backbone.features(0.5 * model.backbone.standardised(films(2)))
        torch.testing.assert_close(model.features(films(2)), seen)


# --- how much of a cell organs cover


@pytest.mark.parametrize("pixels", [32, 64, 128])
def test_centred_windows_are_adaptive_average_pooling(pixels: int) -> None:
    """Cells that look at the middle of their tiles, of masks of any size."""
    masks = (torch.rand(2, 1, pixels, pixels, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    for stride in (4, 8, 16):
        cells = torch.Size([64 // stride] * 2)
        pooled = F.adaptive_avg_pool2d(masks, 64 // stride)
        torch.testing.assert_close(covered(masks, cells, 64, stride, (stride - 1) / 2), pooled)


@pytest.mark.parametrize(
    ("inside", "offset", "by_hand"),
    [
        # An axis of 8 pixels, cells of 4. Offset 0: cells look at 0.5 and 4.5, at pixels 0 to 2.5 and 2.5 to 6.5.
        ((0, 2), 0, [2 / 2.5, 0]),
        ((2, 5), 0, [0.5 / 2.5, 2.5 / 4]),
        ((7, 8), 0, [0, 0]),
        ((0, 8), 0, [1, 1]),
        # Offset 3: at 3.5 and 7.5, 1.5 to 5.5 and 5.5 to 8.
        ((7, 8), 3, [0, 1 / 2.5]),
        ((0, 3), 3, [1.5 / 4, 0]),
        # Offset 8: at 8.5, 6.5 to 8; the other one beyond the film.
        ((0, 8), 8, [1, 0]),
    ],
)
def test_a_window_that_is_not_centred_by_hand(inside: tuple[int, int], offset: float, by_hand: list[float]) -> None:
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., slice(*inside)] = 1
    whole = covered(torch.ones(1, 1, 8, 8), torch.Size([2, 2]), 8, 4, offset)
    share = covered(masks, torch.Size([2, 2]), 8, 4, offset)
    torch.testing.assert_close(share, whole * torch.tensor(by_hand))
    torch.testing.assert_close(covered(masks.mT, torch.Size([2, 2]), 8, 4, offset), share.mT)


def test_rows_and_columns_multiply_by_hand() -> None:
    """Offset 0 again: pixels 0 to 2.5 and 2.5 to 6.5. A mask of rows 0 and 1 and columns 2 to 4, and finer pixels."""
    masks = torch.zeros(1, 1, 8, 8)
    masks[0, 0, :2, 2:5] = 1
    by_hand = torch.tensor([[[[0.8 * 0.2, 0.8 * 0.625], [0, 0]]]])
    torch.testing.assert_close(covered(masks, torch.Size([2, 2]), 8, 4, 0), by_hand)
    finer = masks.repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(covered(finer, torch.Size([2, 2]), 8, 4, 0), by_hand)


def test_parts_of_intervals_and_boxes_by_hand() -> None:
    starts, ends = np.array([1.0, -3, 7, 2]), np.array([4.0, 2, 12, 2])
    by_hand = [[1 / 3, 2 / 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]  # pixels of 2 of an axis of 8
    assert parts(starts, ends, 4, 8).tolist() == pytest.approx(np.array(by_hand))
    mask = np.array([[True, False], [True, True]])  # of an input of 8
    boxes = [[0, 0, 8, 8], [2, 2, 6, 6], [3, 0, 7, 4], [-8, 0, 8, 2], [9, 0, 12, 2]]
    shares = [3 / 4, 3 / 4, 1 / 4, 1 / 2, 0]
    assert covered_boxes(mask, np.array(boxes), 8).tolist() == pytest.approx(shares)
    assert covered_boxes(mask, np.empty((0, 4)), 8).shape == (0,)


# --- the gate: two rows and two columns of cells of 16 pixels


@pytest.mark.parametrize(
    ("drawn", "keeps"),
    [
        ([(0, 0, 0, 16, 16)], [[1, 0], [0, 0]]),
        ([(0, 0, 0, 16, 16), (1, 16, 0, 32, 8), (2, 0, 16, 16, 23)], [[1, 1], [0, 0]]),  # whole; 8 of 16 rows; 7
        ([(0, 0, 0, 4, 16), (1, 12, 0, 16, 16)], [[1, 0], [0, 0]]),  # a quarter each
        ([(0, 0, 0, 4, 16), (1, 0, 0, 4, 16), (2, 16, 16, 32, 32)], [[0, 0], [0, 1]]),  # the same quarter twice
        ([(0, 0, 0, 4, 16), (1, 4, 0, 6, 16), (2, 6, 0, 8, 16)], [[1, 0], [0, 0]]),  # half by three
        ([(0, 0, 0, 4, 16), (1, 0, 0, 4, 16)], [[1, 1], [1, 1]]),  # no cell: seen whole
        ([], [[1, 1], [1, 1]]),
    ],
)
def test_features_outside_the_union_of_organs_are_zero_and_others_as_they_were(
    drawn: list[tuple[int, int, int, int, int]], keeps: list[list[int]]
) -> None:
    features = torch.tensor([[[[1.0, -2], [3, 4]], [[-5, 6], [7, -8]]]])
    model = given(features, masks_of(*drawn))
    assert torch.equal(model.features(films(1)), features * torch.tensor(keeps))
    assert model.gate(films(1), torch.Size([2, 2])).dtype == torch.bool


def test_each_film_has_its_own_gate() -> None:
    both = torch.cat([masks_of((0, 0, 0, 16, 32)), masks_of((2, 16, 0, 32, 16))])
    gate = given(torch.ones(2, 1, 2, 2), both).gate(films(2), torch.Size([2, 2]))
    assert gate.int().tolist() == [[[[1, 0], [1, 0]]], [[[0, 1], [0, 0]]]]


@pytest.mark.parametrize(
    ("cut", "keeps"), [(0.25, [1, 1, 1, 1]), (0.3, [0, 1, 1, 1]), (0.51, [0, 0, 1, 1]), (1, [0, 0, 0, 1])]
)
def test_a_cell_is_kept_from_the_cut_on(cut: float, keeps: list[int]) -> None:
    drawn = masks_of((0, 0, 0, 4, 16), (0, 16, 0, 24, 16), (1, 0, 16, 12, 32), (2, 16, 16, 32, 32))  # 1 2 3 4 quarters
    gate = given(torch.ones(1, 1, 2, 2), drawn, f"irnet.cut={cut}").gate(films(1), torch.Size([2, 2]))
    assert gate.flatten().int().tolist() == keeps


@pytest.mark.parametrize("side", [96, 128, 192, 256, 300])
def test_half_is_half_and_full_is_full_where_pixels_of_masks_are_no_pixels_of_the_input(side: int) -> None:
    """224 pixels, 7 cells; the organs' masks have others, and sums of their parts come out a little less than whole."""
    half = masks_of((0, 0, 0, side // 2, side), side=side)  # to the middle of the fourth column
    gate = given(torch.ones(1, 1, 7, 7), half, size=224, offset=15.5).gate(films(1, 224), torch.Size([7, 7]))
    assert gate[0, 0].int().tolist() == [[1, 1, 1, 1, 0, 0, 0]] * 7
    for offset in (14, 15.5):
        full = given(torch.ones(1, 1, 7, 7), masks_of((1, 0, 0, side, side), side=side), "irnet.cut=1", size=224)
        full.offset = offset
        assert full.gate(films(1, 224), torch.Size([7, 7])).all()


def test_the_gate_of_a_network_in_half_precision_is_that_in_full() -> None:
    """One cell of 64×64, of which 2047 pixels are covered, of 4096: in half precision that were half."""
    masks = masks_of((0, 0, 0, 64, 31), (0, 0, 31, 63, 32), side=64)
    model = given(torch.ones(1, 1, 1, 1), masks, size=64, offset=31.5).eval()
    with torch.autocast("cpu", torch.bfloat16):
        model.gate(films(1, 64), torch.Size([1, 1]))
    assert model.seen_whole == 1, "or half was covered"


def test_sigmoid_comes_before_the_gate_and_zero_after_it() -> None:
    features = torch.tensor([[[[0.0, math.log(3)], [1, 2]]]])
    model = given(features, masks_of((0, 0, 0, 32, 16)), "irnet.sigmoid=true")
    by_hand = torch.tensor([[[[0.5, 0.75], [0, 0]]]])
    torch.testing.assert_close(model.features(films(1)), by_hand)
    assert not model.features(films(1))[..., 1, :].any()


# --- loss and maps


def put(model: OrganWeighted, weight: Sequence, bias: Sequence[float]) -> None:
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(weight))
        model.head.bias.copy_(torch.tensor(bias))


def test_loss_and_maps_by_hand() -> None:
    """Kept are two cells of four: means 5/4 and 3/4 of each channel."""
    features = torch.tensor([[[[1.0, 2], [3, 4]], [[1, 9], [9, 2]]]])
    model = given(features, masks_of((0, 0, 0, 16, 16), (1, 16, 16, 32, 32)))
    put(model, [[2.0, 0], [-1, 1]], [-1, 0.25])
    logits, maps = model.infer(films(1))
    assert logits.tolist() == [[2 * 5 / 4 - 1, -5 / 4 + 3 / 4 + 0.25]]
    assert maps.tolist() == [[[[[2, 0], [0, 8]], [[0, 0], [0, -2]]]]]
    torch.testing.assert_close(maps[:, 0].mean((2, 3)) + model.head.bias, logits)
    present, absent = math.log1p(math.exp(-1.5)), math.log1p(math.exp(-0.25))
    for labels, by_hand in (([1, 0], (present + absent) / 2), ([1, NAN], present), ([NAN, NAN], 0)):
        parts = model(films(1), torch.tensor([labels], dtype=torch.float32))
        assert parts["loss"].item() == pytest.approx(by_hand)
        torch.testing.assert_close(parts["logits"], logits)


def test_a_film_without_an_organ_is_seen_whole_and_counted() -> None:
    features = torch.randn(1, 2, 2, 2)
    model = given(features, masks_of()).eval()
    _, maps = model.infer(films(1))
    torch.testing.assert_close(maps[:, 0], F.conv2d(features, model.head.weight[:, :, None, None]))
    assert model.seen_whole == 1
    assert about_organs(model, "of 3 films").startswith("CAREFUL: in 1 of 3 films no organ was outlined")
    model.infer(torch.zeros_like(films(1)))  # what fills a batch
    assert model.seen_whole == 1
    model.train()(films(1), torch.zeros(1, len(model.head.bias)))
    assert model.seen_whole == 1


@pytest.mark.parametrize("pool", ["gap", "lse"])
@pytest.mark.parametrize("balance", ["none", "batch"])
def test_without_attention_and_gate_it_is_class_activation_mapping(pool: str, balance: str) -> None:
    keys = (f"network.pool={pool}", f"train.balance={balance}")
    model = untrained("irnet.attention=false", "irnet.gate=false", *keys).eval()
    torch.manual_seed(0)
    cam = Cam(model.recipe, torch.full((3,), 0.25)).eval()
    own, theirs = model.state_dict(), cam.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own), "they begin alike"
    labels = torch.tensor([[1, 0, NAN], [0, 0, 1]])
    for mine, his in zip(model.infer(films(2)), cam.infer(films(2)), strict=True):
        assert torch.equal(mine, his)
    assert torch.equal(model(films(2), labels)["loss"], cam(films(2), labels)["loss"])
    assert (model.map_stride, model.cell_offset()) == (cam.map_stride, cam.cell_offset())
    assert model.begin(model.recipe.schedule[0]) == ()


def test_the_bias_begins_at_the_log_odds() -> None:
    torch.testing.assert_close(untrained().head.bias.detach(), torch.full((3,), math.log(1 / 3)))


# --- what learns


def test_training_teaches_all_but_the_organs_network() -> None:
    model = untrained("network.pool=gap", "irnet.cut=0.01")
    assert model.organs is not None
    nn.init.constant_(model.organs.get_parameter("outlines.bias"), 1)  # something is outlined
    frozen = model.begin(model.recipe.schedule[0])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    set_mode(model, frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0)
    for _ in range(2):  # a residual block begins as nothing, and teaches what lies in it from the second step on
        optimizer.zero_grad()
        model(films(4), torch.ones(4, 3))["loss"].backward()
        optimizer.step()
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith("organs.")}
    assert any("running_mean" in name for name in same)


def test_the_organs_network_is_taken_whole() -> None:
    model = untrained()
    torch.manual_seed(5)
    taken = UNet((2, 2, 2, 2), 3).state_dict()
    model.take_organs({f"net.{name}": value for name, value in taken.items()})
    assert model.organs is not None
    assert all(torch.equal(value, taken[name]) for name, value in model.organs.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        model.take_organs({f"net.{name}": value for name, value in list(taken.items())[1:]})
