"""The command line: a skin. Parse, build a config, call one stage, show its result. Heavy imports stay inside."""

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from cxrmine import __version__, console
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import explained, write_text
from cxrmine.settings import setting

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Command = TypeVar("Command", bound=Callable[..., Any])
debug = False


def guarded(command: Command) -> Command:
    """Turn what can go wrong into two sentences and an exit code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except CxrError as fault:
            if debug:
                raise
            _fail(fault.what, fault.cure, fault.exit_code)
        except KeyboardInterrupt:
            _fail("Stopped.", "Run the same command to go on.", 75)
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (the reader of our pipe has left)
            raise typer.Exit(1) from None
        except OSError as fault:
            if debug:
                raise
            _fail(f"{explained(fault)}.", "Nothing half-written was left; run it again when that is mended.", 1)
        except MemoryError:
            _fail("Out of memory.", "Try a smaller --batch-size or fewer --workers.", 1)
        except Exception as fault:  # a fault of ours: named as such, its traceback on demand
            if debug or isinstance(fault, typer.Exit):
                raise
            name = type(fault).__name__
            _fail(f"This is a fault of cxrmine, not yours: {name}: {fault}", "Please report what --debug shows.", 1)

    return wrapper  # type: ignore[return-value]


def _fail(what: str, cure: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")
    console.error(what if rank == "0" else f"[process {rank}] {what}", cure)
    raise typer.Exit(code)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    show_traceback: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Mine disease boxes from chest X-rays that have only image-level labels, and measure how good they are.

    Start with: cxrmine demo
    """
    global debug
    debug = show_traceback
    signal.signal(signal.SIGTERM, _stop)
    if version:
        console.say(f"cxrmine {__version__}")
        raise typer.Exit


Data = Annotated[Path | None, typer.Option("--data", help="The dataset's folder.", show_default=False)]
RunFolder = Annotated[Path | None, typer.Option("--run", help="The run's folder.", show_default=False)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads that decode and box.", show_default="cores, at most 8")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key: train.seed=1. Repeatable.")]


@app.command()
@guarded
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
    console.say(stage.what_next(result))


@app.command()
@guarded
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


@app.command()
@guarded
def check(
    data: Data = None,
    fast: Annotated[bool, typer.Option("--fast", help="Read no pixels.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    json_out: Annotated[str | None, typer.Option("--json", help="Write the report as JSON; - is stdout.")] = None,
    workers: Workers = None,
) -> None:
    """Say what is in a dataset, and every fault."""
    from cxrmine.stages import check as stage

    report = stage.run(stage.Check(Path(setting("data", data)), fast, strict, workers))
    _write(json_out, _json(report.document))
    if json_out != "-":
        sheets, closing = stage.tables(report)
        for sheet in sheets:
            console.table(sheet.title, sheet.header, sheet.rows, sheet.note)
        console.say(closing)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
@guarded
def train(
    data: Data = None,
    recipe: Annotated[str | None, typer.Option(help="A built-in recipe or a TOML file.", show_default="cam")] = None,
    run: RunFolder = None,
    overrides: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move the run that is there aside.")] = False,
    device: Device = "auto",
    workers: Workers = None,
) -> None:
    """Train a network. Started again on the same folder, it goes on where it stopped.

    Several processes: torchrun --nproc-per-node 2 -m cxrmine train
    """
    where, name = Path(setting("data", data)), setting("recipe", recipe, "cam")
    folder = Path(setting("run", run, f"runs/{Path(name).stem}"))
    from cxrmine.stages import train as stage

    result = stage.run(stage.Train(where, name, folder, tuple(overrides or ()), fresh, device, workers))
    if os.environ.get("RANK", "0") != "0":
        return
    if result.already_done:
        console.say(f"{result.run} is trained already. To train it anew, say --fresh.")
    console.table(
        "AUC on validation patients",
        ("finding", "AUC"),
        [(finding, f"{area:.3f}") for finding, area in result.auc.items()] + [("macro", f"{result.macro_auc:.3f}")],
    )
    console.say(f"Next: cxrmine mine --run {result.run} --data {where} --split train --out boxes.parquet")


@app.command()
@guarded
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
    shard: Annotated[
        str | None, typer.Option(help="I/N; read from SLURM's array variables.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Films at a time; changes speed, not results.")] = 32,
    device: Device = "auto",
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace boxes that are there.")] = False,
) -> None:
    """Mine ranked boxes with a trained run."""
    changes = [*(overrides or ())]
    changes += [f"mine.top={top}"] if top is not None else []
    changes += [f"mine.rounds={rounds}"] if rounds is not None else []
    where, folder, part = Path(setting("data", data)), Path(setting("run", run)), _shard(shard)
    from cxrmine.stages import mine as stage

    config = stage.Mine(
        folder, where, out, split, findings, tuple(changes), maps, part, device, batch_size, workers, overwrite
    )
    console.say(stage.summary(config, stage.run(config)))


def _shard(text: str | None) -> tuple[int, int]:
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


@app.command()
@guarded
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
    _write(json_out, _json(result.document))
    _write(csv_out, stage.csv(result))
    if "-" not in (json_out, csv_out):
        console.table(*stage.summary_table(result))
        if per_finding:
            for table in stage.finding_tables(result):
                console.table(*table)


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _write(target: str | None, text: str) -> None:
    if target == "-":
        console.say(text.rstrip())
    elif target:
        write_text(Path(target), text)
