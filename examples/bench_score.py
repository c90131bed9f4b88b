"""How long `cxrmine score` takes, and how much memory, on boxes that this script makes up.

    python examples/bench_score.py FOLDER              # 112,120 images, 179,342 judged pairs, 538,026 boxes
    python examples/bench_score.py FOLDER --large      # 50 million boxes on 1.19 million images, the same truth

Boxes lie near their truth (a normal error of 60 pixels), scores are random. In the large case every finding of every
image has three boxes; most pairs have no truth box and are known, by their label, to be absent. The whole command is
timed, from its start as a new process to its end.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.boxes.table import IMAGES_SCHEMA, ROW_GROUP, SCHEMA, images_path, truth_table, write_boxes
from cxrmine.tables import with_meta

FINDINGS = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
]  # fmt: skip
IMAGES, PATIENTS, PAIRS, SIDE = 112_120, 30_805, 179_342, 1024
LARGE_IMAGES = 1_190_477  # × 14 findings × 3 = 50 million boxes
A_PAIR = 3
META = {"recipe": {"method": "made up"}, "dataset": "made up", "weights_sha256": "0"}


def main() -> None:
    options_of = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options_of.add_argument("folder", type=Path)
    options_of.add_argument("--large", action="store_true")
    options_of.add_argument("--repeat", type=int, default=3)
    options = options_of.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    name = "large" if options.large else "small"
    truth, boxes = options.folder / "truth.parquet", options.folder / f"{name}.parquet"
    if not boxes.exists():
        drawn = make_truth(truth)
        make_boxes(boxes, *drawn, images=LARGE_IMAGES if options.large else IMAGES, every_pair=options.large)
    count = pq.ParquetFile(boxes).metadata.num_rows
    say(f"{count:,} boxes; {platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    command = [sys.executable, "-m", "cxrmine", "score", str(boxes), "--truth", str(truth), "--json"]
    for samples in (0,) if options.large else (0, 1000):
        asked = [*command, str(options.folder / "s.json"), "--bootstrap", str(samples)]
        measured = [timed(asked) for _ in range(options.repeat)]
        seconds = sorted(second for second, _ in measured)
        spread = f"({seconds[0]:.2f} to {seconds[-1]:.2f} of {len(seconds)})"
        peak = max(peak for _, peak in measured)
        say(f"--bootstrap {samples}: median {seconds[len(seconds) // 2]:.2f} s {spread}, {peak:.2f} GB at most")
    document = json.loads((options.folder / "s.json").read_text())
    accuracy = document["mean"]["acc_afp"]["0.5"]["acc"]
    say(f"mean Acc at 0.5: {accuracy:.6f}; {document['counts']['judged']:,} boxes judged")


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and the largest resident memory in GB, of a command and its children."""
    probe = (
        "import resource, subprocess, sys, time\n"
        "start = time.perf_counter()\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe, *command], check=True, capture_output=True, text=True)
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def make_truth(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(code of each judged pair: image × findings + finding, its truth box)."""
    rng = np.random.default_rng(0)
    first = np.arange(IMAGES) * len(FINDINGS) + rng.integers(0, len(FINDINGS), IMAGES)  # one an image, then the others
    others = np.setdiff1d(np.arange(IMAGES * len(FINDINGS)), first, assume_unique=True)
    pairs = np.sort(np.append(first, rng.choice(others, PAIRS - IMAGES, replace=False)))
    centre, size = rng.uniform(150, 870, (PAIRS, 2)), rng.lognormal(5.2, 0.5, (PAIRS, 2)).clip(30, 600)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, SIDE).astype(np.float32)
    image, finding = np.divmod(pairs, len(FINDINGS))
    columns = {
        "image_id": pa.array(names(IMAGES)).take(pa.array(image)),
        "finding": pa.array(FINDINGS).take(pa.array(finding)),
        "patient_id": pa.array(people(IMAGES)).take(pa.array(image)),
        "image_width": np.full(PAIRS, SIDE),
        "image_height": np.full(PAIRS, SIDE),
    } | dict(zip(("x_min", "y_min", "x_max", "y_max"), boxes.T, strict=True))
    write_boxes(path, truth_table(columns), {})
    return pairs, boxes.astype(np.float64)


def make_boxes(
    path: Path, judged: npt.NDArray[np.int64], truth: npt.NDArray[np.float64], images: int, every_pair: bool
) -> None:
    """Three boxes a pair, a row group at a time: of the judged pairs, or of every pair of every image."""
    rng = np.random.default_rng(1)
    every = np.arange(images * len(FINDINGS)) if every_pair else judged
    step = ROW_GROUP // (A_PAIR * len(FINDINGS)) * len(FINDINGS)
    with (
        pq.ParquetWriter(path, with_meta(SCHEMA, META), compression="zstd") as boxes,
        pq.ParquetWriter(images_path(path), with_meta(IMAGES_SCHEMA, META), compression="zstd") as pairs,
    ):
        for start in range(0, len(every), step):
            chosen = every[start : start + step]
            at = np.searchsorted(judged, chosen).clip(0, len(judged) - 1)
            has = judged[at] == chosen
            boxes.write_table(_boxes(rng, chosen, np.where(has[:, None], truth[at], [300, 300, 700, 700])))
            pairs.write_table(_pairs(chosen, has))


def _boxes(rng: np.random.Generator, pairs: npt.NDArray[np.int64], near: npt.NDArray[np.float64]) -> pa.Table:
    moved = np.repeat(near, A_PAIR, axis=0) + rng.normal(0, 60, (len(near) * A_PAIR, 4))
    low, high = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])
    corners = np.concatenate([low.clip(0, SIDE - 8), high.clip(8, SIDE)], axis=1)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 4)
    columns = (
        _names(np.repeat(pairs, A_PAIR))
        | {
            "rank": np.tile(np.arange(1, A_PAIR + 1, dtype=np.int16), len(pairs)),
            "score": rng.random(len(moved), dtype=np.float32),
            "probability": np.repeat(rng.random(len(pairs), dtype=np.float32), A_PAIR),
            "image_width": np.full(len(moved), SIDE, np.int32),
            "image_height": np.full(len(moved), SIDE, np.int32),
        }
        | dict(zip(("x_min", "y_min", "x_max", "y_max"), corners.astype(np.float32).T, strict=True))
    )
    return _table(SCHEMA, columns, len(moved))


def _pairs(pairs: npt.NDArray[np.int64], has: npt.NDArray[np.bool_]) -> pa.Table:
    columns = _names(pairs) | {
        "label": has.astype(np.int8),
        "width": np.full(len(pairs), SIDE, np.int32),
        "height": np.full(len(pairs), SIDE, np.int32),
        "boxes": np.full(len(pairs), A_PAIR, np.int16),
        "status": pa.DictionaryArray.from_arrays(np.zeros(len(pairs), np.int32), ["ok"]),
    }
    return _table(IMAGES_SCHEMA, columns, len(pairs))


def _names(pairs: npt.NDArray[np.int64]) -> dict[str, pa.DictionaryArray]:
    image, finding = np.divmod(pairs, len(FINDINGS))
    unique, code = np.unique(image, return_inverse=True)
    words = pa.array([f"{i // 4:08}_{i % 4:03}.png" for i in unique.tolist()])
    who = pa.array([str(i * PATIENTS // IMAGES) for i in unique.tolist()])
    encode = pa.DictionaryArray.from_arrays
    return {
        "image_id": encode(pa.array(code.astype(np.int32)), words),
        "patient_id": encode(pa.array(code.astype(np.int32)), who).dictionary_decode().dictionary_encode(),
        "finding": encode(pa.array(finding.astype(np.int32)), FINDINGS),
        "split": encode(pa.array(np.zeros(len(pairs), np.int32)), ["test"]),
    }


def _table(schema: pa.Schema, columns: dict[str, Any], rows: int) -> pa.Table:
    nothing = {field.name: pa.nulls(rows, field.type) for field in schema}
    return pa.table([pa.array((nothing | columns)[field.name], field.type) for field in schema], schema=schema)


def names(images: int) -> list[str]:
    return [f"{i // 4:08}_{i % 4:03}.png" for i in range(images)]


def people(images: int) -> list[str]:
    return [str(i * PATIENTS // IMAGES) for i in range(images)]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
