"""The one checked door for boxes that come in: ours or a user's, Parquet or CSV, whole or in shards.

Every fault is found before any is reported, with its rows, counted from 1 after the header.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cxrmine.boxes.table import BOX_ORDER, SCHEMA, TRUTH_SCHEMA, order_in_pair
from cxrmine.errors import CxrError
from cxrmine.tables import COORDINATES, NAME, REQUIRED, build, ordered

SIZED = (*COORDINATES, "image_width", "image_height")
OUTSIDE = 0.01  # pixels: what rounding to float32 may add, not what a wrong size does
SHOWN_ROWS = 5

Bools = npt.NDArray[np.bool_]


def read_truth(path: Path, findings: Sequence[str] | None = None) -> pa.Table:
    """Boxes that people drew, from a Parquet or CSV file with the columns of a boxes table."""
    return checked(read_table(Path(path)), findings=findings, where=str(path), source="truth", schema=TRUTH_SCHEMA)


def checked(
    table: pa.Table,
    *,
    findings: Sequence[str] | None = None,
    where: str,
    source: str | None = None,
    schema: pa.Schema = SCHEMA,
) -> pa.Table:
    """`table` in the columns, types and order of `schema`, or one error with every fault in it.

    Only image_id, finding and the coordinates must be there. A missing rank is the order of the scores, or of the rows.
    """
    _all_columns(table, where)
    faults: list[tuple[str, Bools]] = []
    columns = {field.name: _column(table, field, faults, where) for field in schema}
    _check_names(columns, findings, faults)
    _check_boxes(columns, faults)
    report_faults(faults, len(table), where)
    if source is not None:
        columns["source"] = pc.fill_null(columns["source"], source)
    result = build(schema, columns)
    if result["rank"].null_count:
        result = _ranked(result)
    result = ordered(result, BOX_ORDER)
    no_row_twice(result, where)
    return result


def refuse_outside(table: pa.Table, where: str) -> None:
    """The door's rule for boxes whose image's size came to be known after they were read."""
    faults: list[tuple[str, Bools]] = []
    _check_boxes({name: table[name].combine_chunks() for name in SIZED}, faults)
    if faults:
        text, bad = faults[0]
        row = table.slice(int(np.argmax(bad)), 1).to_pylist()[0]
        axis = text[0]
        limit = row["image_width" if axis == "x" else "image_height"]
        count = int(np.any([rows for _, rows in faults], axis=0).sum())
        raise CxrError(
            f"{where} has {count} of {len(table)} boxes outside their image, the first: {row['image_id']}, "
            f"{row['finding']}: {text} ({row[f'{axis}_min']:g} to {row[f'{axis}_max']:g} of {limit}).",
            "Give boxes in pixels of the film as stored, and images and truth of one dataset.",
        )


def read_table(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".csv":
            names = TRUTH_SCHEMA.names  # as text: 00001 is a name, and a bad number is to be found with its row
            options = pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            )
            return pa.csv.read_csv(path, convert_options=options)
        return pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise CxrError(f"There is no boxes table at {path}.", "Check the path.") from None
    except (pa.ArrowException, OSError) as error:
        kind = "CSV" if path.suffix.lower() == ".csv" else "Parquet"
        reason = str(error).strip().split("\n")[0]
        raise CxrError(f"{path} cannot be read as {kind}: {reason}", "Boxes come as .parquet or .csv.") from None


def _all_columns(table: pa.Table, where: str) -> None:
    missing = [name for name in REQUIRED if name not in table.column_names]
    if not missing:
        return
    hints = []
    for name in missing:
        near = get_close_matches(name, set(table.column_names) - set(SCHEMA.names), 1)
        hints.append(f"{name} (is it {near[0]!r}?)" if near else name)
    raise CxrError(
        f"{where} lacks {', '.join(hints)}.", f"A boxes table has at least the columns {', '.join(REQUIRED)}."
    )


def _column(table: pa.Table, field: pa.Field, faults: list[tuple[str, Bools]], where: str) -> pa.Array:
    """The column as the field's type (names as plain text), or nulls where the table has none."""
    named = field.type == NAME
    if field.name not in table.column_names:
        return pa.nulls(len(table), pa.string() if named else field.type)
    column = table[field.name]
    try:
        if named or pa.types.is_binary(field.type):
            return column.cast(pa.string() if named else pa.binary()).combine_chunks()
        return _numbers(column, field, faults)
    except pa.ArrowException:
        raise CxrError(
            f"{where}: {field.name} cannot be read from {column.type}.", f"It should be {field.type}."
        ) from None


def _numbers(column: pa.ChunkedArray, field: pa.Field, faults: list[tuple[str, Bools]]) -> pa.Array:
    """As the field's type; what is no finite number, or no whole one where one is needed, becomes a fault and null."""
    empty = column.is_null().to_numpy()
    values = floats(column)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and that is a fault
        bad = ~np.isfinite(values.astype(np.float32)) & ~empty
    if bad.any():
        faults.append((f"{field.name} is not a finite number", bad))
    if pa.types.is_integer(field.type):
        with np.errstate(invalid="ignore"):
            odd = (
                ~bad
                & ~empty
                & ((values != np.round(values)) | (values < 1) | (values > 2 ** (field.type.bit_width - 1) - 1))
            )
        if odd.any():
            faults.append((f"{field.name} is not a whole number from 1", odd))
        bad = bad | odd
    usable = np.where(bad | empty, 0, values)
    return pa.array(usable, mask=bad | empty).cast(field.type)


def floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    try:
        return column.cast(pa.float64(), safe=False).to_numpy()
    except pa.ArrowInvalid:  # text that is no number somewhere: find where
        return np.array([_float(text) for text in column.cast(pa.string()).to_pylist()], dtype=np.float64)


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _check_names(columns: dict[str, Any], findings: Sequence[str] | None, faults: list[tuple[str, Bools]]) -> None:
    for name in ("image_id", "finding"):
        empty = pc.equal(pc.fill_null(columns[name], ""), "").to_numpy(zero_copy_only=False)
        if empty.any():
            faults.append((f"{name} is empty", empty))
    if findings is None:
        return
    for word in pc.unique(columns["finding"]).to_pylist():
        if word and word not in findings:
            near = get_close_matches(word, findings, 1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(findings)}"
            rows = pc.fill_null(pc.equal(columns["finding"], word), False).to_numpy(zero_copy_only=False)
            faults.append((f"finding {word!r} is unknown{hint}", rows))


def _check_boxes(columns: dict[str, Any], faults: list[tuple[str, Bools]]) -> None:
    def numbers(name: str) -> npt.NDArray[np.float64]:
        return columns[name].cast(pa.float64()).to_numpy(zero_copy_only=False)

    known_bad = {fault.split(" ")[0] for fault, _ in faults}
    for name in COORDINATES:
        missing = columns[name].is_null().to_numpy(zero_copy_only=False)
        if missing.any() and name not in known_bad:
            faults.append((f"{name} is empty", missing))
    with np.errstate(invalid="ignore"):  # NaN stands for what is missing, and compares as no fault
        for axis, size in (("x", "image_width"), ("y", "image_height")):
            low, high, limit = numbers(f"{axis}_min"), numbers(f"{axis}_max"), numbers(size)
            for text, rows in (
                (f"{axis}_max is not above {axis}_min", high <= low),
                (f"{axis}_min is negative", low < -OUTSIDE),
                (f"{axis}_max is beyond {size}", high > limit + OUTSIDE),
            ):
                if rows.any():
                    faults.append((text, rows))


def report_faults(faults: list[tuple[str, Bools]], rows: int, where: str) -> None:
    if not faults:
        return
    lines = []
    for text, bad in faults:
        at = (np.flatnonzero(bad) + 1).tolist()
        more = f" and {len(at) - SHOWN_ROWS} more" if len(at) > SHOWN_ROWS else ""
        lines.append(f"{text}: row{'s' * (len(at) > 1)} {', '.join(map(str, at[:SHOWN_ROWS]))}{more}")
    count = int(np.any([bad for _, bad in faults], axis=0).sum())
    raise CxrError(f"{where} has {count} faulty of {rows} rows: {'; '.join(lines)}.", "Correct or remove these rows.")


def _ranked(table: pa.Table) -> pa.Table:
    scores = table["score"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    best_first = table.take(pa.array(np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")))
    names = [best_first[name].combine_chunks() for name in ("image_id", "finding")]
    ranks = pa.array(order_in_pair(names[0], names[1])).cast(pa.int16())
    return best_first.set_column(table.schema.get_field_index("rank"), "rank", ranks)


def no_row_twice(table: pa.Table, where: str) -> None:
    image, finding, rank = (table[n].combine_chunks() for n in BOX_ORDER)
    same = np.ones(max(len(table) - 1, 0), dtype=bool)
    for values in (image.indices, finding.indices, rank):
        codes = values.to_numpy(zero_copy_only=False)
        same &= codes[1:] == codes[:-1]
    if same.any():
        i = int(np.argmax(same))
        pair = f"{image[i].as_py()}, {finding[i].as_py()}, rank {rank[i].as_py()}"
        raise CxrError(
            f"{where}: {int(same.sum())} ranks are given twice, the first: {pair}.",
            "Give every box of a pair its own rank, and every table once.",
        )
