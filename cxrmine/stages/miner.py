"""The half of `mine` that needs torch: films through the network, and boxes from maps on other threads meanwhile."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrmine import console
from cxrmine.boxes.erase import aggregate, erase
from cxrmine.boxes.extract import extract, to_input
from cxrmine.boxes.maps import FINAL, MapsWriter, maps_path
from cxrmine.boxes.table import COORDINATES, BoxWriter
from cxrmine.config import Recipe
from cxrmine.cores import threads
from cxrmine.data.images import Geometry
from cxrmine.data.index import UNMENTIONED, Index
from cxrmine.errors import CxrError
from cxrmine.learn import parallel
from cxrmine.learn.inference import infer
from cxrmine.methods.attention_mining import Replay
from cxrmine.methods.registry import Objective, load, load_rounds
from cxrmine.runs import Run, read_thresholds
from cxrmine.stages.mine import Mine, MineResult

IMAGES_AT_A_TIME = 1024  # whose rows are held before they go to the table


@dataclass(frozen=True)
class Mined:
    """The rows of one image, for both tables."""

    boxes: list[dict[str, Any]]
    images: list[dict[str, Any]]
    maps: list[tuple[np.ndarray, dict[str, Any]]]


class Miner:
    def __init__(self, config: Mine, recipe: Recipe, opened: Run, index: Index, of: int) -> None:
        """`index`: this shard's images, out of `of`."""
        self.config, self.recipe, self.index, self.of = config, recipe, index, of
        self.world = parallel.accelerator(config.device)
        replayed = recipe.mine.rounds if opened.recipe.trained_rounds and not recipe.mine.fixed_weights else 0
        objective: Objective | Replay = load_rounds(opened, replayed) if replayed else load(opened)
        self.objective = objective.to(self.world.device).to(memory_format=torch.channels_last)
        self.stride, self.offset = objective.map_stride, objective.cell_offset()
        self.findings = recipe.data.findings
        cuts = (
            read_thresholds(opened.folder.round_thresholds(replayed), opened.recipe) if replayed else opened.thresholds
        )
        self.cut_at = np.array([cuts[f] for f in self.findings])
        self.labels = index.restrict(self.findings, absent_as_null=True).labels()
        self.rows = index.table.select(["image_id", "split", "patient_id"]).to_pylist()
        self.rounds = recipe.mine.rounds
        self.source = f"{recipe.method}/{self.rounds}" if replayed or self.rounds > 1 else recipe.method

    def run(self, out: Path, meta: dict[str, Any]) -> MineResult:
        meta = {
            **meta,
            "cell_stride": self.stride,
            "cell_offset": self.offset,
        }  # to cut a map again without the network
        with ExitStack() as files:
            writer = files.enter_context(BoxWriter(out, meta))
            path = maps_path(self.config.maps, *self.config.shard) if self.config.maps else None
            maps = files.enter_context(MapsWriter(path, meta)) if path else None
            return self._write(out, writer, maps)

    def _write(self, out: Path, writer: BoxWriter, maps: MapsWriter | None) -> MineResult:
        boxes: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        count = {"images": 0, "pairs": 0, "boxes": 0, "without_box": 0, "unreadable": 0}
        with console.progress_bar(len(self.index), f"mine {self.config.split}") as bar:
            for mined in self._mined():
                boxes += mined.boxes
                images += mined.images
                for map_, row in mined.maps:
                    if maps:
                        maps.add(map_, **row)
                self._count(count, mined)
                bar.advance(1)
                if count["images"] % IMAGES_AT_A_TIME == 0:
                    writer.write(boxes, images)
                    boxes, images = [], []
        writer.write(boxes, images)
        return MineResult(out, already_done=False, **count)

    def _count(self, count: dict[str, int], mined: Mined) -> None:
        unreadable = [row for row in mined.images if row["status"].startswith("unreadable")]
        count["images"] += 1
        count["unreadable"] += len(unreadable)
        count["pairs"] += sum(row["finding"] is not None for row in mined.images)
        count["boxes"] += len(mined.boxes)
        count["without_box"] += sum(row["status"] == "no box" for row in mined.images)
        if unreadable:
            console.log(f"unreadable: {unreadable[0]['image_id']}: {unreadable[0]['status']}")
        limit = self.recipe.data.max_unreadable * self.of  # of all shards: one bad film in a small shard is no fault
        if count["unreadable"] > limit:
            raise CxrError(
                f"{count['unreadable']} of {self.of} images cannot be read, "
                f"the last is {mined.images[0]['image_id']} ({mined.images[0]['status']}).",
                "See all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
            )

    def _mined(self) -> Iterator[Mined]:
        """Images in order. The network works on one batch while the threads box the one before."""
        many = threads(self.config.workers)
        waiting: deque[list[Future[Mined]]] = deque()
        stream = infer(self.objective, self.index, self.recipe.data, self.config.batch_size, many, self.world)
        with ThreadPoolExecutor(many, thread_name_prefix="box") as pool:
            for batch, logits, maps in stream:
                probabilities = 1 / (1 + np.exp(-logits))
                jobs: dict[int, Future[Mined]] = {
                    row: pool.submit(self._unreadable, row, why) for row, why in batch.unreadable
                }
                for i, row in enumerate(batch.rows):
                    jobs[int(row)] = pool.submit(self._image, int(row), maps[i], probabilities[i], batch.geometries[i])
                waiting.append([jobs[row] for row in sorted(jobs)])
                while len(waiting) > 1:
                    yield from (job.result() for job in waiting.popleft())
            for jobs_of_batch in waiting:
                yield from (job.result() for job in jobs_of_batch)

    def _unreadable(self, row: int, why: str) -> Mined:
        return Mined([], [self._image_row(row, None, f"unreadable: {why}")], [])

    def _image_row(self, row: int, geometry: Geometry | None, status: str) -> dict[str, Any]:
        """The row of an image that has no pair."""
        size = {"width": geometry.width, "height": geometry.height} if geometry else {"width": None, "height": None}
        nothing = {"finding": None, "label": None, "probability": None, "boxes": 0}
        return {**self.rows[row], **size, **nothing, "status": status}

    def _pairs(self, row: int, probabilities: np.ndarray) -> list[int]:
        """The findings to box, in the order of their names, as the tables are sorted."""
        chosen = {
            "labelled": self.labels[row] == 1,
            "predicted": probabilities >= self.cut_at,
            "all": np.ones(len(self.findings), bool),
        }[self.config.findings]
        return sorted(np.flatnonzero(chosen), key=lambda c: self.findings[c])

    def _image(self, row: int, maps: np.ndarray, probabilities: np.ndarray, geometry: Geometry) -> Mined:
        mined = Mined([], [], [])
        who = self.rows[row]
        for c in self._pairs(row, probabilities):
            pair = {**who, "finding": self.findings[c], "probability": float(probabilities[c])}
            boxes = self._pair(maps[:, c], pair, geometry, mined)
            label = None if self.labels[row, c] == UNMENTIONED else int(self.labels[row, c])
            size = {"width": geometry.width, "height": geometry.height}
            status = {"label": label, "boxes": boxes, "status": "ok" if boxes else "no box"}
            mined.images.append({**pair, **size, **status})
        return mined if mined.images else Mined([], [self._image_row(row, geometry, "no pair")], [])

    def _pair(self, raw: np.ndarray, pair: dict[str, Any], geometry: Geometry, mined: Mined) -> int:
        """`raw`: the pair's map by each round's weights, T×h×w; 1×h×w where every round has the same."""
        mine, size = self.recipe.mine, self.recipe.data.size
        rows, columns = geometry.film()
        seen = self._on_film(raw, rows, columns)
        maps, masks = erase(np.broadcast_to(seen, (self.rounds, *seen.shape[1:])))
        final = aggregate(maps, masks)
        if self.config.maps:
            self._keep(maps, final, pair, geometry, mined)
        at_input = to_input(final, (size, size), self.stride, mine.align, self.offset)
        visible = np.zeros_like(at_input)
        visible[rows, columns] = at_input[rows, columns]
        cut = extract(visible, mine.way, mine.top, mine.cuts or None)
        boxes = geometry.to_original(cut.boxes)
        frame = {"image_width": geometry.width, "image_height": geometry.height, "source": self.source}
        for i in range(len(boxes)):
            worth = {"rank": i + 1, "score": float(cut.scores[i]), "threshold": float(cut.thresholds[i])}
            region = {"region": cut.regions[i], "region_height": size, "region_width": size}
            place = dict(zip(COORDINATES, boxes[i].tolist(), strict=True))
            mined.boxes.append({**pair, **worth, **place, **frame, **region})
        return len(boxes)

    def _on_film(self, raw: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """The maps without the cells that look at padding: a peak there must not set the scale of the others."""
        down, across = (np.arange(n) * self.stride + self.offset for n in raw.shape[1:])
        seen = np.outer((down >= rows.start) & (down < rows.stop), (across >= columns.start) & (across < columns.stop))
        return np.where(seen, raw, np.float32(0))

    def _keep(
        self, maps: np.ndarray, final: np.ndarray, pair: dict[str, Any], geometry: Geometry, mined: Mined
    ) -> None:
        frame = {
            "image_id": pair["image_id"],
            "finding": pair["finding"],
            "image_width": geometry.width,
            "image_height": geometry.height,
            "scale_x": geometry.scale_x,
            "scale_y": geometry.scale_y,
            "offset_x": geometry.offset_x,
            "offset_y": geometry.offset_y,
        }
        mined.maps.append((final, {**frame, "round": FINAL}))
        if len(maps) > 1:
            mined.maps.extend((map_, {**frame, "round": t}) for t, map_ in enumerate(maps, start=1))
