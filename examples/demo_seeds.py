"""The demo on three seeds: CAM and AM against their controls, with 95 % t-intervals over the seeds.

    python examples/demo_seeds.py OUT              # about eight minutes a seed on two cores

Each seed makes its own films and its own network. Leaves OUT/seed-K (resumed when run again) and OUT/demo-seeds.json,
and prints the tables of docs/demo.md. The mean over findings leaves out Cardiomegaly: a fixed box finds any heart.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.boxes.door import read_truth
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.second_lesions import second_lesions
from cxrmine.scoring.statistics import mean_interval
from cxrmine.stages import demo, mine, predict, score

SEEDS = (0, 1, 2)
SHOWN = ("0.1", "0.3", "0.5")
CONTROLS = ("mean box", "typical box", "random map")
LEFT_OUT = "Cardiomegaly"
SHOWN_ROWS = (*CONTROLS, "cam", "cam/3", "am/1", "am/3")  # what refines them: examples/ham_tables.py
NAMES = demo.NAMES | {"am/1": "AM, t = 1"}
PAIRED = (("am/3", "am/1"), ("am/3", "cam"), ("am/3", "cam/3"))
SECOND = {"cam": ("run-cam",), "am/1": ("run", "mine.rounds=1"), "am/3": ("run",)}
SECOND_AT = (0.1, 0.3)


def main(out: Path) -> None:
    runs = [one_seed(out / f"seed-{seed}", seed) for seed in SEEDS]
    (out / "demo-seeds.json").write_text(json.dumps(runs, indent=2) + "\n")
    for line in tables(runs):
        sys.stdout.write(line + "\n")


def one_seed(folder: Path, seed: int) -> dict[str, Any]:
    result = demo.run(demo.Demo(folder, seed))
    acc = {row.name: {t: without(row.values, t) for t in SHOWN} for row in result.boxed.rows}
    return {"seed": seed, "acc": acc, "second": on_second_lesions(folder), "auc": auc_on_test_films(folder)}


def on_second_lesions(folder: Path) -> dict[str, dict[str, list[int]]]:
    """Of all test films: hit, lesions and boxes, by as many boxes of each method as the one with the fewest has."""
    boxes = {}
    for name, (run, *changes) in SECOND.items():
        out = folder / f"test-{name.replace('/', '-')}.parquet"
        mine.run(mine.Mine(folder / run, folder / "data", out, "test", overrides=tuple(changes), device="cpu"))
        boxes[name] = pq.ParquetFile(out).read()
    films = pc.unique(boxes["cam"]["image_id"].cast(pa.string()))
    truth = read_truth(folder / "data" / "truth.parquet")
    truth = truth.filter(pc.is_in(truth["image_id"].cast(pa.string()), value_set=films))
    truth = truth.filter(pc.not_equal(truth["finding"].cast(pa.string()), LEFT_OUT))
    fewest = min(second_lesions(table, truth, SECOND_AT[0]).boxes for table in boxes.values())
    return {
        name: {str(at): list(second_lesions(table, truth, at, fewest)) for at in SECOND_AT}
        for name, table in boxes.items()
    }


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
    for name in SHOWN_ROWS:
        cells = (interval([run["acc"][name][t] for run in runs]) for t in SHOWN)
        lines.append(f"| {NAMES.get(name, name)} | " + " | ".join(cells) + " |")
    for name in ("cam", "cam/3", "am/3"):
        better = ([run["acc"][name][t] - max(run["acc"][c][t] for c in CONTROLS) for run in runs] for t in SHOWN)
        lines.append(f"| {NAMES[name]} − best control | " + " | ".join(map(interval, better)) + " |")
    for one, other in PAIRED:
        apart = ([run["acc"][one][t] - run["acc"][other][t] for run in runs] for t in SHOWN)
        lines.append(f"| {NAMES[one]} − {NAMES[other]} | " + " | ".join(map(interval, apart)) + " |")
    lines += ["", "| second lesions of all test films, by equally many boxes | IoU > 0.1 | IoU > 0.3 |"]
    lines.append("| --- | --- | --- |")
    share = {
        n: {at: [r["second"][n][at][0] / r["second"][n][at][1] for r in runs] for at in ("0.1", "0.3")} for n in SECOND
    }
    for name, of in share.items():
        lines.append(f"| {NAMES[name]} | " + " | ".join(map(interval, of.values())) + " |")
    for one, other in PAIRED[:2]:
        apart = ((np.array(share[one][at]) - np.array(share[other][at])).tolist() for at in ("0.1", "0.3"))
        lines.append(f"| {NAMES[one]} − {NAMES[other]} | " + " | ".join(map(interval, apart)) + " |")
    lines += ["", "| test films | AUC |", "| --- | --- |"]
    for finding in runs[0]["auc"]:
        lines.append(f"| {finding} | {interval([run['auc'][finding] for run in runs])} |")
    macro = [float(np.mean(list(run["auc"].values()))) for run in runs]
    lines.append(f"| mean over findings | {interval(macro)} |")
    lines.append("")
    lines.append(f"AUC, mean over findings, by seed: {', '.join(f'{value:.3f}' for value in macro)}")
    return lines


def second_share(runs: list[dict[str, Any]], name: str, at: str) -> list[float]:
    """Of each seed, how many of its second lesions are hit."""
    found = [run["second"][name][at] for run in runs]
    return [hit / lesions for hit, lesions, _ in found]


def interval(values: list[float]) -> str:
    mean, low, high = mean_interval(values)
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
