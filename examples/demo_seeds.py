"""The demo on three seeds: CAM against its controls, with 95 % t-intervals over the seeds.

    python examples/demo_seeds.py OUT              # about five minutes a seed on two cores

Each seed makes its own films and its own network. Leaves OUT/seed-K (resumed when run again) and OUT/demo-seeds.json,
and prints the tables of docs/demo.md. The mean over findings leaves out Cardiomegaly: a fixed box finds any heart.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.statistics import mean_interval
from cxrmine.stages import demo, predict, score

SEEDS = (0, 1, 2)
SHOWN = ("0.1", "0.3", "0.5")
CONTROLS = ("mean box", "typical box", "random map")
LEFT_OUT = "Cardiomegaly"


def main(out: Path) -> None:
    runs = [one_seed(out / f"seed-{seed}", seed) for seed in SEEDS]
    (out / "demo-seeds.json").write_text(json.dumps(runs, indent=2) + "\n")
    for line in tables(runs):
        sys.stdout.write(line + "\n")


def one_seed(folder: Path, seed: int) -> dict[str, Any]:
    result = demo.run(demo.Demo(folder, seed))
    acc = {row.name: {t: without(row.values, t) for t in SHOWN} for row in result.boxed.rows}
    return {"seed": seed, "acc": acc, "auc": auc_on_test_films(folder)}


def without(values: dict[Key, float], t: str) -> float:
    """Mean Acc over findings but one."""
    wanted = {key: value for key, value in values.items() if key[0] == "acc_afp" and key[2:] == (t, "acc")}
    return float(np.mean([value for key, value in wanted.items() if key.finding not in (LEFT_OUT, MEAN)]))


def auc_on_test_films(folder: Path) -> dict[str, float]:
    """AUC per finding on all test films."""
    out = folder / "test.probabilities.parquet"
    predict.run(predict.Predict(folder / "run", folder / "data", out, "test", device="cpu"))
    return {f: at["auc"] for f, at in score.run(score.Score((out,), folder / "data")).document["auc"].items()}


def tables(runs: list[dict[str, Any]]) -> list[str]:
    lines = [f"| {len(runs)} seeds, mean (95 % interval) | " + " | ".join(f"Acc, IoU > {t}" for t in SHOWN) + " |"]
    lines.append("| --- | " + " | ".join("---" for _ in SHOWN) + " |")
    for name in runs[0]["acc"]:
        cells = (interval([run["acc"][name][t] for run in runs]) for t in SHOWN)
        lines.append(f"| {demo.NAMES.get(name, name)} | " + " | ".join(cells) + " |")
    for name in demo.NAMES:
        better = ([run["acc"][name][t] - max(run["acc"][c][t] for c in CONTROLS) for run in runs] for t in SHOWN)
        lines.append(f"| {demo.NAMES[name]} − best control | " + " | ".join(map(interval, better)) + " |")
    lines += ["", "| test films | AUC |", "| --- | --- |"]
    for finding in runs[0]["auc"]:
        lines.append(f"| {finding} | {interval([run['auc'][finding] for run in runs])} |")
    macro = [float(np.mean(list(run["auc"].values()))) for run in runs]
    lines.append(f"| mean over findings | {interval(macro)} |")
    lines.append("")
    lines.append(f"AUC, mean over findings, by seed: {', '.join(f'{value:.3f}' for value in macro)}")
    return lines


def interval(values: list[float]) -> str:
    mean, low, high = mean_interval(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
