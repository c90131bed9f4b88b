"""Which file of this folder a recipe's `method` names."""

from pathlib import Path

import torch
from torch import Tensor

from cxrmine.config import Recipe
from cxrmine.learn.checkpoint import load_weights
from cxrmine.methods.attention_mining import AttentionMiner, Replay
from cxrmine.methods.cam import Cam
from cxrmine.methods.hierarchical_attention import HierarchicalMiner
from cxrmine.runs import Run

Objective = Cam | AttentionMiner | HierarchicalMiner
METHODS: dict[str, type[Objective]] = {"cam": Cam, "am": AttentionMiner, "ham": HierarchicalMiner}


def build(recipe: Recipe, prevalence: Tensor) -> Objective:
    """A fresh, untrained objective for findings that are present in these shares of the training images (C)."""
    objective = METHODS[recipe.method](recipe, prevalence)
    objective.backbone.refuse_other_maps(recipe.data.size, recipe.network.backbone)
    return objective


def load(run: Run) -> Objective:
    """The objective of a finished run, with its final weights; no others are looked for."""
    return _with_weights(run, run.folder.weights)


def load_rounds(run: Run, rounds: int) -> Replay:
    """The networks of rounds 1 to `rounds` of a finished run that has them."""
    networks = [_with_weights(run, run.folder.round_weights(t)) for t in range(1, rounds + 1)]
    return Replay([network for network in networks if isinstance(network, AttentionMiner)])


def _with_weights(run: Run, weights: Path) -> Objective:
    recipe = run.recipe.model_copy(update={"network": run.recipe.network.model_copy(update={"weights": "none"})})
    objective = build(recipe, torch.full((len(recipe.data.findings),), 0.5))
    load_weights(weights, objective)
    return objective
