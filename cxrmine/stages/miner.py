"""The half of `mine` that needs torch: films through the network, and boxes from maps on other threads meanwhile.

Several processes take batches in turn. What they mined comes together in the order of the films; the main one writes.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrmine import console
from cxrmine.boxes.maps import MapsWriter, maps_path
from cxrmine.boxes.prior import make_prior
from cxrmine.boxes.table import OUTSIDE, BoxWriter
from cxrmine.config import Recipe
from cxrmine.cores import threads
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.learn import parallel
from cxrmine.learn.inference import filled, infer
from cxrmine.learn.loader import Batch
from cxrmine.learn.organs import outlined
from cxrmine.learn.team import Team
from cxrmine.methods.attention_mining import Replay
from cxrmine.methods.organ_weighted import about_organs
from cxrmine.methods.registry import Miner as Learned
from cxrmine.methods.registry import load, load_organs, load_rounds
from cxrmine.runs import Run, read_thresholds
from cxrmine.stages.boxer import Boxer, Cells, Mined
from cxrmine.stages.mine import Mine, MineResult, Round, replayed_rounds

IMAGES_AT_A_TIME = 1024  # whose rows are held before they go to the table


class Miner:
    def __init__(
        self, config: Mine, recipe: Recipe, opened: Run, organs: Run | None, index: Index, of: int, team: Team
    ) -> None:
        """`index`: this shard's images, out of `of`."""
        self.config, self.recipe, self.index, self.of, self.team = config, recipe, index, of, team
        self.world = parallel.accelerator(config.device)
        replayed = replayed_rounds(recipe, opened.recipe)
        objective: Learned | Replay = load_rounds(opened, replayed) if replayed else load(opened)
        self.objective = objective.to(self.world.device).to(memory_format=torch.channels_last)
        self.cells = Cells(objective.map_stride, objective.cell_offset())
        chosen = read_thresholds(opened.folder.round_thresholds(replayed), recipe) if replayed else opened.thresholds
        self.boxer = Boxer(
            recipe,
            index,
            which=config.findings,
            cut_at=np.array([chosen[finding] for finding in recipe.data.findings]),
            cells=self.cells,
            source=_source(recipe, replayed, opened.recipe.trained_rounds),
            keep=config.maps is not None,
            prior=make_prior(recipe.mine, recipe.data.findings, organs.recipe.data.findings) if organs else None,
        )
        self.organs = load_organs(organs).eval().to(self.world.device) if organs else None

    def run(self, out: Path, meta: dict[str, Any]) -> MineResult:
        lie = {"cell_stride": self.cells.stride, "cell_offset": self.cells.offset}  # to cut a map again without us
        meta = {**meta, **lie}
        with ExitStack() as files:
            writer = (
                files.enter_context(BoxWriter(out, meta, (OUTSIDE,) if self.organs else ())) if self.team.main else None
            )
            path = maps_path(self.config.maps, *self.config.shard) if self.config.maps and self.team.main else None
            maps = files.enter_context(MapsWriter(path, meta)) if path else None
            return self._write(out, writer, maps)

    def _write(self, out: Path, writer: BoxWriter | None, maps: MapsWriter | None) -> MineResult:
        boxes: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        count: dict[str, Any] = {"images": 0, "pairs": 0, "boxes": 0, "without_box": 0, "unreadable": 0}
        count |= {"outside": 0, "without_organs": 0}
        rounds = np.zeros((self.recipe.mine.rounds, 2))
        with console.progress_bar(len(self.index), f"mine {self.config.split}", shown=self.team.main) as bar:
            for mined in self._mined():
                self._count(count, mined)
                rounds += sum(mined.rounds)
                bar.advance(1)
                if not writer:
                    continue
                boxes += mined.boxes
                images += mined.images
                for map_, row in mined.maps:
                    if maps:
                        maps.add(map_, **row)
                if count["images"] % IMAGES_AT_A_TIME == 0:
                    writer.write(boxes, images)
                    boxes, images = [], []
        if writer:
            writer.write(boxes, images)
        if said := about_organs(self.objective, f"of {len(self.index)} images"):
            console.log(said)
        told = [Round(float(erased) / max(count["pairs"], 1), int(peaks)) for erased, peaks in rounds]
        return MineResult(out, already_done=False, **count, rounds=tuple(told) if len(told) > 1 else ())

    def _count(self, count: dict[str, Any], mined: Mined) -> None:
        unreadable = [row for row in mined.images if row["status"].startswith("unreadable")]
        count["images"] += 1
        count["unreadable"] += len(unreadable)
        count["pairs"] += sum(row["finding"] is not None for row in mined.images)
        count["boxes"] += len(mined.boxes)
        count["outside"] += mined.outside
        count["without_organs"] += mined.without_organs
        count["without_box"] += sum(row["status"] == "no box" for row in mined.images)
        if unreadable and self.team.main:
            console.log(f"unreadable: {unreadable[0]['image_id']}: {unreadable[0]['status']}")
        limit = self.recipe.data.max_unreadable * self.of  # of all shards: one bad film in a small shard is no fault
        if count["unreadable"] > limit:
            raise CxrError(
                f"{count['unreadable']} of {self.of} images cannot be read, "
                f"the last is {mined.images[0]['image_id']} ({mined.images[0]['status']}).",
                "See all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
            )

    def _mined(self) -> Iterator[Mined]:
        """Images in order, of all processes."""
        own = self._batches()
        for _ in range(0, len(self.index), self.config.batch_size * self.team.size):
            for batch in self.team.exchange(next(own, [])):
                yield from batch

    def _batches(self) -> Iterator[list[Mined]]:
        """Those of this process. The network works on one batch while the threads box the one before."""
        many = threads(self.config.workers)
        waiting: deque[list[Future[Mined]]] = deque()
        stream = infer(
            self.objective, self.index, self.recipe.data, self.config.batch_size, many, self.world, spread=True
        )
        with ThreadPoolExecutor(many, thread_name_prefix="box") as pool:
            for batch, logits, maps in stream:
                probabilities = 1 / (1 + np.exp(-logits))
                jobs: dict[int, Future[Mined]] = {
                    row: pool.submit(self.boxer.unreadable, row, why) for row, why in batch.unreadable
                }
                outlines = self._outlines(batch)
                for i, row in enumerate(batch.rows):
                    film = (int(row), maps[i], probabilities[i], batch.geometries[i], outlines[i])
                    jobs[int(row)] = pool.submit(self.boxer.image, *film)
                waiting.append([jobs[row] for row in sorted(jobs)])
                if len(waiting) > 1:
                    yield [job.result() for job in waiting.popleft()]
            for jobs_of_batch in waiting:
                yield [job.result() for job in jobs_of_batch]

    @torch.inference_mode()
    def _outlines(self, batch: Batch) -> Sequence[np.ndarray | None]:
        """Of each film O×s×s, or None without organs."""
        if not self.organs or not len(batch.rows):
            return [None] * len(batch.rows)
        films = filled(batch.images, self.config.batch_size).to(self.world.device)
        masks = outlined(self.organs.net, films, self.organs.recipe.data.size)
        return list(masks[: len(batch.rows)].cpu().numpy())


def _source(recipe: Recipe, replayed: int, trained: int) -> str:
    """cam, cam/3, am/3; am-fixed/3 where a run has rounds of its own and they were not used; ham, and of what boxes."""
    method: str = recipe.method
    if recipe.agcl:
        graded = any(phase.kind == "finding" for phase in recipe.train.phases)
        method = f"{method if graded else 'agl'}/{recipe.agcl.iterations}"
    if recipe.boxes:
        method += "-refined" if recipe.boxes.masks == "regions" else "-boxes"
    if not replayed and recipe.mine.rounds == 1:
        return method
    return f"{method}{'-fixed' if trained and not replayed else ''}/{recipe.mine.rounds}"
