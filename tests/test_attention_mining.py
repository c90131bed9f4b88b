"""Equations 1 to 7 of attention mining, with numbers worked out by hand on maps of 2×2 and 3×3 cells."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cxrmine.boxes.erase import erase, normalise
from cxrmine.config import Network, Recipe
from cxrmine.learn.checkpoint import save_weights
from cxrmine.methods.attention_mining import AttentionMiner, Layers, pool_erased, preservation
from cxrmine.recipe_files import load_recipe

GAP, LSE = Network(weights="none"), Network(weights="none", pool="lse", lse_r=2.0)
NAN = math.nan


def small(*more: str) -> Recipe:
    """Two channels in every stage; no MSA unless `more` says so."""
    tiny = ("network.channels=[2, 2, 2, 2]", "am.msa_channels=[2, 2]", "am.msa=none", "network.pool=gap")
    return load_recipe("demo-am", [*tiny, *more])


class Seen:
    """A network whose backbone's two stages are given: film i is the image that holds the number i."""

    def __init__(self, stages: tuple[Tensor, Tensor], *more: str, weights: Tensor | None = None) -> None:
        self.model = AttentionMiner(small(*more), torch.full((2,), 0.5))
        self.give(self.model, *stages)
        with torch.no_grad():
            self.model.head.weight.copy_(torch.eye(2) if weights is None else weights)
        self.films = torch.arange(len(stages[0])).view(-1, 1, 1, 1)

    @staticmethod
    def give(model: AttentionMiner, third: Tensor, fourth: Tensor) -> None:
        model.backbone.scales = lambda images: (third[images.flatten()], fourth[images.flatten()])  # type: ignore[method-assign]

    def in_a_round(self, folder: Path, before: tuple[Tensor, Tensor] | None = None) -> AttentionMiner:
        """Begin a round; the two stages of network A are `before`, or those of this one."""
        save_weights(folder / "0.safetensors", self.model)
        self.model.begin(self.model.recipe.schedule[-1], folder / "0.safetensors")
        if before:
            self.give(self.model.before[0], *before)
        return self.model


def cross_entropy(logit: float, label: int) -> float:
    return math.log(1 + math.exp(-logit if label else logit))


def test_equations_1_and_2_by_hand() -> None:
    features = torch.tensor([[[[8.0, 0], [0, 4]], [[4, 0], [0, 0]]]])
    kept = torch.ones(1, 3, 2, 2)
    kept[0, 0, 0, 0] = 0  # of the first finding the strongest cell is erased
    kept[0, 2] = 0  # of the third all
    # 4 / 4 and 0 / 4, not 4 / 3: the erased zero counts
    assert pool_erased(features, kept, GAP).tolist() == [[[1, 0], [3, 1], [0, 0]]]


def test_log_sum_exp_takes_erased_cells_as_zeros_by_hand() -> None:
    features = torch.tensor([[[[0.0, 1], [2, 3]]]])
    kept = torch.ones(1, 3, 2, 2)
    kept[0, 0, 1, 1] = 0
    kept[0, 2] = 0
    e = math.exp(2)
    by_hand = [math.log((1 + e + e**2 + 1) / 4) / 2, math.log((1 + e + e**2 + e**3) / 4) / 2, 0.0]
    assert pool_erased(features, kept, LSE).flatten().tolist() == pytest.approx(by_hand, abs=1e-6)
    below = pool_erased(-features, kept, LSE)[0, 0].item()  # zeros are the highest there is
    assert below == pytest.approx(math.log((1 + 1 / e + 1 / e**2 + 1) / 4) / 2)


def test_log_sum_exp_of_what_is_left_beside_a_very_strong_cell() -> None:
    features = torch.tensor([[[[300.0, 1], [1, 1]]]])
    kept = torch.ones(1, 1, 2, 2)
    kept[0, 0, 0, 0] = 0
    assert pool_erased(features, kept, LSE).item() == pytest.approx(math.log((1 + 3 * math.exp(2)) / 4) / 2)


@pytest.mark.parametrize("network", [GAP, LSE])
def test_with_nothing_erased_every_branch_sees_what_the_head_sees(network: Network) -> None:
    from cxrmine.learn.network import pool

    features = torch.randn(2, 3, 5, 5)
    branches = pool_erased(features, torch.ones(2, 4, 5, 5), network)
    torch.testing.assert_close(branches, pool(features, network)[:, None].expand(2, 4, 3))


def test_equations_2_and_3_by_hand(tmp_path: Path) -> None:
    """Two films alike, the first erased in its first finding only; weights (1, -1) and (1/2, 1/2)."""
    film = torch.tensor([[[8.0, 0], [0, 4]], [[4, 0], [0, 0]]])  # averages 3 and 1; without the first cell 1 and 0
    stages = torch.zeros(2, 2, 2, 2), torch.stack([film, film])
    seen = Seen(stages, "am.kp=vanilla", weights=torch.tensor([[1.0, -1], [0.5, 0.5]]))
    model = seen.in_a_round(tmp_path)
    erased = torch.zeros(2, 2, 2, 2)
    erased[:, 0, 0, 0] = 1  # of the second film as well: but `where` does not name it
    labels = torch.tensor([[1.0, 0], [1, 0]])
    parts = model(seen.films, labels, erased, torch.tensor([True, False]))
    assert parts["logits"].tolist() == [[1, 2], [2, 2]]
    of_findings = [(cross_entropy(1, 1) + cross_entropy(2, 1)) / 2, (cross_entropy(2, 0) + cross_entropy(2, 0)) / 2]
    assert parts["loss"].item() == pytest.approx(sum(of_findings) / 2)
    assert set(parts) == {"loss", "logits"}, "KP-vanilla has no network A"
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([10.0, 20]))
    assert model(seen.films, labels, erased, torch.tensor([True, True]))["logits"].tolist() == [[11, 22], [11, 22]]
    erased[0] = 1  # of the first film all: but now the second is named
    assert model(seen.films, labels, erased, torch.tensor([False, True]))["logits"].tolist() == [[12, 22], [11, 22]]
    assert model(seen.films, labels)["logits"].tolist() == [[12, 22], [12, 22]], "a plain step erases nothing"


def test_equation_7_is_the_map_times_the_mask() -> None:
    """Erasing the map, as mining does, is erasing the features: whole numbers, so that nothing is rounded."""
    features = torch.randint(0, 9, (1, 2, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    model = Seen((torch.zeros(1, 2, 9, 9), features), weights=torch.tensor([[2.0, -1], [1, 3]])).model
    torch.nn.init.constant_(model.head.bias, 5)  # which is no part of a map
    raw = model.infer(torch.zeros(1, 1, 1, 1, dtype=torch.long))[1][0, 0, 0].numpy()
    maps, masks = erase(np.stack([raw, raw]))
    left = features[0].numpy() * masks[0]
    assert not masks[0].all()
    assert np.array_equal(maps[1], normalise(2 * left[0] - left[1]))


@pytest.mark.parametrize("pooling", ["gap", "lse"])
@pytest.mark.parametrize("finding", [0, 1])
def test_a_findings_loss_does_not_reach_the_cells_its_mask_erased(tmp_path: Path, pooling: str, finding: int) -> None:
    fourth = (1 + torch.rand(2, 2, 3, 3)).requires_grad_()
    seen = Seen((torch.zeros(2, 2, 6, 6), fourth), "am.kp=vanilla", f"network.pool={pooling}")
    with torch.no_grad():
        seen.model.head.weight.fill_(1)
    model = seen.in_a_round(tmp_path)
    erased = torch.zeros(2, 2, 3, 3)
    erased[:, 0, :2, :2] = 1
    erased[:, 1, 2, 1:] = 1
    labels = torch.full((2, 2), NAN)  # not counted, but for
    labels[:, finding] = 1
    model(seen.films, labels, erased, torch.tensor([True, False]))["loss"].backward()
    assert fourth.grad is not None
    assert torch.equal(fourth.grad[0] == 0, (erased[0, finding] == 1).expand(2, 3, 3))
    assert (fourth.grad[1] != 0).all(), "the second film is not erased"


def test_equation_4_by_hand() -> None:
    now = [torch.tensor([[3.0, 0], [0, 4]])]  # two films, two channels
    before = [torch.zeros(2, 2)]
    assert preservation(now, before, "batch").item() == 5 / 2  # √(9 + 16), over two films
    assert preservation(now, before, "image").item() == (3 + 4) / 2
    assert preservation(before, now, "batch").item() == 5 / 2
    alone = [torch.tensor([[3.0, 4]])], [torch.tensor([[0.0, 0]])]
    assert preservation(*alone, "batch").item() == preservation(*alone, "image").item() == 5


def test_equation_5_is_the_mean_over_layers_by_hand() -> None:
    now = [torch.tensor([[3.0, 4]]), torch.tensor([[1.0]]), torch.tensor([[0.0, 0, 6]])]
    before = [torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 3)]
    for norm in ("batch", "image"):
        assert preservation(now, before, norm).item() == (5 + 1 + 6) / 3


@pytest.mark.parametrize("norm", ["batch", "image"])
def test_where_the_networks_are_the_same_the_gradient_is_nothing_and_finite(norm: str) -> None:
    now = torch.ones(3, 2, requires_grad=True)
    apart = preservation([now], [torch.ones(3, 2)], norm)
    apart.backward()
    assert apart.item() == 0
    assert torch.equal(now.grad, torch.zeros(3, 2))


def test_the_layers_that_are_preserved() -> None:
    logits = torch.tensor([[7.0, 8]])
    layers = Layers(torch.ones(1, 3, 4, 4), torch.full((1, 2, 2, 2), 2.0), torch.full((1, 1, 4, 4), 3.0), logits)
    assert [average.tolist() for average in layers.averages()] == [[[1, 1, 1]], [[2, 2]], [[3]], [[7, 8]]]
    without = layers._replace(aggregated=None).averages()
    assert [average.tolist() for average in without] == [[[1, 1, 1]], [[2, 2]], [[7, 8]]]


OFF = torch.tensor([100.0, 3, 0]), torch.tensor([100.0, 0, 4])  # of films 0, 1, 2: channel 0, channel 1


def apart_stages() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Three films of network B and of A. On average B's third stage is ahead by OFF, its fourth by twice that."""
    before = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 2, 2)
    by = torch.stack(OFF, dim=1)[:, :, None, None]
    return (before[0] + by, before[1] + 2 * by), before


@pytest.mark.parametrize(
    ("norm", "by_hand"),
    [
        ("batch", (5 / 2 + 10 / 2 + 10 / 2) / 3),  # third stage, fourth, logits: as the fourth, the head being 1
        ("image", (7 / 2 + 14 / 2 + 14 / 2) / 3),
    ],
)
def test_equation_6_by_hand(tmp_path: Path, norm: str, by_hand: float) -> None:
    """The film that is erased is far from what A says of it, and does not count."""
    now, before = apart_stages()
    seen = Seen(now, f"am.kp_norm={norm}", "am.kp_weight=0.25")
    model = seen.in_a_round(tmp_path, before)
    erased, where = torch.ones(3, 2, 2, 2), torch.tensor([True, False, False])
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    parts = model(seen.films, labels, erased, where)
    assert parts["preservation"].item() == pytest.approx(by_hand, rel=1e-5)
    assert parts["loss"].item() == pytest.approx(parts["classification"].item() + 0.25 * by_hand, rel=1e-5)
    assert parts["logits"][0].tolist() == [0, 0]
    alone = model(seen.films, labels, erased, torch.tensor([True, True, True]))
    assert "preservation" not in alone, "where all films are erased there is nothing to preserve"


def test_a_balanced_weight_is_a_share_of_the_classification_loss(tmp_path: Path) -> None:
    """λ L_KP = 0.5 L_cls in value; λ itself does not learn, so both losses push as they would alone."""
    (third, fourth), before = apart_stages()
    fourth.requires_grad_()
    seen = Seen((third, fourth), "am.kp_balance=loss", "am.kp_weight=0.5")
    model = seen.in_a_round(tmp_path, before)
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    parts = model(seen.films, labels, torch.ones(3, 2, 2, 2), torch.tensor([True, False, False]))
    loss, classification, kp = parts["loss"], parts["classification"], parts["preservation"]
    assert loss.item() == pytest.approx(1.5 * classification.item(), rel=1e-6)
    share = 0.5 * classification.item() / kp.item()
    pushes = [torch.autograd.grad(part, fourth, retain_graph=True)[0] for part in (loss, classification, kp)]
    torch.testing.assert_close(pushes[0], pushes[1] + share * pushes[2])


@pytest.mark.parametrize("balance", ["fixed", "loss"])
def test_at_first_the_networks_are_the_same(tmp_path: Path, balance: str) -> None:
    seen = Seen((torch.rand(2, 2, 4, 4), torch.rand(2, 2, 2, 2)), f"am.kp_balance={balance}")
    model = seen.in_a_round(tmp_path)
    parts = model(seen.films, torch.ones(2, 2), torch.zeros(2, 2, 2, 2), torch.tensor([True, False]))
    parts["loss"].backward()
    assert parts["preservation"].item() == 0
    assert parts["loss"].item() == parts["classification"].item()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.isfinite().all()
