"""Backbones, pooling, the loss, and maps whose mean is the logit."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cxrmine.config import Network
from cxrmine.errors import CxrError
from cxrmine.learn.augment import draw, warp
from cxrmine.learn.loader import targets, training_groups
from cxrmine.learn.loop import make_optimizer, rate, set_mode
from cxrmine.learn.network import Backbone, gap, lse
from cxrmine.methods.cam import Cam, classification_loss
from cxrmine.methods.registry import build
from cxrmine.recipe_files import load_recipe
from cxrmine.scoring.classification import auc, youden_threshold


@pytest.mark.parametrize(
    ("backbone", "stride"), [("resnet18", 8), ("resnet18", 16), ("resnet18", 32), ("densenet121", 32)]
)
def test_backbones_have_the_stride_they_say(backbone: str, stride: int) -> None:
    network = Network(backbone=backbone, stride=stride, weights="none")  # type: ignore[arg-type]
    features = Backbone(network).eval()(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
    assert features.shape[2:] == (64 // stride, 64 // stride)


@pytest.mark.parametrize(
    ("backbone", "stride", "offset"), [("resnet18", 32, 0), ("resnet18", 8, 0), ("densenet121", 32, 14)]
)
def test_where_a_cell_looks(backbone: str, stride: int, offset: float) -> None:
    """By hand for DenseNet: three 2×2 averages, at jumps of 4, 8 and 16 pixels, each half a jump: 2 + 4 + 8."""
    assert Backbone(Network(backbone=backbone, stride=stride, weights="none")).cell_offsets()[1] == offset  # type: ignore[arg-type]


def test_a_model_that_leaves_no_map_is_refused() -> None:
    with pytest.raises(CxrError, match="cannot read films of 512 pixels"):
        build(load_recipe("cam", ["network.weights=none", "network.backbone=vit_tiny_patch16_224"]), torch.ones(2) / 2)


def test_a_backbone_that_cannot_have_a_stride_says_so() -> None:
    with pytest.raises(CxrError, match=r"densenet121 cannot run at network\.stride = 8"):
        Backbone(Network(backbone="densenet121", stride=8, weights="none"))
    with pytest.raises(CxrError, match=r"resnet5O is no model of timm.*Did you mean resnet50"):
        Backbone(Network(backbone="resnet5O", weights="none"))


def test_imagenet_weights_without_a_network_name_the_file_to_bring() -> None:
    with pytest.raises(CxrError, match=r"timm/resnet18.*Bring the file model\.safetensors"):
        Backbone(Network(backbone="resnet18", weights="imagenet"))


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_come_from_torchvisions_layout(tmp_path: Path, channels: int) -> None:
    from torchvision.models import resnet18

    original = resnet18(weights=None)
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    network = Network(backbone="resnet18", weights=str(tmp_path / "w.safetensors"), input_channels=channels)  # type: ignore[arg-type]
    body = Backbone(network).body.eval()
    film = torch.rand(2, 1, 64, 64)
    taken = torch.nn.Sequential(*list(original.eval().children())[:-2])
    torch.testing.assert_close(
        body.forward_features(film.expand(-1, channels, -1, -1)), taken(film.expand(-1, 3, -1, -1))
    )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    for channels in (1, 3):
        with pytest.raises(CxrError, match="does not fit this backbone"):
            Backbone(Network(backbone="resnet18", weights=str(tmp_path / "w.safetensors"), input_channels=channels))  # type: ignore[arg-type]
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(CxrError, match="is not a safetensors file"):
        Backbone(Network(backbone="resnet18", weights=str(tmp_path / "junk.safetensors")))


def test_pooling_by_hand() -> None:
    features = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert gap(features).item() == 1.5
    by_hand = math.log((1 + math.exp(2) + math.exp(4) + math.exp(6)) / 4) / 2
    assert lse(features, 2.0).item() == pytest.approx(by_hand)
    assert lse(torch.full((1, 1, 5, 5), 0.7), 6.0).item() == pytest.approx(0.7)


def test_the_mean_of_a_cam_is_the_logit_without_the_bias() -> None:
    torch.manual_seed(0)
    model = Cam(load_recipe("demo", ["network.pool=gap"]), torch.full((3,), 0.5)).eval()
    torch.nn.init.normal_(model.head.bias)
    films = torch.randint(0, 255, (2, 1, 64, 64), dtype=torch.uint8)
    logits, maps = model.infer(films)
    torch.testing.assert_close(maps[:, 0].mean(dim=(2, 3)) + model.head.bias, logits)
    assert maps.min() < 0 < maps.max(), "a map keeps its sign; ReLU comes when boxes are cut"


def test_the_loss_by_hand_and_labels_that_do_not_count() -> None:
    logits = torch.tensor([[0.0, 2.0], [0.0, -1.0]])
    labels = torch.tensor([[1.0, float("nan")], [0.0, 0.0]])
    by_hand = (math.log(2) + math.log(2) + math.log(1 + math.exp(-1))) / 3
    assert classification_loss(logits, labels, "none").item() == pytest.approx(by_hand)
    # one positive and two negatives of three: weights 3/1/2 and 3/2/2
    by_hand = (1.5 * math.log(2) + 0.75 * math.log(2) + 0.75 * math.log(1 + math.exp(-1))) / 3
    assert classification_loss(logits, labels, "batch").item() == pytest.approx(by_hand)


def test_labels_become_targets_as_the_recipe_says() -> None:
    labels = np.array([[1, 0, -1, -128]], np.int8)
    data = load_recipe("demo").data
    first = targets(labels, data).numpy()[0]
    np.testing.assert_array_equal(first, [1, 0, np.nan, 0])
    other = data.model_copy(update={"uncertain": "ones", "unmentioned": "ignore"})
    np.testing.assert_array_equal(targets(labels, other).numpy()[0], [1, 0, 1, np.nan])


def test_a_draw_depends_on_seed_epoch_and_row_alone() -> None:
    augment = load_recipe("demo").augment
    together = draw(augment, 0, 3, np.array([5, 9]))
    alone = draw(augment, 0, 3, np.array([9]))
    assert torch.equal(together[0][1], alone[0][0])
    assert not torch.equal(draw(augment, 0, 4, np.array([9]))[0], alone[0])


def test_a_flip_is_a_flip() -> None:
    always = load_recipe("cam", ["augment.flip=1.0"]).augment
    matrices, contrasts = draw(always, 0, 0, np.arange(3))
    films = torch.rand(3, 1, 6, 6)
    torch.testing.assert_close(warp(films, matrices), films.flip(3))
    assert torch.equal(contrasts, torch.ones(3))


def test_an_epoch_goes_on_where_it_stopped_and_splits_over_processes() -> None:
    whole = training_groups(20, 6, seed=1, epoch=2, first=0, rank=0, processes=1)
    assert [len(g) for g in whole] == [6, 6, 6]
    assert len(np.unique(np.concatenate(whole))) == 18
    rest = training_groups(20, 6, seed=1, epoch=2, first=1, rank=0, processes=1)
    assert all(np.array_equal(a, b) for a, b in zip(whole[1:], rest, strict=True))
    halves = [training_groups(20, 6, 1, 2, 0, rank, 2) for rank in (0, 1)]
    for step, group in enumerate(whole):
        assert sorted(np.concatenate([half[step] for half in halves])) == sorted(group)
    assert not np.array_equal(whole[0], training_groups(20, 6, 1, 3, 0, 0, 1)[0])


def test_rates_of_the_schedules() -> None:
    phases = load_recipe("demo").train.phases
    cosine = phases[0].model_copy(update={"lr": 1.0, "warmup": 0.5})
    assert rate(cosine, 0, 0.25) == pytest.approx(0.25 / 0.5, abs=0.01)
    assert rate(cosine, 0, 0.75) == pytest.approx(0.5)
    assert rate(cosine, 0, 1.0) == pytest.approx(0.0)
    step = phases[0].model_copy(update={"lr": 1.0, "schedule": "step", "step_epochs": 10, "warmup": 0.0})
    assert [rate(step, epoch, 0.5) for epoch in (0, 9, 10, 20)] == pytest.approx([1, 1, 0.1, 0.01])


def test_frozen_parts_do_not_move() -> None:
    recipe = load_recipe("demo")
    model = Cam(recipe, torch.full((2,), 0.5))
    set_mode(model, ("backbone",))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("backbone"))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], recipe, recipe.train.phases[0])
    model(torch.randint(0, 255, (4, 1, 64, 64)), torch.ones(4, 2))["loss"].backward()
    optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"head.weight", "head.bias"}


def test_auc_and_threshold_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, np.nan])
    scores = np.array([0.1, 0.4, 0.4, 0.8, 0.9])
    assert auc(labels, scores) == (1 + 1 + 0.5 + 1) / 4
    labels, scores = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.5, 0.4, 0.8])
    assert youden_threshold(labels, scores) == 0.4  # 1 + 2/3, against 1/2 + 1 at 0.8
    assert math.isnan(auc(np.zeros(3), np.arange(3)))
    assert youden_threshold(np.zeros(3), np.arange(3)) == 0.5


def test_auc_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    for _ in range(100):
        labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 9
        if 0 < labels.sum() < 60:
            assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
