"""Masks move as their films do: worked out by hand on 5×5 cells of a film of 40 pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cxrmine.learn.augment import draw, move_cells, warp
from cxrmine.recipe_files import load_recipe

SIZE, STRIDE = 40, 8
MIDDLE = 3.5  # the offset of cells that are centred in their 8 pixels; 0: cell i is centred at pixel 8i
COLUMNS = torch.arange(1.0, 6).expand(1, 1, 5, 5)  # every row is 1 2 3 4 5

Matrix = list[list[float]]


def across(times: float = 1.0, pixels: float = 0.0) -> Matrix:
    """From left to right each place takes what is `times` as far from the film's middle, and `pixels` on."""
    return [[times, 0, 2 * pixels / SIZE], [0, 1, 0]]


def down(times: float, pixels: float) -> Matrix:
    return [[1, 0, 0], [0, times, 2 * pixels / SIZE]]


def moved(cells: Tensor, matrix: Matrix, offset: float) -> Tensor:
    return move_cells(cells, torch.tensor([matrix] * len(cells), dtype=torch.float32), SIZE, STRIDE, offset)


@pytest.mark.parametrize("offset", [0.0, MIDDLE, 6.0])
def test_where_nothing_moves_cells_stay_as_they_are(offset: float) -> None:
    cells = torch.rand(2, 3, 5, 5)
    assert torch.equal(moved(cells, across(), offset), cells)


@pytest.mark.parametrize(
    ("times", "pixels", "offset", "row"),
    [
        # Flips. The middle cell, at pixel 19.5, is the film's middle:
        (-1, 0, MIDDLE, [5, 4, 3, 2, 1]),
        # Pixel 8i takes pixel 39 - 8i: cells 4.9, 3.9, 2.9, 1.9, 0.9. Beyond the last cell is the last one.
        (-1, 0, 0.0, [5, 5, 4, 3, 2]),
        # Pixel 8i + 7 takes pixel 32 - 8i: cells 3.1, 2.1, 1.1, 0.1, -0.9.
        (-1, 0, 7.0, [4, 3, 2, 1, 1]),
        # Shifts.
        (1, 16, 0.0, [3, 4, 5, 0, 0]),  # two cells on; pixels 40 and 48 are outside
        (1, -16, 0.0, [0, 0, 1, 2, 3]),
        (1, 6, 0.0, [2, 3, 4, 5, 5]),  # 0.75 cells on; pixel 38 is on the film, beyond the last cell
        (1, 3, 0.0, [1, 2, 3, 4, 5]),  # 0.375 cells on: the nearest is the same
        (1, 8, 7.0, [2, 3, 4, 5, 0]),  # the last cell, at pixel 39, takes pixel 47
        # Half as large: pixel 8i takes 2(8i - 19.5) + 19.5 = 16i - 19.5; of these 12.5 is cell 1.6, and 28.5 is 3.6.
        (2, 0, 0.0, [0, 0, 3, 5, 0]),
    ],
)
def test_a_row_and_a_column_by_hand(times: float, pixels: float, offset: float, row: list[int]) -> None:
    assert moved(COLUMNS, across(times, pixels), offset).tolist() == [[[row] * 5]]
    assert moved(COLUMNS.mT, down(times, pixels), offset).mT.tolist() == [[[row] * 5]]


def test_a_quarter_turn_by_hand() -> None:
    """A place (x, y) takes (-y, x): what was on top, at y = -1, comes to x = -1, the left."""
    cells = torch.arange(25.0).view(1, 1, 5, 5)
    turn = moved(cells, [[0.0, -1, 0], [1, 0, 0]], MIDDLE)
    assert turn[0, 0, 0].tolist() == [4, 9, 14, 19, 24]
    assert torch.equal(turn, torch.rot90(cells, dims=(2, 3)))


def test_each_film_moves_by_its_own_draw() -> None:
    matrices = torch.tensor([across(), across(-1), across(pixels=16)])
    rows = move_cells(COLUMNS.expand(3, 2, 5, 5), matrices, SIZE, STRIDE, MIDDLE)[:, :, 2]
    assert rows.tolist() == [[[1, 2, 3, 4, 5]] * 2, [[5, 4, 3, 2, 1]] * 2, [[3, 4, 5, 0, 0]] * 2]


def test_one_cell_that_says_nothing_is_erased_stays_so() -> None:
    nothing = torch.zeros(2, 4, 1, 1)
    assert torch.equal(moved(nothing, across(-1), 0.0), nothing)


def test_cells_go_where_the_film_goes() -> None:
    """Cells of 5 pixels: cell i is centred in pixel 5i + 2, and the nearest pixel's cell is the nearest cell."""
    wild = load_recipe("demo", ["augment.shift=0.3", "augment.rotate=90.0"]).augment
    matrices, _ = draw(wild, 0, 0, np.arange(200))
    cells = torch.arange(1.0, 26).view(1, 1, 5, 5).expand(200, 1, 5, 5)
    films = cells.repeat_interleave(5, 2).repeat_interleave(5, 3)
    assert torch.equal(move_cells(cells, matrices, 25, 5, 2.0), warp(films, matrices, "nearest")[:, :, 2::5, 2::5])
