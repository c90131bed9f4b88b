"""cxrmine score: Boxes against truth."""

from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import RunFolder, as_json, write
from cxrmine.settings import setting


def score(
    predictions: Annotated[list[Path] | None, typer.Argument(help="Boxes: files, folders of shards.")] = None,
    truth: Annotated[Path | None, typer.Option(help="A dataset's folder, Parquet or CSV.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test; several by comma.", show_default="all")] = None,
    finding: Annotated[list[str] | None, typer.Option(help="Judge this one. Repeatable.", show_default="all")] = None,
    run: RunFolder = None,
    protocol: Annotated[str, typer.Option(help="Whose rules: cai2018, ham2021, ham2021-code.")] = "cai2018",
    afp_per: Annotated[str, typer.Option(help="AFP's denominator: finding, all or rows.")] = "finding",
    json_out: Annotated[str | None, typer.Option("--json", help="Write every figure as JSON; - is stdout.")] = None,
    csv_out: Annotated[str | None, typer.Option("--csv", help="Write every figure as CSV; - is stdout.")] = None,
    per_finding: Annotated[bool, typer.Option("--findings", help="Show a table of each finding too.")] = False,
) -> None:
    """Score boxes against truth.

    Beside them stand a mean box, a typical box and a random map: what would have been scored without looking.
    With a run, also how many of the judged patients it was trained on.
    """
    sources = predictions or [Path(setting("boxes", None, "boxes.parquet"))]
    against, folder = Path(setting("truth", truth)), setting("run", run, "")
    from cxrmine.runs import RunFolder as Folder
    from cxrmine.stages import score as stage

    named = run is not None or (folder and Path(folder).exists())  # one from the settings may be still to come
    seen = Folder(Path(folder)).patients if named else None
    splits = tuple(word.strip() for word in split.split(",")) if split is not None else ()
    chosen = (protocol, afp_per, splits, tuple(finding or ()))
    result = stage.run(stage.Score(tuple(sources), against, *chosen, run_patients=seen))
    write(json_out, as_json(result.document))
    write(csv_out, stage.csv(result))
    if "-" not in (json_out, csv_out):
        console.table(*stage.summary_table(result))
        if per_finding:
            for table in stage.finding_tables(result):
                console.table(*table)
