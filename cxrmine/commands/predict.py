"""cxrmine predict: Image-level probabilities."""

from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.mine import parse_shard
from cxrmine.commands.options import Data, Device, RunFolder, Workers
from cxrmine.settings import setting


def predict(
    out: Annotated[Path, typer.Option("--out", help="The table of probabilities, Parquet.")],
    run: RunFolder = None,
    data: Data = None,
    split: Annotated[str, typer.Option(help="train, val, test, boxed, all; several with a comma.")] = "test",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="data.max_unreadable=SHARE.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="I/N; read from SLURM's array variables.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Films at a time; changes speed, not results.")] = 32,
    device: Device = "auto",
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there.")] = False,
) -> None:
    """Give each image a probability of every finding."""
    where, folder, part = Path(setting("data", data)), Path(setting("run", run)), parse_shard(shard)
    from cxrmine.stages import predict as stage

    config = stage.Predict(
        folder, where, out, split, tuple(overrides or ()), part, device, batch_size, workers, overwrite
    )
    console.say(stage.summary(config, stage.run(config)))
