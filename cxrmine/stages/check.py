"""What is in a dataset, and every fault of it at once, before hours are spent on it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.lint import lint
from cxrmine.console import progress_bar
from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import EXAMPLES, HARMLESS, NO_FILE, SPLITS, UNMENTIONED, Index
from cxrmine.data.reading import Reading
from cxrmine.data.severities import severities_of
from cxrmine.errors import CxrError
from cxrmine.stages.look import Film, look, look_at_masks

SIDES = ("width", "height")
NEARLY_ALL = 0.9  # the share of films of one size from which another size is odd
BLANK = ("constant image", "black image")  # how look.oddity begins of films that are alike without being the same
SAID = {"present": 1, "uncertain": -1, "absent": 0, "not_mentioned": UNMENTIONED}

Level = Literal["error", "warning"]
Seen = Sequence[Film | None]


@dataclass(frozen=True)
class Check:
    data: Path
    reading: Reading = field(default_factory=Reading)
    fast: bool = False  # decode no film; of films with boxes the header is read, for their size
    strict: bool = False  # a warning is an error
    workers: int | None = None  # as many as there are cores


@dataclass(frozen=True)
class Fault:
    kind: str
    level: Level
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CheckReport:
    config: Check
    index: Index
    faults: tuple[Fault, ...]
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)  # (width, height) → films, most common first

    @property
    def ok(self) -> bool:
        return not any(fault.level == "error" or self.config.strict for fault in self.faults)

    @cached_property
    def document(self) -> dict[str, Any]:
        index = self.index
        return {
            "schema": 1,
            "kind": "check",
            "ok": self.ok,
            "layout": index.layout,
            "notes": list(index.notes),
            "fingerprint": index.fingerprint,
            "pixels_read": not self.config.fast,
            "images": _images_by_split(index),
            "patients": _patients_by_split(index),
            "boxes": {"boxes": index.boxes.num_rows, "images": _distinct(index.boxes["image_id"])},
            "views": _counts(index.table["view"]),
            "sizes": {f"{width}x{height}": films for (width, height), films in self.sizes.items()},
            "findings": _by_finding(index),
            "faults": [asdict(fault) for fault in self.faults],
        }


def run(config: Check) -> CheckReport:
    index = open_dataset(config.data, config.reading, archives=True, watch=progress_bar)
    index, graded = _with_severities(index)
    films = {film.path: film for film in look(index, config.fast, config.workers)}
    seen = [films.get(path) for path in index.table["path"].to_pylist()]  # of each image, where it was looked at
    sizes = Counter(film.size for film in films.values() if film.size)
    faults = [*_ledger_faults(index), *_file_faults(index, seen), *_patient_faults(index), *_box_faults(index, seen)]
    faults += graded
    faults += [*_size_faults(index, seen, sizes), *_twins(index, seen)]
    faults += [] if config.fast else _mask_faults(look_at_masks(index, config.workers))
    faults.sort(key=lambda fault: (fault.level, -fault.count, fault.kind))
    return CheckReport(config, index, tuple(faults), dict(sizes.most_common()))


def _with_severities(index: Index) -> tuple[Index, list[Fault]]:
    """With a note of how many findings have a severity; a file that cannot be read is a fault of the dataset."""
    try:
        return replace(index, notes=(*index.notes, *severities_of(index).notes)), []
    except CxrError as fault:
        return index, [Fault("severities that cannot be read", "error", 1, (fault.what,))]


# --- faults


def _fault(kind: str, level: Level, names: Sequence[str]) -> tuple[Fault, ...]:
    return (Fault(kind, level, len(names), tuple(names[:EXAMPLES])),) if names else ()


def _ledger_faults(index: Index) -> Iterator[Fault]:
    for entry in index.dropped:
        yield Fault(entry.reason, "warning" if entry.reason in HARMLESS else "error", entry.count, entry.examples)


def _file_faults(index: Index, seen: Seen) -> Iterator[Fault]:
    missing = index.table["image_id"].filter(pc.is_null(index.table["path"])).to_pylist()
    yield from _fault(NO_FILE, "error", missing)
    kinds: dict[tuple[str, Level], list[str]] = {}
    for film in seen:
        if film and film.why:
            kinds.setdefault((f"unreadable image: {film.why}", "error"), []).append(film.path)
        if film and film.odd:
            kinds.setdefault((film.odd, "warning"), []).append(film.path)
    for (kind, level), paths in kinds.items():
        yield from _fault(kind, level, paths)


def _mask_faults(masks: Iterable[Film]) -> Iterator[Fault]:
    kinds: dict[tuple[str, Level], list[str]] = {}
    for mask in masks:
        if mask.why:
            kinds.setdefault((f"unreadable mask of an organ: {mask.why}", "error"), []).append(mask.path)
        if mask.odd:
            kinds.setdefault((mask.odd, "warning"), []).append(mask.path)
    for (kind, level), paths in kinds.items():
        yield from _fault(kind, level, sorted(paths))


def _patient_faults(index: Index) -> Iterator[Fault]:
    splits = index.table.group_by("patient_id").aggregate([("split", "count_distinct")])
    torn = splits["patient_id"].filter(pc.greater(splits["split_count_distinct"], 1)).to_pylist()
    yield from _fault("patient in two splits", "error", sorted(torn))


def _size_faults(index: Index, seen: Seen, sizes: Mapping[tuple[int, int], int]) -> Iterator[Fault]:
    """Of another size than the dataset says; or than nearly all others have, where a box would be off by the scale."""
    names = index.table["image_id"].to_pylist()
    told = zip(*(index.table[side].to_pylist() for side in SIDES), strict=True) if _tells_sizes(index) else None
    if told:
        wrong = [
            f"{name} {_by(film.size)}, not {_by(said)}"
            for name, film, said in zip(names, seen, told, strict=True)
            if film and film.size and None not in said and film.size != said
        ]
        yield from _fault("image of another size than the dataset says", "error", wrong)
        return
    usual, count = Counter(sizes).most_common(1)[0] if sizes else (None, 0)
    if count < NEARLY_ALL * sum(sizes.values()):
        return
    boxed = index.table["boxed"].to_pylist()
    for level, with_box, kind in (("error", True, "image with boxes of"), ("warning", False, "image of")):
        other = [
            f"{name} {_by(film.size)}"
            for name, film, has in zip(names, seen, boxed, strict=True)
            if film and film.size and film.size != usual and has == with_box
        ]
        yield from _fault(f"{kind} another size than nearly all, {_by(usual)}", cast(Level, level), other)


def _tells_sizes(index: Index) -> bool:
    return set(SIDES) <= set(index.table.column_names) and index.packed is None


def _by(size: tuple[int, ...] | None) -> str:
    return "×".join(map(str, size or ()))


def _twins(index: Index, seen: Seen) -> Iterator[Fault]:
    """The same pixels under two names: a leak where these lie in different splits."""
    first: dict[str, int] = {}
    leaks: list[str] = []
    others: list[str] = []
    names, splits = (index.table[name].to_pylist() for name in ("image_id", "split"))
    for row, film in enumerate(seen):
        if film and film.digest and not film.odd.startswith(BLANK):
            twin = first.setdefault(film.digest, row)
            if twin != row:
                (others if splits[twin] == splits[row] else leaks).append(f"{names[twin]} = {names[row]}")
    yield from _fault("same pixels in two splits", "error", leaks)
    yield from _fault("same pixels under two names", "warning", others)


def _box_faults(index: Index, seen: Seen) -> Iterator[Fault]:
    boxes = index.boxes
    if not boxes.num_rows:
        return
    row = pc.index_in(boxes["image_id"], value_set=index.table["image_id"].combine_chunks()).to_numpy()
    column = pc.index_in(boxes["finding"], value_set=pa.array(index.findings)).to_numpy()
    sizes = _sizes(index, seen)
    for name, side in zip(("image_width", "image_height"), zip(*(sizes[r] for r in row), strict=True), strict=True):
        boxes = boxes.append_column(name, pa.array(side, pa.int32()))
    names = _box_names(index.boxes)
    kinds: dict[str, list[str]] = {}
    for fault in lint(boxes):
        kinds.setdefault(f"box {fault.kind}", []).append(names[fault.row - 1])
    for kind, examples in kinds.items():
        yield from _fault(kind, "warning" if kind == "box duplicated" else "error", examples)
    said = index.labels()[row, column]
    unlabelled = [name for name, label in zip(names, said, strict=True) if label in (0, UNMENTIONED)]
    yield from _fault("box of a finding that its image is not labelled with", "error", unlabelled)


def _sizes(index: Index, seen: Seen) -> list[tuple[int | None, int | None]]:
    """Of the files where they were read, or else of the dataset's own table."""
    told: Any = [(None, None)] * len(index)
    if set(SIDES) <= set(index.table.column_names):
        told = list(zip(*(index.table[side].to_pylist() for side in SIDES), strict=True))
    return [film.size if film and film.size else said for film, said in zip(seen, told, strict=True)]


def _box_names(boxes: pa.Table) -> list[str]:
    return [
        f"{b['image_id']} {b['finding']} {b['x_min']:.1f},{b['y_min']:.1f}..{b['x_max']:.1f},{b['y_max']:.1f}"
        for b in boxes.to_pylist()
    ]


# --- what is there


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    pairs = [(pair["values"] or "unknown", pair["counts"]) for pair in pc.value_counts(column).to_pylist()]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _distinct(column: pa.ChunkedArray) -> int:
    return pc.count_distinct(column).as_py()


def _images_by_split(index: Index) -> dict[str, int]:
    counts = _counts(index.table["split"])
    return {split: counts.get(split, 0) for split in SPLITS} | {"all": len(index)}


def _patients_by_split(index: Index) -> dict[str, int]:
    table = index.table
    counts = {s: _distinct(table["patient_id"].filter(pc.equal(table["split"], s))) for s in SPLITS}
    return counts | {"all": _distinct(table["patient_id"])}


def _by_finding(index: Index) -> dict[str, dict[str, Any]]:
    """Of each finding the images that have it, its boxes, and under `labels` what is said of it, by split."""
    labels, split = index.labels(), index.table["split"].to_numpy()
    of_split = {s: labels[split == s] for s in SPLITS}
    boxes, rows = _counts(index.boxes["finding"]), {}
    for column, finding in enumerate(index.findings):
        said = {s: _said(of[:, column]) for s, of in of_split.items()}
        boxed = index.boxes["image_id"].filter(pc.equal(index.boxes["finding"], finding))
        rows[finding] = {
            **{s: counts["present"] for s, counts in said.items()},
            "uncertain": sum(counts["uncertain"] for counts in said.values()),
            "boxes": boxes.get(finding, 0),
            "boxed_images": _distinct(boxed),
            "labels": said,
        }
    return rows


def _said(labels: np.ndarray) -> dict[str, int]:
    return {word: int((labels == value).sum()) for word, value in SAID.items()}
