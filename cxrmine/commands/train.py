"""cxrmine train: A run."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import Data, Device, Overrides, RunFolder, Workers
from cxrmine.settings import setting


def train(
    data: Data = None,
    recipe: Annotated[str | None, typer.Option(help="A built-in recipe or a TOML file.", show_default="cam")] = None,
    run: RunFolder = None,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move the run that is there aside.")] = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Train a network. Started again on the same folder, it goes on where it stopped.

    Several processes: torchrun --nproc-per-node 2 -m cxrmine train
    """
    where, name = Path(setting("data", data)), setting("recipe", recipe, "cam")
    folder = Path(setting("run", run, f"runs/{Path(name).stem}"))
    from cxrmine.stages import train as stage

    result = stage.run(stage.Train(where, name, folder, tuple(overrides or ()), fresh, device, workers))
    if os.environ.get("RANK", "0") != "0":
        return
    if result.already_done:
        console.say(f"{result.run} is trained already. To train it anew, say --fresh.")
    names = list(result.measured)
    columns = [name.upper() if len(name) == 3 else name.capitalize() for name in names]
    rows = [(finding, *(f"{result.measured[name][finding]:.3f}" for name in names)) for finding in result.findings]
    rows.append(("mean", *(f"{result.mean(name):.3f}" for name in names)))
    console.table("On validation patients", ("finding", *columns), rows)
    if "dice" in result.measured:
        console.say(f"Next: cxrmine mine --organs {result.run}, or cxrmine train --recipe irnet")
    else:
        console.say(f"Next: cxrmine mine --run {result.run} --data {where} --split train --out boxes.parquet")
