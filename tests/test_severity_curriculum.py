"""Tang 2018 by hand: equations 1 to 4, the seeds, and what the network of a finding sees at each stage."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from cxrmine.config import Recipe
from cxrmine.data.index import BOX_SCHEMA, Index
from cxrmine.learn.guides import Seeds
from cxrmine.methods.severity_curriculum import SeverityCurriculum, TwoWay, seed_maps, smooth_l1
from cxrmine.recipe_files import load_recipe
from cxrmine.stages.curriculum import Films, Stage, balanced, order_of, stages_of
from cxrmine.stages.seeds import Iterations, seeded_by
from tests.conftest import TINY

TWO = torch.tensor([[[[1.0, 2.0], [0.0, -1.0]], [[3.0, 0.0], [1.0, 1.0]]]])  # one film, two channels of 2×2


class Fixed(nn.Module):
    """A backbone whose features are what they are."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features


def recipe(*changes: str) -> Recipe:
    return load_recipe("demo-agcl", (*TINY[:-1], *changes))


def network(features: torch.Tensor, weights: list[list[float]], *changes: str) -> SeverityCurriculum:
    found = SeverityCurriculum(recipe('network.pool="gap"', *changes), torch.full((len(weights),), 0.5))
    found.backbone = Fixed(features)  # type: ignore[assignment]
    found.head = nn.Linear(features.shape[1], len(weights))
    with torch.no_grad():
        found.head.weight.copy_(torch.tensor(weights))
        found.head.bias.zero_()
    return found


# --- equations


def test_equation_1_weighs_channels_and_leaves_the_bias_out() -> None:
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]])
    with torch.no_grad():
        found.head.bias.fill_(7.0)
    _, maps = found.infer(torch.zeros(1, 1, 2, 2))
    assert maps[0, 0].tolist() == [[[5, 4], [1, -1]], [[-3, 0], [-1, -1]]]


def test_equation_1_of_a_two_way_network_is_of_present() -> None:
    grader = TwoWay(SeverityCurriculum(recipe(), torch.full((3,), 0.5)))
    grader.backbone = Fixed(TWO)  # type: ignore[assignment]
    grader.head = nn.Linear(2, 2)
    with torch.no_grad():
        grader.head.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0]]))
        grader.head.bias.copy_(torch.tensor([0.0, 1.0]))
    grader.recipe = recipe('network.pool="gap"')
    logits, maps = grader.infer(torch.zeros(1, 1, 2, 2))
    assert maps[0, 0].tolist() == [TWO[0, 0].tolist()]
    absent, present = 9 * 0.5 + 9 * 1.25, 0.5 + 1.0  # means of the channels: 0.5 and 1.25
    assert logits.tolist() == [[pytest.approx(present - absent)]]
    likely, kept = grader.grade(torch.zeros(1, 1, 2, 2))
    assert likely.item() == pytest.approx(math.exp(present) / (math.exp(present) + math.exp(absent)))
    assert kept.tolist() == maps[0].tolist()


def test_without_a_curriculum_a_seed_keeps_the_map_of_its_own_finding() -> None:
    likely, kept = network(TWO, [[2.0, 1.0], [0.0, -1.0]]).grade(torch.zeros(1, 1, 2, 2), 1)
    assert likely.item() == pytest.approx(1 / (1 + math.exp(1.25)))
    assert kept.tolist() == [[[[-3, 0], [-1, -1]]]]


def test_the_terms_of_equation_1_are_kept_for_channels() -> None:
    weights = torch.tensor([[2.0, 1.0]])
    assert seed_maps(TWO, weights, "channels")[0].tolist() == [[[2, 4], [0, -2]], [[3, 0], [1, 1]]]
    assert seed_maps(TWO, weights, "map")[0].tolist() == [[[5, 4], [1, -1]]]


@pytest.mark.parametrize(
    ("z", "loss"), [(0.0, 0.0), (0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (-1.0, 0.5), (3.0, 2.5), (-2.0, 1.5)]
)
def test_equation_3(z: float, loss: float) -> None:
    assert smooth_l1(torch.tensor([z])).tolist() == [loss]


def test_equation_3_has_no_step_at_its_knee() -> None:
    z = torch.tensor([1 - 1e-3, 1 + 1e-3], requires_grad=True)
    values = smooth_l1(z)
    values.sum().backward()  # type: ignore[no-untyped-call]
    assert values.tolist() == pytest.approx([0.5 - 1e-3, 0.5 + 1e-3], abs=1e-5)
    assert z.grad is not None
    assert z.grad.tolist() == pytest.approx([1 - 1e-3, 1.0], abs=1e-5)


def seed(maps: list[list[list[float]]], of: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    found = torch.tensor(maps)[:, None]
    return found, torch.ones_like(found), torch.tensor(of)


def test_equations_2_and_4_with_a_seed_of_one_finding() -> None:
    """Ĥ = (5, 4, 1, −1); H = (5, 3.5, 3, −1): smooth L1 0, 0.125, 1.5, 0. Two channels, so twice that: 3.25."""
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]], "agcl.weight=0.1")
    labels = torch.tensor([[1.0, 0.0]])
    parts = found(torch.zeros(1, 1, 2, 2), labels, *seed([[[5.0, 3.5], [3.0, -1.0]]], [[0, 0]]))
    logits = (2 * 0.5 + 1.25, -1.25)
    classification = math.log(1 + math.exp(-logits[0])) + math.log(1 + math.exp(logits[1]))
    assert parts["classification"].item() == pytest.approx(classification)
    assert parts["regression"].item() == pytest.approx(3.25)
    assert parts["loss"].item() == pytest.approx(classification + 0.1 * 3.25)


def test_a_film_may_be_a_seed_of_two_findings_and_another_of_none() -> None:
    """Equation 4's 1_c: the first film for both findings, the second for none; the mean is over both films."""
    found = network(torch.cat([TWO, TWO]), [[2.0, 1.0], [0.0, -1.0]], "agcl.weight=0.1")
    own = [[[5.0, 4.0], [1.0, -1.0]], [[-3.0, 0.0], [-1.0, -1.0]]]
    far = [[[value + 1 for value in row] for row in map_] for map_ in own]  # 0.5 a cell, four cells, twice
    parts = found(torch.zeros(2, 1, 2, 2), torch.zeros(2, 2), *seed(far, [[0, 0], [0, 1]]))
    assert parts["regression"].item() == pytest.approx(2 * (4 * 0.5 * 2) / 2)


def test_of_a_seeds_map_only_cells_on_the_film_are_compared() -> None:
    """Differences of 1 in four cells, of which one counts: 0.5, twice for two channels."""
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]])
    maps, _, of = seed([[[6.0, 5.0], [2.0, 0.0]]], [[0, 0]])
    inside = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]]]])
    parts = found(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2), maps, inside, of)
    assert parts["regression"].item() == pytest.approx(1.0)


def test_without_seeds_it_is_the_classification_loss() -> None:
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]])
    labels = torch.tensor([[1.0, 0.0]])
    none = (torch.zeros(0, 1, 2, 2), torch.zeros(0, 1, 2, 2), torch.zeros(0, 2, dtype=torch.long))
    plain = found(torch.zeros(1, 1, 2, 2), labels)["loss"].item()
    assert found(torch.zeros(1, 1, 2, 2), labels, *none)["loss"].item() == pytest.approx(plain)


def test_regression_by_channels_compares_what_each_adds() -> None:
    """Terms (2, 4, 0, −2) and (3, 0, 1, 1) against seeds' (2, 4, 0, 0) and (3, 0, 1, 0): 1.5 + 0.5."""
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]], 'agcl.regression="channels"')
    maps = torch.tensor([[[[2.0, 4.0], [0.0, 0.0]], [[3.0, 0.0], [1.0, 0.0]]]])
    parts = found(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2), maps, torch.ones(1, 1, 2, 2), torch.tensor([[0, 0]]))
    assert parts["regression"].item() == pytest.approx(2.0)


def test_balance_makes_the_regression_a_share_of_the_classification() -> None:
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]], 'agcl.balance="loss"', "agcl.weight=0.5")
    parts = found(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2), *seed([[[9.0, 9.0], [9.0, 9.0]]], [[0, 0]]))
    assert parts["loss"].item() == pytest.approx(1.5 * parts["classification"].item())


def test_both_features_and_weights_learn_from_a_seed() -> None:
    found = network(TWO, [[2.0, 1.0], [0.0, -1.0]])
    nothing = torch.full((1, 2), torch.nan)  # no label counts
    found(torch.zeros(1, 1, 2, 2), nothing, *seed([[[0.0, 0.0], [0.0, 0.0]]], [[0, 0]]))["loss"].backward()
    assert found.backbone.features.grad.abs().sum() > 0
    assert found.head.weight.grad[0].abs().sum() > 0
    assert found.head.weight.grad[1].tolist() == [0, 0]


def test_cells_from_outside_the_film_do_not_count() -> None:
    """Films of 8 pixels, cells of 4, moved by half a film to the left: the right half comes from outside."""
    guide = Seeds(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[0, 0]]), 4.0, 1.5)
    matrices = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    maps, inside, of = guide.moved(matrices, 8)
    assert maps[0, 0].tolist() == [[2, 0], [4, 0]]
    assert inside[0, 0].tolist() == [[1, 0], [1, 0]]
    assert of.tolist() == [[0, 0]]


# --- networks of one finding


def test_a_two_way_network_begins_with_the_features_of_the_whole_one() -> None:
    whole = SeverityCurriculum(recipe(), torch.full((3,), 0.5))
    grader = TwoWay(whole)
    assert all(
        torch.equal(one, other)
        for one, other in zip(whole.backbone.state_dict().values(), grader.backbone.state_dict().values(), strict=True)
    )
    assert grader.head.weight.shape == (2, 16)
    with torch.no_grad():
        next(grader.backbone.parameters()).add_(1)
    assert not torch.equal(next(whole.backbone.parameters()), next(grader.backbone.parameters()))


def test_the_loss_of_a_two_way_network_is_softmax_cross_entropy() -> None:
    grader = TwoWay(SeverityCurriculum(recipe(), torch.full((3,), 0.5)))
    grader.backbone = Fixed(torch.cat([TWO, -TWO]))  # type: ignore[assignment]
    grader.recipe = recipe('network.pool="gap"')
    grader.head = nn.Linear(2, 2)
    with torch.no_grad():
        grader.head.weight.copy_(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        grader.head.bias.zero_()
    loss = grader(torch.zeros(2, 1, 2, 2), torch.tensor([[1.0], [0.0]]))["loss"].item()
    assert loss == pytest.approx(math.log(1 + math.exp(-1)))  # logits 0 and ±1, both films right


# --- stages


def films(severity: list[int], labels: list[int]) -> Films:
    """Films with labels of the one finding, and how severe it is; the others are normal."""
    names = [f"{i:02}" for i in range(len(labels))]
    table = pa.table(
        {
            "image_id": names,
            "path": names,
            "split": ["train"] * len(names),
            "patient_id": names,
            "labels": pa.StructArray.from_arrays([pa.array(labels, pa.int8())], names=["Mass"]),
            "boxed": [False] * len(names),
        }
    )
    index = Index(Path(), "made up", ("Mass",), table, BOX_SCHEMA.empty_table())
    has = np.array(labels) == 1
    return Films(index, has, np.array(severity, np.int8), np.flatnonzero(~has))


GIVEN = films([3, 2, 1, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0])


def rows(stages: list[Stage]) -> dict[str, list[int]]:
    return {stage.phase.name: stage.films.tolist() for stage in stages}


def test_stages_add_the_milder_films() -> None:
    assert rows(stages_of(recipe(), GIVEN)) == {
        "severe": [0, 5], "moderate": [0, 1, 4, 5], "mild": [0, 1, 2, 4, 5, 6],
    }  # fmt: skip


def test_stages_alone_have_their_own_films() -> None:
    found = stages_of(recipe('agcl.stages="alone"'), GIVEN)
    assert rows(found) == {"severe": [0, 5], "moderate": [1, 4], "mild": [2, 6]}


def test_a_stage_without_films_is_none() -> None:
    assert rows(stages_of(recipe(), films([1, 1, 0], [1, 1, 0]))) == {"mild": [0, 1]}


def test_a_stage_that_asks_for_no_severity_has_all_films_with_the_finding() -> None:
    found = stages_of(recipe('train.phases.3.severity=""'), GIVEN)
    assert rows(found)["mild"] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("given", [films([0, 0, 0], [1, 1, 0]), films([3, 2], [1, 1])])
def test_without_severities_or_without_normal_films_there_are_no_stages(given: Films) -> None:
    assert stages_of(recipe(), given) == []


def test_agl_has_no_stages() -> None:
    assert stages_of(load_recipe("demo-agl"), GIVEN) == []


def test_an_epoch_has_as_many_normal_films() -> None:
    stage = stages_of(recipe(), GIVEN)[1]
    found, present = order_of(stage, GIVEN.normal, (0, 1, 0, 1, 0))
    assert sorted(found[present].tolist()) == [0, 1, 4, 5]
    normal = found[~present].tolist()
    assert len(normal) == len(set(normal)) == 4
    assert set(normal) <= set(range(7, 13))


def test_where_normal_films_are_fewer_they_come_again_after_all_came_once() -> None:
    stage = stages_of(recipe(), GIVEN)[2]
    found, present = order_of(stage, np.array([7, 8]), (0, 1, 0, 2, 0))
    assert sorted(found[~present].tolist()) == [7, 7, 7, 8, 8, 8]


def test_the_order_is_drawn_by_its_key_alone_and_mixes_both_kinds() -> None:
    stage = Stage(recipe().train.phases[1], np.arange(100))
    normal = np.arange(100, 400)
    one, has = order_of(stage, normal, (0, 1, 0, 0, 0))
    assert one.tolist() == order_of(stage, normal, (0, 1, 0, 0, 0))[0].tolist()
    assert (has == (one < 100)).all()
    assert 30 < has[:100].sum() < 70
    for other in ((1, 1, 0, 0, 0), (0, 2, 0, 0, 0), (0, 1, 1, 0, 0), (0, 1, 0, 1, 0), (0, 1, 0, 0, 1)):
        again, _ = order_of(stage, normal, other)
        assert again.tolist() != one.tolist()
        assert set(again[again >= 100]) != set(one[one >= 100])  # other normal films, too


def test_validation_has_as_many_normal_films_as_it_can() -> None:
    found = balanced(GIVEN, seed=0)
    labels = found.labels()[:, 0]
    assert ((labels == 1).sum(), (labels == 0).sum()) == (7, 6)
    few = balanced(films([1, 0, 0, 0], [1, 0, 0, 0]), seed=0)
    assert len(few) == 2


# --- seeds


def test_a_film_is_a_seed_by_its_severity_or_its_probability_or_because_it_was_one() -> None:
    severity = np.array([3, 2, 1, 0, 1, 0, 2])
    likely = np.array([0.1, 0.95, 0.95, 0.91, 0.2, 0.9, 0.9])
    before = np.array([False, True, False, True, True, False, False])
    by = seeded_by(severity, likely, before, 0.9)
    assert by.tolist() == ["severity", "both", "probability", "probability", "before", "", "severity"]


def test_every_seed_of_a_batch_has_the_map_of_its_own_film_and_finding() -> None:
    """Three films: the last is the first seed of one finding and the second of the other."""
    iterations = Iterations.__new__(Iterations)
    iterations.place = np.array([[-1, 0], [1, -1], [0, 1]])
    iterations.maps = [np.array(values, np.float16).reshape(2, 1, 1, 1) for values in ([1, 2], [3, 4])]
    iterations.lie = (4.0, 1.5)
    guide = iterations.guide(np.array([2, 0, 1]))
    assert guide.of.tolist() == [[0, 0], [0, 1], [1, 1], [2, 0]]
    assert guide.maps.flatten().tolist() == [1, 4, 3, 2]
