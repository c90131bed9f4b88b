"""Several readers on one image: their boxes as one truth, or each reader against the others.

Tables are as `formats.drawn` has them, after the linter. The boxes of an image and finding are grouped as in weighted
boxes fusion (Solovyev et al. 2021) with equal weights: in the order of the rows, a box joins the group whose mean box
overlaps it most, if that IoU is above a bound, else it begins a group. A reader's two boxes may join one group.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.table import BOX_ORDER, SCHEMA, order_in_pair, truth_table
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.tables import COORDINATES, build, ordered

How = Literal["union", "fused"]
OVERLAP = 0.4
OF_TRUTH = ("image_id", "finding", "split", "patient_id", *COORDINATES, "image_width", "image_height", "reader")

Box = Sequence[float]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Against(NamedTuple):
    """One reader judged by the others."""

    reader: str
    predictions: pa.Table  # SCHEMA: this reader's boxes, each with score 1, ranked in the order of the rows
    truth: pa.Table  # TRUTH_SCHEMA: the other readers' boxes, as drawn or merged
    images: pa.StringArray  # sorted: those that this reader and at least one other looked at


def merged(table: pa.Table, how: How, overlap: float = OVERLAP) -> pa.Table:
    """One box for each group: `union`, the smallest around all of its boxes; `fused`, the mean of their coordinates.

    The other columns are of the group's first row, but no reader is named; `readers` says how many drew in the group.
    """
    refuse_unknown_how(how)
    if not 0 <= overlap < 1:
        raise UsageError(f"An overlap of {overlap:g} is no share.", "Give 0 or more, and less than 1.")
    boxes = np.column_stack([table[name].cast(pa.float64()).to_numpy() for name in COORDINATES]).reshape(-1, 4)
    group = _grouped(_texts(table, "image_id"), _texts(table, "finding"), boxes, overlap)
    first = np.unique(group, return_index=True)[1]
    joined = _around(group, boxes, len(first)) if how == "union" else _mean(group, boxes, len(first))
    result = table.take(pa.array(first))
    for name, values in zip(COORDINATES, joined.T, strict=True):
        result = _with(result, name, pa.array(values))
    if "reader" in table.column_names:
        result = _with(result, "reader", pa.nulls(len(result), pa.string()))
    people = set(zip(group.tolist(), _texts(table, "reader"), strict=True))
    counts = np.bincount(np.array([g for g, _ in people], dtype=np.int64), minlength=len(first))
    return result.append_column("readers", pa.array(counts))


def refuse_unknown_how(how: str) -> None:
    if how not in get_args(How):
        raise UsageError(
            f"Readers cannot be merged as {how!r}.{did_you_mean(how, get_args(How))}", "Choose union or fused."
        )


def by_reader(table: pa.Table) -> dict[str, pa.Table]:
    """Each reader's rows, by name; every row must name one."""
    readers = table["reader"].cast(pa.string())
    if readers.null_count:
        raise CxrError(
            f"{readers.null_count:,} of {len(table):,} boxes do not say who drew them.",
            "Readers can be compared where every box names its reader.",
        )
    return {name: table.filter(pc.equal(readers, name)) for name in sorted(pc.unique(readers).to_pylist())}


def reader_against_rest(
    table: pa.Table, looked_at: pa.Table | None, how: How | None = None, overlap: float = OVERLAP
) -> list[Against]:
    """Every reader against the boxes of the others, on images that both looked at; those merged if `how` says so.

    Without `looked_at` a reader looked at the images that have a box of his. One who shares no image is left out.
    """
    own = by_reader(table)
    seen = _seen(table, looked_at)
    together: dict[str, list[str]] = defaultdict(list)
    for image, readers in seen.items():
        for reader in readers if len(readers) > 1 else ():
            together[reader].append(image)
    result = []
    for reader in sorted(together):
        images = pa.array(sorted(together[reader]), pa.string())
        shared = table.filter(pc.is_in(table["image_id"].cast(pa.string()), value_set=images))
        others = shared.filter(pc.not_equal(shared["reader"].cast(pa.string()), reader))
        others = others if how is None else merged(others, how, overlap)
        mine = own.get(reader, table.slice(0, 0))
        mine = mine.filter(pc.is_in(mine["image_id"].cast(pa.string()), value_set=images))
        drawn = truth_table({name: others[name] for name in OF_TRUTH if name in others.column_names})
        result.append(Against(reader, _predictions(mine, reader), drawn, images))
    return result


def _seen(table: pa.Table, looked_at: pa.Table | None) -> dict[str, set[str]]:
    """image → who looked at it"""
    seen: dict[str, set[str]] = defaultdict(set)
    for source in (table, looked_at):
        if source is not None:
            for image, reader in zip(_texts(source, "image_id"), _texts(source, "reader"), strict=True):
                if image is not None and reader is not None:
                    seen[image].add(reader)
    return seen


def _predictions(table: pa.Table, reader: str) -> pa.Table:
    names = [name for name in OF_TRUTH if name in SCHEMA.names and name in table.column_names]
    boxes = build(SCHEMA, {name: table[name] for name in names})
    image, finding = (boxes[name].combine_chunks() for name in BOX_ORDER[:2])
    ones = np.ones(len(boxes))
    more = {"rank": order_in_pair(image, finding), "score": ones, "probability": ones, "source": [reader] * len(boxes)}
    return ordered(build(SCHEMA, {name: boxes[name] for name in names} | more), BOX_ORDER)


def _grouped(image: list[str | None], finding: list[str | None], boxes: Floats, overlap: float) -> Ints:
    """The group of each row; groups are numbered as they begin."""
    groups: dict[tuple[str | None, str | None], list[int]] = defaultdict(list)  # of each pair
    total: list[list[float]] = []  # of each group, the sum of its boxes
    size: list[int] = []
    result = np.empty(len(boxes), dtype=np.int64)
    for row, (pair, box) in enumerate(zip(zip(image, finding, strict=True), boxes.tolist(), strict=True)):
        most, chosen = overlap, -1
        for group in groups[pair]:
            share = _iou([value / size[group] for value in total[group]], box)
            if share > most:  # of equal ones the first
                most, chosen = share, group
        if chosen < 0:
            chosen = len(total)
            groups[pair].append(chosen)
            total.append([0.0] * 4)
            size.append(0)
        total[chosen] = [a + b for a, b in zip(total[chosen], box, strict=True)]
        size[chosen] += 1
        result[row] = chosen
    return result


def _iou(a: Box, b: Box) -> float:
    """Of two boxes as Python numbers: for a few boxes of a pair, arrays would take most of the time."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if not (wide > 0 and high > 0):
        return 0.0
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _around(group: Ints, boxes: Floats, groups: int) -> Floats:
    low, high = np.full((groups, 2), np.inf), np.full((groups, 2), -np.inf)
    np.minimum.at(low, group, boxes[:, :2])
    np.maximum.at(high, group, boxes[:, 2:])
    return np.concatenate([low, high], axis=1)


def _mean(group: Ints, boxes: Floats, groups: int) -> Floats:
    total = np.zeros((groups, 4))
    np.add.at(total, group, boxes)
    return total / np.bincount(group, minlength=groups)[:, None]


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values.cast(table.schema.field(place).type))


def _texts(table: pa.Table, name: str) -> list[str | None]:
    if name not in table.column_names:
        return [None] * len(table)
    return table[name].cast(pa.string()).to_pylist()
