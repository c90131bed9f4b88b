"""What the iterations of AGCL need: the networks of each finding, the seeds that they find, and these seeds' maps.

iterations/1/seeds-03.parquet
    The seeds of finding number 3 in that iteration: image_id, finding, severity, probability, by (severity,
    probability, both, or before: it was one already), since (the iteration that found it).
iterations/1/seeds-03.npy
    Their maps, in that order, before any normalisation: seeds × 1 (or channels) × h × w, float16.
iterations/1/seeds-03/
    The network of that finding while it learns; it is gone once its seeds are found.
iterations/1/model.safetensors …
    The multi-label network after the iteration: a run of its own, and so is iterations/0, the baseline.

What is there is not made again, so an iteration that was stopped goes on where it was.
"""

import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from cxrmine.config import Recipe
from cxrmine.data.index import Index
from cxrmine.data.severities import MODERATE, UNKNOWN, Severities
from cxrmine.errors import CxrError
from cxrmine.files import atomic
from cxrmine.learn.checkpoint import load_weights
from cxrmine.learn.guides import Seeds
from cxrmine.learn.inference import infer
from cxrmine.learn.loader import Batch, targets
from cxrmine.methods.severity_curriculum import SeverityCurriculum, TwoWay
from cxrmine.recipe_files import moved_paths
from cxrmine.runs import RunFolder, read_recipe, severity_sha256, write_recipe
from cxrmine.stages.curriculum import Curriculum, Films, stages_of

GRADING_BATCH = 32  # fixed, as is the size of every other batch that results hang on
SEEDS = pa.schema(
    [
        ("image_id", pa.string()),
        ("finding", pa.string()),
        ("severity", pa.int8()),
        ("probability", pa.float32()),
        ("by", pa.string()),
        ("since", pa.int16()),
    ]
)


class Iterations:
    def __init__(
        self,
        recipe: Recipe,
        train: tuple[Index, Severities],
        validation: tuple[Index, Severities],
        folder: RunFolder,
        world: Accelerator,
        workers: int,
        unreadable: Callable[[Batch], None],
        say: Callable[[str], None],
    ) -> None:
        """`unreadable` is told of every batch, `say` of what is worth a line in the log."""
        assert recipe.agcl is not None
        self.recipe, self.agcl, self.folder = recipe, recipe.agcl, folder
        self.index, self.severities = train
        self.validation = validation
        self.world, self.workers, self.unreadable, self.say = world, workers, unreadable, say
        self.graded = any(phase.kind == "finding" for phase in recipe.train.phases)

    def begin(self, t: int, objective: Any) -> bool:
        """Have the seeds of iteration t. False: there are no new ones."""
        assert isinstance(objective, SeverityCurriculum)
        self.lie = (objective.map_stride, objective.cell_offset())
        place = self.folder.iteration(t)
        missing = [c for c in range(len(self.index.findings)) if not place.seeds(c).is_file()]
        self.world.wait_for_everyone()  # all look before one writes
        if missing:
            network = deepcopy(objective)
            load_weights(self.folder.iteration(t - 1).weights, network)
            for c in missing:
                self._find(t, c, network)
        tables = [pq.ParquetFile(place.seeds(c)).read() for c in range(len(self.index.findings))]
        counts = [sum(since == t for since in table["since"].to_pylist()) for table in tables]
        found = ", ".join(
            f"{finding} {len(table):,}" + (f" ({new:,} new)" if t > 1 else "")
            for finding, table, new in zip(self.index.findings, tables, counts, strict=True)
        )
        self.say(f"seeds of iteration {t}: {found}")
        if t == 1 and not any(counts):
            raise CxrError(
                f"No film is a seed: none has a finding with a probability above {self.agcl.threshold}.",
                "Lower it with --set agcl.threshold=0.7, or train the phases before longer.",
            )
        if any(counts):
            self._open(place, tables)
        return any(counts)

    def _open(self, place: RunFolder, tables: list[pa.Table]) -> None:
        row_of = {name: row for row, name in enumerate(self.index.table["image_id"].to_pylist())}
        self.place = np.full((len(self.index), len(tables)), -1)
        for c, table in enumerate(tables):
            self.place[[row_of[name] for name in table["image_id"].to_pylist()], c] = np.arange(len(table))
        self.maps = [np.load(_maps(place.seeds(c)), mmap_mode="r") for c in range(len(tables))]

    def guide(self, rows: np.ndarray) -> Seeds:
        """The maps of the seeds among these films."""
        of = np.argwhere(self.place[rows] >= 0)
        maps = np.zeros((len(of), *self.maps[0].shape[1:]), np.float32)
        for i, (film, c) in enumerate(of):
            maps[i] = self.maps[c][self.place[rows[film], c]]
        return Seeds(torch.from_numpy(maps), torch.from_numpy(of), *self.lie)

    def keep(self, t: int) -> RunFolder:
        """The folder of an iteration as a run, but for its weights and thresholds, which the caller writes."""
        place = self.folder.iteration(t)
        if self.world.is_main_process:
            recipe, dataset = read_recipe(self.folder)
            recipe = recipe.model_copy(update={"agcl": self.agcl.model_copy(update={"iterations": t})})
            recipe = moved_paths(recipe, lambda path: os.path.relpath(self.folder.path / path, place.path))
            place.path.mkdir(parents=True, exist_ok=True)
            write_recipe(place, recipe, dataset, severity=severity_sha256(self.folder))
            with atomic(place.patients) as temporary:
                shutil.copyfile(self.folder.patients, temporary)
        self.world.wait_for_everyone()
        return place

    # --- seeds of one finding

    def _find(self, t: int, c: int, network: SeverityCurriculum) -> None:
        path = self.folder.iteration(t).seeds(c)
        films = _films(self.index, self.severities, self.recipe, c)
        stages = stages_of(self.recipe, films, fewest=2 * self.world.num_processes)
        grader: SeverityCurriculum | TwoWay = network
        if stages:
            torch.manual_seed((self.recipe.train.seed << 32) + t * 1000 + c)
            grader = TwoWay(network).to(self.world.device).to(memory_format=torch.channels_last)
            validation = _films(*self.validation, self.recipe, c)
            learning = RunFolder(path.with_suffix(""))
            learning.path.mkdir(parents=True, exist_ok=True)
            told = (learning, self.world, self.workers, self.unreadable)
            Curriculum(self.recipe, films, validation, stages, (t, c), *told).train(grader)
        elif self.graded:
            self.say(f"No severity of {self.index.findings[c]} is known: its seeds are those of the network as it is.")
        rows, probabilities, maps = self._grade(grader, c, films.present)
        severity = films.severity[rows] if stages else np.full(len(rows), UNKNOWN, np.int8)
        known = self._before(t, c)
        names = self.index.table["image_id"].take(pa.array(rows)).to_pylist()
        before = np.array([name in known for name in names], bool)
        by = seeded_by(severity, probabilities, before, self.agcl.threshold)
        chosen = np.flatnonzero(by != "")
        if self.world.is_main_process:
            table = {
                "image_id": [names[i] for i in chosen],
                "finding": [self.index.findings[c]] * len(chosen),
                "severity": pa.array(films.severity[rows][chosen], mask=films.severity[rows][chosen] == UNKNOWN),
                "probability": probabilities[chosen].astype(np.float32),
                "by": by[chosen].tolist(),
                "since": [known.get(names[i], t) for i in chosen],
            }
            with atomic(_maps(path)) as temporary, temporary.open("wb") as file:
                np.save(file, maps[chosen])
            with atomic(path) as temporary:
                pq.write_table(pa.table(table, schema=SEEDS), temporary)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        self.world.wait_for_everyone()

    def _before(self, t: int, c: int) -> dict[str, int]:
        """The seeds of the iteration before, and since when they are."""
        if t == 1:
            return {}
        table = pq.ParquetFile(self.folder.iteration(t - 1).seeds(c)).read()
        return dict(zip(table["image_id"].to_pylist(), table["since"].to_pylist(), strict=True))

    def _grade(
        self, grader: SeverityCurriculum | TwoWay, c: int, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the films that have the finding and can be read: their rows, P(finding), and their maps."""
        rows, films = np.flatnonzero(present), self.index.filter(present)
        seen = []
        told = (self.recipe.data, GRADING_BATCH, self.workers, self.world)
        for batch, likely, maps in infer(Grader(grader, c), films, *told, spread=True):
            if len(batch.rows):
                seen.append((rows[batch.rows], likely[:, 0], maps[:, 0].astype(np.float16)))
        shares = gather_object(seen) if self.world.num_processes > 1 else seen
        if not shares:
            return np.empty(0, np.int64), np.empty(0, np.float32), np.empty((0, 1, 1, 1), np.float16)
        found, likely, maps = (np.concatenate(part) for part in zip(*shares, strict=True))
        order = np.argsort(found, kind="stable")
        return found[order], likely[order], maps[order]


class Grader(nn.Module):
    """A network as inference asks for it: P(finding) N×1, and the finding's maps N×1×K×h×w."""

    def __init__(self, network: SeverityCurriculum | TwoWay, finding: int) -> None:
        super().__init__()
        self.network, self.finding = network, finding

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        likely, maps = self.network.grade(images, self.finding)
        return likely[:, None], maps[:, None]


def seeded_by(severity: np.ndarray, probabilities: np.ndarray, before: np.ndarray, threshold: float) -> np.ndarray:
    """Why each film that has the finding is a seed: S1 by its severity, S2 by its probability, or it was one before;
    empty where it is none."""
    severe, likely = severity >= MODERATE, probabilities > threshold
    return np.select([severe & likely, severe, likely, before], ["both", "severity", "probability", "before"], "")


def _films(index: Index, severities: Severities, recipe: Recipe, c: int) -> Films:
    labels = targets(index.labels(), recipe.data).numpy()
    normal = np.flatnonzero((labels == 0).all(axis=1))
    return Films(index, labels[:, c] == 1, severities.values[:, c], normal)


def _maps(seeds: Path) -> Path:
    return seeds.with_suffix(".npy")
