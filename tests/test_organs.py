"""Lungs and heart: Dice and its loss by hand, the U-Net's shapes, and masks of films of another size."""

import math

import pytest
import torch
from torch import Tensor, nn

from cxrmine.errors import CxrError
from cxrmine.learn.guides import Outlined
from cxrmine.learn.organs import OrganNet, UNet, dice, dice_loss, iou, outlined, standardised
from cxrmine.methods.registry import build
from cxrmine.recipe_files import load_recipe

NONE = [[0.0, 0], [0, 0]]
LEFT, TOP, ALL = [[1.0, 0], [1, 0]], [[1.0, 1], [0, 0]], [[1.0, 1], [1, 1]]


def net(*channels: int, organs: int = 3) -> UNet:
    torch.manual_seed(0)
    return UNet(channels or (2, 2, 4, 4), organs)


class Bright(nn.Module):
    """An organ is what is brighter than 100; it has learned films of 4 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == (4, 4)
        return images.float() - 100


# --- Dice and IoU


@pytest.mark.parametrize(
    ("said", "true", "overlap", "shared"),
    [
        (LEFT, LEFT, 1, 1),
        (TOP, LEFT, 2 * 1 / (2 + 2), 1 / 3),
        (ALL, LEFT, 2 * 2 / (4 + 2), 2 / 4),
        (LEFT, [[0, 1], [0, 1]], 0, 0),
        (NONE, NONE, 1, 1),
        (LEFT, NONE, 0, 0),
        (NONE, LEFT, 0, 0),
    ],
)
def test_dice_and_iou_by_hand(said: list, true: list, overlap: float, shared: float) -> None:
    masks = torch.tensor([said, true])
    assert dice(masks[0], masks[1]).item() == pytest.approx(overlap)
    assert iou(masks[0], masks[1]).item() == pytest.approx(shared)


def test_dice_of_what_is_not_certain_by_hand() -> None:
    said, true = torch.full((2, 2), 0.5), torch.tensor([[1.0, 0], [0, 0]])
    assert dice(said, true).item() == pytest.approx(2 * 0.5 / (2 + 1))
    assert dice(said, true, smooth=1).item() == pytest.approx((2 * 0.5 + 1) / (2 + 1 + 1))


def test_each_film_and_organ_has_its_own() -> None:
    said = torch.tensor([[LEFT, TOP], [NONE, ALL]])
    true = torch.tensor([[LEFT, LEFT], [LEFT, TOP]])
    assert dice(said, true).flatten().tolist() == pytest.approx([1, 1 / 2, 0, 2 / 3])
    assert iou(said, true).flatten().tolist() == pytest.approx([1, 1 / 3, 0, 1 / 2])


def test_the_loss_is_over_known_organs_alone() -> None:
    """Smoothed by a pixel: overlaps (2·2 + 1) / (4 + 1), (2·1 + 1) / (4 + 1), 1 / (2 + 1), (2·2 + 1) / (6 + 1)."""
    said, true = torch.tensor([[LEFT, TOP], [NONE, ALL]]), torch.tensor([[LEFT, LEFT], [LEFT, TOP]])
    losses = [0, 2 / 5, 2 / 3, 2 / 7]
    for known, by_hand in (
        ([[True, True], [True, True]], sum(losses) / 4),
        ([[True, True], [False, True]], (losses[0] + losses[1] + losses[3]) / 3),
        ([[False, False], [True, False]], losses[2]),
        ([[False, False], [False, False]], 0),
    ):
        assert dice_loss(said, true, torch.tensor(known)).item() == pytest.approx(by_hand)


def test_an_empty_mask_teaches_and_an_unknown_one_does_not() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = dice_loss(logits.sigmoid(), torch.zeros(1, 2, 2, 2), torch.tensor([[True, False]]))
    loss.backward()
    assert loss.item() == pytest.approx(1 - 1 / (4 * 0.5 + 1))
    assert logits.grad is not None
    # d/dx of 1 - 1 / (Σ σ(x) + 1) at x = 0: 1 / 3² × 1/4
    assert logits.grad.flatten().tolist() == pytest.approx([1 / 36] * 4 + [0] * 4)


def test_a_batch_without_a_mask_teaches_nothing_and_is_finite() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    dice_loss(logits.sigmoid(), torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


# --- the network


@pytest.mark.parametrize("size", [8, 32, 36, 37, 63, 100])
def test_outlines_have_the_size_of_the_film(size: int) -> None:
    """Also where it does not halve three times: on the way up, features take the size they had on the way down."""
    logits = net().eval()(torch.zeros(2, 1, size, size, dtype=torch.uint8))
    assert logits.shape == (2, 3, size, size)


def test_films_of_any_size_that_a_recipe_can_say_are_learned() -> None:
    for size in (32, 33, 47):
        objective = build(
            load_recipe("demo-organs", [f"data.size={size}", "network.channels=[2, 2, 2, 2]"]), torch.ones(3)
        )
        assert isinstance(objective, OrganNet)
        films = torch.randint(0, 255, (2, 1, size, size), dtype=torch.uint8)
        objective(films, torch.ones(2, 3), torch.ones(2, 3, size, size, dtype=torch.uint8))["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


def test_a_network_layer_by_layer() -> None:
    """Channels 2, 3, 5: down 1 → 2, 2 → 3, 3 → 5; up 5 + 3 → 3, 3 + 2 → 2; one 1×1 convolution at the end."""
    shapes = {
        name: tuple(weight.shape) for name, weight in net(2, 3, 5, organs=4).named_parameters() if weight.ndim > 1
    }
    assert shapes == {
        "down.0.0.weight": (2, 1, 3, 3), "down.0.3.weight": (2, 2, 3, 3),
        "down.1.0.weight": (3, 2, 3, 3), "down.1.3.weight": (3, 3, 3, 3),
        "down.2.0.weight": (5, 3, 3, 3), "down.2.3.weight": (5, 5, 3, 3),
        "up.0.0.weight": (2, 5, 3, 3), "up.0.3.weight": (2, 2, 3, 3),
        "up.1.0.weight": (3, 8, 3, 3), "up.1.3.weight": (3, 3, 3, 3),
        "outlines.weight": (4, 2, 1, 1),
    }  # fmt: skip


def test_the_recipe_organs_costs_what_it_says() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    recipe = load_recipe("organs")
    with torch.device("meta"):
        network = UNet(recipe.network.channels, 3).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 1, recipe.data.size, recipe.data.size))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(1.9e6, rel=0.03)
    assert counter.get_total_flops() == pytest.approx(21e9, rel=0.03)


def test_a_film_is_standardised_by_its_own_mean_and_deviation() -> None:
    films = torch.tensor([[[[10.0, 30]]], [[[110, 130]]]])
    by_hand = 10 / (math.sqrt(200) + 1)  # two pixels: both squares over one
    torch.testing.assert_close(standardised(films), torch.tensor([[[[-by_hand, by_hand]]]] * 2))


@pytest.mark.parametrize("gray", [0, 7, 255])
def test_a_constant_film_is_all_zeros(gray: int) -> None:
    films = torch.full((1, 1, 32, 32), gray, dtype=torch.uint8)
    assert not standardised(films.float()).any()
    assert net().eval()(films).isfinite().all()


# --- the objective


def test_the_objective_is_the_loss_of_the_organs_that_have_a_mask() -> None:
    recipe = load_recipe("demo-organs", ["network.channels=[2, 2, 2, 2]"])
    objective = OrganNet(recipe, torch.full((2,), 0.5))
    logits = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    objective.net.forward = lambda images: logits  # type: ignore[method-assign]
    masks = (torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)) > 0.5).to(torch.uint8)
    labels = torch.tensor([[1.0, 0], [math.nan, 1]])
    losses = 1 - dice(logits.sigmoid(), masks.float(), 1)
    loss = objective(torch.zeros(2, 1, 4, 4), labels, masks)["loss"]
    torch.testing.assert_close(loss, (losses[0, 0] + losses[1, 1]) / 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert objective(torch.zeros(2, 1, 4, 4), labels, masks)["loss"] == loss


def test_masks_move_with_their_film() -> None:
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    masks[0, 0, 1, 0], masks[0, 1, 2, 3] = 1, 1
    left = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])  # half a side of 2 is a pixel of 4
    (moved,) = Outlined(masks).moved(left, 4)
    assert moved.dtype == torch.uint8
    assert moved.nonzero().tolist() == [[0, 1, 2, 2]]


# --- masks of other films


def test_films_of_another_size_are_outlined_at_the_size_that_was_learned() -> None:
    films = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    films[..., 4:] = 200
    by_hand = [[False, False, True, True]] * 4
    for images in (films, films.float()):
        masks = outlined(Bright(), images, 4)  # type: ignore[arg-type]
        assert masks.dtype == torch.bool
        assert masks[0, 0].tolist() == by_hand


def test_a_large_film_is_averaged_and_not_sampled() -> None:
    """Every fourth of 32 columns is white: the mean is 64, and 127 between the columns 3 and 4, 11 and 12, …"""
    films = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    films[..., ::4] = 255
    assert not outlined(Bright(), films, 4).any()  # type: ignore[arg-type]


def test_a_film_of_the_size_that_was_learned_is_seen_as_it_is() -> None:
    films = torch.randint(0, 255, (2, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(outlined(Bright(), films, 4), films > 100)  # type: ignore[arg-type]


# --- recipes


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("demo", "network.backbone=unet", r'"unet" and method = "organs" need each other'),
        ("demo-organs", "network.backbone=resnet18", r'"unet" and method = "organs" need each other'),
        ("demo-organs", "augment.flip=0.5", r"needs augment\.flip = 0: a flip makes a left lung of a right one"),
        ("demo-organs", "network.weights=imagenet", r'"unet" has no network\.weights = "imagenet"; say "none"'),
        ("demo-organs", "train.start=runs/x", r'"organs" takes no train\.start'),
        ("demo-organs", "irnet.organs=runs/x", r'section irnet is for method = "irnet", and this is "organs"'),
        ("demo-organs", "train.phases.0.kind=base", r'"base" and "round" are for method = "am"'),
        ("demo-irnet", "irnet.organs=''", r"irnet\.gate needs irnet\.organs"),
        ("demo-irnet", "irnet.cut=0", r"irnet\.cut: Input should be greater than 0"),
        ("demo-irnet", "method=cam", r'section irnet is for method = "irnet", and this is "cam"'),
        ("demo", "method=irnet", r'method = "irnet" needs the section irnet'),
        ("demo-irnet", "irnet.gates=true", r"no key irnet\.gates\. Did you mean gate\?"),
    ],
)
def test_recipes_that_cannot_be(name: str, key: str, message: str) -> None:
    with pytest.raises(CxrError, match=message):
        load_recipe(name, [key])


def test_without_a_gate_no_run_of_organs_is_named() -> None:
    recipe = load_recipe("demo-irnet", ["irnet.gate=false", "irnet.organs=''"])
    assert recipe.irnet is not None
    assert build(recipe, torch.full((2,), 0.5)).state_dict().keys() & {"organs.outlines.weight"} == set()
