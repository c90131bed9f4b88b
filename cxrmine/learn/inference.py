"""Films through a trained network, batch by batch: logits and maps, in the order of the index."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from cxrmine.config import Data
from cxrmine.data.index import Index
from cxrmine.learn.loader import Batch, batches, inference_groups


class Maps(Protocol):
    """What mining asks of a method."""

    def eval(self) -> Any: ...

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Films N×1×S×S → logits N×C and maps N×T×C×h×w, of every round, before any normalisation."""
        ...


def infer(
    objective: Maps,
    index: Index,
    data: Data,
    batch_size: int,
    workers: int,
    world: Accelerator,
    spread: bool = False,
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Yield each batch with its logits (N×C) and maps (N×T×C×h×w), float32. `spread`: each process takes its share."""
    objective.eval()
    rank, processes = (world.process_index, world.num_processes) if spread else (0, 1)
    for batch in batches(index, data, inference_groups(len(index), batch_size, rank, processes), workers):
        if len(batch.rows):
            logits, maps = forward(objective, batch.images, batch_size, world)
            yield batch, logits.float().cpu().numpy(), maps.float().cpu().numpy()
        else:
            yield batch, np.empty((0, 0), np.float32), np.empty((0, 0, 0, 0, 0), np.float32)


def forward(objective: Maps, images: Tensor, batch_size: int, world: Accelerator) -> tuple[Tensor, Tensor]:
    """At most a batch of films → logits and maps, on the device."""
    with torch.inference_mode(), world.autocast():
        logits, maps = objective.infer(filled(images, batch_size).to(world.device))
    return logits[: len(images)], maps[: len(images)]


def filled(images: Tensor, batch_size: int) -> Tensor:
    """Always the same shape, so always the same kernels: an image's map does not depend on its company or its shard."""
    if len(images) == batch_size:
        return images
    return torch.cat([images, images.new_zeros(batch_size - len(images), *images.shape[1:])])


def predict(
    objective: Maps, index: Index, data: Data, batch_size: int, workers: int, world: Accelerator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that could be read, and their logits; every process works and every process gets all."""
    mine = [
        (batch.rows, logits)
        for batch, logits, _ in infer(objective, index, data, batch_size, workers, world, spread=True)
        if len(batch.rows)
    ]
    shares = gather_object(mine) if world.num_processes > 1 else mine
    if not shares:
        return np.empty(0, np.int64), np.empty((0, 0), np.float32)
    rows = np.concatenate([rows for rows, _ in shares])
    logits = np.concatenate([logits for _, logits in shares])
    order = np.argsort(rows, kind="stable")
    return rows[order], logits[order]
