"""What is in a dataset, and every fault of it at once, before hours are spent on it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.console import progress
from cxrmine.cores import threads
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import Unreadable, image_size, read_image
from cxrmine.data.index import EXAMPLES, HARMLESS, NO_FILE, SPLITS, Index, corners
from cxrmine.data.reading import Reading

BLOCK = 1024  # films handed to the pool at once: memory does not grow with the dataset
SLACK = 1e-3  # of a pixel: what a table rounds away puts no box outside its film
SIZES_SHOWN = 4


@dataclass(frozen=True)
class Check:
    data: Path
    fast: bool = False  # decode no film; of films with boxes the header is read, for their size
    strict: bool = False  # a warning is an error
    workers: int | None = None  # threads; as many as there are cores
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class Fault:
    kind: str
    level: Literal["error", "warning"]
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Film:
    """What looking at one file told."""

    image_id: str
    path: str
    size: tuple[int, int] | None = None  # width, height
    why: str = ""  # it cannot be read
    constant: bool = False


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
    index = open_dataset(config.data, config.reading)
    films = list(_look(index, config))
    sizes = Counter(film.size for film in films if film.size)
    faults = [*_ledger_faults(index), *_file_faults(index, films), *_patient_faults(index), *_box_faults(index, films)]
    faults.sort(key=lambda fault: (fault.level, -fault.count, fault.kind))
    return CheckReport(config, index, tuple(faults), dict(sizes.most_common()))


# --- films


def _look(index: Index, config: Check) -> Iterator[Film]:
    """A Film for every file that is there; with --fast, for those with boxes."""
    look = _measure if config.fast else _decode
    wanted = index.present()[0].table
    if config.fast:
        wanted = wanted.filter(wanted["boxed"])
    pairs = list(zip(wanted["image_id"].to_pylist(), wanted["path"].to_pylist(), strict=True))
    workers = threads(config.workers)

    def films() -> Iterator[Film]:
        with ThreadPoolExecutor(workers) as pool:  # OpenCV and zlib let go of the interpreter's lock
            for start in range(0, len(pairs), BLOCK):
                yield from pool.map(lambda pair: look(index.root, *pair), pairs[start : start + BLOCK])

    return progress(films(), len(pairs), "checking")


def _measure(root: Path, image_id: str, path: str) -> Film:
    try:
        return Film(image_id, path, image_size(root / path))
    except Unreadable as fault:
        return Film(image_id, path, why=fault.why)


def _decode(root: Path, image_id: str, path: str) -> Film:
    try:
        pixels = read_image(root / path)
    except Unreadable as fault:
        return Film(image_id, path, why=fault.why)
    height, width = pixels.shape
    return Film(image_id, path, (width, height), constant=bool(pixels.min() == pixels.max()))


# --- faults


def _fault(kind: str, level: Literal["error", "warning"], names: Sequence[str]) -> tuple[Fault, ...]:
    return (Fault(kind, level, len(names), tuple(names[:EXAMPLES])),) if names else ()


def _ledger_faults(index: Index) -> Iterator[Fault]:
    for entry in index.dropped:
        yield Fault(entry.reason, "warning" if entry.reason in HARMLESS else "error", entry.count, entry.examples)


def _file_faults(index: Index, films: Sequence[Film]) -> Iterator[Fault]:
    missing = index.table["image_id"].filter(pc.is_null(index.table["path"])).to_pylist()
    yield from _fault(NO_FILE, "error", missing)
    reasons: dict[str, list[str]] = {}
    for film in films:
        if film.why:
            reasons.setdefault(film.why, []).append(film.path)
    for why, paths in reasons.items():
        yield from _fault(f"unreadable image: {why}", "error", paths)
    yield from _fault("constant image: one gray value", "warning", [film.path for film in films if film.constant])


def _patient_faults(index: Index) -> Iterator[Fault]:
    splits = index.table.group_by("patient_id").aggregate([("split", "count_distinct")])
    torn = splits["patient_id"].filter(pc.greater(splits["split_count_distinct"], 1)).to_pylist()
    yield from _fault("patient in two splits", "error", sorted(torn))


def _box_faults(index: Index, films: Sequence[Film]) -> Iterator[Fault]:
    boxes = index.boxes
    if not boxes.num_rows:
        return
    row = pc.index_in(boxes["image_id"], value_set=index.table["image_id"].combine_chunks()).to_numpy()
    column = pc.index_in(boxes["finding"], value_set=pa.array(index.findings)).to_numpy()
    corner = corners(boxes)
    sizes = _sizes(index, films)
    limits = np.array([sizes.get(image_id, (np.inf, np.inf)) for image_id in boxes["image_id"].to_pylist()])
    beyond = np.hstack([-corner[:, :2], corner[:, 2:] - limits])  # how far each edge lies outside its film
    outside = beyond.max(axis=1) > SLACK
    yield from _fault("box outside its image", "error", _box_names(boxes, outside))
    unlabelled = index.labels()[row, column] != 1
    yield from _fault("box of a finding that its image is not labelled with", "error", _box_names(boxes, unlabelled))
    first = np.unique(np.column_stack([row, column, corner]), axis=0, return_index=True)[1]
    again = np.ones(len(row), dtype=bool)
    again[first] = False
    yield from _fault("same box twice", "warning", _box_names(boxes, again))


def _sizes(index: Index, films: Sequence[Film]) -> dict[str, tuple[int, int]]:
    """Of the files where they were read, or else of the dataset's own table."""
    sizes: dict[str, tuple[int, int]] = {}
    if {"width", "height"} <= set(index.table.column_names):
        columns = [index.table[name].to_pylist() for name in ("image_id", "width", "height")]
        sizes = {image_id: (w, h) for image_id, w, h in zip(*columns, strict=True) if w and h}
    return sizes | {film.image_id: film.size for film in films if film.size}


def _box_names(boxes: pa.Table, which: np.ndarray) -> list[str]:
    rows = boxes.filter(pa.array(which)).to_pylist()
    return [
        f"{b['image_id']} {b['finding']} {b['x_min']:.1f},{b['y_min']:.1f}..{b['x_max']:.1f},{b['y_max']:.1f}"
        for b in rows
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


def _by_finding(index: Index) -> dict[str, dict[str, int]]:
    labels, split = index.labels(), index.table["split"].to_numpy()
    boxes, rows = _counts(index.boxes["finding"]), {}
    for column, finding in enumerate(index.findings):
        of_finding = labels[:, column]
        counts = {s: int(((of_finding == 1) & (split == s)).sum()) for s in SPLITS}
        counts["uncertain"] = int((of_finding == -1).sum())
        boxed = index.boxes["image_id"].filter(pc.equal(index.boxes["finding"], finding))
        rows[finding] = counts | {"boxes": boxes.get(finding, 0), "boxed_images": _distinct(boxed)}
    return rows


# --- what a person sees


@dataclass(frozen=True)
class Sheet:
    """The arguments of console.table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(report: CheckReport) -> tuple[list[Sheet], str]:
    """The tables to show, and the sentence to end on."""
    d = report.document
    views = ", ".join(f"{view} {count:,}" for view, count in d["views"].items())
    shown = list(d["sizes"].items())[:SIZES_SHOWN]
    sizes = ", ".join(f"{size} {films:,}" for size, films in shown)
    more = len(d["sizes"]) - len(shown)
    notes = [*d["notes"], f"views: {views}", *([f"sizes: {sizes}" + (f", {more} more" * bool(more))] if shown else [])]
    top = Sheet(
        f"{report.config.data}: {d['layout']}",
        ("", *SPLITS, "all"),
        tuple((what, *(f"{d[what][s]:,}" for s in (*SPLITS, "all"))) for what in ("images", "patients")),
        "\n".join(notes),
    )
    uncertain = any(row["uncertain"] for row in d["findings"].values())
    keys = (*SPLITS, *(("uncertain",) if uncertain else ()), "boxes", "boxed_images")
    findings = Sheet(
        "Images that have the finding, and truth boxes",
        ("finding", *(key.replace("_", " ") for key in keys)),
        tuple((name, *(f"{row[key]:,}" for key in keys)) for name, row in d["findings"].items()),
        f"{d['boxes']['boxes']:,} boxes on {d['boxes']['images']:,} images",
    )
    faults = Sheet(
        "Faults",
        ("fault", "level", "count", "for instance"),
        tuple((f.kind, f.level, f"{f.count:,}", "; ".join(f.examples)) for f in report.faults),
    )
    return [top, findings, *([faults] if report.faults else [])], _closing(report)


def _closing(report: CheckReport) -> str:
    errors, warnings = (sum(f.level == level for f in report.faults) for level in ("error", "warning"))
    unread = " No film was decoded (--fast)." if report.config.fast else ""
    if not report.faults:
        return f"No fault found.{unread}"
    found = " and ".join(
        f"{n} kind{'s' * (n > 1)} of {word}" for n, word in ((errors, "error"), (warnings, "warning")) if n
    )
    verdict = "It can be used as it is." if report.ok else "Mend it first."
    return f"{found[0].upper()}{found[1:]}. {verdict}{unread}"
