"""Image-level probabilities: their table, and the one checked door they come in by.

One row an image: image_id, patient_id, split, status (`ok`, `unreadable: why`), and a column a finding, which is null
where there is no probability. A user's table needs image_id and a column a finding.
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.boxes.door import floats, read_table, report_faults
from cxrmine.boxes.shards import grouped, refuse_foreign
from cxrmine.boxes.table import ROW_GROUP
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.files import atomic
from cxrmine.tables import COORDINATES, META_KEY, NAME, build, ordered, parse_meta, with_meta

NAMES = ("image_id", "patient_id", "split", "status")  # the columns that are no findings
OK = "ok"
NEAR = 0.8  # how alike two words are of which one is the other misspelt; Pneumonia and Pneumothorax are 0.67
Bools = npt.NDArray[np.bool_]


class Probabilities(NamedTuple):
    table: pa.Table  # NAMES, then a column a finding, double; sorted by image_id
    meta: dict[str, Any]  # without the shard
    findings: tuple[str, ...]
    others: tuple[str, ...] = ()  # columns that were not asked for


def build_probabilities(
    index: Index, findings: Sequence[str], probabilities: npt.NDArray[np.float32], status: Sequence[str]
) -> pa.Table:
    """The table of an index's images from N×C probabilities, NaN where there is none."""
    names = {name: index.table[name] for name in ("image_id", "patient_id", "split")}
    numbers = {f: pa.array(probabilities[:, c], mask=np.isnan(probabilities[:, c])) for c, f in enumerate(findings)}
    schema = pa.schema([*((name, NAME) for name in NAMES), *((f, pa.float32()) for f in findings)])
    return ordered(build(schema, {**names, "status": status, **numbers}), ("image_id",))


def write_probabilities(path: Path, table: pa.Table, meta: Mapping[str, Any]) -> None:
    table = table.replace_schema_metadata(with_meta(table.schema, meta).metadata)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROW_GROUP)


def is_probabilities(source: Path) -> bool:
    """Whether a file, a folder or a glob holds probabilities and no boxes, by the names of the columns alone."""
    columns = [set(_column_names(path)) for path in _files(source)]
    return any(map(_has_probabilities, columns)) and not any(names >= {*COORDINATES} for names in columns)


def read_probabilities(source: Path | Sequence[Path], findings: Sequence[str] | None = None) -> Probabilities:
    """Probabilities from a file, a folder, a glob or several of these, Parquet or CSV; the shards of one are joined.

    Without `findings` (a dataset's) every column but NAMES is one of a finding; with them the other columns are left.
    """
    paths = _paths(source)
    read = [read_table(path) for path in paths]
    metas = [
        parse_meta((table.schema.metadata or {}).get(META_KEY), path) for table, path in zip(read, paths, strict=True)
    ]
    refuse_foreign(paths, metas)
    columns = [name for name in read[0].column_names if name not in NAMES]
    for path, table in zip(paths, read, strict=True):
        _same_columns(path, table.column_names, paths[0], columns)
    if findings is not None:
        refuse_strange(str(paths[0]), columns, findings)
    chosen = tuple(name for name in columns if findings is None or name in findings)
    joined = pa.concat_tables([_checked(table, chosen, str(path)) for path, table in zip(paths, read, strict=True)])
    again = _again(joined["image_id"].cast(pa.string()).combine_chunks())
    if again.any():
        name = joined["image_id"][int(np.argmax(again))].as_py()
        raise CxrError(f"{paths[0]} and {len(paths) - 1} more give {name} twice.", "Give every image once.")
    meta = {key: value for key, value in metas[0].items() if key != "shard"}
    return Probabilities(ordered(joined, ("image_id",)), meta, chosen, tuple(n for n in columns if n not in chosen))


def refuse_strange(where: str, columns: Sequence[str], findings: Sequence[str]) -> None:
    """Refuse columns of which none is a finding of the dataset, or one nearly is: it would go unscored."""
    strange = {name.lower(): name for name in columns if name not in findings}
    for finding in findings:
        near = get_close_matches(finding.lower(), strange, 1, cutoff=NEAR) if finding not in columns else []
        if near:
            raise CxrError(
                f"{where} has a column {strange[near[0]]!r}, which the dataset does not know.",
                f"Call it {finding} if it is that, or take it out.",
            )
    if not set(columns) & set(findings):
        raise CxrError(f"{where} has a column for none of the dataset's findings.", f"They are {', '.join(findings)}.")


def aligned(table: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
    """A row for each of `image_ids`, null where the table has none."""
    known = table["image_id"].cast(pa.string()).combine_chunks()
    return table.take(pc.index_in(image_ids.combine_chunks(), value_set=known))


def _paths(source: Path | Sequence[Path]) -> list[Path]:
    """The files behind a file, a folder, a glob or several of these; a folder must hold one table."""
    if not isinstance(source, str | Path):
        paths = list(dict.fromkeys(path for one in source for path in _paths(one)))
        if not paths:
            raise CxrError("No table of probabilities was named.", "Name a file, a folder or a glob.")
        return paths
    found = _files(source)
    if Path(source).is_dir():
        found = [path for path in found if _has_probabilities(_column_names(path))]
        if len(tables := grouped(found)) > 1:
            names = ", ".join(paths[0].name for paths in tables)
            raise CxrError(f"{source} holds several tables of probabilities: {names}.", "Name one of them.")
    if not found:
        raise CxrError(
            f"There is no table of probabilities at {source}.", "Check the path, or make one with `cxrmine predict`."
        )
    for path in found:
        if not _has_probabilities(_column_names(path)):
            raise CxrError(
                f"{path} is no table of probabilities.", "It is Parquet or CSV with image_id and a column a finding."
            )
    return found


def _files(source: Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _has_probabilities(columns: Collection[str]) -> bool:
    """An image, something beside its names, and nothing that makes it a table of boxes or of pairs."""
    return "image_id" in columns and not {"finding", *COORDINATES} & set(columns) and bool(set(columns) - set(NAMES))


def _column_names(path: Path) -> list[str]:
    """Empty for a file that cannot be read: the door says why."""
    try:
        if path.suffix.lower() != ".csv":
            return pq.read_schema(path).names
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error):
        return []


def _same_columns(path: Path, names: list[str], first: Path, findings: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CxrError(f"{path} has the column {twice[0]!r} twice.", "Give every column its own name.")
    differ = sorted(set(findings) ^ (set(names) - set(NAMES)))
    if differ:
        raise CxrError(f"{path} and {first} differ in the columns {', '.join(differ)}.", "Give parts of one table.")


def _checked(table: pa.Table, findings: Sequence[str], where: str) -> pa.Table:
    """NAMES as text and `findings` as doubles, or one error with every fault in it."""
    faults: list[tuple[str, Bools]] = []
    columns: dict[str, pa.Array] = {}
    for name in (*NAMES, *findings):
        column = table[name] if name in table.column_names else pa.chunked_array([pa.nulls(len(table))])
        try:
            text = name in NAMES
            columns[name] = column.cast(pa.string()).combine_chunks() if text else _shares(name, column, faults)
        except pa.ArrowException:
            raise CxrError(f"{where}: {name} cannot be read from {column.type}.", "Take the column out.") from None
    empty = pc.equal(pc.fill_null(columns["image_id"], ""), "").to_numpy(zero_copy_only=False)
    again = _again(columns["image_id"]) & ~empty
    faults = [("image_id is empty", empty), ("image_id was given before", again), *faults]
    report_faults([(text, rows) for text, rows in faults if rows.any()], len(table), where)
    schema = pa.schema([*((name, NAME) for name in NAMES), *((name, pa.float64()) for name in findings)])
    return build(schema, columns)


def _shares(name: str, column: pa.ChunkedArray, faults: list[tuple[str, Bools]]) -> pa.Array:
    """As doubles; what is no number from 0 to 1 becomes a fault, what is empty stays null."""
    empty = column.is_null().to_numpy()
    values = floats(column)
    nothing = ~np.isfinite(values) & ~empty
    hint = "" if np.isfinite(values).any() else " (take out a column that is no finding)"
    faults.append((f"{name} is not a finite number{hint}", nothing))
    faults.append((f"{name} is not from 0 to 1", ~nothing & ~empty & ((values < 0) | (values > 1))))
    return pa.array(values, mask=empty)


def _again(images: pa.Array) -> Bools:
    """Which rows have an image that an earlier row has."""
    codes = images.dictionary_encode().indices.fill_null(-1).to_numpy()
    again = np.ones(len(codes), bool)
    again[np.unique(codes, return_index=True)[1]] = False
    return again
