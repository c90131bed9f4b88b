"""Runs of the recipe organs that were never trained: their weights are set so that they outline known rectangles.

On the coarsest scale the network has 4×4 cells, and a convolution sees where the film ends, as its padding is 0. Two of
them tell cells up to two away from each edge. On the way up the cells' edges are made sharp again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from cxrmine.config import Recipe
from cxrmine.files import write_json
from cxrmine.learn.checkpoint import save_weights
from cxrmine.learn.organs import OrganNet
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder, write_recipe

Quarters = tuple[int, int, int, int]  # x, y, x, y in quarters of the film; from the edges 0 to 2
SIDE = 32
CELLS = 4

RECTANGLES: dict[str, Quarters | None] = {"heart": (1, 2, 3, 4), "left_lung": (2, 0, 4, 3), "right_lung": (0, 0, 2, 2)}
BESIDE: tuple[Quarters, ...] = ((0, 2, 1, 4), (3, 3, 4, 4))  # what these leave


def organs_run(folder: Path, rectangles: Mapping[str, Quarters | None] = RECTANGLES, *changes: str) -> Path:
    """`rectangles`: by organ, in the run's order; None is an organ that it knows, and finds on no film."""
    organs = list(rectangles)
    sizes = [f"data.size={SIDE}", f"network.channels={[len(organs)] * 4}", f"data.findings={organs}"]
    recipe = load_recipe("demo-organs", [*sizes, *changes])
    folder.mkdir()
    run = RunFolder(folder)
    write_recipe(run, recipe, "0" * 64)
    save_weights(run.weights, network(recipe, list(rectangles.values())))
    write_json(run.thresholds, dict.fromkeys(organs, 0.5))
    return folder


@torch.no_grad()
def network(recipe: Recipe, rectangles: Sequence[Quarters | None]) -> OrganNet:
    objective = OrganNet(recipe, torch.full((len(rectangles),), 0.5))
    for parameter in objective.parameters():
        parameter.zero_()
    net, n = objective.net, len(rectangles)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.fill_(1)
    finer, coarse = net.down[2], net.down[3]
    finer[4].bias.fill_(1)  # whatever the film is, the coarsest scale sees ones
    for organ, rectangle in enumerate(rectangles):
        x_min, y_min, x_max, y_max = rectangle or (0, 0, CELLS, CELLS)
        beyond = {(-1, 0): x_min, (1, 0): CELLS - x_max, (0, -1): y_min, (0, 1): CELLS - y_max}
        for step, (conv, norm) in enumerate(((coarse[0], coarse[1]), (coarse[3], coarse[4]))):
            taps = [(0, 0), *(side for side, cells in beyond.items() if cells > step)]
            for x, y in taps:
                conv.weight[organ, organ, 1 + y, 1 + x] = 1
            norm.bias[organ] = 1 - len(taps)  # 1 where all of them are
        for up in net.up:  # 0 up to 0.3 and 1 from 0.55 on: between two cells there are 0.25 and 0.75, or their squares
            up[0].weight[organ, n + organ, 1, 1] = -4
            up[1].bias[organ] = 1 + 4 * 0.3
            up[3].weight[organ, organ, 1, 1] = -1
            up[4].bias[organ] = 1
        net.outlines.weight[organ, organ] = 2 if rectangle else 0
    net.outlines.bias.fill_(-1)
    return objective
