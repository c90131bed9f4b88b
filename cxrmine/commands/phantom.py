"""cxrmine phantom: Made-up films."""

from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.errors import UsageError


def phantom(
    directory: Annotated[Path, typer.Argument(help="A folder that is empty or not there.")],
    images: Annotated[int, typer.Option(min=1, help="How many films.")] = 1200,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Side in pixels.")] = 512,
    format: Annotated[str, typer.Option(help="png (8 bits) or dicom (12 bits).")] = "png",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="cores")] = None,
) -> None:
    """Write a dataset of made-up chest films.

    In ChestX-ray14's layout, with the truth of every lesion, reports, severities and organ masks beside it.
    """
    from cxrmine.stages import phantom as stage

    if format not in ("png", "dicom"):
        raise UsageError(f"--format {format} is not known.", "It is png or dicom.")
    made = stage.run(stage.Phantom(directory, images, size, format, seed, workers))  # type: ignore[arg-type]
    console.say(
        f"{made.images} films of {made.patients} patients → {made.directory}: {made.normal} normal, "
        f"{made.test_images} for testing, {made.boxes} boxes in truth.parquet, {made.listed_boxes} in the box list."
    )
