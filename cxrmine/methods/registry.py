"""Which file of this folder a recipe's `method` names."""

from pathlib import Path

import torch
from torch import Tensor

from cxrmine.config import Recipe
from cxrmine.errors import CxrError
from cxrmine.learn.checkpoint import load_weights
from cxrmine.learn.organs import OrganNet
from cxrmine.methods.attention_mining import AttentionMiner, Replay
from cxrmine.methods.cam import Cam
from cxrmine.methods.hierarchical_attention import HierarchicalMiner
from cxrmine.methods.organ_weighted import OrganWeighted
from cxrmine.methods.severity_curriculum import SeverityCurriculum
from cxrmine.runs import Run

Miner = Cam | AttentionMiner | HierarchicalMiner | OrganWeighted | SeverityCurriculum
METHODS: dict[str, type[Miner]] = {
    "cam": Cam,
    "am": AttentionMiner,
    "ham": HierarchicalMiner,
    "irnet": OrganWeighted,
    "agcl": SeverityCurriculum,
}


def build(recipe: Recipe, prevalence: Tensor) -> Miner | OrganNet:
    """A fresh, untrained objective for findings that are present in these shares of the training images (C)."""
    if recipe.method == "organs":
        return OrganNet(recipe, prevalence)
    objective = METHODS[recipe.method](recipe, prevalence)
    objective.backbone.refuse_other_maps(recipe.data.size, recipe.network.backbone)
    return objective


def load(run: Run) -> Miner:
    """The objective of a finished run that has findings, with its final weights; no others are looked for."""
    objective = _with_weights(run, run.folder.weights)
    if isinstance(objective, OrganNet):
        raise CxrError(f"The run in {run.folder.path} outlines organs, and knows no findings.", "Name another run.")
    return objective


def load_organs(run: Run) -> OrganNet:
    """The network of a finished run of the recipe organs."""
    objective = _with_weights(run, run.folder.weights)
    if not isinstance(objective, OrganNet):
        raise CxrError(
            f"The run in {run.folder.path} knows findings, and no organs.",
            "Name a run of the recipe organs: cxrmine train --recipe organs.",
        )
    return objective


def load_rounds(run: Run, rounds: int) -> Replay:
    """The networks of rounds 1 to `rounds` of a finished run that has them."""
    networks = [_with_weights(run, run.folder.round_weights(t)) for t in range(1, rounds + 1)]
    return Replay([network for network in networks if isinstance(network, AttentionMiner)])


def _with_weights(run: Run, weights: Path) -> Miner | OrganNet:
    recipe = run.recipe.model_copy(update={"network": run.recipe.network.model_copy(update={"weights": "none"})})
    objective = build(recipe, torch.full((len(recipe.data.findings),), 0.5))
    load_weights(weights, objective)
    return objective
