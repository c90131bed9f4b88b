"""What a method lays beside the films moves as they do: masks of boxes, and erased cells."""

import numpy as np
import pytest
import torch

from cxrmine.learn.augment import apply, draw, move_cells
from cxrmine.learn.guides import Drawn, Erased
from cxrmine.recipe_files import load_recipe
from tests.test_ham_network import TINY, films, miner


def test_drawn_masks_flip_and_shift_by_hand() -> None:
    """One film is flipped, the other takes what is a pixel to its right; what comes from outside is 0."""
    matrices = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]], [[1, 0, 2 / 4], [0, 1, 0]]])
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.uint8)
    of = torch.tensor([[1, 0], [0, 2], [1, 2]])
    masks, same = Drawn(torch.stack([mask] * 3), of).moved(matrices, 4)
    flipped, shifted = [[0, 0, 0, 1], [1, 0, 1, 1]], [[0, 0, 0, 0], [1, 0, 1, 0]]
    assert masks[:, :2].tolist() == [shifted, flipped, shifted]
    assert not masks[:, 2:].any()
    assert masks.dtype == torch.uint8
    assert same is of


@pytest.mark.parametrize("turned", [0.0, 20.0])
def test_drawn_masks_go_where_their_film_goes(turned: float) -> None:
    """A film that is white where its box is: flips and shifts by whole pixels to the pixel, others to half a gray."""
    augment = load_recipe("demo-ham", ["augment.shift=0.3", f"augment.rotate={turned}"]).augment
    matrices, contrasts = draw(augment, 0, 0, np.arange(20))
    if not turned:
        matrices[:, :, :2] = torch.eye(2) * torch.where(torch.arange(20) % 2 == 0, 1, -1)[:, None, None]
        matrices[:, :, 2] = (matrices[:, :, 2] * 8).round() / 8  # pixels of 16
    masks = torch.zeros(20, 16, 16, dtype=torch.uint8)
    masks[:, 3:11, 5:9] = 1
    of = torch.arange(19, -1, -1)
    white = apply(255 * masks[:, None], matrices, torch.ones_like(contrasts))[of, 0] / 255
    moved, _ = Drawn(masks, torch.stack([of, of % 3], dim=1)).moved(matrices, 16)
    assert moved.any(dim=(1, 2)).all()
    if turned:
        assert ((white > 0.5) == (moved == 1)).float().mean() > 0.99
    else:
        torch.testing.assert_close(moved.float(), white)


def test_a_batch_without_boxes_has_nothing_to_move() -> None:
    of = torch.empty(0, 2, dtype=torch.long)
    masks, same = Drawn(torch.empty(0, 16, 16, dtype=torch.uint8), of).moved(torch.zeros(2, 2, 3), 16)
    assert (masks.shape, same.shape) == ((0, 16, 16), (0, 2))
    parts = miner(*TINY)(films(2), torch.ones(2, 3), torch.empty(0, 64, 64, dtype=torch.uint8), of)
    assert parts["boxes"].item() == 0


def test_erased_cells_move_as_cells_do() -> None:
    augment = load_recipe("demo-ham", ["augment.shift=0.3"]).augment
    matrices, _ = draw(augment, 0, 0, np.arange(4))
    cells, where = torch.rand(4, 3, 5, 5), torch.tensor([True, False, True, True])
    moved, same = Erased(cells, where, 8, 3.5).moved(matrices, 40)
    assert torch.equal(moved, move_cells(cells, matrices, 40, 8, 3.5))
    assert not torch.equal(moved, cells)
    assert same is where
