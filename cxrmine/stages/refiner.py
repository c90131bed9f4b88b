"""The half of `refine` that needs torch: the films whose boxes were learned, through the network that learned them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cxrmine import console
from cxrmine.boxes.erase import normalise
from cxrmine.boxes.extract import COMPONENTS_CUTS, on_film
from cxrmine.boxes.geometry import area, iou, middles
from cxrmine.boxes.refine import around, refine
from cxrmine.boxes.regions import encode
from cxrmine.boxes.table import BoxWriter
from cxrmine.cores import threads
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import Geometry
from cxrmine.errors import CxrError
from cxrmine.learn import parallel
from cxrmine.learn.inference import infer
from cxrmine.learn.team import Team
from cxrmine.methods.registry import load
from cxrmine.recipe_files import moved_paths
from cxrmine.runs import open_run
from cxrmine.stages.boxer import Cells, at_input, cuts_of
from cxrmine.stages.mine import provenance
from cxrmine.stages.refine import REFINER, Refine, Refined
from cxrmine.stages.train import training_films
from cxrmine.tables import COORDINATES

Row = dict[str, Any]


@dataclass
class Found:
    """Rows of both tables; and of each refined box the IoU with the box before, and how much its region fills."""

    boxes: list[Row] = field(default_factory=list)
    images: list[Row] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)

    def add(self, more: "Found") -> None:
        self.boxes += more.boxes
        self.images += more.images
        self.changes += more.changes


class Refiner:
    def __init__(self, config: Refine, team: Team) -> None:
        self.config, self.team = config, team
        opened = open_run(config.run / REFINER)
        self.recipe = opened.recipe
        whole = open_dataset(config.data)
        here = moved_paths(opened.recipe, lambda path: str(config.run / REFINER / path))
        films, teaching = training_films(whole.restrict(self.recipe.data.findings), here)
        assert teaching is not None
        taught = np.zeros(len(films), bool)
        taught[[row for row, _ in teaching.lessons]] = True
        self.index = films.filter(taught)
        self.boxes = _by_pair(teaching.table)
        self.world = parallel.accelerator(config.device)
        objective = load(opened).to(self.world.device).to(memory_format=torch.channels_last)
        self.objective, self.cells = objective, Cells(objective.map_stride, objective.cell_offset())
        made = provenance("train", (1, 1), self.recipe, opened, whole)
        self.meta = made | {"findings": "labelled", "boxes_sha256": teaching.sha256}

    def run(self, path: Path) -> Refined:
        found = Found()
        stream = infer(
            self.objective, self.index, self.recipe.data, self.config.batch_size, threads(self.config.workers),
            self.world, spread=True,
        )  # fmt: skip
        with console.progress_bar(len(self.index), "refine", shown=self.team.main) as bar:
            for batch, logits, maps in stream:
                for i, row in enumerate(batch.rows):
                    probabilities = 1 / (1 + np.exp(-logits[i]))
                    found.add(self._film(int(row), maps[i, 0], probabilities, batch.geometries[i]))
                for row, why in batch.unreadable:
                    console.log(f"unreadable: {self._who(row)['image_id']}: {why}")
                    found.images.append({**self._who(row), "boxes": 0, "status": f"unreadable: {why}"})
                bar.advance(len(batch.rows) * self.team.size)
        everything = Found()
        for share in self.team.exchange(found):
            everything.add(share)
        self._refuse_many_unreadable(everything)
        counted = _counted(everything)
        if self.team.main:
            with BoxWriter(path, {**self.meta, "refined": counted._asdict()}) as writer:
                writer.write(everything.boxes, everything.images)
        return counted

    def _film(self, row: int, maps: np.ndarray, probabilities: np.ndarray, geometry: Geometry) -> Found:
        """`maps` and `probabilities`: of every finding, C×h×w and C."""
        found = Found()
        who = self._who(row)
        seen = on_film(maps, *geometry.film(), self.cells.stride, self.cells.offset)
        for c, finding in enumerate(self.recipe.data.findings):
            given = self.boxes.get((who["image_id"], finding), [])
            if not given:
                continue
            cut = min(cuts_of(self.recipe, finding) or COMPONENTS_CUTS)
            map_ = at_input(normalise(seen[c]), geometry, self.recipe, self.cells)
            frame = {**who, "finding": finding, "probability": float(probabilities[c])}
            for box in given:
                made, change = refined(box, map_, cut, geometry)
                found.boxes.append({**box, **frame, **made})
                found.changes += [change] if change else []
            size = {"width": geometry.width, "height": geometry.height}
            found.images.append({**frame, **size, "label": 1, "boxes": len(given), "status": "ok"})
        return found

    def _refuse_many_unreadable(self, found: Found) -> None:
        unreadable = [row for row in found.images if row["status"].startswith("unreadable")]
        if len(unreadable) > self.recipe.data.max_unreadable * len(self.index):
            raise CxrError(
                f"{len(unreadable)} of the {len(self.index)} films with boxes cannot be read, the first is "
                f"{unreadable[0]['image_id']} ({unreadable[0]['status']}).",
                "See all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
            )

    def _who(self, row: int) -> Row:
        return {name: self.index.table[name][row].as_py() for name in ("image_id", "split", "patient_id")}


def refined(box: Row, map_: np.ndarray, cut: float, geometry: Geometry) -> tuple[Row, tuple[float, float] | None]:
    """What changes in a box's row; and where it was refined, what `Found` has of that."""
    size = {"image_width": geometry.width, "image_height": geometry.height}
    before = np.array([[box[name] for name in COORDINATES]], np.float64)
    at = geometry.to_input(before)[0]
    region = refine(map_ >= np.float32(cut), at)
    if region is None:
        nothing = {"region": None, "region_height": None, "region_width": None}
        return {**size, **nothing}, None
    within = around(region, at)
    after = geometry.to_original(within[None])
    left, top, right, bottom = middles(within)[0]
    inside = map_[top : max(bottom, top + 1), left : max(right, left + 1)]
    worth = {"score": float(inside.mean()), "threshold": cut, "source": "refined"}
    shape = {"region": encode(region), "region_height": len(region), "region_width": len(region)}
    place = dict(zip(COORDINATES, after[0].tolist(), strict=True))
    fill = min(1.0, float(region.sum() / area(at)[0]))
    return {**size, **worth, **shape, **place}, (float(iou(after, before)[0]), fill)


def _by_pair(table: pa.Table) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for box in table.to_pylist():
        box.pop("reader", None)
        found.setdefault((box["image_id"], box["finding"]), []).append(box)
    return found


def _counted(found: Found) -> Refined:
    boxes, changes = len(found.boxes), found.changes
    if not boxes:
        raise CxrError("Not one of the films whose boxes were learned can be read.", "See all with cxrmine check.")
    iou_before, fill = np.mean(changes, axis=0).round(6).tolist() if changes else (1.0, 1.0)
    return Refined(boxes, boxes - len(changes), len(changes), iou_before, fill)
