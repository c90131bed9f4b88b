"""What attention mining keeps between its rounds: which films a batch erases, and where."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from cxrmine.boxes.erase import next_mask, normalise
from cxrmine.boxes.extract import on_film
from cxrmine.boxes.masks import Masks, gather, read_masks, write_masks
from cxrmine.config import Recipe
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.learn.checkpoint import load_weights
from cxrmine.learn.guides import Erased
from cxrmine.learn.inference import infer
from cxrmine.runs import RunFolder

TURN = 1  # tells these random orders from those of the epochs
MASKING_BATCH = 32  # fixed, as is the size of every other batch that results hang on


class Rounds:
    """`taught`: the rows of `index` that every phase learns from, and of which the films come that are not erased."""

    def __init__(
        self,
        recipe: Recipe,
        index: Index,
        taught: np.ndarray,
        folder: RunFolder,
        world: Accelerator,
        workers: int,
    ) -> None:
        assert recipe.am is not None
        self.recipe, self.am, self.index = recipe, recipe.am, index
        self.taught = taught
        self.folder, self.world, self.workers = folder, world, workers
        self.labels = index.labels()
        self.mined = self._mined()
        self.image_ids = index.table["image_id"].to_pylist()
        self.masks: Masks | None = None
        self.row_of: dict[tuple[str, str], int] = {}

    def _mined(self) -> np.ndarray:
        """The rows that the rounds erase: those with a finding, of train.include where it names films."""
        if self.am.erase_from == "all":
            return np.arange(len(self.index))
        added = self.index.table["boxed"].to_numpy() if self.recipe.train.include else np.ones(len(self.index), bool)
        rows = np.flatnonzero(added & (self.labels == 1).any(axis=1))
        if not len(rows):
            raise CxrError("No training image has a finding: there is nothing to mine.", "Take other data.findings.")
        return rows

    def begin(self, t: int, objective: Any) -> None:
        """Have the masks M_(t-1): from their file, or from the weights of round t - 1."""
        self.stride, self.offset = objective.map_stride, objective.cell_offset()
        self.masks = None
        if t > 1:
            path = self.folder.masks(t - 1)
            there = path.is_file()
            self.world.wait_for_everyone()  # all look before one writes
            if not there:
                found = self._find(t - 1, objective)
                if self.world.is_main_process:
                    write_masks(path, found)
                self.world.wait_for_everyone()
            self.masks = read_masks(path)
        self.row_of = {pair: row for row, pair in enumerate(self.masks.pairs)} if self.masks else {}

    def _find(self, t: int, objective: Any) -> Masks:
        """M_t of every mined pair: films as they are, the weights of round t, the masks of the round before."""
        network = deepcopy(objective)
        load_weights(self.folder.round_weights(t), network)
        before = read_masks(self.folder.masks(t - 1)) if t > 1 else None
        row_of = {pair: row for row, pair in enumerate(before.pairs)} if before else {}
        chosen = np.zeros(len(self.index), bool)
        chosen[self.mined] = True
        films = self.index.filter(chosen)
        pairs, masks = [], []
        shape = (0, 0)
        for batch, _, maps in infer(
            network, films, self.recipe.data, MASKING_BATCH, self.workers, self.world, spread=True
        ):
            if not len(batch.rows):  # not one of its films could be read
                continue
            shape = maps.shape[-2:]
            seen = [on_film(maps[i, 0], *at.film(), self.stride, self.offset) for i, at in enumerate(batch.geometries)]
            for row, c, map_ in self._pairs(films, batch.rows, np.stack(seen)):
                pair = (films.table["image_id"][row].as_py(), self.index.findings[c])
                mask = before.unpack([row_of[pair]])[0] if before and pair in row_of else np.ones(map_.shape, bool)
                pairs.append(pair)
                masks.append(np.packbits(next_mask(normalise(map_ * mask), mask)))
        if self.world.num_processes > 1:
            shares = gather_object([(pairs, masks, shape)])
            pairs = [pair for share in shares for pair in share[0]]
            masks = [mask for share in shares for mask in share[1]]
            shape = max(share[2] for share in shares)
        if shape == (0, 0):
            raise CxrError("Not one of the images to be mined can be read.", "See all with cxrmine check.")
        return gather(pairs, masks, shape)

    def _pairs(self, films: Index, rows: np.ndarray, maps: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        present = films.labels()[rows] == 1
        for i, row in enumerate(rows):
            for c in range(maps.shape[1]) if self.am.erase_absent else np.flatnonzero(present[i]):
                yield int(row), int(c), maps[i, c]

    def groups(self, epoch: int, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each step of an epoch from `first` on: the rows that are erased, and the others.

        An epoch has as many steps as one of the phases before; the erased films come in an order of their own, round
        and round, and are none of the others of that epoch. It all follows from (seed, epoch, step) alone.
        """
        size = min(self.recipe.train.batch_size, len(self.taught))
        share = size if self.am.kp == "none" else max(1, round(self.am.erase_share * size))
        steps, others = len(self.taught) // size, size - share
        erased = self._erased(epoch * steps * share, steps * share).reshape(steps, share)
        order = np.random.default_rng((self.recipe.train.seed, epoch)).permutation(self.taught)
        order = order[~np.isin(order, erased)]  # enough: at most steps × share of steps × size are gone
        for step in range(first, steps):
            yield erased[step], order[step * others : (step + 1) * others]

    def _erased(self, first: int, count: int) -> np.ndarray:
        """Films number `first` to `first + count` of the endless row in which the mined ones are erased."""
        place = np.arange(first, first + count)
        turns = place // len(self.mined)
        return np.concatenate([self._turn(turn)[place[turns == turn] % len(self.mined)] for turn in np.unique(turns)])

    def _turn(self, turn: int) -> np.ndarray:
        """The mined films in the order in which they are erased for the so manieth time."""
        return np.random.default_rng((self.recipe.train.seed, int(turn), TURN)).permutation(self.mined)

    def guide(self, rows: np.ndarray, erased: np.ndarray) -> Erased:
        """What of the maps of these films is erased; `erased`: the rows that may be."""
        where = np.isin(rows, erased)
        shape = self.masks.shape if self.masks else (1, 1)  # in the first round one cell says for all: not erased
        cells = np.zeros((len(rows), len(self.index.findings), *shape), np.float32)
        if self.masks is not None:
            for i in np.flatnonzero(where):
                for c, finding in enumerate(self.index.findings):
                    row = self.row_of.get((self.image_ids[rows[i]], finding))
                    if row is not None:
                        cells[i, c] = ~self.masks.unpack([row])[0]
        return Erased(torch.from_numpy(cells), torch.from_numpy(where), self.stride, self.offset)
