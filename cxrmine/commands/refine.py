"""cxrmine refine: Boxes, refined and mined again."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import Data, Device, Overrides, Workers
from cxrmine.settings import setting


def refine(
    out: Annotated[Path, typer.Option("--out", help="The box table that is mined in the end, Parquet.")],
    boxes: Annotated[
        Path | None, typer.Argument(help="Boxes: mined, corrected, or truth; a file, a folder or a glob.")
    ] = None,
    data: Data = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe of method ham, or a TOML file.", show_default="ham")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The folder for both networks.", show_default="runs/refine")
    ] = None,
    split: Annotated[str, typer.Option(help="What to mine in the end: train, val, test, boxed, all.")] = "train",
    overrides: Overrides = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Films at a time where nothing is trained.")] = 32,
    device: Device = "auto",
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the boxes in --out.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move what is in the folder aside.")] = False,
) -> None:
    """Refine boxes, train on the refined ones, and mine again.

    A network learns the boxes and refines each of them; a second one learns the refined boxes. Leaves RUN/refiner,
    RUN/refined.parquet and RUN/ham, and goes on where it was stopped. Boxes of patients that validate or test are never
    learned. Which of the others are: --set boxes.ranks=[1] --set boxes.min_score=0.5.
    """
    given, where = Path(setting("boxes", boxes)), Path(setting("data", data))
    chosen = setting("refine_recipe", recipe, "ham")
    folder = Path(setting("refine_run", run, "runs/refine"))
    from cxrmine.stages import refine as stage

    changes = tuple(overrides or ())
    config = stage.Refine(
        given, where, folder, out, chosen, split, changes, device, batch_size, workers, overwrite, fresh
    )
    result = stage.run(config)
    if os.environ.get("RANK", "0") == "0":
        console.say(stage.summary(config, result))
