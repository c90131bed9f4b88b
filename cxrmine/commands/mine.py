"""cxrmine mine: Ranked boxes."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import Data, Device, RunFolder, Workers
from cxrmine.errors import UsageError
from cxrmine.settings import setting


def mine(
    out: Annotated[Path, typer.Option("--out", help="The box table, Parquet.")],
    run: RunFolder = None,
    data: Data = None,
    split: Annotated[str, typer.Option(help="train, val, test, boxed, all; several with a comma.")] = "train",
    findings: Annotated[str, typer.Option(help="labelled, predicted or all.")] = "labelled",
    top: Annotated[int | None, typer.Option(min=1, help="Most boxes a pair.", show_default="the recipe's")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=20, help="Rounds of erasure.", show_default="the recipe's")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change a mine key: mine.way=wang.")] = None,
    maps: Annotated[Path | None, typer.Option(help="Keep the maps in this folder.")] = None,
    organs: Annotated[
        Path | None, typer.Option(help="A run of the recipe organs: findings lie in lungs and heart.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="I/N; read from SLURM's array variables.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Films at a time; changes speed, not results.")] = 32,
    device: Device = "auto",
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace boxes that are there.")] = False,
) -> None:
    """Mine ranked boxes with a trained run.

    Several processes: torchrun --nproc-per-node 2 -m -- cxrmine mine --out boxes.parquet
    """
    changes = [*(overrides or ())]
    changes += [f"mine.top={top}"] if top is not None else []
    changes += [f"mine.rounds={rounds}"] if rounds is not None else []
    where, folder, part = Path(setting("data", data)), Path(setting("run", run)), parse_shard(shard)
    from cxrmine.stages import mine as stage

    config = stage.Mine(
        folder, where, out, split, findings, tuple(changes), maps, organs, part, device, batch_size, workers, overwrite
    )
    result = stage.run(config)
    if os.environ.get("RANK", "0") == "0":
        console.say(stage.summary(config, result))


def parse_shard(text: str | None) -> tuple[int, int]:
    """I/N, from the flag or from a SLURM array, whatever its first ID and its step."""
    said = f"--shard {text} is not of the form I/N with I from 1 to N."
    array = {key: os.environ.get(f"SLURM_ARRAY_TASK_{key}", "") for key in ("ID", "COUNT", "MIN", "STEP")}
    if text is None:
        if not (array["ID"] and array["COUNT"]):
            return 1, 1
        array["STEP"] = array["STEP"] or "1"
        said = f"No shard follows from {', '.join(f'SLURM_ARRAY_TASK_{k}={v}' for k, v in array.items())}."
        plain = all(word.isascii() and word.isdigit() for word in array.values()) and int(array["STEP"])
        place = (int(array["ID"]) - int(array["MIN"])) // int(array["STEP"]) + 1 if plain else 0
        text = f"{place}/{array['COUNT']}"
    number, _, total = text.partition("/")
    digits = all(word.isascii() and word.isdigit() and len(word) < 6 for word in (number, total))
    if not (digits and 1 <= int(number) <= int(total)):
        raise UsageError(said, "Say --shard I/N, for instance --shard 2/8.")
    return int(number), int(total)
