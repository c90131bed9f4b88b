"""Decodes a dataset once, from folders and archives, into memory-mapped shards; killed at any time, it goes on.

Loose files and zip archives are read a shard at a time. A tar archive can only be read from its front to its end, so
one process reads it, fills one shard after another, and decodes with as many threads as there are cores left.

What is left to do follows from the dataset and from the shards that are there, and from nothing else. So films may have
been mended or added since an earlier run. Where nothing was, the same shards come to be as without a stop: films
have one order, and all shards of one container but its last are full.
"""

import json
import multiprocessing
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine import console
from cxrmine.cores import available
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import Fit
from cxrmine.data.index import Index
from cxrmine.data.pack import DONE, PLAN, description, open_pack, write_pack
from cxrmine.data.reading import Reading
from cxrmine.data.severities import write_severities
from cxrmine.data.shard_files import FILMS, shard_name, shard_number, table_path
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import locked, move_aside, write_json
from cxrmine.stages.pack_plan import finished, tasks
from cxrmine.stages.packer import Task, begin, fill, share

SCHEMA_VERSION = 2  # of an unfinished pack: its plan, and the tables of its shards
OFTEN = 0.25  # seconds from one look at the counter to the next
FEW = 200  # films that threads have packed before processes have started


@dataclass(frozen=True)
class Pack:
    data: Path
    out: Path
    size: int = 512
    fit: Fit = "stretch"
    reading: Reading = field(default_factory=Reading)
    max_unreadable: float = 0.01
    workers: int | None = None  # processes; as many as there are cores
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class PackResult:
    index: Index
    unreadable: dict[str, int]  # why → films
    before: int  # films that an earlier run had packed


def run(config: Pack) -> PackResult:
    if config.data.resolve() == config.out.resolve():
        raise UsageError(f"{config.out} is the dataset itself.", "Name another folder with --out.")
    index = open_dataset(config.data, config.reading, archives=True, watch=console.progress_bar)
    if index.packed is not None:
        raise CxrError(f"{config.data} is a pack.", "Pack the dataset that it was made of.")
    if index.table["path"].null_count == len(index):
        raise CxrError(f"{config.data} has none of the {len(index):,} films that its tables name.", "Check the folder.")
    plan = {"schema": SCHEMA_VERSION, "fingerprint": index.fingerprint, "size": config.size, "fit": config.fit}
    with locked(config.out):
        if config.fresh and any((config.out / name).is_file() for name in (DONE, PLAN)):
            console.log(f"The pack that was in {config.out} is now in {move_aside(config.out)}.")
        _refuse_another(config.out, plan)
        before = 0
        if not (config.out / DONE).is_file():
            write_json(config.out / PLAN, plan)
            before = _fill(config, index)
            shards = finished(config.out)
            films = _films(index, shards)
            _refuse_unreadable(config, films)
            for path in config.out.glob("films-*.npy"):  # of which a killed run had not written the table
                if shard_number(path.name) not in shards:
                    path.unlink()
            counts = {number: len(table) for number, table in shards.items()}
            write_severities(config.out, index)
            write_pack(config.out, index, films, config.size, config.fit, counts)
        for name in (config.out / PLAN, *(table_path(config.out, number) for number in finished(config.out))):
            name.unlink(missing_ok=True)
    packed = open_pack(config.out)
    return PackResult(packed, _reasons(packed.table), before)


def _refuse_another(out: Path, plan: dict[str, Any]) -> None:
    """A folder that has something else in it, or the pack of something else."""
    if (out / DONE).is_file():
        said = description(out)
    elif (out / PLAN).is_file():
        said = _plan_there(out / PLAN)
    elif strange := sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(".")):
        raise CxrError(f"{out} has other files in it: {', '.join(strange[:3])}.", "Name an empty folder with --out.")
    else:
        return
    if other := [key for key in plan if key != "schema" and said.get(key) != plan[key]]:
        what = ", ".join(f"{key} is {said.get(key)!s:.12} there and {plan[key]!s:.12} here" for key in other)
        raise CxrError(f"{out} is a pack of something else: {what}.", "Name another folder, or say --fresh.")


def _plan_there(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
        version = said.get("schema", 1)
    except (ValueError, AttributeError):
        raise CxrError(f"{path} is damaged.", "Say --fresh to pack from the beginning.") from None
    if version != SCHEMA_VERSION:
        raise CxrError(
            f"{path.parent} is a pack that another version of cxrmine did not finish.",
            "Say --fresh to pack from the beginning, or finish it with that version.",
        )
    return dict(said)


def _fill(config: Pack, index: Index) -> int:
    """The films that are not there yet; returns how many were."""
    workers = config.workers or available()
    todo = tasks(index, config.out, config.size, config.fit, workers)
    total = len(index) - index.table["path"].null_count
    missing = sum(len(task.films) + len(task.again) for task in todo)
    context = multiprocessing.get_context("spawn")
    counter, stopped = context.Value("q", 0), context.Event()
    with (
        console.progress_bar(total, "packing", "films") as bar,
        _pool(todo, missing, workers, (counter, stopped)) as pool,
    ):
        bar.resume_at(total - missing)
        try:
            waiting: set[Future[None]] = {pool.submit(fill, task) for task in todo}
            while waiting:
                done, waiting = wait(waiting, OFTEN, FIRST_COMPLETED)
                bar.advance(total - missing + counter.value - bar.done)
                for one in done:
                    one.result()
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return total - missing


def _pool(todo: list[Task], films: int, workers: int, shared: tuple[Any, Any]) -> Executor:
    """As many as there are cores and one more: it works while another waits for the disk."""
    most = min(workers + (workers > 1), max(1, len(todo)))
    if films <= FEW:
        return ThreadPoolExecutor(most, initializer=share, initargs=shared)
    return ProcessPoolExecutor(most, multiprocessing.get_context("spawn"), begin, shared)


def _films(index: Index, shards: dict[int, pa.Table]) -> pa.Table:
    """FILMS and `path` in the order of the index; without a path where there is no film."""
    parts = []
    for number, table in shards.items():
        prefix = f"{shard_name(number)}/"
        path = [
            prefix + str(place) if why is None else None
            for place, why in zip(table["place"].to_pylist(), table["why"].to_pylist(), strict=True)
        ]
        parts.append(table.append_column("path", pa.array(path, pa.string())))
    films = pa.concat_tables(parts)
    at = pa.array(np.argsort(films["image_id"].to_numpy(), kind="stable"))
    place = pc.index_in(index.table["image_id"], value_set=films["image_id"].take(at).combine_chunks())
    films = films.take(at.take(place))
    gone = pc.and_(pc.is_null(films["path"]), pc.is_null(index.table["path"]))
    why = pc.if_else(gone, "no such file", films["why"])
    return films.set_column(FILMS.get_field_index("why"), "why", why)


def _reasons(table: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(table["why"].drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in sorted(counts, key=lambda pair: -pair["counts"])}


def _refuse_unreadable(config: Pack, films: pa.Table) -> None:
    bad = len(films) - films["why"].null_count
    if bad > config.max_unreadable * len(films):
        reasons = "; ".join(f"{why} ({count:,})" for why, count in _reasons(films).items())
        raise CxrError(
            f"{bad:,} of {len(films):,} films cannot be read: {reasons}.",
            "Mend them or put them where they belong, and run the same command again: it reads only these. "
            "Or accept so many with --max-unreadable.",
        )
