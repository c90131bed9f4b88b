"""Which file of this folder a recipe's `method` names."""

import torch
from torch import Tensor

from cxrmine.config import Recipe
from cxrmine.learn.checkpoint import load_weights
from cxrmine.methods.cam import Cam
from cxrmine.runs import Run


def build(recipe: Recipe, prevalence: Tensor) -> Cam:
    """A fresh, untrained objective for findings that are present in these shares of the training images (C)."""
    objective = {"cam": Cam}[recipe.method](recipe, prevalence)
    objective.backbone.refuse_other_maps(recipe.data.size, recipe.network.backbone)
    return objective


def load(run: Run) -> Cam:
    """The objective of a finished run, with its weights; no others are looked for."""
    recipe = run.recipe.model_copy(update={"network": run.recipe.network.model_copy(update={"weights": "none"})})
    objective = build(recipe, torch.full((len(recipe.data.findings),), 0.5))
    load_weights(run.folder.weights, objective)
    return objective
