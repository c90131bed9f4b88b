"""Which images and pairs can be counted: the truth's own word first, then the labels of the images that were mined."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.scan import NOT_MINED, Mined
from cxrmine.scoring.judged import ABSENT, JUDGED, SIZES, UNKNOWN, Cover, codes, numbers


class Labels(NamedTuple):
    """What a truth says of images beyond its boxes."""

    images: pa.StringArray  # sorted
    patients: pa.StringArray
    findings: tuple[str, ...]
    values: npt.NDArray[np.int8]  # images × findings: 0 where the finding is known to be absent
    normal: npt.NDArray[np.bool_]  # known to have no finding at all
    sizes: npt.NDArray[np.float64]  # images × 2: width and height, NaN where it does not say
    complete: bool  # every image was searched for every finding, so that what has no box is absent


def build(truth: pa.Table, everything: pa.Table, mined: Mined | None, labels: Labels | None, people: pa.Array) -> Cover:
    """`truth`: the judged boxes; `everything`: the others too; `people`: the names that patients are coded by."""
    findings = sorted(pc.unique(truth["finding"].cast(pa.string())).to_pylist())
    known = _own(truth, labels) if mined is None else (mined.table["image_id"], mined.table["patient_id"])
    images = known[0].combine_chunks() if isinstance(known[0], pa.ChunkedArray) else known[0]
    at, of = codes(truth["image_id"], images), codes(truth["finding"], pa.array(findings, pa.string()))
    absent, normal = _absent(images, findings, mined, labels)
    boxed = pc.is_in(images, value_set=pc.unique(everything["image_id"].cast(pa.string())))
    normal = normal & ~boxed.to_numpy(zero_copy_only=False)
    state = np.where(absent, ABSENT, 0).astype(np.int8)
    state[at, of] = JUDGED
    sizes = _sizes(images, mined, labels)
    drawn = np.stack([numbers(truth, name) for name in SIZES], axis=1)
    sizes[at] = np.where(np.isnan(drawn), sizes[at], drawn)
    return Cover(findings, images, codes(named(*known), people), state, normal, sizes)


def named(images: pa.Array | pa.ChunkedArray, patients: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Each image's patient; where none is known, the image stands for its own."""
    column = pc.coalesce(patients.cast(pa.string()), images.cast(pa.string()))
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def people(truth: pa.Table, mined: Sequence[Mined | None], labels: Labels | None) -> pa.StringArray:
    """The names of all patients that any of these images is of: what a bootstrap draws from."""
    sources = [(one.table["image_id"], one.table["patient_id"]) for one in mined if one is not None]
    if len(sources) < max(len(mined), 1):
        sources.append(_own(truth, labels))
    names = pc.unique(pa.concat_arrays([named(*source) for source in sources]))
    return names.take(pc.sort_indices(names))


def _own(truth: pa.Table, labels: Labels | None) -> tuple[pa.Array, pa.Array]:
    """Image and patient of every image of a truth: nobody says which were mined."""
    image, patient = (truth[name].cast(pa.string()).combine_chunks() for name in ("image_id", "patient_id"))
    if labels is not None and labels.complete:
        image, patient = pa.concat_arrays([image, labels.images]), pa.concat_arrays([patient, labels.patients])
    order = pc.sort_indices(image)
    image, patient = image.take(order), patient.take(order)
    first = np.append(True, pc.not_equal(image[1:], image[:-1]).to_numpy(zero_copy_only=False))[: len(image)]
    return image.filter(pa.array(first)), patient.filter(pa.array(first))


def absent_pairs(cover: Cover, people: pa.StringArray) -> pa.Table:
    """The pairs that are known to be absent, as a table of the columns that controls are placed by."""
    image, finding = np.nonzero(cover.state == ABSENT)
    columns: dict[str, pa.Array] = {
        "image_id": cover.images.take(pa.array(image)),
        "finding": pa.array(cover.findings, pa.string()).take(pa.array(finding)),
        "split": pa.nulls(len(image), pa.string()),
        "patient_id": people.take(pa.array(cover.patient[image])),
    }
    for axis, name in enumerate(SIZES):
        values = cover.sizes[image, axis]
        columns[name] = pa.array(np.nan_to_num(values).astype(np.int32), mask=np.isnan(values))
    return pa.table(columns)


def only(cover: Cover, pairs: pa.Table) -> Cover:
    """The same with all pairs unknown but these."""
    kept = np.zeros_like(cover.state, dtype=bool)
    kept[codes(pairs["image_id"], cover.images), codes(pairs["finding"], pa.array(cover.findings, pa.string()))] = True
    return replace(cover, state=np.where(kept, cover.state, UNKNOWN).astype(np.int8))


def on_images(cover: Cover, images: pa.Array) -> Cover:
    """The same with all pairs unknown but those of these images."""
    there = pc.is_in(cover.images, value_set=images).to_numpy(zero_copy_only=False)
    state = np.where(there[:, None], cover.state, UNKNOWN).astype(np.int8)
    return replace(cover, state=state, normal=cover.normal & there)


def judged_by(cover: Cover, truth: pa.Table) -> pa.BooleanArray:
    """Which truth boxes are of pairs that this cover judges."""
    image, finding = (
        codes(truth["image_id"], cover.images),
        codes(truth["finding"], pa.array(cover.findings, pa.string())),
    )
    return pa.array(cover.state[image, finding] == JUDGED)


def _sizes(images: pa.StringArray, mined: Mined | None, labels: Labels | None) -> npt.NDArray[np.float64]:
    if mined is not None:
        return np.stack([numbers(mined.table, name) for name in ("width", "height")], axis=1)
    if labels is None:
        return np.full((len(images), 2), np.nan)
    at = pc.fill_null(pc.index_in(images, value_set=labels.images), -1).to_numpy()
    return np.append(labels.sizes, np.full((1, 2), np.nan), axis=0)[at]


def _absent(
    images: pa.StringArray, findings: Sequence[str], mined: Mined | None, labels: Labels | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(images × findings known to be absent, images known to be normal)."""
    absent, normal = np.zeros((len(images), len(findings)), dtype=bool), np.zeros(len(images), dtype=bool)
    if labels is not None:
        at = pc.fill_null(pc.index_in(images, value_set=labels.images), -1).to_numpy()
        columns = [labels.findings.index(finding) for finding in findings]
        none = np.zeros((1, len(findings)), dtype=bool)  # for an image that the truth does not have
        absent, normal = (
            np.append(labels.values[:, columns] == 0, none, axis=0)[at],
            np.append(labels.normal, False)[at],
        )
    if mined is None:
        return absent, normal
    theirs = labels_of(mined, findings)
    if labels is None:
        absent, normal = theirs == 0, (mined.negative == mined.asked) & (mined.asked > 0)
    if not mined.searched:  # a pair that nobody looked at has no box, but that says nothing
        absent = absent & (theirs != NOT_MINED)
        normal = normal & (theirs != NOT_MINED).all(axis=1)
    return absent, normal & mined.readable


def labels_of(mined: Mined, findings: Sequence[str]) -> npt.NDArray[np.int8]:
    """Images × findings: the labels of what was mined, in this order of findings."""
    place = {name: k for k, name in enumerate(mined.findings)}
    padded = np.append(mined.labels, np.full((len(mined.labels), 1), NOT_MINED, np.int8), axis=1)
    return padded[:, [place.get(name, -1) for name in findings]]
