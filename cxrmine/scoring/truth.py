"""The truth a score is against: all of it, and the part that is judged.

What it does not say of its images (size, patient, split) is taken from the predictions; a size that they do not know
either, from the files of the dataset.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.door import read_truth, refuse_outside
from cxrmine.boxes.shards import Boxes
from cxrmine.boxes.table import truth_table
from cxrmine.data.encoded import Unreadable
from cxrmine.data.images import image_size
from cxrmine.data.index import SPLITS, Index
from cxrmine.data.layouts import open_dataset
from cxrmine.errors import CxrError, UsageError, did_you_mean

OF_THE_IMAGE = {"split": "split", "patient_id": "patient_id", "image_width": "width", "image_height": "height"}
SIZE = ("image_width", "image_height")


class Truth(NamedTuple):
    everything: pa.Table
    judged: pa.Table
    images: set[str] | None  # all of the dataset's, where the truth is a dataset
    not_mined: int  # boxes that were chosen, but are on images that a prediction has not mined
    dataset: str  # the dataset's fingerprint, where the truth is one


def read(
    path: Path,
    splits: Sequence[str] = (),
    findings: Sequence[str] = (),
    predictions: Sequence[tuple[str, Boxes]] = (),
) -> Truth:
    """The truth in a dataset's folder, Parquet or CSV; judged is that of these splits and findings (none: of all)."""
    index = open_dataset(path) if path.is_dir() else None
    everything = read_truth(path) if index is None else _of_dataset(index)
    for _, boxes in predictions:
        if boxes.images is not None:
            everything = _filled(everything, boxes.images, OF_THE_IMAGE)
        everything = _filled(everything, boxes.table, {name: name for name in OF_THE_IMAGE})
    if index is not None:
        everything = _filled(everything, _headers(index, everything), {name: name for name in SIZE})
    refuse_outside(everything, str(path))
    chosen = _chosen(everything, path, splits, findings)
    judged = _on_mined_images(chosen, predictions)
    images = None if index is None else set(index.table["image_id"].to_pylist())
    fingerprint = "" if index is None else index.fingerprint
    return Truth(everything, judged, images, len(chosen) - len(judged), fingerprint)


def _of_dataset(index: Index) -> pa.Table:
    """The boxes of a dataset with what its index knows of their images."""
    boxes, images = index.boxes, index.table
    at = pc.index_in(boxes["image_id"], images["image_id"].combine_chunks())
    columns = {name: boxes[name] for name in ("image_id", "finding", "x_min", "y_min", "x_max", "y_max")}
    for name, theirs in OF_THE_IMAGE.items():
        if theirs in images.column_names:
            columns[name] = images[theirs].take(at)
    return truth_table(columns)


def _filled(truth: pa.Table, images: pa.Table, names: dict[str, str]) -> pa.Table:
    """`truth` with its nulls filled from the rows of `images`; `names`: truth's column → theirs."""
    ours = truth["image_id"].cast(pa.string())
    for name, theirs in names.items():
        if truth[name].null_count == 0:
            continue
        place, plain = truth.schema.get_field_index(name), pa.string() if name not in SIZE else pa.int32()
        known = images.filter(pc.is_valid(images[theirs]))
        at = pc.index_in(ours, value_set=known["image_id"].cast(pa.string()).combine_chunks())
        values = pc.coalesce(truth[name].cast(plain), known[theirs].cast(plain).take(at))
        truth = truth.set_column(place, truth.schema.field(place), values.cast(truth.schema.field(place).type))
    return truth


def _headers(index: Index, truth: pa.Table) -> pa.Table:
    """The size of every image of unknown size, as its file says; an image whose file cannot be read has no row."""
    unknown = truth.filter(pc.or_(*(pc.is_null(truth[name]) for name in SIZE)))["image_id"].cast(pa.string())
    there = index.table.filter(pc.is_in(index.table["image_id"], value_set=pc.unique(unknown)))
    rows = []
    for image_id, path in zip(there["image_id"].to_pylist(), there["path"].to_pylist(), strict=True):
        if path is not None:
            try:
                rows.append((image_id, *image_size(index.root / path)))
            except Unreadable:
                continue  # stays without a size: the controls say how many pairs they have no box for
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    kinds = (pa.string(), pa.int32(), pa.int32())
    return pa.table(dict(zip(("image_id", *SIZE), map(pa.array, columns, kinds), strict=True)))


def _chosen(truth: pa.Table, path: Path, splits: Sequence[str], findings: Sequence[str]) -> pa.Table:
    for word in splits:
        if word not in SPLITS:
            raise UsageError(
                f"There is no split of truth named {word!r}.{did_you_mean(word, SPLITS)}",
                f"Splits are {', '.join(SPLITS)}; several with a comma.",
            )
    known = sorted(pc.unique(truth["finding"].cast(pa.string())).to_pylist())
    for word in findings:
        if word not in known:
            raise CxrError(
                f"{path} has no truth boxes of {word}.{did_you_mean(word, known)}", f"It has {', '.join(known)}."
            )
    judged = truth
    for name, wanted in (("split", splits), ("finding", findings)):
        if wanted:
            judged = judged.filter(pc.is_in(judged[name].cast(pa.string()), value_set=pa.array(wanted, pa.string())))
    if len(judged) == 0:
        words = " and ".join(", ".join(wanted) for wanted in (splits, findings) if wanted)
        raise CxrError(
            f"{path} has no truth boxes{' of ' + words if words else ''}.",
            "Name a dataset that has boxes, or a table of them, with --truth.",
        )
    return judged


def _on_mined_images(judged: pa.Table, predictions: Sequence[tuple[str, Boxes]]) -> pa.Table:
    """The truth on images that every prediction has mined, with or without a box.

    Without an images table nobody can tell an image that was not mined from one where nothing was found: all count.
    """
    chosen = judged
    for name, boxes in predictions:
        if boxes.images is None:
            continue
        mined = pc.unique(boxes.images["image_id"].cast(pa.string()))
        if not pc.any(pc.is_in(chosen["image_id"].cast(pa.string()), value_set=mined)).as_py():
            raise CxrError(
                f"No image of {name} has a truth box among those to be judged.",
                "Mine images that have truth (--split boxed), or name other truth, or another --split or --finding.",
            )
        judged = judged.filter(pc.is_in(judged["image_id"].cast(pa.string()), value_set=mined))
    if len(judged) == 0:
        raise CxrError("No image with truth is in all these tables.", "Score them one by one, or mine one split.")
    return judged
