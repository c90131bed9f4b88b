"""The truth a score is against: all of it, the part that is judged, and what it says of images without a box.

What it does not say of its images (size, patient, split) is taken from the predictions; a size that they do not know
either, from the files of the dataset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.door import refuse_outside
from cxrmine.boxes.lint import lint, rename, report, summary, without_faults
from cxrmine.boxes.scan import Mined
from cxrmine.boxes.table import TRUTH_SCHEMA, truth_table
from cxrmine.data.datasets import open_dataset
from cxrmine.data.drawn.read import read_drawn
from cxrmine.data.drawn.sheet import looked_at as looked_at_table
from cxrmine.data.encoded import Unreadable
from cxrmine.data.index import SPLITS, Index
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.scoring.cover import Labels
from cxrmine.scoring.judged import numbers
from cxrmine.scoring.readers import How, merged, refuse_unknown_how

OF_THE_IMAGE = {"split": "split", "patient_id": "patient_id", "image_width": "width", "image_height": "height"}
SIZE = ("image_width", "image_height")
CONSENSUS = "consensus"
NEAR = 0.8  # how alike two words are of which one is the other misspelt; Pneumonia and Pneumothorax are 0.67
GIVEN = [name for name in TRUTH_SCHEMA.names if name in ("image_id", "finding", "x_min", "y_min", "x_max", "y_max")]


@dataclass(frozen=True)
class Asked:
    path: Path  # a dataset's folder, or a file
    splits: tuple[str, ...] = ()  # judge truth of these; none: of all
    findings: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None  # what a CSV calls ours
    names: Mapping[str, str] | None = None  # findings to rename, as written → as meant
    readers: How = "fused"  # what becomes of boxes that several readers drew
    skip_faulty: bool = False


class Truth(NamedTuple):
    everything: pa.Table
    judged: pa.Table
    images: pa.Array | None  # all of the dataset's, where the truth is a dataset
    not_mined: int  # boxes that were chosen, but are on images that a prediction has not mined
    dataset: str  # the dataset's fingerprint, where the truth is one
    labels: Labels | None
    drawn: pa.Table | None  # where several readers drew: the judged boxes, each with its reader …
    looked_at: pa.Table | None  # … and who looked at which image
    readers: How  # how these boxes became one truth
    notes: tuple[str, ...]
    of: Index | None  # the dataset, where the truth is one


class Seen(NamedTuple):
    """What a prediction knows of images, and whether each of them was mined."""

    name: str
    images: pa.Table  # image_id and the columns of OF_THE_IMAGE; where none was said to be mined, a row a box, with it
    mined: bool
    findings: tuple[str, ...] = ()  # that it was mined for, or has boxes of


def seen(name: str, mined: Mined | None, boxes: pa.Table | None) -> Seen:
    if mined is not None:
        return Seen(name, mined.table, True, mined.findings)
    theirs = boxes if boxes is not None else TRUTH_SCHEMA.empty_table()
    columns = {their: theirs[ours] for ours, their in OF_THE_IMAGE.items()} | {n: theirs[n] for n in GIVEN}
    return Seen(name, pa.table(columns), False, tuple(pc.unique(theirs["finding"].cast(pa.string())).to_pylist()))


def read(asked: Asked, predictions: Sequence[Seen] = ()) -> Truth:
    """The truth in a dataset's folder or a file; judged is that of the splits and findings that are asked for."""
    path = asked.path
    refuse_unknown_how(asked.readers)
    index = open_dataset(path) if path.is_dir() else None
    theirs = tuple(dict.fromkeys(word for prediction in predictions for word in prediction.findings))
    drawn, looked_at, notes = _of_file(asked, theirs) if index is None else _of_dataset(index, asked, theirs)
    several = len(pc.unique(drawn["reader"].drop_null())) > 1
    everything = truth_table(_plain(merged(drawn, asked.readers))) if several else drawn
    for prediction in predictions:
        everything, drawn = (_filled(t, prediction.images, OF_THE_IMAGE) for t in (everything, drawn))
    if index is not None:
        everything = _filled(everything, _headers(index, everything), {name: name for name in SIZE})
    refuse_outside(everything, str(path))
    for prediction in predictions:
        if not prediction.mined:
            _refuse_other_pixels(prediction, everything)
    chosen = _chosen(everything, asked)
    judged = _on_mined_images(chosen, predictions)
    if several:
        notes = (*notes, f"{len(drawn):,} boxes of several readers became {len(everything):,} ({asked.readers}).")
    own = drawn.filter(_same_pairs(drawn, judged)) if several else None
    images = None if index is None else index.table["image_id"].combine_chunks()
    fingerprint = "" if index is None else index.fingerprint
    labels = _labels(index, looked_at, everything, judged)
    told = (len(chosen) - len(judged), fingerprint, labels, own, looked_at, asked.readers, notes, index)
    return Truth(everything, judged, images, *told)


def refuse_strangers(truth: pa.Table, predictions: Sequence[Seen], where: str) -> None:
    """Findings that have nothing in common would be nothing but misses."""
    findings = pc.unique(truth["finding"].cast(pa.string())).to_pylist()
    for prediction in predictions:
        theirs = [word for word in prediction.findings if word is not None]
        if theirs and not set(theirs) & set(findings):
            raise CxrError(
                f"{prediction.name} has no finding of {where}: it knows {', '.join(sorted(theirs))}, and the truth "
                f"has {', '.join(sorted(findings))}.",
                f"Say which is which, for instance --name '{sorted(findings)[0]}={sorted(theirs)[0]}'.",
            )


def refuse_misspelt(judged: pa.Table, known: Mapping[str, Sequence[str]]) -> None:
    """A truth finding that a method was never asked for, but nearly: its pairs would all count as missed."""
    findings = pc.unique(judged["finding"].cast(pa.string())).to_pylist()
    for method, words in known.items():
        lowered = {word.lower(): word for word in words}
        for finding in findings:
            near = get_close_matches(finding.lower(), lowered, 1, cutoff=NEAR)
            if finding not in words and near:
                theirs = lowered[near[0]]
                raise CxrError(
                    f"The truth has boxes of {finding}, which {method} does not know. Did you mean {theirs}?",
                    f"Say so with --name {finding}={theirs}, rename it in the boxes, or judge others with --finding.",
                )


def _of_file(asked: Asked, theirs: tuple[str, ...]) -> tuple[pa.Table, pa.Table | None, tuple[str, ...]]:
    """(boxes, the images that were looked at, what to say of it) of a file in any known form, once it is in order."""
    drawn = read_drawn(asked.path, asked.columns)
    known = None if drawn.vocabulary is None else (*drawn.vocabulary, *theirs)  # a finding may take a prediction's name
    table = rename(drawn.table, asked.names, known) if asked.names else drawn.table
    allowed = None if drawn.vocabulary is None else (*drawn.vocabulary, *(asked.names or {}).values())
    faults = lint(table, findings=allowed, without_box=drawn.without_box, units=drawn.units)
    if any(fault.row for fault in faults) and not asked.skip_faulty:
        renamed = ", rename findings with --name" * any(fault.kind == "unknown finding" for fault in faults)
        cure = f"Mend them{renamed}, or leave them out with --skip-faulty."
        raise CxrError(report(faults, str(asked.path), len(table)), cure)
    kept = without_faults(table, faults)
    notes = [f"Truth: {drawn.kind}, {asked.path.name}, {len(kept):,} boxes."]
    if faults:  # those of no row, images without a box, leave nothing out
        left_out = len(table) - len(kept)
        said = f"{left_out:,} of {len(table):,} rows of truth left out" if left_out else "Of this truth"
        notes.append(f"{said}: {'; '.join(summary(faults))}.")
    if drawn.made_by:
        notes.append(f"CAREFUL: the boxes of this truth come from {', '.join(drawn.made_by)}, not from people.")
    return truth_table(_plain(kept)), drawn.looked_at, tuple(notes)


def _plain(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that a truth table is built from."""
    return {name: table[name] for name in (*GIVEN, *OF_THE_IMAGE, "reader") if name in table.column_names}


def _of_dataset(index: Index, asked: Asked, also: tuple[str, ...]) -> tuple[pa.Table, pa.Table | None, tuple[str, ...]]:
    """The boxes of a dataset with what its index knows of their images."""
    boxes, images = index.boxes, index.table
    for flag, given in (("--columns", asked.columns), ("--skip-faulty", asked.skip_faulty)):
        if given:
            raise UsageError(f"{flag} is for truth in a file, and {asked.path} is a dataset.", "Leave it out.")
    if asked.names:
        boxes = rename(boxes, asked.names, (*index.findings, *also))
    at = pc.index_in(boxes["image_id"], images["image_id"].combine_chunks())
    columns = {name: boxes[name] for name in GIVEN}
    if boxes["reader"].null_count < len(boxes):  # those that name none are what the others agreed on
        columns["reader"] = boxes["reader"].fill_null(CONSENSUS)
    for name, theirs in OF_THE_IMAGE.items():
        if theirs in images.column_names:
            columns[name] = images[theirs].take(at)
    lost = [entry for entry in index.dropped if "box" in entry.reason]
    notes = [f"Truth: {index.layout}, {len(boxes):,} boxes."]
    notes += [f"{entry.count:,} boxes of the dataset cannot be used: {entry.reason}." for entry in lost]
    names = None if index.looked_at is None else {name: index.looked_at[name] for name in ("image_id", "reader")}
    return truth_table(columns), names and looked_at_table(names), tuple(notes)


def _labels(index: Index | None, looked_at: pa.Table | None, everything: pa.Table, judged: pa.Table) -> Labels | None:
    """What is known of pairs without a box: a dataset's labels, or that its readers looked at every image for all."""
    findings = sorted(pc.unique(judged["finding"].cast(pa.string())).to_pylist())
    if index is not None:
        table, labels = index.table, index.restrict(findings, absent_as_null=True).labels()
        normal = (index.labels() == 0).all(axis=1)
        images, patients = (table[name].combine_chunks() for name in ("image_id", "patient_id"))
        unknown = np.full((len(images), 2), np.nan)
        return Labels(images, patients, tuple(findings), labels, normal, unknown, complete=False)
    if looked_at is None:
        return None
    columns = ["patient_id", *SIZE]
    table = looked_at.group_by("image_id").aggregate([(name, "min") for name in columns]).sort_by("image_id")
    images, patients = (table[name].combine_chunks() for name in ("image_id", "patient_id_min"))
    boxed = pc.is_in(images, value_set=pc.unique(everything["image_id"].cast(pa.string())))
    sizes = np.stack([numbers(table, f"{name}_min") for name in SIZE], axis=1)
    values = np.zeros((len(images), len(findings)), np.int8)
    normal = ~boxed.to_numpy(zero_copy_only=False)
    return Labels(images, patients, tuple(findings), values, normal, sizes, complete=True)


def _same_pairs(table: pa.Table, judged: pa.Table) -> pa.ChunkedArray:
    def keys(of: pa.Table) -> pa.ChunkedArray:
        return pc.binary_join_element_wise(*(of[name].cast(pa.string()) for name in ("image_id", "finding")), "\0")

    return pc.is_in(keys(table), value_set=keys(judged).combine_chunks())


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


def _refuse_other_pixels(prediction: Seen, truth: pa.Table) -> None:
    """Boxes that do not say their image's size, beyond the sides that the truth knows of it."""
    known = {theirs: ours for ours, theirs in OF_THE_IMAGE.items()}
    boxes = prediction.images.rename_columns([known.get(name, name) for name in prediction.images.column_names])
    refuse_outside(_filled(boxes, truth, {name: name for name in SIZE}), prediction.name)


def _headers(index: Index, truth: pa.Table) -> pa.Table:
    """The size of every image of unknown size, as its file says; an image whose file cannot be read has no row."""
    unknown = truth.filter(pc.or_(*(pc.is_null(truth[name]) for name in SIZE)))["image_id"].cast(pa.string())
    there = index.table.filter(pc.is_in(index.table["image_id"], value_set=pc.unique(unknown)))
    rows = []
    for image_id, path in zip(there["image_id"].to_pylist(), there["path"].to_pylist(), strict=True):
        if path is not None:
            try:
                rows.append((image_id, *index.films.size(path)))
            except Unreadable:
                continue  # stays without a size: the controls say how many pairs they have no box for
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    kinds = (pa.string(), pa.int32(), pa.int32())
    return pa.table(dict(zip(("image_id", *SIZE), map(pa.array, columns, kinds), strict=True)))


def _chosen(truth: pa.Table, asked: Asked) -> pa.Table:
    path, splits, findings = asked.path, asked.splits, asked.findings
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
                f"{path} has no truth boxes of {word or 'an empty name'}.{did_you_mean(word, known)}",
                f"It has {', '.join(known)}.",
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


def _on_mined_images(judged: pa.Table, predictions: Sequence[Seen]) -> pa.Table:
    """The truth on images that every prediction has mined, with or without a box.

    Without an images table nobody can tell an image that was not mined from one where nothing was found: all count.
    """
    chosen = judged
    for prediction in predictions:
        if not prediction.mined:
            continue
        mined = prediction.images["image_id"].combine_chunks()
        there = pc.is_in(chosen["image_id"].cast(pa.string()), value_set=mined)
        if not pc.any(there).as_py():
            raise CxrError(
                f"No image of {prediction.name} has a truth box among those to be judged.",
                "Mine images that have truth (--split boxed), or name other truth, or another --split or --finding.",
            )
        judged = judged.filter(pc.is_in(judged["image_id"].cast(pa.string()), value_set=mined))
    if len(judged) == 0:
        raise CxrError("No image with truth is in all these tables.", "Score them one by one, or mine one split.")
    return judged
