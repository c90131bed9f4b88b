"""cxrmine demo: From nothing to scored boxes."""

from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import Workers


def demo(
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")] = Path("cxrmine-demo"),
    seed: Annotated[int, typer.Option(help="Of the dataset and the training.")] = 0,
    workers: Workers = None,
) -> None:
    """Go from nothing to scored boxes in a new folder.

    Makes films, trains on their labels, mines boxes, scores them and draws a contact sheet. Minutes on a laptop. Run
    again on the same folder, it goes on where it stopped.
    """
    from cxrmine.stages import demo as stage

    result = stage.run(stage.Demo(directory, seed, workers=workers))
    for line in stage.lines(result):
        console.say(line)
    console.table(*stage.table(result))
    console.table(*stage.rounds_table(result))
    console.say(stage.what_next(result))
