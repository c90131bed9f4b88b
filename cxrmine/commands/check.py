"""cxrmine check: What is in a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import Columns, Data, Views, Vocabulary, as_json, write
from cxrmine.errors import Stopped
from cxrmine.settings import setting


def check(
    data: Data = None,
    fast: Annotated[bool, typer.Option("--fast", help="Read no pixels.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    json_out: Annotated[str | None, typer.Option("--json", help="Write the report as JSON; - is stdout.")] = None,
    columns: Columns = "",
    views: Views = "",
    vocabulary: Vocabulary = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; a few films are left to threads.", show_default="cores")
    ] = None,
) -> None:
    """Say what is in a dataset, and every fault."""
    try:
        from cxrmine.data.reading import from_flags
        from cxrmine.report.checked import tables
        from cxrmine.stages import check as stage

        where = Path(setting("data", data))
        reading = from_flags(columns, views, vocabulary)
        report = stage.run(stage.Check(where, reading, fast, strict, workers))
        write(json_out, as_json(report.document))
        if json_out != "-":
            sheets, closing = tables(where, report.document)
            for sheet in sheets:
                console.table(sheet.title, sheet.header, sheet.rows, sheet.note)
            console.say(closing)
        if not report.ok:
            raise typer.Exit(1)
    except KeyboardInterrupt:
        raise Stopped("Stopped.", "Nothing is kept of a check: the same command begins again.") from None
