"""The index: one row an image, one table of truth boxes, and a ledger of everything that was left out."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.films import Films, Loose
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.tables import COORDINATES

UNMENTIONED = -128  # what a null label is in an int8 array
SPLITS = ("train", "val", "test")
SELECTIONS = (*SPLITS, "boxed", "all")
BOX_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("finding", pa.string()),
        *((name, pa.float64()) for name in COORDINATES),
        ("reader", pa.string()),
    ]
)
ORGAN_SCHEMA = pa.schema([("image_id", pa.string()), ("organ", pa.string()), ("path", pa.string())])
VALIDATION_SHARE = 0.10  # of the training patients
TEST_SHARE = 0.20  # of all patients, where a dataset has no official lists
NO_FILE = "no file for this image"
IN_NO_LIST = "in neither split list"
FILE_WITHOUT_ROW = "file without a row"
SECOND_FILE = "second file of an image"
LATERAL = "lateral view, and frontal ones are asked for"
NO_CHEST = "no film of a chest, as the dataset says"
OF_ANOTHER = "box of an image that is left out"
OF_ANOTHER_SIZE = "box in pixels of another size of its film"
WITHOUT_IMAGE = "study without an image"
MASK_WITHOUT_FILM = "mask without its film"
MASK_OF_ANOTHER = "mask of an image that is left out"
SECOND_MASK = "second mask of an organ"
WITHOUT_MASK = "film without the mask of an organ"
# Reasons that leave the rest of a dataset right.
HARMLESS = frozenset(
    {
        IN_NO_LIST, FILE_WITHOUT_ROW, SECOND_FILE, LATERAL, NO_CHEST, OF_ANOTHER, OF_ANOTHER_SIZE, WITHOUT_IMAGE,
        MASK_WITHOUT_FILM, MASK_OF_ANOTHER, SECOND_MASK, WITHOUT_MASK,
    }
)  # fmt: skip
EXAMPLES = 3


@dataclass(frozen=True)
class Dropped:
    """Rows that were left out, why, and the first few of them."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()


def dropped(reason: str, names: Sequence[str]) -> tuple[Dropped, ...]:
    """One entry of the ledger, or none where nothing was left out."""
    return (Dropped(reason, len(names), tuple(names[:EXAMPLES])),) if names else ()


@dataclass(frozen=True, eq=False)
class Index:
    """`table` and `boxes` are sorted by image_id, so the order of rows in a dataset's files changes nothing.

    table: image_id (unique), path (relative to root; null: no such file), split (train, val or test), patient_id,
    view, labels (struct: an int8 a finding; 1 present, 0 absent, -1 uncertain, null not mentioned), boxed, and
    width, height where the dataset tells the size of the file that is read, and spacing_x, spacing_y where headers of
    DICOM films were read and told it: mm from one pixel of the file to the next, null where unknown.
    boxes: truth, half-open, in pixels of the image file. Their area is positive and their finding is in `findings`;
    reader is null where nobody says who drew it.
    looked_at: image_id and reader, where the dataset says who read which image; these found what they drew and no more.
    tree: its files, where it was read from them. packed: where its films lie, if not in files below `root`.
    organs: ORGAN_SCHEMA, a row a mask that is there, its path relative to root; left_lung is the patient's, on the
    right of the picture. None where there is no mask, and in every pack.
    """

    root: Path
    layout: str
    findings: tuple[str, ...]
    table: pa.Table
    boxes: pa.Table
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    looked_at: pa.Table | None = None
    tree: Tree | None = None
    packed: Films | None = None
    organs: pa.Table | None = None

    @cached_property
    def films(self) -> Films:
        return self.packed or Loose(self.root)

    def __len__(self) -> int:
        return self.table.num_rows

    def select(self, splits: str) -> "Index":
        """The images of `train` (without validation), `val`, `test`, `boxed`, `all`, or several with a comma."""
        wanted = [word.strip() for word in splits.split(",")]
        for word in wanted:
            if word not in SELECTIONS:
                raise UsageError(
                    f"There is no split named {word!r}.{did_you_mean(word, SELECTIONS)}",
                    f"Splits are {', '.join(SELECTIONS)}; several with a comma.",
                )
        keep = np.zeros(len(self), dtype=bool)
        for word in wanted:
            keep |= self._is(word)
        if not keep.any():
            there = ", ".join(f"{word} {int(self._is(word).sum()):,}" for word in SELECTIONS)
            raise CxrError(f"{self.root} has no images in split {splits}.", f"It has: {there}.")
        return self.filter(keep)

    def _is(self, word: str) -> np.ndarray:
        if word == "all":
            return np.ones(len(self), dtype=bool)
        if word == "boxed":
            return self.table["boxed"].to_numpy()
        return pc.equal(self.table["split"], word).to_numpy()

    def filter(self, keep: np.ndarray) -> "Index":
        """The rows where `keep` is true, and their boxes and masks."""
        table = self.table.filter(pa.array(keep)).combine_chunks()
        organs = None if self.organs is None else rows_of(self.organs, table["image_id"])
        return replace(self, table=table, boxes=rows_of(self.boxes, table["image_id"]), organs=organs)

    def present(self) -> tuple["Index", Dropped | None]:
        """The rows whose file exists, and the ledger's entry for the others."""
        here = pc.is_valid(self.table["path"]).to_numpy()
        if here.all():
            return self, None
        missing = self.table["image_id"].filter(pa.array(~here)).to_pylist()
        return self.filter(here), dropped(NO_FILE, missing)[0]

    def labels(self, findings: Sequence[str] | None = None) -> np.ndarray:
        """N×C int8, columns in the order asked for; UNMENTIONED where nobody said anything."""
        chosen = self.findings if findings is None else tuple(findings)
        self._refuse_unknown(chosen)
        values = np.empty((len(self), len(chosen)), dtype=np.int8)
        for column, finding in enumerate(chosen):
            label = pc.struct_field(self.table["labels"], finding)
            values[:, column] = pc.fill_null(label, UNMENTIONED).to_numpy()
        return values

    def restrict(self, findings: Sequence[str], absent_as_null: bool = False) -> "Index":
        """The same images with these findings in this order; boxes of other findings go.

        absent_as_null: a finding this dataset does not know becomes one that nobody mentioned. A run that learned 14
        findings can then read a dataset in which one of them never occurs.
        """
        if not absent_as_null:
            self._refuse_unknown(findings)
        nobody = pa.nulls(len(self), pa.int8())
        columns = [
            pc.struct_field(self.table["labels"], f).combine_chunks() if f in self.findings else nobody
            for f in findings
        ]
        boxes = self.boxes.filter(pc.is_in(self.boxes["finding"], value_set=pa.array(findings, pa.string())))
        boxed = pc.is_in(self.table["image_id"], value_set=boxes["image_id"].combine_chunks())
        table = self.table.set_column(
            self.table.column_names.index("labels"), "labels", pa.StructArray.from_arrays(columns, names=list(findings))
        ).set_column(self.table.column_names.index("boxed"), "boxed", boxed)
        return replace(self, findings=tuple(findings), table=table.combine_chunks(), boxes=boxes.combine_chunks())

    def _refuse_unknown(self, findings: Iterable[str]) -> None:
        unknown = [f for f in findings if f not in self.findings]
        if unknown:
            raise CxrError(
                f"{self.root} has no finding named {', '.join(unknown)}.{did_you_mean(unknown[0], self.findings)}",
                f"Its findings are {', '.join(self.findings)}.",
            )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what the dataset says, whatever the order of its rows, its folder, and the files that are there."""
        table = self.table.sort_by("image_id")
        findings = sorted(self.findings)
        keys = [(name, "ascending") for name in BOX_SCHEMA.names]
        boxes = self.boxes.sort_by(keys)
        digest = hashlib.sha256(json.dumps(findings).encode())
        for column in (table["image_id"], table["split"], table["patient_id"], boxes["image_id"], boxes["finding"]):
            digest.update(json.dumps(column.to_pylist()).encode())
        digest.update(replace(self, table=table).labels(findings).tobytes())
        digest.update(corners(boxes).astype("<f8").tobytes())
        if boxes["reader"].null_count < len(boxes):
            digest.update(json.dumps(boxes["reader"].to_pylist()).encode())
        return digest.hexdigest()


def corners(boxes: pa.Table) -> np.ndarray:
    """The four corner columns as n×4 float64."""
    return np.column_stack([boxes[name].to_numpy() for name in COORDINATES]).reshape(-1, 4)


def rows_of(table: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
    """Of boxes or masks, those of these images."""
    return table.filter(pc.is_in(table["image_id"], value_set=image_ids.combine_chunks())).combine_chunks()


def in_share(salt: str, patient_id: str, share: float) -> bool:
    """Whether a patient is among `share` of all: the same answer on every machine; a larger share has the smaller."""
    return share >= 1 or _share(salt, patient_id) < share


def is_validation(patient_id: str) -> bool:
    """Whether a training patient is held out for validation: the same answer on every machine, for ever."""
    return _share("validation", patient_id) < VALIDATION_SHARE


def split_by_patient(patient_id: str) -> str:
    """train or test, for a dataset without official lists."""
    return "test" if _share("test", patient_id) < TEST_SHARE else "train"


def _share(salt: str, patient_id: str) -> float:
    """A number in 0..1 from a patient's name. Another salt, another draw: validation does not hang on test."""
    digest = hashlib.sha256(f"cxrmine {salt} {patient_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
