"""One report from its text to what a run of AGCL made of it: findings, severities, stages of the curriculum, seeds.

cxrmine severity data/reports.csv --out severity.parquet
cxrmine train --data data --recipe demo-agcl --run runs/agcl --set data.severity=severity.parquet
python examples/follow_report.py runs/agcl data severity.parquet IMAGE
"""

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.config import Recipe
from cxrmine.data.datasets import open_dataset
from cxrmine.data.severities import LEVELS, severities_of
from cxrmine.errors import CxrError
from cxrmine.runs import RunFolder, read_recipe

WHY = {
    "severity": "by its severity",
    "probability": "by its probability",
    "both": "by its severity and its probability",
    "before": "because it was one before",
}
WORD = {level: word for word, level in LEVELS.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", type=Path)
    options.add_argument("data", type=Path)
    options.add_argument("severity", type=Path, help="the table that cxrmine severity wrote")
    options.add_argument("image")
    asked = options.parse_args()
    for line in (*of_report(asked.severity, asked.image), "", *of_run(asked.run, asked.data, asked.image)):
        sys.stdout.write(line + "\n")


def of_report(severity: Path, image: str) -> list[str]:
    """What was read in the report, with the sentence that decided."""
    table = pq.ParquetFile(severity).read()
    rows = table.filter(pc.equal(table["image_id"].cast(pa.string()), image)).to_pylist()
    if not rows:
        raise CxrError(f"{severity} has no row of {image}.", "Name an image of its column image_id.")
    said = {1: "present", 0: "absent", -1: "possible"}
    lines = [f"{image}, its report:"]
    for row in rows:
        degree = f", {WORD[row['severity']]} ({row['severity_words']!r})" if row["severity"] else ""
        lines.append(f"  {row['finding']}: {said[row['label']]}{degree}: {row['text']}")
    return lines


def of_run(run: Path, data: Path, image: str) -> list[str]:
    """Where the film was in each iteration: the stages that had it, and whether it is a seed."""
    folder = RunFolder(run)
    recipe, _ = read_recipe(folder)
    index = open_dataset(data).restrict(recipe.data.findings)
    names = index.table["image_id"].to_pylist()
    if image not in names:
        raise CxrError(f"{data} has no image {image}.", "Name one of its images.")
    film = names.index(image)
    split = index.table["split"][film].as_py()
    if split != "train":
        return [f"It is a film for {split}: the networks have not learned from it."]
    known = severities_of(index, folder.severity(recipe)).values[film]
    lines = []
    for c in range(len(index.findings)):
        if index.labels()[film, c] == 1:
            lines += [f"{index.findings[c]} ({WORD.get(int(known[c]), 'severity unknown')}):"]
            lines += [f"  learned in: {', '.join(_stages(recipe, int(known[c]))) or 'no stage'}"]
            lines += _seeds(folder, c, image)
    return lines or ["It has no finding: it may be drawn as one of the normal films of every stage."]


def _stages(recipe: Recipe, severity: int) -> list[str]:
    stages = [phase for phase in recipe.train.phases if phase.kind == "finding"]
    if recipe.agcl and recipe.agcl.stages == "alone":
        return [p.name for p in stages if not p.severity or LEVELS[p.severity] == severity]
    return [p.name for p in stages if severity >= LEVELS.get(p.severity, 0)]


def _seeds(folder: RunFolder, c: int, image: str) -> list[str]:
    lines, t = [], 1
    while folder.iteration(t).seeds(c).is_file():
        table = pq.ParquetFile(folder.iteration(t).seeds(c)).read()
        rows = table.filter(pc.equal(table["image_id"], image)).to_pylist()
        says = f"a seed {WHY[rows[0]['by']]}, probability {rows[0]['probability']:.2f}" if rows else "no seed"
        lines.append(f"  iteration {t}: {says}")
        t += 1
    return lines


if __name__ == "__main__":
    try:
        main()
    except CxrError as fault:
        sys.exit(f"{fault.what} {fault.cure}")
