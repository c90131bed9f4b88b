"""The network of hierarchical attention mining: layers, maps, what each loss teaches, what moves with films."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxrmine.learn.network import Backbone
from cxrmine.method_keys import HierarchicalAttention
from cxrmine.methods.hierarchical_attention import Encoder, ForegroundBlock, HierarchicalMiner, head
from cxrmine.methods.registry import build
from cxrmine.recipe_files import load_recipe
from tests.test_hierarchical_attention import ACROSS, NAN, Given, scattered

TINY = ("data.size=64", "network.channels=[8, 8, 16, 16]", "ham.channels=8")
EYE = np.eye(3)  # stands for a box's mask
FILM = torch.zeros(1, 1, 512, 512, device="meta")


def miner(*more: str, recipe: str = "demo-ham", findings: int = 3) -> HierarchicalMiner:
    torch.manual_seed(0)
    return HierarchicalMiner(load_recipe(recipe, more), torch.full((findings,), 0.2))


def of_the_paper(*more: str) -> HierarchicalMiner:
    return miner("network.weights=none", *more, recipe="ham", findings=14).eval()


def films(count: int) -> Tensor:
    return torch.randint(0, 255, (count, 1, 64, 64), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weightless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks have the shapes of their weights and no values."""
    monkeypatch.setattr(Backbone, "cell_offsets", lambda backbone: (0.0, 0.0))
    with torch.device("meta"):
        yield


def put(weight: Tensor, values: Any) -> None:
    """`values` in the middle of a convolution, or as a matrix, and 0 elsewhere."""
    with torch.no_grad():
        weight.zero_()
        middle = weight[..., weight.shape[2] // 2, weight.shape[3] // 2] if weight.ndim == 4 else weight
        middle.copy_(torch.tensor(values))


# 3×3 2048 → 512, 3×3 512 → 512 and 3×3 2560 → 512, each with 512 scales and shifts of batch norm
CONVOLUTIONS = 9 * 2048 * 512 + 9 * 512 * 512 + 9 * 2560 * 512 + 3 * 2 * 512
CHANNELS = 512 + 512 * 512 + 512 * 64 + 64 * 512  # where to look; the mix of channels; their weights
POSITIONS = 512 + 9 + 2  # 1×1 512 → 1, 3×3 1 → 1, its batch norm
HEADS = 14 * 512 + 512
SHAPES = {
    "encoder.before.0.weight": (512, 2048, 3, 3),
    "encoder.before.1.weight": (512,),
    "encoder.before.1.bias": (512,),
    "encoder.block.look.weight": (1, 512, 1, 1),
    "encoder.block.weigh.0.weight": (64, 512),
    "encoder.block.weigh.2.weight": (512, 64),
    "encoder.block.mix.weight": (512, 512, 1, 1),
    "encoder.block.flatten.weight": (1, 512, 1, 1),
    "encoder.block.gate.0.0.weight": (1, 1, 3, 3),
    "encoder.block.gate.0.1.weight": (1,),
    "encoder.block.gate.0.1.bias": (1,),
    "encoder.block.scale": (1,),
    "encoder.after.0.weight": (512, 512, 3, 3),
    "encoder.after.1.weight": (512,),
    "encoder.after.1.bias": (512,),
    "encoder.join.0.0.weight": (512, 2560, 3, 3),
    "encoder.join.0.1.weight": (512,),
    "encoder.join.0.1.bias": (512,),
    "finding_head.weight": (14, 512),
    "positive_head.weight": (1, 512),
}


def test_the_papers_network_layer_by_layer() -> None:
    model = of_the_paper()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {name: shape for name, shape in shapes.items() if not name.startswith("backbone.")} == SHAPES
    count = sum(math.prod(shape) for shape in SHAPES.values())
    assert count == CONVOLUTIONS + CHANNELS + POSITIONS + 1 + HEADS == 23_932_428
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == 23_508_032  # without 2048×1000 + 1000
    layers = [type(layer) for name, layer in model.encoder.named_modules() if not list(layer.children())]
    assert layers == [
        *(nn.Conv2d, nn.BatchNorm2d),
        *(nn.Conv2d, nn.Conv2d, nn.Linear, nn.ReLU, nn.Linear, nn.Sigmoid),
        *(nn.Conv2d, nn.Conv2d, nn.BatchNorm2d, nn.Sigmoid),
        *(nn.Conv2d, nn.BatchNorm2d),
        *(nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout2d),
    ]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout2d)] == [0.1]
    assert model.get_parameter("encoder.block.scale").item() == 0
    assert (model.map_stride, model.cell_offset()) == (8, 0)
    logits, maps = model.infer(torch.zeros(1, 1, 512, 512))
    assert (logits.shape, maps.shape) == ((1, 14), (1, 1, 14, 64, 64))


OF_CHANNELS = {"look.weight", "mix.weight", "weigh.0.weight", "weigh.2.weight"}
OF_POSITIONS = {"flatten.weight", "gate.0.0.weight", "gate.0.1.weight", "gate.0.1.bias"}


@pytest.mark.parametrize(
    ("foreground", "own", "count"),
    [
        ("none", None, 15 * 2048),
        ("channel", OF_CHANNELS, CONVOLUTIONS + CHANNELS + 1 + HEADS),
        ("position", OF_POSITIONS, CONVOLUTIONS + POSITIONS + 1 + HEADS),
        ("both", OF_CHANNELS | OF_POSITIONS, 23_932_428),
    ],
)
@pytest.mark.usefixtures("weightless")
def test_what_each_foreground_has(foreground: str, own: set[str] | None, count: int) -> None:
    model = of_the_paper(f"ham.foreground={foreground}")
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert sum(size for name, size in sizes.items() if not name.startswith("backbone.")) == count
    start = "encoder.block."
    has = {name.removeprefix(start) for name in sizes if name.startswith(start)}
    assert has == (own | {"scale"} if own else set())
    assert model.encoder(model.backbone(FILM)).shape[2:] == (64, 64)


@pytest.mark.parametrize(("depth", "width"), [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048)])
@pytest.mark.usefixtures("weightless")
def test_every_resnet_has_maps_of_stride_8(depth: int, width: int) -> None:
    model = of_the_paper(f"network.backbone=resnet{depth}")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["encoder.before.0.weight"] == (width // 4, width, 3, 3)
    assert shapes["encoder.join.0.0.weight"] == (512, width + width // 4, 3, 3)
    assert model.encoder(model.backbone(FILM)).shape[2:] == (64, 64)


@pytest.mark.parametrize("positive", ["true", "false"])
def test_a_network_without_a_positive_map_has_no_head_for_it(positive: str) -> None:
    model = miner(*TINY, "ham.bound=false", "ham.union=false", f"ham.positive={positive}")
    parts = model(films(2), torch.ones(2, 3))
    assert ("positive" in parts) == hasattr(model, "positive_head") == (positive == "true")
    assert not {"bound", "union"} & set(parts)
    parts["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters()), "which many processes rely on"


@pytest.mark.parametrize(
    ("foreground", "by_hand"),
    [
        # Places 3/6 1/6 1/6 1/6, so (1, 6) is seen as (1/2, 1): weights σ(0) and σ(ln 3). Channels 6 × 1/2 and 4 × 3/4:
        ("channel", [[[1, 3], [0, 0]], [[3, 6], [0, 0]]]),
        # Flat 1 and 6 / 3. The gate sees the cell to the left: σ(0), σ(ln 3 × 1). Added are 1 × 1/2 and 2 × 3/4:
        ("position", [[[1.5, 1.5], [0, 0]], [[0.5, 7.5], [0, 0]]]),
        # Flat 3 / 3 and 3, so added are 1 × 1/2 and 3 × 3/4:
        ("both", [[[1.5, 2.25], [0, 0]], [[0.5, 8.25], [0, 0]]]),
    ],
)
def test_the_foreground_block_by_hand(foreground: str, by_hand: list) -> None:
    block = ForegroundBlock(2, foreground, reduction=2).eval()
    weights = dict(block.named_parameters())
    nn.init.ones_(block.scale)
    if foreground != "position":
        put(weights["look.weight"], [[math.log(3), 0]])
        put(weights["weigh.0.weight"], [[2.0, 1]])
        put(weights["weigh.2.weight"], [[0], [math.log(3) / 2]])
        put(weights["mix.weight"], [[0.0, 1], [4, 0]])
    if foreground != "channel":
        put(weights["flatten.weight"], [[1, 1 / 3]])
        put(weights["gate.0.0.weight"], 0.0)
        nn.init.constant_(weights["gate.0.0.weight"][0, 0, 1, :1], math.log(3))
    features = torch.tensor([[[[1.0, 0], [0, 0]], [[0, 6], [0, 0]]]])
    assert block(features)[0].flatten().tolist() == pytest.approx(np.ravel(by_hand), abs=1e-4)


@pytest.mark.parametrize("foreground", ["channel", "position", "both"])
def test_at_first_the_block_adds_nothing_and_its_scale_learns(foreground: str) -> None:
    block, features = ForegroundBlock(4, foreground, reduction=2), torch.randn(2, 4, 3, 3)
    out = block(features)
    assert torch.equal(out, features)
    out.square().sum().backward()
    assert block.scale.grad is not None
    assert block.scale.grad.item() != 0


def test_the_encoder_by_hand() -> None:
    """One place with four channels; the block adds nothing yet; ReLU comes last and only there."""
    encoder = Encoder(HierarchicalAttention(channels=2), 4).eval()
    weights = dict(encoder.named_parameters())
    put(weights["before.0.weight"], [[-1.0, 0, 0, 0]])
    put(weights["after.0.weight"], [[-3.0]])
    put(weights["join.0.0.weight"], [[0.0, 1, 0, 0, 10], [0, 0, 0, 1, -1]])
    features = torch.tensor([1.0, 2, 3, 1]).view(1, 4, 1, 1)
    # -1 × -3 = 3 joins them: 2 + 10 × 3, and 1 - 3
    assert encoder(features).flatten().tolist() == pytest.approx([32, 0], rel=1e-4)


def test_heads_begin_at_the_log_odds_where_they_have_a_bias() -> None:
    prevalence = torch.tensor([0.5, 0.2, 0.9])
    with_bias, without = head(16, prevalence, True), head(16, prevalence, False)
    torch.testing.assert_close(with_bias.bias.detach(), torch.log(torch.tensor([1, 1 / 4, 9])))
    assert without.bias is None
    assert 0 < without.weight.abs().max() <= 1 / 4
    model = HierarchicalMiner(load_recipe("demo-ham", TINY), torch.tensor([0.5, 0.2]))
    assert model.positive_head.bias.item() == pytest.approx(math.log(0.6 / 0.4))  # none has one: 0.5 × 0.8


@pytest.mark.parametrize("how", ["minmax", "max"])
def test_inference_has_the_maps_and_logits_of_training(how: str) -> None:
    model = build(load_recipe("demo-ham", [*TINY, f"ham.normalise={how}"]), torch.full((3,), 0.5)).eval()
    assert isinstance(model, HierarchicalMiner)
    with torch.no_grad():
        model.finding_head.bias.fill_(7)  # which is no part of a map
        model.finding_head.weight[1:].abs_()
        features = model.encoder(model.backbone(films(2)))
        attention = torch.einsum("ndhw,cd->nchw", features, model.finding_head.weight).clamp(min=0)
        lowest = attention.amin((2, 3), keepdim=True)
        assert (lowest[:, 1:] > 0).all(), "or there is nothing to subtract"
        logits, maps = model.infer(films(2))
        assert maps.shape == (2, 1, 3, 8, 8)
        assert maps.min() >= 0
        torch.testing.assert_close(maps[:, 0], attention - lowest if how == "minmax" else attention)
        torch.testing.assert_close(logits, model(films(2), torch.ones(2, 3))["logits"])
        torch.testing.assert_close(model.attention(features, model.finding_head), attention)


# --- What the losses teach.

ALL = {"features", "finding_head", "positive_head"}


@pytest.mark.parametrize(
    ("part", "teaches", "detached"),
    [
        ("bound", ALL, {"features"}),
        ("union", ALL, {"features"}),
        ("boxes", ALL - {"positive_head"}, {"features"}),
        ("findings", ALL - {"positive_head"}, ALL - {"positive_head"}),
        ("positive", ALL - {"finding_head"}, ALL - {"finding_head"}),
    ],
)
def test_what_each_loss_teaches(part: str, teaches: set[str], detached: set[str]) -> None:
    for key, by_hand in (("false", teaches), ("true", detached)):
        given = Given(*scattered(2, 2), "ham.alpha=9.0", f"ham.detach_heads={key}", size=3)
        parts = given.parts([[1.0, 0], [1, 1]], {(0, 0): EYE})
        assert given.reached(parts[part]) == by_hand
        assert given.reached(parts["loss"]) == ALL


def test_each_loss_teaches_only_the_maps_it_is_of() -> None:
    """Two findings, then "any": bound and union those that are present, boxes the pairs that have some."""
    given = Given(*scattered(3, 2), "ham.alpha=9.0", size=3)
    parts = given.parts([[1.0, 0], [NAN, 1], [1, 1]], {(0, 0): EYE, (2, 1): EYE})
    present = [[True, False, True], [False, True, True], [True, True, True]]
    boxed = [[True, False, False], [False, False, False], [False, True, False]]
    for part, by_hand in (("bound", present), ("union", present), ("boxes", boxed)):
        (push,) = torch.autograd.grad(parts[part], given.features, retain_graph=True)
        assert (push != 0).any(dim=(2, 3)).tolist() == by_hand, part


@pytest.mark.parametrize("average", ["image", "finding"])
@pytest.mark.parametrize("label", [0.0, NAN])
def test_a_film_without_a_finding_adds_nothing(average: str, label: float) -> None:
    maps, positive = scattered(3, 2)
    values, pushes = [], []
    for films in (2, 3):
        given = Given(maps[:films], positive[:films], "ham.alpha=9.0", f"ham.average={average}", size=3)
        parts = given.parts([[1.0, 0], [1, 1], [label, label]][:films], {(0, 0): EYE, (1, 1): EYE})
        values.append([parts[name].item() for name in ("bound", "union", "boxes")])
        pushes.append(torch.autograd.grad(parts["bound"] + 2 * parts["union"] + 3 * parts["boxes"], given.features)[0])
    assert values[0] == pytest.approx(values[1])
    assert min(values[0]) > 0
    torch.testing.assert_close(pushes[0], pushes[1][:2])
    assert not pushes[1][2].any()


@pytest.mark.parametrize("label", [0.0, 1.0, NAN])
@pytest.mark.parametrize("features", [(-1.0, -1.0), (0.0, 0.0), (2.0, 2.0), (-1.0, 2.0), (2.0, -1.0)])
def test_the_loss_of_a_batch_that_has_nothing_is_finite(features: tuple[float, float], label: float) -> None:
    """No box, no label or no film with a finding, and maps that are the same everywhere."""
    maps, positive = (torch.full((2, of, 2, 2), value) for of, value in zip((3, 1), features, strict=True))
    for average, boxes in itertools.product(("image", "finding"), (None, {}, {(1, 2): ACROSS})):
        given = Given(maps, positive, f"ham.average={average}")
        parts = given.parts(torch.full((2, 3), label), boxes)
        parts["loss"].backward()
        leaves = (given.features, given.model.finding_head.weight, given.model.positive_head.weight)
        pushes = [leaf.grad for leaf in leaves if leaf.grad is not None]
        assert len(pushes) == 3
        assert all(tensor.isfinite().all() for tensor in (*parts.values(), *pushes))
        assert ("boxes" in parts) == (boxes is not None)
        if label != 1:
            assert (parts["bound"].item(), parts["union"].item()) == (0, 0)
        if boxes == {}:
            assert parts["boxes"].item() == 0
