"""The demo's contact sheet: twelve test pairs, at equal steps from the best first box to the worst."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cxrmine.boxes.door import read_truth
from cxrmine.boxes.geometry import iou
from cxrmine.boxes.maps import FINAL, read_maps
from cxrmine.data.images import read_image
from cxrmine.report.overlay import Case
from cxrmine.tables import COORDINATES

CASES = 12


def cases(folder: Path, boxes_path: Path) -> list[Case]:
    """Twelve pairs at equal steps from the best first box to the worst; at each step the finding shown least yet."""
    pairs = sorted(_judged(folder, boxes_path), key=lambda pair: (-pair["iou"], pair["image_id"], pair["finding"]))
    maps, arrays = read_maps(folder / "maps")
    where = {(r["image_id"], r["finding"]): (r["shard"], r["row"]) for r in maps.to_pylist() if r["round"] == FINAL}
    shown: dict[str, int] = {}
    chosen = []
    for window in np.array_split(np.arange(len(pairs)), min(CASES, len(pairs))):
        best = min(window, key=lambda i: (shown.get(pairs[i]["finding"], 0), abs(i - window.mean())))
        pair = pairs[best]
        shown[pair["finding"]] = shown.get(pair["finding"], 0) + 1
        shard, row = where[pair["image_id"], pair["finding"]]
        chosen.append(_case(folder, pair, arrays[shard][row] / np.float32(255)))
    return chosen


def _judged(folder: Path, boxes_path: Path) -> Iterator[dict[str, Any]]:
    """Every mined pair that has truth: its boxes, its truth, and the IoU of its first box with the nearest truth."""

    def by_pair(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
        grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault((row["image_id"], row["finding"]), []).append(row)
        return grouped

    truth = by_pair(read_truth(folder / "data" / "truth.parquet").to_pylist())
    for (image_id, finding), rows in by_pair(pq.ParquetFile(boxes_path).read().to_pylist()).items():
        if (image_id, finding) in truth:
            mined, true = (
                np.array([[row[c] for c in COORDINATES] for row in some]) for some in (rows, truth[image_id, finding])
            )
            best = float(iou(mined[:1], true).max())
            yield {
                "image_id": image_id,
                "finding": finding,
                "mined": mined,
                "truth": true,
                "iou": best,
                "first": rows[0],
            }


def _case(folder: Path, pair: dict[str, Any], map_: np.ndarray) -> Case:
    first = pair["first"]
    return Case(
        film=read_image(folder / "data" / "images" / f"{pair['image_id']}"),
        map=map_,
        mined=pair["mined"],
        truth=pair["truth"],
        title=f"{pair['finding']}   IoU {pair['iou']:.2f}",
        subtitle=f"{pair['image_id']}   P {first['probability']:.2f}   score {first['score']:.2f}",
    )
