"""The networks of attention mining: two scales in one map, what learns in which phase, and the one not to forget."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cxrmine.errors import CxrError
from cxrmine.learn.checkpoint import save_weights
from cxrmine.learn.loop import set_mode
from cxrmine.learn.network import pool
from cxrmine.method_keys import AttentionMining
from cxrmine.methods.attention_mining import Aggregation, AttentionMiner, Replay
from cxrmine.methods.registry import build
from cxrmine.recipe_files import load_recipe

TINY = ("data.size=64", "network.channels=[8, 8, 16, 16]", "am.msa_channels=[8, 4]")


def miner(*more: str, prevalence: float = 0.5) -> AttentionMiner:
    torch.manual_seed(0)
    return AttentionMiner(load_recipe("demo-am", [*TINY, *more]), torch.full((3,), prevalence))


def films(count: int, size: int = 64) -> Tensor:
    return torch.randint(0, 255, (count, 1, size, size), generator=torch.Generator().manual_seed(1))


def in_a_round(model: AttentionMiner, folder: Path) -> AttentionMiner:
    save_weights(folder / "0.safetensors", model)
    model.begin(model.recipe.schedule[-1], folder / "0.safetensors")
    return model


def aggregation(finer_offset: float, deep_offset: float, msa: str = "bilinear") -> Aggregation:
    """Of a backbone with 5 channels in its last stage and 3 in the one before; 4 and 2 after reduction."""
    offsets = (finer_offset, deep_offset)
    backbone: Any = SimpleNamespace(finer=1, width=5, finer_width=3, stride=32, cell_offsets=lambda: offsets)
    return Aggregation(AttentionMining(msa=msa, msa_channels=(4, 2)), backbone)  # type: ignore[arg-type]


def test_a_resnets_new_cell_is_old_cell_halved_by_hand() -> None:
    """New cells 0, 1, 2, 3 are old cells 0, 1/2, 1, 3/2; beyond old cell 1 there is old cell 1."""
    raised = aggregation(0, 0).interpolate(torch.tensor([[[[0.0, 4], [8, 12]]]]), (4, 4))
    assert raised.tolist() == [[[[0, 2, 4, 4], [4, 6, 8, 8], [8, 10, 12, 12], [8, 10, 12, 12]]]]


def test_a_densenets_new_cell_lies_a_quarter_before_by_hand() -> None:
    """Finer cells at pixels 6, 22, 38, 54, deep ones at 14 and 46: old cells -1/4, 1/4, 3/4, 5/4."""
    cells = torch.tensor([[[[0.0, 4], [8, 12]]]])
    raised = aggregation(6, 14).interpolate(cells, (4, 4))
    assert raised.tolist() == [[[[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]]]
    torch.testing.assert_close(raised, torch.nn.functional.interpolate(cells, (4, 4), mode="bilinear"))


@pytest.mark.parametrize("msa", ["bilinear", "deconv"])
@pytest.mark.parametrize("finer", [4, 5])
def test_both_scales_stand_beside_each_other(msa: str, finer: int) -> None:
    """The raised last stage first, then the finer one; 5 finer cells lie over 3 deep ones."""
    part = aggregation(0, 0, msa).eval()
    deep = -(-finer // 2)
    aggregated = part(torch.rand(2, 3, finer, finer), torch.rand(2, 5, deep, deep))
    assert aggregated.shape == (2, 4 + 2, finer, finer)
    without_finer = part(torch.zeros(2, 3, finer, finer), torch.rand(2, 5, deep, deep))
    assert without_finer[:, :4].any()
    assert not without_finer[:, 4:].any()


@pytest.mark.parametrize("new", [0, 2])
def test_a_deconvolution_looks_where_its_cell_is(new: int) -> None:
    """With its middle weight alone, new cell 2i is old cell i, as in the interpolation of a ResNet."""
    part = aggregation(0, 0, "deconv").eval()
    assert isinstance(part.up, torch.nn.Sequential)
    with torch.no_grad():
        weight = part.up[0].weight
        weight.zero_()[range(4), range(4), 1, 1] = 1
    cells = torch.rand(1, 4, 3, 3)
    torch.testing.assert_close(part.up(cells)[:, :, new, new], cells[:, :, new // 2, new // 2])


def test_the_papers_network_at_64_pixels() -> None:
    """ResNet-50: 2048 channels at stride 32 and 1024 at 16 become 512 + 256 at 16."""
    model = AttentionMiner(load_recipe("am", ["network.weights=none", "data.size=64"]), torch.full((2,), 0.5)).eval()
    with torch.no_grad():
        layers, features = model.layers(films(1))
    assert layers.finer.shape == (1, 1024, 4, 4)
    assert layers.last.shape == (1, 2048, 2, 2)
    assert features is layers.aggregated
    assert features.shape == (1, 512 + 256, 4, 4)
    assert (model.map_stride, model.cell_offset()) == (16, 0)
    assert model.infer(films(1))[1].shape == (1, 1, 2, 4, 4)
    model.begin(model.recipe.schedule[0])
    assert (model.map_stride, model.cell_offset()) == (32, 0)
    assert model.infer(films(1))[1].shape == (1, 1, 2, 2, 2)


def test_where_a_densenets_cells_lie() -> None:
    """Its 2×2 averages at jumps of 4, 8 and 16 pixels lie half a jump off: 2 + 4 = 6, then 2 + 4 + 8 = 14."""
    recipe = load_recipe("am", ["network.weights=none", "network.backbone=densenet121", "data.size=64"])
    model = AttentionMiner(recipe, torch.full((2,), 0.5))
    assert (model.map_stride, model.cell_offset()) == (16, 6)
    assert model.msa.shift == -0.25
    model.begin(recipe.schedule[0])
    assert (model.map_stride, model.cell_offset()) == (32, 14)


def test_a_film_whose_finer_map_is_odd_is_read_by_a_deconvolution() -> None:
    assert miner("network.stride=32", "am.msa=deconv").eval().infer(films(1, 80))[1].shape == (1, 1, 3, 5, 5)


def test_a_network_of_one_scale_has_no_aggregation() -> None:
    one = ["network.weights=none", "network.backbone=vit_tiny_patch16_224"]
    with pytest.raises(CxrError, match=r"no stage with twice the resolution.*am\.msa = none"):
        build(load_recipe("am", one), torch.full((2,), 0.5))


@pytest.mark.parametrize("msa", ["none", "bilinear", "deconv"])
def test_the_mean_of_a_map_is_the_logit_without_the_bias(msa: str) -> None:
    model = miner("network.pool=gap", f"am.msa={msa}", prevalence=0.1).eval()
    logits, maps = model.infer(films(2))
    side = 8 if msa == "none" else 16
    assert maps.shape == (2, 1, 3, side, side)
    torch.testing.assert_close(maps[:, 0].mean(dim=(2, 3)) + model.top().bias, logits)
    assert maps.min() < 0 < maps.max(), "a map keeps its sign; ReLU comes when boxes are cut"


def test_every_phase_has_the_maps_of_its_own_head() -> None:
    model = miner().eval()
    model.begin(model.recipe.schedule[0])
    layers, features = model.layers(films(1))
    assert layers.aggregated is None
    assert features is layers.last
    assert model.top() is model.head
    torch.testing.assert_close(layers.logits, model.head(pool(features, model.recipe.network)))


def test_biases_begin_at_the_log_odds() -> None:
    model = AttentionMiner(load_recipe("demo-am", TINY), torch.tensor([0.5, 0.2, 0.9]))
    by_hand = torch.log(torch.tensor([1, 1 / 4, 9]))
    torch.testing.assert_close(model.head.bias.detach(), by_hand)
    torch.testing.assert_close(model.msa_head.bias.detach(), by_hand)


@pytest.mark.parametrize("msa", ["none", "bilinear"])
@pytest.mark.parametrize("place", [0, 1, 3])  # base, aggregation, the first round
def test_what_a_phase_does_not_use_gets_no_gradient(tmp_path: Path, msa: str, place: int) -> None:
    model = miner(f"am.msa={msa}")
    step = model.recipe.schedule[place]
    assert (step.phase.kind, step.round) == [("base", 0), ("plain", 0), ("", 0), ("round", 1)][place]
    save_weights(tmp_path / "0.safetensors", model)
    unused = model.begin(step, tmp_path / "0.safetensors" if step.round else None)
    assert unused == (("msa",) if place == 0 or msa == "none" else ("head",))
    erased = (torch.zeros(4, 3, 1, 1), torch.tensor([True, False, False, True])) if step.round else ()
    model(films(4), torch.ones(4, 3), *erased)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(unused), name


def test_the_network_before_stays_as_it_was(tmp_path: Path) -> None:
    """Network A: frozen, in eval mode whatever the mode of B, and no part of what is saved."""
    model = miner()
    names = set(model.state_dict())
    assert in_a_round(model, tmp_path).before
    assert set(model.state_dict()) == names
    before = model.before[0]
    was = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    assert all(torch.equal(tensor, was[name]) for name, tensor in model.state_dict().items())
    set_mode(model, ())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(films(4), torch.ones(4, 3), torch.zeros(4, 3, 1, 1), torch.arange(4) == 0)["loss"].backward()
    optimizer.step()
    assert not before.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in before.parameters())
    assert all(torch.equal(tensor, was[name]) for name, tensor in before.state_dict().items())
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, was[name])}
    assert "backbone.body.conv1.0.weight" in moved
    assert any(name.endswith("running_mean") for name in moved), "those of B do move"


def test_before_is_what_the_file_says_and_there_is_none_elsewhere(tmp_path: Path) -> None:
    model = in_a_round(miner(), tmp_path)
    with torch.no_grad():
        model.msa_head.bias.add_(1)  # a run that goes on in a later round
    model.begin(model.recipe.schedule[-2], tmp_path / "0.safetensors")
    torch.testing.assert_close(model.before[0].msa_head.bias + 1, model.msa_head.bias)
    model.begin(model.recipe.schedule[2])
    assert model.before == []
    for kp in ("none", "vanilla"):
        assert in_a_round(miner(f"am.kp={kp}"), tmp_path).before == []


def test_a_film_that_is_erased_nowhere_has_the_logits_of_a_plain_step() -> None:
    model = miner("am.kp=vanilla").eval()
    plain = model(films(3), torch.ones(3, 3))["logits"]
    for where in ([True, True, True], [False, True, False], [False, False, False]):
        nothing = model(films(3), torch.ones(3, 3), torch.zeros(3, 3, 1, 1), torch.tensor(where))["logits"]
        torch.testing.assert_close(nothing, plain)


def test_replay_has_the_maps_of_every_round_and_the_logits_of_the_last() -> None:
    rounds = [miner().eval() for _ in range(3)]
    for t, network in enumerate(rounds):
        torch.nn.init.constant_(network.msa_head.weight, t)
    replay = Replay(rounds).eval()
    logits, maps = replay.infer(films(2))
    assert maps.shape == (2, 3, 3, 16, 16)
    assert not maps[:, 0].any()
    torch.testing.assert_close(maps[:, 2], 2 * maps[:, 1])
    assert torch.equal(logits, rounds[2].infer(films(2))[0])
    assert (replay.map_stride, replay.cell_offset()) == (4, 0)
