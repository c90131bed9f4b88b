"""Boxes at other cuts than the mined ones, from a folder of maps; and MaxBoxAccV2, which looks at all cuts.

MaxBoxAccV2 (Choe et al.: Evaluating Weakly Supervised Object Localization Methods Right; CVPR 2020): the map is scaled
to 0..1; at each threshold τ every connected component of s ≥ τ gives its bounding box; a pair is hit at δ when the IoU
of any of them with any truth box of the pair is at least δ. BoxAcc(τ, δ) is the share of pairs that are hit. The figure
is the mean over δ = 0.3, 0.5, 0.7 of the highest BoxAcc of all τ, so τ is chosen on the truth it is scored with: an
upper bound of what one cut of these maps can reach, never a result.

The map is the final one, brought to the network's input as mining does, without what lies beside the film, and divided
by its maximum. Boxes are half-open, in pixels of the original film. The authors' code counts the last row and column
with + 1 in both IoU's areas, cuts the map in whole grays strictly above the threshold, boxes the rims of holes too, and
steps by 0.001; a step of 0.01 is finer than most of a map's 256 levels.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine import console
from cxrmine.boxes.extract import Align, Map, component_boxes, to_input
from cxrmine.boxes.geometry import iou_matrix
from cxrmine.boxes.maps import FINAL, index_path, read_maps, refuse_other_shards
from cxrmine.boxes.table import read_meta
from cxrmine.cores import threads
from cxrmine.data.images import Geometry
from cxrmine.errors import CxrError
from cxrmine.scoring.controls import PAIR
from cxrmine.scoring.judged import SIZES, codes, corners, numbers

THRESHOLDS = tuple(i / 100 for i in range(100))
IOU = (0.3, 0.5, 0.7)
FRAME = (*SIZES, "scale_x", "scale_y", "offset_x", "offset_y")
CENTRED = ("small-resnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # cell 0 at pixel 0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Result = TypeVar("Result")


@dataclass(frozen=True)
class FinalMaps:
    """The aggregated maps of a folder, and how its recipe makes boxes of one."""

    folder: Path
    arrays: list[np.ndarray]  # uint8, one a shard
    place: Ints  # R×2: shard and row of each map
    scale: Floats  # R: what 255 stands for
    frame: Floats  # R×6: FRAME
    images: pa.Array  # R
    findings: pa.Array  # R
    size: int  # of the network's input
    stride: float
    align: Align
    offset: float
    way: str
    top: int

    def looked_at(self) -> pa.Table:
        """One row an image, in the columns of an images table; who and of which split it is, a map does not say."""
        sizes = {name: pa.array(self.frame[:, axis].astype(np.int32)) for axis, name in enumerate(("width", "height"))}
        table = (
            pa.table({"image_id": self.images, **sizes})
            .group_by("image_id")
            .aggregate([("width", "min"), ("height", "min")])
        )
        table = table.rename_columns(["image_id", "width", "height"]).sort_by("image_id")
        unknown = pa.nulls(len(table), pa.string())
        return table.append_column("patient_id", unknown).append_column("split", unknown)

    def rows(self, pairs: pa.Table) -> Ints:
        """Each pair's map, -1 where it has none."""
        images, findings = (pc.unique(names).sort() for names in (self.images, self.findings))

        def keys(image: pa.Array, finding: pa.Array) -> Ints:
            of, at = codes(image, images), codes(finding, findings)
            return np.where((of < 0) | (at < 0), -1, of * len(findings) + at)

        ours, wanted = keys(self.images, self.findings), keys(pairs["image_id"], pairs["finding"])
        known, first = np.unique(ours, return_index=True)
        if len(known) < len(ours):
            raise CxrError(f"{self.folder} has two final maps of one pair.", "Mine the maps again.")
        near = np.searchsorted(known, wanted).clip(0, max(len(known) - 1, 0))
        found = np.append(known, -2)[near] == wanted
        rows = np.where(found, np.append(first, -1)[near], -1)
        if not found.any():
            raise CxrError(
                f"None of the {len(pairs)} pairs that have truth has a map in {self.folder}.",
                "Mine the images of this truth (--split boxed), with --maps.",
            )
        self._same_frame(pairs, rows)
        return rows

    def at_input(self, row: int) -> tuple[Map, Geometry]:
        """The map at the network's input, 0 beside the film, in grays of 255; and where the film lies."""
        shard, at = self.place[row]
        width, height, *rest = self.frame[row].tolist()
        geometry = Geometry(int(width), int(height), self.size, *rest)
        grays = to_input(self.arrays[shard][at], (self.size, self.size), self.stride, self.align, self.offset)
        visible = np.zeros_like(grays)
        visible[geometry.film()] = grays[geometry.film()]
        return visible, geometry

    def _same_frame(self, pairs: pa.Table, rows: Ints) -> None:
        for axis, name in enumerate(SIZES):
            theirs, ours = numbers(pairs, name), self.frame[rows, axis]
            other = (rows >= 0) & np.isfinite(theirs) & (theirs != ours)
            if other.any():
                i = int(np.argmax(other))
                raise CxrError(
                    f"The maps are of images of another size than the truth's: {pairs['image_id'][i]} has {name} "
                    f"{ours[i]:g} in {self.folder} and {theirs[i]:g} in the truth.",
                    "Mine and score with the same files of the dataset.",
                )


def open_maps(folder: Path) -> FinalMaps:
    index, arrays = read_maps(folder)
    index = index.filter(pc.equal(index["round"], FINAL))
    meta = read_meta(index_path(refuse_other_shards(folder)[0]))
    try:
        data, network, mine = (meta["recipe"][part] for part in ("data", "network", "mine"))
        stride = meta.get("cell_stride", network["stride"])  # maps of earlier versions are of the last stage
        how = (data["size"], stride, mine["align"], _cell_offset(meta, folder), mine["way"], mine["top"])
    except (KeyError, TypeError):
        raise CxrError(f"The maps in {folder} do not say how boxes are made of them.", "Mine them again.") from None
    return FinalMaps(
        folder,
        arrays,
        np.stack([index[name].to_numpy() for name in ("shard", "row")], axis=1),
        numbers(index, "scale"),
        np.stack([numbers(index, name) for name in FRAME], axis=1),
        index["image_id"].combine_chunks(),
        index["finding"].combine_chunks(),
        *how,
    )


def grouped(truth: pa.Table) -> tuple[pa.Table, list[Floats]]:
    """(the pairs with truth, by finding and image, and the boxes of each)"""
    names = [pc.unique(truth[name].cast(pa.string())).sort() for name in ("image_id", "finding")]
    image, finding = (codes(truth[name], words) for name, words in zip(("image_id", "finding"), names, strict=True))
    _, first, pair, count = np.unique(
        finding * len(names[0]) + image, return_index=True, return_inverse=True, return_counts=True
    )
    boxes = corners(truth)[np.argsort(pair, kind="stable")]
    return truth.select(PAIR).take(pa.array(first)), np.split(boxes, np.cumsum(count)[:-1])


def maxboxacc2(
    folder: Path, truth: pa.Table, thresholds: Sequence[float] = THRESHOLDS, workers: int | None = None
) -> dict[str, Any]:
    """{"all", "findings": {"Mass": …}}: maxboxacc2, pairs, those without a map, and by δ the best BoxAcc and its τ.

    All judged pairs count; one without a map is hit at no threshold. `mean` is the findings' mean.
    """
    maps = open_maps(folder)
    pairs, boxes = grouped(truth)
    rows, levels = maps.rows(pairs), np.unique(thresholds)

    def overlaps(pair: int) -> Floats:
        return component_overlaps(*maps.at_input(int(rows[pair])), levels, boxes[pair])

    mapped = np.flatnonzero(rows >= 0)
    best = np.zeros((len(pairs), len(levels)))
    best[mapped] = at_once(overlaps, mapped, "all cuts", workers)
    of = pairs["finding"].cast(pa.string()).to_numpy()
    by_finding = {name: best_accuracy(best[of == name], levels, rows[of == name] < 0) for name in sorted(set(of))}
    return {
        "threshold_choice": "oracle",
        "rule": "≥",
        "unit": "pair",
        "thresholds": levels.tolist(),
        "all": best_accuracy(best, levels, rows < 0),
        "findings": by_finding,
        "mean": float(np.mean([scores["maxboxacc2"] for scores in by_finding.values()])),
    }


def best_accuracy(overlap: Floats, thresholds: Floats, missing: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """`overlap`: pairs × thresholds, the highest IoU of any component; of equally good thresholds the lowest."""
    result: dict[str, Any] = {}
    for delta in IOU:
        accuracy = (overlap >= delta).mean(axis=0)
        k = int(np.argmax(accuracy))
        result[f"{delta:g}"] = {"acc": float(accuracy[k]), "threshold": float(thresholds[k])}
    figure = float(np.mean([at["acc"] for at in result.values()]))
    return {"maxboxacc2": figure, "pairs": len(overlap), "missing": int(missing.sum()), **result}


def component_overlaps(visible: Map, geometry: Geometry, thresholds: Floats, truth: Floats) -> Floats:
    """The highest IoU of any component with any truth box at each of the rising thresholds, shares of the maximum."""
    film = visible[geometry.film()]
    rows, columns = geometry.film()
    highest = film.max(initial=0)
    score = film / highest if highest > 0 else film
    found: list[tuple[int, int, int, int]] = []
    at: list[int] = []
    for k, threshold in enumerate(thresholds):
        components = component_boxes(score >= np.float32(threshold))
        if not components:
            break
        found += [box for box, _ in components]
        at += [k] * len(components)
    best = np.zeros(len(thresholds))
    if found:
        boxes = geometry.to_original(np.array(found) + [columns.start, rows.start] * 2)
        np.maximum.at(best, at, iou_matrix(boxes, truth).max(axis=1))
    return best


def at_once(work: Callable[[int], Result], items: Ints, label: str, workers: int | None) -> list[Result]:
    """work(item) of each, on threads, in their order."""
    with ThreadPoolExecutor(threads(workers)) as pool:
        return list(console.progress(pool.map(work, items), len(items), label, "maps"))


def _cell_offset(meta: dict[str, Any], folder: Path) -> float:
    """Where cell 0 is centred; maps of earlier versions do not say, which matters only for some backbones."""
    backbone = meta["recipe"]["network"]["backbone"]
    if "cell_offset" not in meta and backbone not in CENTRED and meta["recipe"]["mine"]["align"] == "centres":
        raise CxrError(f"The maps in {folder} do not say where the cells of {backbone} lie.", "Mine them again.")
    return float(meta.get("cell_offset", 0))
