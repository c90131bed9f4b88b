"""Equations 1 to 7 of hierarchical attention mining: by hand on maps of 2×2 cells, and against NumPy on 6×6."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxrmine.method_keys import HierarchicalAttention
from cxrmine.methods.cam import classification_loss
from cxrmine.methods.hierarchical_attention import HierarchicalMiner, any_finding, normalised, raised, soft_mask
from cxrmine.recipe_files import load_recipe

NAN = math.nan
NONE = [[0.0, 0], [0, 0]]
RISING = [[0.0, 4], [10, 6]]  # sum 20; normalised 0, 0.4, 1, 0.6; soft masks 0, 1/2, 1, 1
CORNER = [[10.0, 0], [0, 0]]  # soft masks 1, 0, 0, 0
ACROSS = [[0, 1], [1, 0]]  # a box's mask
CLOSE = 1e-4  # how near to 0 and 1 these soft masks are

Boxes = Mapping[tuple[int, int], Sequence | np.ndarray]  # film, finding → mask


class Given:
    """A network whose maps are given: finding c sees channel c, "any finding" the last one."""

    def __init__(
        self, maps: Tensor, positive: Tensor, *keys: str, stride: int = 1, offset: float = 0.0, size: int = 2
    ) -> None:
        findings = maps.shape[1]
        plain = ("ham.foreground=none", "ham.bias=false", "network.pool=gap")
        recipe = load_recipe("demo-ham", [*plain, f"network.channels=[2, 2, 2, {findings + 1}]", *keys])
        self.features = torch.cat([maps, positive], dim=1).requires_grad_()
        self.model = HierarchicalMiner(recipe, torch.full((findings,), 0.5))
        self.model.recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"size": size})})
        self.model.backbone.forward = lambda images: self.features  # type: ignore[method-assign]
        self.model.backbone.stride, self.model.offset = stride, offset  # type: ignore[assignment]
        with torch.no_grad():
            self.model.finding_head.weight.copy_(torch.eye(findings, findings + 1))
            self.model.positive_head.weight.copy_(torch.eye(findings + 1)[-1:])

    def parts(self, labels: Sequence | Tensor, boxes: Boxes | None = None) -> dict[str, Tensor]:
        laid: tuple[Tensor, ...] = ()
        if boxes is not None:
            size = self.model.recipe.data.size
            masks = torch.tensor(np.array(list(boxes.values()), np.uint8).reshape(-1, size, size))
            laid = masks, torch.tensor(list(boxes), dtype=torch.long).reshape(-1, 2)
        return self.model(torch.empty(0), torch.as_tensor(labels), *laid)

    def reached(self, part: Tensor) -> set[str]:
        """What a loss teaches."""
        leaves = {"features": self.features} | {
            name: getattr(self.model, name).weight for name in ("finding_head", "positive_head")
        }
        pushes = torch.autograd.grad(part, list(leaves.values()), retain_graph=True, allow_unused=True)
        return {name for name, push in zip(leaves, pushes, strict=True) if push is not None and push.any()}


def film(*maps: Sequence) -> Tensor:
    return torch.tensor([maps])


def scattered(films: int, findings: int, side: int = 3) -> tuple[Tensor, Tensor]:
    """Random features of findings and of "any"; about a fifth is negative."""
    features = torch.rand(films, findings + 1, side, side, generator=torch.Generator().manual_seed(3)) * 1.5 - 0.3
    return features[:, :-1], features[:, -1:]


def test_equation_1_by_hand() -> None:
    features = film([[1.0, -2], [3, 0]], [[2, 1], [-1, 4]])
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, -1], [2, 0.5]]))
        head.bias.fill_(100)  # which is no part of a map
    # 1 - 2, -2 - 1, 3 + 1, 0 - 4; and 2 + 1, -4 + 1/2, 6 - 1/2, 0 + 2
    by_hand = [[[[0, 0], [4, 0]], [[3, 0], [5.5, 2]]]]
    assert Given(*scattered(1, 1)).model.attention(features, head).tolist() == by_hand


def test_equation_2_by_hand() -> None:
    ham = HierarchicalAttention()
    maps = normalised(torch.tensor([RISING, CORNER]), ham.normalise)
    assert maps.flatten(1).tolist() == pytest.approx(np.array([[0, 0.4, 1, 0.6], [1, 0, 0, 0]]))
    by_hand = pytest.approx(np.array([[0, 1 / 2, 1, 1], [1, 0, 0, 0]]), abs=1e-6)
    assert soft_mask(maps, ham.alpha, ham.beta).flatten(1).tolist() == by_hand
    # 0.4 + ln(0.999 / 0.001) / 100: where mining cuts
    assert soft_mask(torch.tensor(0.469), ham.alpha, ham.beta).item() == pytest.approx(0.999, abs=1e-5)


def test_two_ways_to_normalise_by_hand() -> None:
    maps = torch.tensor([[[2.0, 4], [12, 7]], [[5, 5], [10, 5]]])  # each by its own extremes
    assert normalised(maps, "minmax").tolist() == [[[0, pytest.approx(0.2)], [1, 0.5]], [[0, 0], [1, 0]]]
    assert normalised(maps, "max").flatten(1)[0].tolist() == pytest.approx([2 / 12, 4 / 12, 1, 7 / 12])


@pytest.mark.parametrize(
    ("how", "value", "becomes"), [("minmax", 0, 0), ("max", 0, 0), ("minmax", 3, 0), ("max", 3, 1)]
)
def test_a_map_that_is_the_same_everywhere(how: str, value: float, becomes: float) -> None:
    maps = torch.full((2, 3, 2, 2), float(value), requires_grad=True)
    same = normalised(maps, how)
    soft_mask(same, 100, 0.4).sum().backward()
    assert torch.equal(same.detach(), torch.full_like(same, becomes))
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


# Σ min(M^p, M) T(M): of the normalised map 0 + 2/2 + 10 + 1 = 12, of the raw one 0 + 2 + 10 + 1 = 13; of 20
@pytest.mark.parametrize(("soft", "lost"), [("normalised", 8 / 20), ("raw", 7 / 20)])
def test_equation_3_by_hand(soft: str, lost: float) -> None:
    given = Given(film(RISING, NONE), film([[5.0, 2], [10, 1]]), f"ham.soft_mask={soft}")
    assert given.parts([[1.0, 0]])["bound"].item() == pytest.approx(lost, abs=CLOSE)
    assert given.parts([[1.0, 1]])["bound"].item() == pytest.approx(lost / 2, abs=CLOSE), "a map of zeros loses nothing"


# Σ min(M^p, M^u) T(M^p), M^p = 0 10 4 6, T = 0 1 1/2 1: of M^u = 0 4 0 0 it is 4, of 0 4 8 1 it is 4 + 4/2 + 1; of 20
@pytest.mark.parametrize(("third", "lost"), [(0.0, 16 / 20), (NAN, 16 / 20), (1.0, 13 / 20)])
def test_equations_4_and_5_by_hand(third: float, lost: float) -> None:
    """The second finding's map is large, but it is absent."""
    maps = film([[0.0, 4], [0, 0]], [[100, 100], [100, 100]], [[0, 0], [8, 1]])
    for second in (0.0, NAN):
        given = Given(maps, film([[0.0, 10], [4, 6]]))
        assert given.parts([[1.0, second, third]])["union"].item() == pytest.approx(lost, abs=CLOSE)


def test_a_positive_map_of_zeros_is_in_every_union_and_bounds_nothing() -> None:
    parts = Given(film(RISING), film(NONE)).parts([[1.0]])
    assert (parts["union"].item(), parts["bound"].item()) == (0, 1)


@pytest.mark.parametrize(
    ("seen", "mask", "amse", "mse"),
    [
        (RISING, ACROSS, 1.25 / 4.5, 1.25 / 4),  # T = 0 1/2 1 1, G = 0 1 1 0: errors 0 1/4 0 1, sums 2.5 and 2
        (RISING, NONE, 2.25 / 2.5, 2.25 / 4),  # the box was shifted off the film
        (NONE, ACROSS, 2 / 2, 2 / 4),
        (CORNER, [[1, 0], [0, 0]], 0, 0),
    ],
)
def test_equation_6_by_hand(seen: list, mask: list, amse: float, mse: float) -> None:
    for kind, by_hand in (("amse", amse), ("mse", mse)):
        given = Given(film(NONE, seen), film(NONE), f"ham.box_loss={kind}")
        assert given.parts([[1.0, 1]], {(0, 1): mask})["boxes"].item() == pytest.approx(by_hand, abs=CLOSE)


@pytest.mark.parametrize(
    ("average", "bound", "boxes"),
    [
        # the first film's findings lose 1 and 0, the second film's only one 1; boxes 1.25 / 4.5, 0 / 2 and 2 / 2
        ("image", ((1 + 0) / 2 + 1) / 2, ((1.25 / 4.5 + 0) / 2 + 1) / 2),
        ("finding", ((1 + 1) / 2 + 0) / 2, ((1.25 + 2) / (4.5 + 2) + 0) / 2),
    ],
)
def test_two_ways_to_average_by_hand(average: str, bound: float, boxes: float) -> None:
    labels, key = [[1.0, 1], [1, 0]], f"ham.average={average}"
    maps = torch.cat([film([[0.0, 10], [0, 0]], CORNER), film(CORNER, RISING)])
    parts = Given(maps, torch.cat([film(CORNER), film(NONE)]), key).parts(labels)
    assert parts["bound"].item() == pytest.approx(bound, abs=CLOSE)
    maps = torch.cat([film(RISING, CORNER), film(CORNER, RISING)])
    drawn = {(0, 0): ACROSS, (0, 1): [[1, 0], [0, 0]], (1, 0): [[0, 0], [0, 1]]}
    parts = Given(maps, torch.cat([film(NONE)] * 2), key).parts(labels, drawn)
    assert parts["boxes"].item() == pytest.approx(boxes, abs=CLOSE)


@pytest.mark.parametrize(
    ("offset", "by_hand"),
    [
        (0.0, [[0, 2, 4, 4], [4, 6, 8, 8], [8, 10, 12, 12], [8, 10, 12, 12]]),  # pixels 0 1 2 3: cells 0 1/2 1 3/2
        (0.5, [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]),  # cells -1/4 1/4 3/4 5/4
    ],
)
def test_a_map_comes_to_input_size_by_hand(offset: float, by_hand: list) -> None:
    given = Given(film([[0.0, 4], [8, 12]]), film(NONE), stride=2, offset=offset, size=4)
    assert raised(given.features[:, 0], 4, given.model).tolist() == [by_hand]


@pytest.mark.parametrize(("first", "row"), [("true", [0, 1 / 2, 1, 1]), ("false", [0, 1, 1, 1])])
def test_soft_mask_and_input_size_in_either_order_by_hand(first: str, row: list[float]) -> None:
    """Half way between cells of 0 and 10 the map is 5, whose soft mask is 1, and the soft masks' middle is 1/2."""
    given = Given(film([[0.0, 10], [0, 10]]), film(NONE), f"ham.soft_first={first}", stride=2, size=4)
    assert given.model.at_input(given.features[0, :1])[0].tolist() == pytest.approx(np.array([row] * 4), abs=CLOSE)


@pytest.mark.parametrize("first", ["true", "false"])
def test_soft_masks_of_a_network_in_half_precision_are_in_full(first: str) -> None:
    given = Given(*scattered(2, 2), f"ham.soft_first={first}", stride=2, offset=0.5, size=6)
    with torch.autocast("cpu", torch.bfloat16):
        in_half = given.model.at_input(given.features[:, 0])
    assert torch.equal(in_half, given.model.at_input(given.features[:, 0]))


def test_any_finding_by_hand() -> None:
    labels = torch.tensor([[1, NAN, 0], [0, NAN, 0], [0, 0, 0], [NAN, NAN, NAN], [0, 1, 1]])
    np.testing.assert_array_equal(any_finding(labels), [[1], [NAN], [0], [NAN], [1]])


# --- Against NumPy. Keys with odd values, so that none stands in for another.

KEYS = {
    "alpha": 9.0,
    "beta": 0.3,
    "raw_beta": 0.6,
    "positive_weight": 0.3,
    "bound_weight": 5.0,
    "union_weight": 0.7,
    "box_weight": 0.2,
}
LABELS = np.array([[1, 0, 1, 1, 0], [1, NAN, 1, 0, 1], [NAN, 1, 0, 0, 1], [0, 0, 0, 0, NAN]])
SIZE, STRIDE, OFFSET = 24, 4, 1.5
CORNERS = {(0, 0): (2, 5, 9, 20), (0, 2): (0, 0, 24, 7), (1, 0): (11, 3, 12, 4), (2, 4): (5, 16, 21, 24)}
WAYS = {
    "soft_mask": ("normalised", "raw"),
    "normalise": ("minmax", "max"),
    "average": ("image", "finding"),
    "soft_first": (True, False),
    "box_loss": ("amse", "mse"),
}


def soft_of(values: np.ndarray, beta: float) -> np.ndarray:
    return 1 / (1 + np.exp(-KEYS["alpha"] * (values - beta)))


def unit(values: np.ndarray, how: str) -> np.ndarray:
    low = values.min() if how == "minmax" else 0
    return (values - low) / (values.max() - low) if values.max() > low else 0 * values


def lifted(values: np.ndarray) -> np.ndarray:
    places = (np.arange(SIZE) - OFFSET) / STRIDE
    for _ in range(2):  # rows, then columns
        values = np.array([np.interp(places, np.arange(len(row)), row) for row in values]).T
    return values


def mean_of_means(values: Mapping[tuple[int, int], float], axis: int) -> float:
    groups = [[value for pair, value in values.items() if pair[axis] == k] for k in range(9)]
    return float(np.mean([np.mean(group) for group in groups if group]))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    losses = np.where(labels == 1, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits)))
    return float(losses[~np.isnan(labels)].mean())


def box_loss(maps: np.ndarray, masks: Mapping[tuple[int, int], np.ndarray], way: Mapping) -> float:
    errors, sums = {}, {}
    for pair, mask in masks.items():
        if way["soft_first"]:
            seen = lifted(soft_of(unit(maps[pair], way["normalise"]), KEYS["beta"]))
        else:
            seen = soft_of(unit(lifted(maps[pair]), way["normalise"]), KEYS["beta"])
        errors[pair] = ((seen - mask) ** 2).sum()
        sums[pair] = seen.sum() + mask.sum() if way["box_loss"] == "amse" else SIZE * SIZE
    if way["average"] == "image":
        return mean_of_means({pair: errors[pair] / sums[pair] for pair in masks}, 0)
    of = [[pair for pair in masks if pair[1] == c] for c in range(5)]
    return float(np.mean([sum(errors[p] for p in own) / sum(sums[p] for p in own) for own in of if own]))


def losses(features: np.ndarray, masks: Mapping[tuple[int, int], np.ndarray], way: Mapping) -> dict[str, float]:
    maps, pairs = np.maximum(features, 0), np.argwhere(LABELS == 1).tolist()

    def lost(inner: np.ndarray, outer: np.ndarray) -> float:
        soft = soft_of(inner, KEYS["raw_beta"])
        if way["soft_mask"] == "normalised":
            soft = soft_of(unit(inner, way["normalise"]), KEYS["beta"])
        return 1 - (np.minimum(inner, outer) * soft).sum() / inner.sum() if inner.any() else 0.0

    bound = {(i, c): lost(maps[i, c], maps[i, -1]) for i, c in pairs}
    union = [lost(maps[i, -1], maps[i, :-1][LABELS[i] == 1].max(0)) for i in sorted({i for i, _ in pairs})]
    logits = features.mean((2, 3))
    parts = {
        "findings": cross_entropy(logits[:, :-1], LABELS),
        "positive": cross_entropy(logits[:, -1], np.array([1, 1, 1, NAN])),
        "bound": mean_of_means(bound, 0 if way["average"] == "image" else 1),
        "union": float(np.mean(union)),
        "boxes": box_loss(maps, masks, way),
    }
    weights = (1.0, *(KEYS[f"{name}_weight"] for name in ("positive", "bound", "union", "box")))
    return parts | {"loss": sum(w * part for w, part in zip(weights, parts.values(), strict=True))}


@pytest.mark.parametrize("choice", list(itertools.product(*WAYS.values())), ids=str)
def test_every_loss_and_equation_7_against_numpy(choice: tuple) -> None:
    way = dict(zip(WAYS, choice, strict=True))
    maps, positive = scattered(4, 5, side=6)
    maps[1, 2] = -1  # a map of zeros
    masks = {pair: np.zeros((SIZE, SIZE)) for pair in CORNERS}
    for pair, (left, top, right, bottom) in CORNERS.items():
        masks[pair][top:bottom, left:right] = 1
    keys = [f"ham.{key}={str(value).lower()}" for key, value in (KEYS | way).items()]
    given = Given(maps, positive, *keys, stride=STRIDE, offset=OFFSET, size=SIZE)
    parts = given.parts(torch.from_numpy(LABELS).float(), masks)
    by_numpy = losses(given.features.detach().double().numpy(), masks, way)
    assert {name: part.item() for name, part in parts.items() if name != "logits"} == pytest.approx(by_numpy, abs=1e-5)


def test_rare_labels_weigh_more_among_findings_alone() -> None:
    labels = torch.tensor([[1.0, 0], [0, 0], [0, 0]])
    plain, balanced = (Given(*scattered(3, 2), f"train.balance={way}").parts(labels) for way in ("none", "batch"))
    assert balanced["findings"] == classification_loss(balanced["logits"], labels, "batch") != plain["findings"]
    assert balanced["positive"] == plain["positive"]
