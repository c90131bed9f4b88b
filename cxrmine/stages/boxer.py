"""From one film's maps to its rows in both tables, and to the maps that are kept."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cxrmine.boxes.erase import aggregate, erase
from cxrmine.boxes.extract import extract, nearest_cells, on_film, to_input
from cxrmine.boxes.maps import FINAL
from cxrmine.boxes.prior import Prior, gated, held, outside
from cxrmine.config import Recipe
from cxrmine.data.images import Geometry
from cxrmine.data.index import UNMENTIONED, Index
from cxrmine.tables import COORDINATES


class Cells(NamedTuple):
    """Where the cells of a map lie: cell i is centred at input pixel i × stride + offset."""

    stride: float
    offset: float


@dataclass
class Mined:
    """The rows of one image, for both tables."""

    boxes: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    maps: list[tuple[np.ndarray, dict[str, Any]]] = field(default_factory=list)
    rounds: list[np.ndarray] = field(default_factory=list)  # of each pair T×2: share of cells erased, boxes added
    outside: int = 0  # boxes that went because they lie outside the organs
    without_organs: int = 0  # pairs of which no organ was outlined


class Boxer:
    def __init__(
        self,
        recipe: Recipe,
        index: Index,
        which: str,
        cut_at: np.ndarray,
        cells: Cells,
        source: str,
        keep: bool,
        prior: Prior | None = None,
    ) -> None:
        """`which`: labelled, predicted (from the probabilities `cut_at` on) or all pairs; `keep`: their maps, too."""
        self.recipe, self.which, self.cut_at, self.prior = recipe, which, cut_at, prior
        self.cells, self.source, self.keep = cells, source, keep
        self.findings = recipe.data.findings
        self.labels = index.restrict(self.findings, absent_as_null=True).labels()
        self.who = index.table.select(["image_id", "split", "patient_id"])

    def unreadable(self, row: int, why: str) -> Mined:
        return Mined(images=[self._image_row(row, None, f"unreadable: {why}")])

    def image(
        self,
        row: int,
        maps: np.ndarray,
        probabilities: np.ndarray,
        geometry: Geometry,
        outlines: np.ndarray | None = None,
    ) -> Mined:
        """`maps`: of each round's weights and each finding, T×C×h×w; 1×C×h×w where every round has the same.
        `outlines`: of the prior's organs, O×s×s."""
        mined = Mined()
        who = self._named(row)
        for c in self._pairs(row, probabilities):
            pair = {**who, "finding": self.findings[c], "probability": float(probabilities[c])}
            mask = None
            if self.prior and outlines is not None:
                mask = self.prior.mask(outlines, pair["finding"])
                lie = (self.recipe.data.size, self.cells.stride, self.cells.offset)
                mask = mask if mask is not None and held(mask, maps.shape[-2:], *lie).any() else None
                mined.without_organs += mask is None
            boxes = self.pair(maps[:, c], pair, geometry, mined, mask)
            label = None if self.labels[row, c] == UNMENTIONED else int(self.labels[row, c])
            size = {"width": geometry.width, "height": geometry.height}
            status = {"label": label, "boxes": boxes, "status": "ok" if boxes else "no box"}
            mined.images.append({**pair, **size, **status})
        return mined if mined.images else Mined(images=[self._image_row(row, geometry, "no pair")])

    def pair(
        self, raw: np.ndarray, pair: dict[str, Any], geometry: Geometry, mined: Mined, mask: np.ndarray | None = None
    ) -> int:
        """Its boxes, whose number is returned, from T×h×w or 1×h×w. `mask`: where the finding can be."""
        mine, size = self.recipe.mine, self.recipe.data.size
        seen = on_film(raw, *geometry.film(), self.cells.stride, self.cells.offset)
        if mask is not None and mine.organ_way == "gate":
            seen = gated(seen, mask, size, self.cells.stride, self.cells.offset)
        maps, masks = erase(np.broadcast_to(seen, (mine.rounds, *seen.shape[1:])))
        final = aggregate(maps, masks)
        if self.keep:
            mined.maps.extend(_kept(maps, final, pair, geometry))
        visible = at_input(final, geometry, self.recipe, self.cells)
        cut = extract(visible, mine.way, mine.top, cuts_of(self.recipe, pair["finding"]))
        shares = outside(mask, cut.boxes, size) if mask is not None else None
        if shares is not None and mine.organ_way == "drop":
            inside = shares <= mine.outside
            mined.outside += int((~inside).sum())
            cut, shares = cut.kept(inside), shares[inside]
        if mine.rounds > 1:
            _, height, width = masks.shape
            lie = (self.cells.stride, mine.align, self.cells.offset)
            across = nearest_cells(cut.peaks[:, 0], size, width, *lie)
            down = nearest_cells(cut.peaks[:, 1], size, height, *lie)
            mined.rounds.append(by_round(masks, down, across))
        boxes = geometry.to_original(cut.boxes)
        frame = {"image_width": geometry.width, "image_height": geometry.height, "source": self.source}
        for i in range(len(boxes)):
            worth = {"rank": i + 1, "score": float(cut.scores[i]), "threshold": float(cut.thresholds[i])}
            region = {"region": cut.regions[i], "region_height": size, "region_width": size}
            place = dict(zip(COORDINATES, boxes[i].tolist(), strict=True))
            told = {"outside": None if shares is None else float(shares[i])} if self.prior else {}
            mined.boxes.append({**pair, **worth, **place, **frame, **region, **told})
        return len(boxes)

    def _named(self, row: int) -> dict[str, Any]:
        return {name: self.who[name][row].as_py() for name in self.who.column_names}

    def _image_row(self, row: int, geometry: Geometry | None, status: str) -> dict[str, Any]:
        """The row of an image that has no pair."""
        size = {"width": geometry.width, "height": geometry.height} if geometry else {"width": None, "height": None}
        nothing = {"finding": None, "label": None, "probability": None, "boxes": 0}
        return {**self._named(row), **size, **nothing, "status": status}

    def _pairs(self, row: int, probabilities: np.ndarray) -> list[int]:
        """The findings to box, in the order of their names, as the tables are sorted."""
        chosen = {
            "labelled": self.labels[row] == 1,
            "predicted": probabilities >= self.cut_at,
            "all": np.ones(len(self.findings), bool),
        }[self.which]
        return sorted(np.flatnonzero(chosen), key=lambda c: self.findings[c])


def at_input(final: np.ndarray, geometry: Geometry, recipe: Recipe, cells: Cells) -> np.ndarray:
    """A final map h×w at the size of the input, 0 where that shows no film."""
    raised = to_input(final, (geometry.size, geometry.size), cells.stride, recipe.mine.align, cells.offset)
    visible = np.zeros_like(raised)
    visible[geometry.film()] = raised[geometry.film()]
    return visible


def cuts_of(recipe: Recipe, finding: str) -> tuple[float, ...] | None:
    """Where a finding's maps are cut; None: where the way does by itself."""
    return recipe.mine.cuts_of.get(finding, recipe.mine.cuts) or None


def by_round(masks: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """T×2: the share of a map's cells that each round erased, and how many of these cells it was the first to erase.

    masks: T×h×w, cumulative, True is kept.
    """
    erased = np.diff((~masks).mean(axis=(1, 2)), prepend=0)
    before = np.concatenate([np.ones((1, len(rows)), bool), masks[:-1, rows, columns]])
    return np.stack([erased, (before & ~masks[:, rows, columns]).sum(axis=1)], axis=1)


def _kept(
    maps: np.ndarray, final: np.ndarray, pair: dict[str, Any], geometry: Geometry
) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """The final map and, of several rounds, those of the rounds, each with what it is."""
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
    rounds = [(map_, {**frame, "round": t}) for t, map_ in enumerate(maps, start=1)]
    return [(final, {**frame, "round": FINAL}), *(rounds if len(maps) > 1 else ())]
