"""How boxes are best cut from a map: every way, of CAM's maps and of AM's, on all test films of demo folders.

    python examples/compare_ways.py OUT/seed-0 OUT/seed-1 OUT/seed-2       # as examples/demo_seeds.py leaves them

Prints the table of docs/methods.md: mean over findings without Cardiomegaly, then over the folders. AFP is beside each
Acc, because a way that draws more boxes hits more; and second lesions (scoring/second_lesions.py) are counted by as
many boxes as the row with the fewest of them has, in each folder.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.boxes.door import read_truth
from cxrmine.scoring.second_lesions import second_lesions
from cxrmine.scoring.statistics import mean_interval
from cxrmine.stages import mine, score

SHOWN = ("0.1", "0.3", "0.5")
SECOND_AT = (0.1, 0.3)
LEFT_OUT = "Cardiomegaly"
WAYS = {
    "peak .35 .5 .65": ("peak", "[0.35, 0.5, 0.65]"),
    "components .4": ("components", "[0.4]"),
    "components .3": ("components", "[0.3]"),
    "components .2": ("components", "[0.2]"),
    "wang 60, 180 of 255": ("wang", "[]"),
    "nested .2 .4": ("nested", "[0.2, 0.4]"),
}
FEW = {"components .3", "components .2"}  # the ways tried with the maps that are there for comparison
MAPS = {  # run and overrides
    "CAM": ("run-cam", ()),
    "CAM, 3 rounds of fixed weights": ("run-cam", ("mine.rounds=3", "mine.fixed_weights=true")),
    "AM, t = 1": ("run", ("mine.rounds=1",)),
    "AM": ("run", ()),
    "AM's last weights in 3 rounds": ("run", ("mine.rounds=3", "mine.fixed_weights=true")),
    "CAM, resized": ("run-cam", ("mine.align=resize",)),
}
EVERY_WAY = {"CAM", "AM, t = 1", "AM"}


class Measured(NamedTuple):
    boxes_a_pair: float
    acc: dict[str, tuple[float, float]]  # (Acc, AFP) at each threshold
    boxes: pa.Table


def main(folders: list[Path]) -> None:
    rows = [(maps, way) for maps in MAPS for way in WAYS if maps in EVERY_WAY or way in FEW]
    measured = {}
    for row in rows:
        measured[row] = [measure(folder, *row) for folder in folders]
        sys.stderr.write(f"{row}: {np.mean([m.boxes_a_pair for m in measured[row]]):.2f} boxes a pair\n")
    truths = [two_lesions(folder, measured[rows[0]][i].boxes) for i, folder in enumerate(folders)]
    fewest = [min(second_lesions(m[i].boxes, t, 0.1).boxes for m in measured.values()) for i, t in enumerate(truths)]
    header = ["maps", "boxes are cut by", "boxes a pair", *(f"Acc, IoU > {t}" for t in SHOWN)]
    header += [f"second lesions, IoU > {at}" for at in SECOND_AT]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for (maps, way), of in measured.items():
        cells = [maps, way, f"{np.mean([m.boxes_a_pair for m in of]):.2f}"]
        cells += [cell([m.acc[t] for m in of]) for t in SHOWN]
        for at in SECOND_AT:
            found = [second_lesions(of[i].boxes, truth, at, fewest[i]) for i, truth in enumerate(truths)]
            cells.append(plus_minus([second.hit / second.lesions for second in found]))
        lines.append("| " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")
    lesions = [second_lesions(m.boxes, t, 0.1).lesions for m, t in zip(measured[rows[0]], truths, strict=True)]
    said = ", ".join(f"{lesions[i]} by {fewest[i]} boxes" for i in range(len(folders)))
    sys.stdout.write(f"\nSecond lesions, folder by folder: {said}.\n")


def measure(folder: Path, maps: str, way: str) -> Measured:
    run, changes = MAPS[maps]
    name, cuts = WAYS[way]
    out = folder / "ways.parquet"
    overrides = (*changes, f"mine.way={name}", f"mine.cuts={cuts}")
    mined = mine.run(
        mine.Mine(folder / run, folder / "data", out, "test", overrides=overrides, device="cpu", overwrite=True)
    )
    asked = score.Score((out,), folder / "data" / "truth.parquet", samples=0, controls=False)
    judged = [at for finding, at in score.run(asked).document["acc_afp"].items() if finding != LEFT_OUT]
    shown = {t: (mean([at[t]["acc"] for at in judged]), mean([at[t]["afp"] for at in judged])) for t in SHOWN}
    columns = ["image_id", "finding", "rank", "score", "x_min", "y_min", "x_max", "y_max"]
    return Measured(mined.boxes / mined.pairs, shown, pq.ParquetFile(out).read(columns))


def two_lesions(folder: Path, mined: pa.Table) -> pa.Table:
    """The truth of the test films, without the finding that has one lesion in anybody."""
    truth = read_truth(folder / "data" / "truth.parquet")
    here = pc.is_in(truth["image_id"].cast(pa.string()), value_set=pc.unique(mined["image_id"].cast(pa.string())))
    return truth.filter(pc.and_(here, pc.not_equal(truth["finding"].cast(pa.string()), LEFT_OUT)))


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def cell(values: list[tuple[float, float]]) -> str:
    """Acc ± half its interval (AFP)."""
    return f"{plus_minus([a for a, _ in values])} ({mean([b for _, b in values]):.2f})"


def plus_minus(values: list[float]) -> str:
    middle, _, high = mean_interval(values)
    return f"{middle:.3f}" + (f" ± {high - middle:.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
