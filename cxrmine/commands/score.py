"""cxrmine score: boxes against truth."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cxrmine import console
from cxrmine.commands.options import RunFolder, as_json, write
from cxrmine.errors import UsageError
from cxrmine.files import check_writable
from cxrmine.settings import setting

Repeated = list[str] | None


def score(
    predictions: Annotated[
        list[Path] | None, typer.Argument(help="Boxes, or probabilities: files, folders of shards.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="A dataset's folder; NIH's, CheXpert's, VinDr's, RSNA's or COCO's boxes; Parquet; CSV."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test; several by comma.", show_default="all")] = None,
    finding: Annotated[Repeated, typer.Option(help="Judge this one. Repeatable.", show_default="all")] = None,
    run: RunFolder = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="Whose rules: cai2018, wang2017, ham2021, ham2021-code, agcl2018, irnet2021, maxboxacc2, rodeo, rsna, "
            "vinbig, coco."
        ),
    ] = "cai2018",
    afp_per: Annotated[
        str | None, typer.Option(help="AFP's denominator: finding, all or rows.", show_default="the protocol's")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="For --bounds, of boxes inside a rank: image or score.", show_default="the protocol's"),
    ] = None,
    bounds: Annotated[
        str, typer.Option(help="Take boxes until AFP is reached: wang2017, or a CSV.", show_default="all boxes")
    ] = "",
    against: Annotated[Repeated, typer.Option(help="A published table beside ours: cai2018:2. Repeatable.")] = None,
    readers: Annotated[str, typer.Option(help="Boxes of several readers become one: fused or union.")] = "fused",
    by_reader: Annotated[bool, typer.Option("--by-reader", help="Also against each reader's boxes alone.")] = False,
    by: Annotated[
        str, typer.Option(help="severity: also of mild, moderate and severe findings.", show_default="of all alone")
    ] = "",
    severity: Annotated[
        Path | None,
        typer.Option(
            help="For --by severity: a table of image_id, finding, severity.", show_default="the one beside the truth"
        ),
    ] = None,
    maps: Annotated[Path | None, typer.Option(help="A folder of maps, for --tune and maxboxacc2.")] = None,
    tune: Annotated[
        str, typer.Option(help="Cut the maps anew, at cuts chosen on other patients (held-out) or not (oracle).")
    ] = "",
    columns: Annotated[str, typer.Option(help="What a CSV of truth calls its columns: image_id=file,x_min=x.")] = "",
    name: Annotated[Repeated, typer.Option(help="A finding of truth means another: edema=Edema. Repeatable.")] = None,
    skip_faulty: Annotated[bool, typer.Option("--skip-faulty", help="Leave faulty rows of truth out.")] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Samples for intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="A judged patient that the run has seen is an error.")
    ] = False,
    json_out: Annotated[str | None, typer.Option("--json", help="Write every figure as JSON; - is stdout.")] = None,
    csv_out: Annotated[str | None, typer.Option("--csv", help="Write every figure as CSV; - is stdout.")] = None,
    markdown_out: Annotated[
        str | None, typer.Option("--markdown", help="Write every table as Markdown; - is stdout.")
    ] = None,
    roc_out: Annotated[
        str | None, typer.Option("--roc", help="Of probabilities: write their ROC curves, as .csv or .png.")
    ] = None,
    per_finding: Annotated[bool, typer.Option("--findings", help="Show a table of each finding too.")] = False,
    sizes: Annotated[bool, typer.Option("--sizes", help="Show small, middle and large truth boxes too.")] = False,
) -> None:
    """Score boxes, or a classifier's probabilities, against truth.

    Beside them stand a mean box, a typical box and a random map: what would have been scored without looking. With a
    run, also how many of the judged patients it was trained on. Of several predictions: how each differs from the
    first.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: methods are scored side by side, a core each
    sources = predictions or ([] if maps else [Path(setting("boxes", None, "boxes.parquet"))])
    source, folder = Path(setting("truth", truth)), setting("run", run, "")
    if roc_out is not None and not roc_out.lower().endswith((".csv", ".png")):
        raise UsageError(f"--roc {roc_out} ends neither in .csv nor in .png.", "Name a file that ends so.")
    targets = {"--json": json_out, "--csv": csv_out, "--markdown": markdown_out, "--roc": roc_out}
    _refuse_places(targets, [*sources, source, *([severity] if severity else [])])
    from cxrmine.data.drawn.read import parse_columns
    from cxrmine.report import scores as report
    from cxrmine.runs import RunFolder as Folder
    from cxrmine.settings import assignments
    from cxrmine.stages import score as stage

    named = run is not None or (folder and Path(folder).exists())  # one from the settings may be still to come
    result = stage.run(
        stage.Score(
            tuple(sources),
            source,
            protocol=protocol,
            afp_per=afp_per,
            order=order,
            bounds=bounds,
            splits=tuple(word.strip() for word in split.split(",")) if split is not None else (),
            findings=tuple(finding or ()),
            columns=parse_columns(columns) if columns else None,
            names=assignments(",".join(name), "edema=Edema") if name else None,
            readers=readers,  # type: ignore[arg-type]
            by_reader=by_reader,
            skip_faulty=skip_faulty,
            maps=maps,
            tune=tune,
            against=tuple(against or ()),
            samples=bootstrap,
            seed=seed,
            run_patients=Folder(Path(folder)).patients if named else None,
            strict=strict,
            roc=roc_out is not None,
            by=by,
            severity=severity,
        )
    )
    tables = result.tables()
    if sizes and "sizes" not in tables:
        raise UsageError("--sizes is of truth boxes, and none are judged here.", "Leave it out.")
    write(json_out, as_json(result.document))
    write(csv_out, result.csv())
    write(markdown_out, report.markdown(tables.values()))
    if roc_out:
        from cxrmine.report.roc import write as write_roc

        write_roc(Path(roc_out), result.curves)
    shown = {"summary", "severity", "differences", "readers"} | ({"sizes"} if sizes else set())
    if per_finding or result.document["kind"] == "probabilities":
        shown |= {"findings", "severity_findings"}
    if "-" not in (json_out, csv_out, markdown_out):
        for kind, table in tables.items():
            if kind.split(":")[0] in shown:
                console.table(*table)


def _refuse_places(targets: Mapping[str, str | None], inputs: Sequence[Path]) -> None:
    """Refuse places where no file can be, or where one would take another's place, before there is anything to put."""
    taken = {path.resolve(): f"{path} is to be scored" for path in inputs}
    said = ""
    for flag, target in targets.items():
        if target == "-":
            if said:
                raise UsageError(f"{said} and {flag} both go to stdout.", "Name a file for one.")
            said = flag
        elif target:
            path = Path(target)
            if path.resolve() in taken:
                raise UsageError(f"{flag} {target} cannot be written: {taken[path.resolve()]}.", "Name another file.")
            if path.is_dir():
                raise UsageError(f"{flag} {target} cannot be written: it is a folder.", "Name a file in it.")
            check_writable(path)
            taken[path.resolve()] = f"it takes what {flag} writes"
