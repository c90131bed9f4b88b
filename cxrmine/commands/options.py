"""Options that several commands have, and how their documents are written."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.files import write_text

Data = Annotated[Path | None, typer.Option("--data", help="The dataset's folder.", show_default=False)]
RunFolder = Annotated[Path | None, typer.Option("--run", help="The run's folder.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads that decode and box.", show_default="cores, at most 8")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: train.seed=1. Repeatable.")]
Columns = Annotated[
    str,
    typer.Option(
        "--columns",
        help="What the dataset calls its columns, where that is not known: image=filename,findings=labels.",
        show_default=False,
    ),
]
Views = Annotated[str, typer.Option("--views", help="Films to read: frontal or all.", show_default="frontal")]
Vocabulary = Annotated[
    str,
    typer.Option(
        "--vocabulary",
        help="Name findings as there: chestxray14, chexpert, ham, vindr or padchest.",
        show_default="the dataset's own",
    ),
]


def as_json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(target: str | None, text: str) -> None:
    if target == "-":
        console.say(text.rstrip())
    elif target:
        write_text(Path(target), text)
