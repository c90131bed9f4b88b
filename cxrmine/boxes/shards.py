"""Reading boxes back: from a file, a folder or a glob, with the shards of one table joined."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cxrmine.boxes.door import checked, no_row_twice, read_table
from cxrmine.boxes.table import BOX_ORDER, IMAGE_ORDER, IMAGES_SCHEMA, images_path
from cxrmine.errors import CxrError
from cxrmine.tables import COORDINATES, META_KEY, build, ordered, parse_meta

SHOWN = 5  # names in a message
SHARD = re.compile(r"(?P<base>.+)-(?P<i>\d{5})-of-(?P<n>\d{5})")


class Boxes(NamedTuple):
    table: pa.Table  # SCHEMA (truth: TRUTH_SCHEMA), sorted
    meta: dict[str, Any]  # without the shard
    images: pa.Table | None  # IMAGES_SCHEMA, sorted


def shard_path(boxes: Path, i: int, n: int) -> Path:
    """B.parquet, 2 of 3 → B-00002-of-00003.parquet"""
    return boxes.with_name(f"{boxes.stem}-{i:05}-of-{n:05}{boxes.suffix}")


def read_boxes(source: Path | Sequence[Path], findings: Sequence[str] | None = None) -> Boxes:
    """Boxes from a file, a folder, a glob or several of these; shards are joined when none is missing or foreign."""
    paths = expand(source)
    read = [read_table(path) for path in paths]
    metas = [
        parse_meta((table.schema.metadata or {}).get(META_KEY), path) for table, path in zip(read, paths, strict=True)
    ]
    refuse_foreign(paths, metas)
    tables = [
        checked(t, findings=findings, where=str(p), source=_shard(p)[0].stem) for t, p in zip(read, paths, strict=True)
    ]
    joined = ordered(pa.concat_tables(tables), BOX_ORDER)
    if len(paths) > 1:
        no_row_twice(joined, f"{paths[0]} and {len(paths) - 1} more")
    meta = {key: value for key, value in metas[0].items() if key != "shard"}
    return Boxes(joined, meta, _images_of(paths, metas))


def expand(source: Path | Sequence[Path]) -> list[Path]:
    """The files behind a file, a folder or a glob; a folder must hold one table, whole or in shards."""
    if not isinstance(source, str | Path):
        paths = list(dict.fromkeys(path for one in source for path in expand(one)))
        if not paths:
            raise CxrError("No boxes were named.", "Name a boxes file, a folder or a glob.")
        return paths
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.glob("*.parquet") if not _is_images(p) and _has_boxes(p))
        tables = sorted({_shard(p)[0].name for p in found})
        if len(tables) > 1:
            raise CxrError(f"{path} holds several boxes tables: {', '.join(tables)}.", "Name one of them.")
    elif path.exists():
        return [path]
    else:
        matches = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        found = sorted(p for p in matches if not _is_images(p))
    if not found:
        raise CxrError(f"There is no boxes table at {path}.", "Check the path, or mine one with `cxrmine mine --out`.")
    return found


def grouped(sources: Sequence[Path]) -> list[list[Path]]:
    """Several sources, in their order, with the shards of one table (a glob that the shell opened) put together."""
    groups: dict[Path, list[Path]] = {}
    boxes = [source for source in sources if not _is_images(source)]  # the shell's own glob takes both tables
    for source in boxes or sources:
        for path in expand(source):
            groups.setdefault(_shard(path)[0], []).append(path)
    return list(groups.values())


def shard_stem(path: Path) -> str:
    """The name of the whole table that a file is a shard of."""
    return _shard(path)[0].stem


def _shard(path: Path) -> tuple[Path, int, int]:
    """(the whole table's path, i, n); n is 0 for a file that is no shard."""
    match = SHARD.fullmatch(path.stem)
    if match is None:
        return path, 0, 0
    return path.with_name(match["base"] + path.suffix), int(match["i"]), int(match["n"])


def refuse_foreign(paths: Sequence[Path], metas: Sequence[dict[str, Any]]) -> None:
    """All shards are there, and all files come from one recipe, one network and one dataset."""
    present = {_shard(path)[::2] for path in paths if _shard(path)[2]}
    for base in {base for base, _ in present}:
        totals = sorted(n for other, n in present if other == base)
        if len(totals) > 1:
            raise CxrError(
                f"The shards of {base} differ in their total: {' and '.join(map(str, totals))}.",
                "Remove those of the older run.",
            )
        missing = [path for i in range(1, totals[0] + 1) if (path := shard_path(base, i, totals[0])) not in paths]
        if missing:
            more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise CxrError(
                f"{len(missing)} of {totals[0]} shards are missing: {', '.join(map(str, missing[:SHOWN]))}{more}.",
                f"Make them, then give all: '{base.with_suffix('')}-*{base.suffix}'.",
            )
    for path, meta in zip(paths[1:], metas[1:], strict=True):
        for key in sorted((set(meta) | set(metas[0])) - {"shard"}):
            if meta.get(key) != metas[0].get(key):
                raise CxrError(
                    f"{path} and {paths[0]} differ in {key}.", "Only tables of the same run and dataset can be joined."
                )


def _images_of(paths: Sequence[Path], metas: Sequence[dict[str, Any]]) -> pa.Table | None:
    present = [images_path(path) for path in paths if images_path(path).exists()]
    if not present:
        return None
    tables = []
    for path, meta in zip(paths, metas, strict=True):
        beside = images_path(path)
        if beside not in present:
            raise CxrError(f"{beside} is missing.", "It belongs beside the boxes; copy both.")
        table = read_table(beside)
        if parse_meta((table.schema.metadata or {}).get(META_KEY), beside) != meta:
            raise CxrError(f"{beside} is not of the same run as {path}.", "Mine both again.")
        if missing := [name for name in IMAGES_SCHEMA.names if name not in table.column_names]:
            raise CxrError(f"{beside} lacks {', '.join(missing)}.", "Mine it again.")
        tables.append(build(IMAGES_SCHEMA, {name: table[name] for name in IMAGES_SCHEMA.names}))
    return ordered(pa.concat_tables(tables), IMAGE_ORDER)


def _is_images(path: Path) -> bool:
    return path.name.endswith(".images.parquet")


def _has_boxes(path: Path) -> bool:
    try:
        return set(COORDINATES) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return True  # a broken table must be met, not passed over
