"""Decodes a dataset once, from folders and archives, into memory-mapped shards; killed at any time, it goes on.

Loose files and zip archives are read a shard at a time. A tar archive can only be read from its front to its end, so
one process reads it, fills its shards side by side, and decodes with as many threads as there are cores left.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine import console
from cxrmine.cores import available
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import Fit
from cxrmine.data.index import Index
from cxrmine.data.pack import DONE, FILMS, PLAN, films_a_shard, open_pack, shard_name, write_pack
from cxrmine.data.reading import Reading
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import locked, move_aside, write_json
from cxrmine.stages.packer import Shard, Task, fill, share, table_path

OFTEN = 0.25  # seconds from one look at the counter to the next


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
    plan, shards = _plan(config, index)
    with locked(config.out):
        if config.fresh and any((config.out / name).is_file() for name in (DONE, PLAN)):
            console.log(f"The pack that was in {config.out} is now in {move_aside(config.out)}.")
        _refuse_another(config.out, plan)
        before = 0
        if not (config.out / DONE).is_file():
            write_json(config.out / PLAN, plan)
            before = _fill(config, index, shards)
            films = _films(config, index, shards)
            _refuse_unreadable(config, films)
            write_pack(config.out, index, films, config.size, config.fit, [len(shard.paths) for shard in shards])
        for name in (config.out / PLAN, *(table_path(config.out, shard.number) for shard in shards)):
            name.unlink(missing_ok=True)
    packed = open_pack(config.out)
    return PackResult(packed, _reasons(packed.table), before)


def _plan(config: Pack, index: Index) -> tuple[dict[str, Any], list[Shard]]:
    """What is to be made, which a run that goes on compares; and the shards: films of one archive, or of none, each."""
    assert index.tree is not None
    of: dict[str, list[tuple[str, str]]] = {}
    for image, path in zip(index.table["image_id"].to_pylist(), index.table["path"].to_pylist(), strict=True):
        if path is not None:
            of.setdefault(index.tree.container(path), []).append((image, path))
    if not of:
        raise CxrError(f"{config.data} has none of the {len(index):,} films that its tables name.", "Check the folder.")
    most = films_a_shard(config.size)
    shards: list[Shard] = []
    for container in sorted(of):
        for first in range(0, len(of[container]), most):
            images, paths = zip(*of[container][first : first + most], strict=True)
            shards.append(Shard(len(shards), images, paths))
    digest = hashlib.sha256(json.dumps([shard.paths for shard in shards]).encode()).hexdigest()
    plan = {"fingerprint": index.fingerprint, "size": config.size, "fit": config.fit, "list": digest}
    return plan, shards


def _refuse_another(out: Path, plan: dict[str, Any]) -> None:
    """A folder that has something else in it, or the pack of something else."""
    if is_finished := (out / DONE).is_file():
        said = json.loads((out / DONE).read_text())
    elif (out / PLAN).is_file():
        said = json.loads((out / PLAN).read_text())
    elif strange := sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(".")):
        raise CxrError(f"{out} has other files in it: {', '.join(strange[:3])}.", "Name an empty folder with --out.")
    else:
        return
    compared = [key for key in plan if key in said] if is_finished else list(plan)
    if other := [key for key in compared if said.get(key) != plan[key]]:
        what = ", ".join(f"{key} is {said.get(key)!s:.12} there and {plan[key]!s:.12} here" for key in other)
        raise CxrError(f"{out} is a pack of something else: {what}.", "Name another folder, or say --fresh.")


def _fill(config: Pack, index: Index, shards: Sequence[Shard]) -> int:
    """The shards that are not there yet; returns how many films were."""
    left = [shard for shard in shards if not _is_there(config.out, shard)]
    workers = config.workers or available()
    tasks = list(_tasks(config, index, left, workers))
    total, missing = (sum(len(shard.paths) for shard in some) for some in (shards, left))
    # One more than cores: it works while another waits for the disk.
    processes = min(workers + (workers > 1), max(1, len(tasks)))
    context = multiprocessing.get_context("spawn")
    counter, stopped = context.Value("q", 0), context.Event()
    with (
        console.progress_bar(total, "packing", "films") as bar,
        ProcessPoolExecutor(processes, context, share, (counter, stopped)) as pool,
    ):
        bar.resume_at(total - missing)
        waiting: set[Future[None]] = {pool.submit(fill, task) for task in tasks}
        try:
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


def _is_there(out: Path, shard: Shard) -> bool:
    return (out / shard_name(shard.number)).is_file() and table_path(out, shard.number).is_file()


def _tasks(config: Pack, index: Index, shards: Sequence[Shard], workers: int) -> Iterator[Task]:
    tree = index.tree
    assert tree is not None
    of_path = {path: shard for shard in shards for path in shard.paths}
    groups = []
    for portion in tree.portions(list(of_path), films_a_shard(config.size)):
        groups.append(list(dict.fromkeys(of_path[path] for path in portion)))
    threads = max(1, workers // max(1, len(groups)))
    for group in groups:
        yield Task(tree.root, tree.archives, tree.base, tuple(group), config.out, config.size, config.fit, threads)


def _films(config: Pack, index: Index, shards: Sequence[Shard]) -> pa.Table:
    """FILMS and `path` in the order of the index; without a path where there is no film."""
    parts = []
    for shard in shards:
        table = pq.ParquetFile(table_path(config.out, shard.number)).read()
        prefix = f"{shard_name(shard.number)}/"
        path = [prefix + str(n) if why is None else None for n, why in enumerate(table["why"].to_pylist())]
        parts.append(table.append_column("path", pa.array(path, pa.string())))
    films = pa.concat_tables(parts)
    at = pa.array(np.argsort(films["image_id"].to_numpy(), kind="stable"))
    place = pc.index_in(index.table["image_id"], value_set=films["image_id"].take(at).combine_chunks())
    films = films.take(at.take(place))
    missing = pc.is_null(films["image_id"])
    why = pc.if_else(missing, "no such file", films["why"])
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
            "Mend them, or accept so many with --max-unreadable.",
        )
