"""What a method lays beside the films of a step, and how it moves with them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cxrmine.learn.augment import move_cells, warp


class Guide(Protocol):
    def moved(self, matrices: Tensor, size: int) -> tuple[Tensor, ...]:
        """What the method's forward takes beside films and targets, moved as `matrices` move the films of `size`."""
        ...


@dataclass(frozen=True)
class Erased:
    """Cells of maps that are erased."""

    cells: Tensor  # N×C×h×w
    where: Tensor  # N, true of the films that may be erased
    stride: float
    offset: float

    def moved(self, matrices: Tensor, size: int) -> tuple[Tensor, ...]:
        return move_cells(self.cells, matrices, size, self.stride, self.offset), self.where


@dataclass(frozen=True)
class Drawn:
    """Masks of boxes at the size of the input."""

    masks: Tensor  # P×S×S uint8, 1 inside
    of: Tensor  # P×2: film of the batch, finding

    def moved(self, matrices: Tensor, size: int) -> tuple[Tensor, ...]:
        if not len(self.of):
            return self.masks, self.of
        moved = warp(self.masks[:, None].float(), matrices[self.of[:, 0]], mode="nearest")
        return moved[:, 0].to(self.masks.dtype), self.of


@dataclass(frozen=True)
class Outlined:
    """Masks of organs at the size of the input."""

    masks: Tensor  # N×C×S×S uint8, 1 inside

    def moved(self, matrices: Tensor, size: int) -> tuple[Tensor, ...]:
        return (warp(self.masks.float(), matrices, mode="nearest").to(self.masks.dtype),)


@dataclass(frozen=True)
class Seeds:
    """Maps of seeds, as they were found on films that were not moved."""

    maps: Tensor  # P×K×h×w
    of: Tensor  # P×2: film of the batch, finding
    stride: float
    offset: float

    def moved(self, matrices: Tensor, size: int) -> tuple[Tensor, ...]:
        """The maps, which of their cells lie on the film, and whose they are."""
        own, lie = matrices[self.of[:, 0]], (size, self.stride, self.offset)
        return move_cells(self.maps, own, *lie), move_cells(torch.ones_like(self.maps[:, :1]), own, *lie), self.of
