"""How severe a finding is on a film: severity.parquet or severity.csv in a dataset's folder, or a file that is named.

image_id    as in the dataset, or with or without folders and ending; where it is empty:
study_id    a folder that the film lies in (of MIMIC-CXR's s50414267 the number will do): all its films are as severe
finding     in the dataset's words
severity    1 mild, 2 moderate, 3 severe, or these words; empty: the report does not say

Other columns are not read. Of several rows of a pair the most severe counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.data.index import Index
from cxrmine.data.meant import meant
from cxrmine.data.sheets import read_own
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, rows_text
from cxrmine.files import atomic, sha256

UNKNOWN = 0
MILD, MODERATE, SEVERE = 1, 2, 3
LEVELS = {"mild": MILD, "moderate": MODERATE, "severe": SEVERE}
MIMIC_STUDY = re.compile(r"s(\d{8})")  # its folder; the study's number stands in tables
FILES = ("severity.parquet", "severity.csv")


@dataclass(frozen=True, eq=False)
class Severities:
    """values: N×C, UNKNOWN where a finding is not present, or nobody says how severe it is."""

    values: npt.NDArray[np.int8]
    notes: tuple[str, ...] = ()
    sha256: str = ""  # of the file; empty where there is none


class Placed(NamedTuple):
    """values: N×C of these images and findings; strangers: rows of the file that are of none of them."""

    values: npt.NDArray[np.int8]
    strangers: int


def severities_of(index: Index, file: str = "") -> Severities:
    """Of the images of `index`, in its order, and of its findings, in theirs."""
    path = Path(file) if file else beside(index.root)
    if path is None:
        return Severities(np.full((len(index), len(index.findings)), UNKNOWN, np.int8))
    images, paths = (index.table[name].to_pylist() for name in ("image_id", "path"))
    values, strangers = placed(path, images, paths, index.findings)
    nothing = not values.any()
    absent = (values != UNKNOWN) & (index.labels() != 1)
    values[absent] = UNKNOWN
    known = ", ".join(f"{np.count_nonzero(values == level):,} {word}" for word, level in LEVELS.items())
    notes = [f"severity: {path.name}: {known}, of {np.count_nonzero(index.labels() == 1):,} findings that are present"]
    if nothing:
        notes.append(f"severity: none of its {strangers:,} rows is of an image and a finding that is here")
    if absent.any():
        notes.append(f"severity: {absent.sum():,} are of findings that their film does not have, and do not count")
    return Severities(values, tuple(notes), sha256(path))


def write_severities(folder: Path, index: Index) -> None:
    """Into `folder`, as severity.parquet, what the dataset's own file says of its films, each by its name."""
    found = severities_of(index).values
    rows, columns = np.nonzero(found)
    if len(rows):
        table = {
            "image_id": index.table["image_id"].take(pa.array(rows)),
            "finding": [index.findings[c] for c in columns],
            "severity": found[rows, columns],
        }
        with atomic(folder / FILES[0]) as temporary:
            pq.write_table(pa.table(table), temporary)


def beside(folder: Path) -> Path | None:
    """The file in a dataset's folder."""
    there = [folder / name for name in FILES if (folder / name).is_file()]
    if len(there) > 1:
        cure = "Keep one, or name the one that counts, with data.severity in a recipe and with --severity in a score."
        raise CxrError(f"{folder} has {' and '.join(FILES)}.", cure)
    return there[0] if there else None


def placed(
    path: Path,
    images: Sequence[str],
    paths: Sequence[str | None],
    findings: Sequence[str],
    names: Mapping[str, str] | None = None,
) -> Placed:
    """What the file says of `images`, which lie at `paths`; `names`: its word for a finding → ours, if it differs."""
    if not path.is_file():
        raise CxrError(f"There is no file {path} of severities.", "Make one: cxrmine severity REPORTS --out FILE.")
    tables, faults = read_own(Tree(path.parent), [path.name], {})
    if faults:
        raise faults[0]
    sheet = tables[0].sheet
    lacking = [name for name in ("finding", "severity") if name not in sheet.columns]
    if lacking or not {"image_id", "study_id"} & set(sheet.columns):
        raise CxrError(
            f"{path} has no column {' or '.join(lacking or ['image_id', 'study_id'])}.",
            "It needs image_id or study_id, finding and severity, as cxrmine severity writes them.",
        )
    said = pc.is_valid(sheet.text("severity")).to_numpy(zero_copy_only=False)
    sheet = sheet.filter(said)
    found = _numbers(sheet.text("severity").to_pylist(), sheet.row, path)
    films = _films(images, paths, sheet.text("image_id").to_pylist(), sheet.text("study_id").to_pylist())
    column = {finding: c for c, finding in enumerate(findings)}
    told = [(names or {}).get(word, word) for word in sheet.text("finding").to_pylist()]
    of = [column.get(finding, -1) for finding in told]
    cells = [(row, c, level) for rows, c, level in zip(films, of, found, strict=True) if c >= 0 for row in rows]
    row, c, level = np.array(cells, np.int64).reshape(-1, 3).T
    values = np.full((len(images), len(findings)), UNKNOWN, np.int8)
    np.maximum.at(values, (row, c), level.astype(np.int8))
    return Placed(values, sum(not rows or c < 0 for rows, c in zip(films, of, strict=True)))


def _numbers(words: list[str | None], rows: np.ndarray, path: Path) -> list[int]:
    levels = {**LEVELS, **{f"{level}{end}": level for level in LEVELS.values() for end in ("", ".0")}}
    found = [levels.get((word or "").lower(), UNKNOWN) for word in words]
    if UNKNOWN in found:
        strange = [int(row) for row, level in zip(rows, found, strict=True) if level == UNKNOWN]
        raise CxrError(
            f"{path}: severity is {words[found.index(UNKNOWN)]!r} in {rows_text(strange)}.",
            f"Write {', '.join(f'{level} ({word})' for word, level in LEVELS.items())}, or nothing.",
        )
    return found


def _films(
    images: Sequence[str], paths: Sequence[str | None], named: list[str | None], studies: list[str | None]
) -> list[list[int]]:
    """Of every row of the file, the places of the images that it speaks of."""
    row_of = {name: row for row, name in enumerate(images)}
    found, _ = meant(named, row_of)
    of_study: dict[str, list[int]] = {}
    if any(image is None and study is not None for image, study in zip(named, studies, strict=True)):
        for row, path in enumerate(paths):
            folders = (path or "").split("/")[:-1]
            for study in {*folders, *(match[1] for match in map(MIMIC_STUDY.fullmatch, folders) if match)}:
                of_study.setdefault(study, []).append(row)
    return [
        ([row_of[name]] if name is not None else []) if image is not None else of_study.get(study or "", [])
        for image, name, study in zip(named, found, studies, strict=True)
    ]
