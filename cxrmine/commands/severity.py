"""cxrmine severity: From the text of reports, which findings are there, and how severe."""

from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import as_json, write
from cxrmine.errors import Stopped


def severity(
    reports: Annotated[Path, typer.Argument(help="Reports: a folder, an archive, or a table.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The table to write, .parquet or .csv.", show_default=False)],
    lexicon: Annotated[
        Path | None, typer.Option("--lexicon", help="Words of your own, TOML.", show_default=False)
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            "--columns",
            help="What a table calls its columns, where that is not known: study=accession,text=body.",
            show_default=False,
        ),
    ] = "",
    json_out: Annotated[str | None, typer.Option("--json", help="Write the counts as JSON; - is stdout.")] = None,
) -> None:
    """Read from reports which findings are there, and how severe.

    Knows Open-i, MIMIC-CXR, folders of .txt files, tables, and a phantom's. Beside S.parquet, which has a row a study,
    image and finding, S.mentions.parquet has every mention with its place in the text.
    """
    try:
        from cxrmine.report.severities import sheet
        from cxrmine.stages import severity as stage

        result = stage.run(stage.Severity(reports, out, lexicon, columns))
        write(json_out, as_json(result.document))
        if json_out != "-":
            shown = sheet(reports, result.document)
            console.table(shown.title, shown.header, shown.rows, shown.note)
            console.say(f"{result.rows:,} rows → {out}, {result.mentions:,} mentions → {stage.mentions_path(out)}")
    except KeyboardInterrupt:
        raise Stopped("Stopped.", "Nothing is kept: the same command begins again.") from None
