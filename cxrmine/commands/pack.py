"""cxrmine pack: Decode once."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import Columns, Data, Views, Vocabulary
from cxrmine.errors import UsageError
from cxrmine.settings import setting


def pack(
    out: Annotated[Path, typer.Option(help="The pack's folder: empty, not there, or of the same pack to go on.")],
    data: Data = None,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Side of the packed films in pixels.")] = 512,
    fit: Annotated[str, typer.Option(help="stretch or pad: how a film becomes square, as data.fit.")] = "stretch",
    columns: Columns = "",
    views: Views = "",
    vocabulary: Vocabulary = "",
    max_unreadable: Annotated[float, typer.Option(min=0, max=1, help="Share of films that may be unreadable.")] = 0.01,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="cores")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move another pack in that folder aside.")] = False,
) -> None:
    """Decode a dataset once, for every later run.

    Films come from folders, .tar, .tar.gz and .zip into memory-mapped shards. Every command takes the pack where it
    takes a dataset. Stopped or killed, the same command goes on.
    """
    from cxrmine.data.images import Fit
    from cxrmine.data.reading import from_flags
    from cxrmine.stages import pack as stage

    if fit not in ("stretch", "pad"):
        raise UsageError(f"--fit {fit} is not known.", "It is stretch or pad.")
    how: Fit = "pad" if fit == "pad" else "stretch"
    asked = stage.Pack(Path(setting("data", data)), out, size, how, from_flags(columns, views, vocabulary))
    made = stage.run(replace(asked, max_unreadable=max_unreadable, workers=workers, fresh=fresh))
    films = len(made.index) - sum(made.unreadable.values())
    earlier = f" ({made.before:,} of them by an earlier run)" if made.before else ""
    console.say(f"{films:,} films at {size} pixels → {out}{earlier}")
    for why, count in made.unreadable.items():
        console.say(f"  {count:,} left out: {why}")
    if made.unreadable:
        console.say("  A finished pack stays as it is: once they are mended, pack again with --fresh.")
