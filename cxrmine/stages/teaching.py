"""Boxes to learn from: whose they may be, and the masks that a network is shown of them.

Never of patients that validate or test: a box counts only on a film that is trained on, and only of a patient who has
no film in another split.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.door import read_table
from cxrmine.boxes.geometry import middles
from cxrmine.boxes.regions import decode
from cxrmine.boxes.shards import expand, read_boxes
from cxrmine.boxes.table import truth_table
from cxrmine.config import Boxes, Recipe
from cxrmine.data.images import Geometry
from cxrmine.data.index import Index, in_share
from cxrmine.errors import CxrError
from cxrmine.files import sha256
from cxrmine.recipe_files import read_text
from cxrmine.scoring import truth
from cxrmine.tables import COORDINATES, REQUIRED

DATASET = "dataset"
OUTSIDE = 0.01  # pixels that a box may reach beyond its film, by rounding
UNCERTAIN = -1

Masks = npt.NDArray[np.uint8]


class Lesson(NamedTuple):
    """What is known of a pair."""

    image_id: str
    boxes: npt.NDArray[np.float64]  # n×4, pixels of the film
    regions: list[tuple[bytes, int, int] | None]  # a run-length code, its height and its width; or the box itself
    size: tuple[int, int] | None  # of the film, width and height, as the table says


@dataclass(frozen=True)
class Teaching:
    lessons: Mapping[tuple[int, int], Lesson]  # row of the training films, finding
    table: pa.Table  # the boxes that are used
    sha256: str  # of the files that they come from, and of the list; of a dataset's own boxes empty
    meta: Mapping[str, Any]  # what the table says about its making
    notes: tuple[str, ...]

    def masks(self, rows: npt.NDArray[np.int64], frames: Sequence[Geometry]) -> tuple[Masks, npt.NDArray[np.int64]]:
        """Of a batch's films: masks P×S×S, 1 inside, and P×2, each mask's film of the batch and finding."""
        of = [(i, c, self.lessons[row, c]) for i, row in enumerate(rows.tolist()) for c in self._findings.get(row, ())]
        size = frames[0].size if frames else 0
        masks = np.zeros((len(of), size, size), np.uint8)
        for mask, (i, _, lesson) in zip(masks, of, strict=True):
            draw(lesson, frames[i], mask)
        return masks, np.array([(i, c) for i, c, _ in of], np.int64).reshape(-1, 2)

    @cached_property
    def _findings(self) -> dict[int, list[int]]:
        """Of each film, those that are taught."""
        found: dict[int, list[int]] = {}
        for row, c in self.lessons:
            found.setdefault(row, []).append(c)
        return found


def draw(lesson: Lesson, frame: Geometry, mask: Masks) -> None:
    """1 where a box or its region lies. A box takes the pixels whose middle it has, and one at least.

    What lies beyond the input, as data.fit = crop has it, is cut off: nothing may be left.
    """
    if lesson.size not in (None, (frame.width, frame.height)):
        raise _other_film(lesson, (frame.width, frame.height))
    beyond = lesson.boxes[:, 2:] - (frame.width, frame.height)
    if (beyond > OUTSIDE).any() or (lesson.boxes < -OUTSIDE).any():
        raise CxrError(
            f"A box of {lesson.image_id} lies outside its film of {frame.width} × {frame.height} pixels.",
            "Give boxes in pixels of the film as stored.",
        )
    placed = frame.to_input(lesson.boxes)
    shown = np.all((placed[:, :2] < frame.size) & (placed[:, 2:] > 0), axis=1).tolist()
    edges = middles(placed).clip(0)
    for (left, top, right, bottom), there, region in zip(edges, shown, lesson.regions, strict=True):
        if region is None and there:
            top, left = min(top, len(mask) - 1), min(left, len(mask) - 1)
            mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
        elif region is not None:
            mask |= decode(*region)


def _refuse_other_frames(recipe: Recipe, lessons: Mapping[tuple[int, int], Lesson], train: Index) -> None:
    """What can be known before a film is read: regions of another input, boxes of films of another size."""
    size = recipe.data.size
    known = [train.table[n].to_pylist() if n in train.table.column_names else None for n in ("width", "height")]
    for (row, _), lesson in lessons.items():
        for region in lesson.regions:
            if region and region[1:] != (size, size):
                raise CxrError(
                    f"The regions of {lesson.image_id} are for an input of {region[2]} × {region[1]} pixels.",
                    f"Say boxes.masks = boxes, or data.size = {region[1]}.",
                )
        film = tuple(side[row] if side else None for side in known)
        if lesson.size and None not in film and lesson.size != film:
            raise _other_film(lesson, film)


def _other_film(lesson: Lesson, film: tuple[int | None, ...]) -> CxrError:
    said, seen = (" × ".join(map(str, size or ())) for size in (lesson.size, film))
    return CxrError(
        f"The boxes of {lesson.image_id} are for a film of {said} pixels, and it has {seen}.",
        "Give boxes in pixels of the film as stored.",
    )


def teach(recipe: Recipe, whole: Index, train: Index) -> Teaching | None:
    """The boxes that a run of this recipe learns from; `whole`: the dataset with all its splits."""
    boxes = recipe.boxes
    if boxes is None:
        return None
    table, files, meta = (_of_dataset(whole), [], {}) if boxes.source == DATASET else _of_file(Path(boxes.source))
    read = len(table)
    left_out: Counter[str] = Counter()
    keep = np.ones(read, bool)
    for why, bad in _reasons(recipe, boxes, table, whole, train):
        left_out[why] += int((keep & bad).sum())
        keep &= ~bad
    used = table.filter(pa.array(keep))
    lessons = _lessons(boxes, used, train)
    _refuse_other_frames(recipe, lessons, train)
    said = f"{int(keep.sum()):,} of {read:,} boxes teach {len(lessons):,} pairs"
    others = "; ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    if not lessons:
        raise CxrError(
            f"Not one of the {read:,} boxes of {boxes.source} can be learned from: {others or 'there are none'}.",
            "Name boxes of training films, in the dataset's names of images and findings; or let films join training "
            "with boxes.listed.",
        )
    files += [Path(boxes.listed)] if boxes.listed else []
    digest = hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest() if files else ""
    return Teaching(lessons, used, digest, meta, (f"{said}{f'; not used: {others}' if others else ''}.",))


def makers(teaching: Teaching, dataset: str) -> list[str] | None:
    """sha256 of the weights that mined the boxes, and of those that these descend from: all of them have seen patients
    of the dataset's train and val alone. None where that is not known; nothing where people drew the boxes."""
    meta = teaching.meta
    if "weights_sha256" not in meta:
        return []
    if meta.get("seen_others", True) or not meta.get("trained_on") == meta.get("dataset") == dataset:
        return None
    return [meta["weights_sha256"], *meta.get("starts", [])]


def _reasons(
    recipe: Recipe, boxes: Boxes, table: pa.Table, whole: Index, train: Index
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Why a box is not used, the first reason first, each with the rows that it holds for."""
    names, findings = (table[name].cast(pa.string()).to_pylist() for name in ("image_id", "finding"))
    patient_of = dict(zip(whole.table["image_id"].to_pylist(), whole.table["patient_id"].to_pylist(), strict=True))
    elsewhere = set(whole.table.filter(pc.not_equal(whole.table["split"], "train"))["patient_id"].to_pylist())
    who = [patient_of.get(name) for name in names]
    row_of = {name: row for row, name in enumerate(train.table["image_id"].to_pylist())}
    column = {finding: c for c, finding in enumerate(train.findings)}
    labels = train.labels()
    present = (labels == 1) | ((labels == UNCERTAIN) & (recipe.data.uncertain == "ones"))
    there = [
        n in row_of and f in column and present[row_of[n], column[f]] for n, f in zip(names, findings, strict=True)
    ]
    drawn = pc.equal(table["source"].cast(pa.string()), "truth").fill_null(False).to_numpy()
    ranks = np.isin(table["rank"].to_numpy(), boxes.ranks) | drawn | (not boxes.ranks)
    scores = table["score"].fill_null(1.0).to_numpy()
    return [
        ("of images that the dataset does not have", np.array([p is None for p in who], bool)),
        ("of patients that validate or test", np.array([p in elsewhere for p in who], bool)),
        ("of films that are not trained on", np.array([n not in row_of for n in names], bool)),
        ("of findings that are not learned", np.array([f not in column for f in findings], bool)),
        ("of findings that their film's label does not have", ~np.array(there, bool)),
        ("of other ranks than boxes.ranks", ~ranks),
        (f"with a score below {boxes.min_score:g}", scores < np.float32(boxes.min_score)),
        ("of patients beyond boxes.annotated", np.array([not _annotated(boxes, p) for p in who], bool)),
    ]


def _annotated(boxes: Boxes, patient: str | None) -> bool:
    return patient is not None and in_share("annotated", patient, boxes.annotated)


def _lessons(boxes: Boxes, table: pa.Table, train: Index) -> dict[tuple[int, int], Lesson]:
    row_of = {name: row for row, name in enumerate(train.table["image_id"].to_pylist())}
    column = {finding: c for c, finding in enumerate(train.findings)}
    grouped: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for box in table.to_pylist():
        grouped.setdefault((row_of[box["image_id"]], column[box["finding"]]), []).append(box)
    return {pair: _lesson(boxes, rows) for pair, rows in sorted(grouped.items())}


def _lesson(boxes: Boxes, rows: list[dict[str, Any]]) -> Lesson:
    regions = [
        (row["region"], row["region_height"], row["region_width"])
        if boxes.masks == "regions" and row["region"] is not None
        else None
        for row in rows
    ]
    first = rows[0]
    size = None if first["image_width"] is None else (first["image_width"], first["image_height"])
    corners = np.array([[row[name] for name in COORDINATES] for row in rows], np.float64)
    return Lesson(first["image_id"], corners, regions, size)


def _of_file(path: Path) -> tuple[pa.Table, list[Path], dict[str, Any]]:
    """Boxes in our form, perhaps in shards, or in any that truth may have; the files that they lie in; their making."""
    if path.is_file() and not _is_ours(path):
        return truth.read(truth.Asked(path)).everything, [path], {}
    read = read_boxes(path)
    return read.table, expand(path), read.meta


def _is_ours(file: Path) -> bool:
    """Whether it has our columns; without score and source it was drawn by hand, and is truth."""
    if file.suffix.lower() == ".csv":  # by its header: other forms have rows of another length
        with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
            names = set(next(csv.reader(lines), []))
    else:
        names = set(read_table(file).column_names) if file.suffix.lower() == ".parquet" else set()
    return set(REQUIRED) <= names and bool({"score", "source"} & names)


def _of_dataset(whole: Index) -> pa.Table:
    if not len(whole.boxes):
        raise CxrError(f"{whole.root} has no boxes.", "Name a file of boxes with boxes.source.")
    return truth_table({name: whole.boxes[name] for name in ("image_id", "finding", *COORDINATES)})


def with_listed(index: Index, boxes: Boxes) -> tuple[Index, str]:
    """The patients of boxes.listed join training, whole, but for those who have boxed films that are not listed."""
    path = Path(boxes.listed)
    if not path.is_file():
        raise CxrError(f"boxes.listed: there is no file {path}.", "Name a text file with an image name a line.")
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    table = index.table
    known = set(table["image_id"].to_pylist())
    if strangers := [name for name in names if name not in known]:
        raise CxrError(
            f"{path} names {len(strangers)} images that {index.root} does not have, for instance {strangers[0]}.",
            "Give a list of this dataset's images.",
        )
    is_listed = pc.is_in(table["image_id"], value_set=pa.array(names)).to_numpy()
    boxed, patients = table["boxed"].to_numpy(), table["patient_id"]
    validates = pc.equal(table["split"], "val").to_numpy()
    mixed = set(patients.filter(pa.array((boxed & ~is_listed) | validates)).to_pylist())
    joining = set(patients.filter(pa.array(is_listed)).to_pylist()) - mixed
    joins = pc.is_in(patients, value_set=pa.array(sorted(joining), pa.string()))
    split = pc.if_else(joins, "train", table["split"])
    left = int((is_listed & ~joins.to_numpy()).sum())
    moved = table.set_column(table.column_names.index("split"), "split", split)
    said = f"{len(joining):,} patients of {path.name} join training"
    if left:
        said += f"; {left:,} listed films do not: their patients validate, or have boxed films that are not listed"
    return replace(index, table=moved), f"{said}."
