"""How boxes are best cut from a map: every way, with and without erasure, on the test films of finished demo folders.

    python examples/compare_ways.py OUT/seed-0 OUT/seed-1 OUT/seed-2

Prints the table of docs/methods.md: mean over findings without Cardiomegaly, then over the folders. AFP is beside each
Acc, because a way that draws more boxes hits more.
"""

import sys
from pathlib import Path

import numpy as np

from cxrmine.scoring.statistics import mean_interval
from cxrmine.stages import mine, score

SHOWN = ("0.1", "0.3", "0.5")
LEFT_OUT = "Cardiomegaly"
WAYS = {
    "peak .35 .5 .65": ("peak", "[0.35, 0.5, 0.65]"),
    "components .5": ("components", "[0.5]"),
    "components .3": ("components", "[0.3]"),
    "components .2": ("components", "[0.2]"),
    "wang 60, 180 of 255": ("wang", "[]"),
    "nested .35 .5 .65": ("nested", "[0.35, 0.5, 0.65]"),
    "nested .2 .4": ("nested", "[0.2, 0.4]"),
}


def main(folders: list[Path]) -> None:
    lines = [f"| way, {len(folders)} seeds | rounds | align | boxes a pair | " + " | ".join(SHOWN) + " |"]
    lines.append("| --- | --- | --- | --- | " + " | ".join("---" for _ in SHOWN) + " |")
    for align in ("centres", "resize"):
        for rounds in (1, 3):
            for name, (way, cuts) in WAYS.items():
                if align == "resize" and (rounds == 3 or name not in ("peak .35 .5 .65", "components .3")):
                    continue
                changes = (f"mine.way={way}", f"mine.cuts={cuts}", f"mine.rounds={rounds}", f"mine.align={align}")
                measured = [figures(folder, changes) for folder in folders]
                count = np.mean([boxes for boxes, _ in measured])
                cells = (cell([at[t] for _, at in measured]) for t in SHOWN)
                lines.append(f"| {name} | {rounds} | {align} | {count:.2f} | " + " | ".join(cells) + " |")
                sys.stderr.write(lines[-1] + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


def figures(folder: Path, changes: tuple[str, ...]) -> tuple[float, dict[str, tuple[float, float]]]:
    """Boxes a pair, and at each threshold (Acc, AFP), mean over findings."""
    out = folder / "ways.parquet"
    mined = mine.run(
        mine.Mine(folder / "run", folder / "data", out, "test", overrides=changes, device="cpu", overwrite=True)
    )
    asked = score.Score((out,), folder / "data" / "truth.parquet", samples=0, controls=False)
    judged = [at for finding, at in score.run(asked).document["acc_afp"].items() if finding != LEFT_OUT]
    shown = {t: (mean([at[t]["acc"] for at in judged]), mean([at[t]["afp"] for at in judged])) for t in SHOWN}
    return mined.boxes / mined.pairs, shown


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def cell(values: list[tuple[float, float]]) -> str:
    """Acc ± half its interval (AFP)."""
    acc, _, high = mean_interval([a for a, _ in values])
    half = f" ± {high - acc:.3f}" if len(values) > 1 else ""
    return f"{acc:.3f}{half} ({mean([b for _, b in values]):.2f})"


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
