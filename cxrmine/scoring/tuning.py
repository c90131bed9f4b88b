"""The cut of each finding, chosen on truth: on other patients (held-out), or on those that are scored (oracle).

A hash of the patient's name puts each into one of two halves, the same for ever. Held-out cuts are picked on the first
half and oracle cuts on the second; both are scored on the second, so that what lies between them is the choice alone.
Picked is, of the grid, the cut whose first boxes have the highest mean IoU with the truth (each with the truth box of
its pair that it fits best; a pair without a box counts 0; of equally good cuts the lowest). Boxes are made as the maps'
recipe makes them (`mine.way`, `mine.top`), with this one cut.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxrmine.boxes.extract import Cut, extract
from cxrmine.boxes.geometry import iou_matrix
from cxrmine.boxes.table import BOX_ORDER, SCHEMA
from cxrmine.data.images import Geometry
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.scoring.cover import named
from cxrmine.scoring.from_maps import FinalMaps, at_once, grouped, open_maps
from cxrmine.scoring.judged import SIZES
from cxrmine.tables import COORDINATES, build, ordered

Choice = Literal["held-out", "oracle"]
GRID = tuple(i / 20 for i in range(1, 20))
OBJECTIVE = "mean IoU of the first box"

Floats = npt.NDArray[np.float64]


def tune(
    folder: Path,
    truth: pa.Table,
    choice: Choice = "held-out",
    grid: Sequence[float] = GRID,
    workers: int | None = None,
) -> tuple[pa.Table, dict[str, Any]]:
    """(boxes of the second half's pairs, what was chosen and on how many); score them on `halves(truth)[1]`.

    A finding that the half to pick on lacks gets the cut with the best mean over the findings: it is in `fallback`.
    """
    if choice not in get_args(Choice):
        known = get_args(Choice)
        raise UsageError(
            f"There is no choice of thresholds named {choice!r}.{did_you_mean(choice, known)}",
            f"It is {' or '.join(known)}.",
        )
    maps = open_maps(folder)
    first, second = halves(truth)
    picked_on = first if choice == "held-out" else second
    cuts, macro, pairs = _pick(maps, picked_on, grid, workers)
    scored = grouped(second)[0]
    findings = sorted(set(scored["finding"].cast(pa.string()).to_pylist()))
    chosen = {name: cuts.get(name, macro) for name in findings}
    boxes, without_map = _boxes(maps, scored, chosen, f"{choice} cuts", workers)
    return boxes, {
        "choice": choice,
        "objective": OBJECTIVE,
        "grid": list(grid),
        "cuts": chosen,
        "fallback": [name for name in findings if name not in cuts],
        "picked_on": pairs,
        "scored_on": len(scored),
        "without_map": without_map,
        "patients": {"picked_on": _people(picked_on), "scored_on": _people(second)},
    }


def best_cut(overlap: Floats, grid: Sequence[float]) -> float:
    """`overlap`: pairs × cuts, the IoU of the first box → the cut with the highest mean, of equal ones the lowest."""
    means = overlap.mean(axis=0).round(12)  # a tie must not be decided by the order of summation
    return float(min(cut for cut, mean in zip(grid, means, strict=True) if mean == means.max()))


def half(patient_id: str) -> int:
    """0 or 1, the same on every machine, for ever."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") % 2


def halves(truth: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The truth of the patients that held-out cuts are picked on, and of those that all cuts are scored on."""
    patients = named(truth["image_id"], truth["patient_id"]).dictionary_encode()
    second = np.array([half(name) == 1 for name in patients.dictionary.to_pylist()], dtype=bool)
    chosen = second[patients.indices.to_numpy()]
    first, other = truth.filter(pa.array(~chosen)), truth.filter(pa.array(chosen))
    if not len(first) or not len(other):
        raise CxrError(
            f"All {_people(truth)} patients with truth fall into one half: cuts cannot be picked on others.",
            "Judge more patients, or give fixed cuts with mine --set mine.cuts=[…].",
        )
    return first, other


def _pick(
    maps: FinalMaps, truth: pa.Table, grid: Sequence[float], workers: int | None
) -> tuple[dict[str, float], float, int]:
    """(the best cut of each finding, the best for their mean, how many pairs that was found on)"""
    pairs, boxes = grouped(truth)
    rows = maps.rows(pairs)

    def overlaps(pair: int) -> Floats:
        visible, geometry = _intensities(maps, int(rows[pair]))
        found = [_first(_cut(maps, visible, cut, regions=False), geometry, boxes[pair]) for cut in grid]
        return np.array(found)

    mapped = np.flatnonzero(rows >= 0)
    overlap = np.zeros((len(pairs), len(grid)))
    overlap[mapped] = at_once(overlaps, mapped, "cuts to choose from", workers)
    finding = pairs["finding"].cast(pa.string()).to_numpy()
    names = sorted(set(finding))
    means = np.array([overlap[finding == name].mean(axis=0) for name in names])
    return {name: best_cut(overlap[finding == name], grid) for name in names}, best_cut(means, grid), len(pairs)


def _boxes(
    maps: FinalMaps, pairs: pa.Table, cuts: dict[str, float], source: str, workers: int | None
) -> tuple[pa.Table, int]:
    """(the boxes of each pair at its finding's cut, how many pairs have no map)"""
    rows, told = maps.rows(pairs), pairs.to_pylist()

    def boxes_of(i: int) -> list[dict[str, Any]]:
        pair = told[i]
        visible, geometry = _intensities(maps, int(rows[i]))
        cut = _cut(maps, visible, cuts[pair["finding"]])
        frame = dict(zip(SIZES, (geometry.width, geometry.height), strict=True)) | {"source": source}
        region = {"region_height": maps.size, "region_width": maps.size}
        made = []
        for k, box in enumerate(geometry.to_original(cut.boxes)):
            worth = {"rank": k + 1, "score": float(cut.scores[k]), "threshold": float(cut.thresholds[k])}
            place = dict(zip(COORDINATES, box.tolist(), strict=True))
            made.append({**pair, **worth, **place, **frame, **region, "region": cut.regions[k]})
        return made

    made = at_once(boxes_of, np.flatnonzero(rows >= 0), source, workers)
    table = build(SCHEMA, [row for of_pair in made for row in of_pair])
    return ordered(table, BOX_ORDER), int((rows < 0).sum())


def _intensities(maps: FinalMaps, row: int) -> tuple[npt.NDArray[np.float32], Geometry]:
    """The map on its own scale, which cuts are on."""
    visible, geometry = maps.at_input(row)
    return visible * np.float32(maps.scale[row]) / np.float32(255), geometry


def _cut(maps: FinalMaps, visible: npt.NDArray[np.float32], cut: float, regions: bool = True) -> Cut:
    return extract(visible, maps.way, maps.top, [cut], regions=regions)


def _first(cut: Cut, geometry: Geometry, truth: Floats) -> float:
    return float(iou_matrix(geometry.to_original(cut.boxes[:1]), truth).max(initial=0))


def _people(truth: pa.Table) -> int:
    return len(named(truth["image_id"], truth["patient_id"]).unique())
