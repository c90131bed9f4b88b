"""From what a dataset's own tables say to an index: the same checks, splits and ledger for every layout."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.dicom_words import LATERAL_VIEWS
from cxrmine.data.index import (
    BOX_SCHEMA,
    FILE_WITHOUT_ROW,
    IN_NO_LIST,
    LATERAL,
    MASK_OF_ANOTHER,
    MASK_WITHOUT_FILM,
    OF_ANOTHER,
    ORGAN_SCHEMA,
    SECOND_FILE,
    SECOND_MASK,
    UNMENTIONED,
    Dropped,
    Index,
    dropped,
    is_validation,
    split_by_patient,
)
from cxrmine.data.people import SPACING, from_headers
from cxrmine.data.reading import Reading
from cxrmine.data.scale import in_pixels_of_films
from cxrmine.data.tree import Tree, is_safe
from cxrmine.errors import CxrError
from cxrmine.tables import COORDINATES

FILM = re.compile(r".+\.(png|jpe?g|dcm|dicom|img)", re.IGNORECASE)
DICOM = re.compile(r".+\.(dcm|dicom)", re.IGNORECASE)
ENDINGS = re.compile(r"(\.dcm|\.dicom)?\.(png|jpe?g|dcm|dicom|img)$", re.IGNORECASE)
UNSAFE_PATH = "path that leaves the dataset"
TRAIN_AND_VAL = "train and val"  # a split of the dataset's own, of which some patients become `val`
MEND = "Mend those files. A film is named by its path from the dataset's folder down, without .. in it."
NO_SPLIT = "none"  # of an image that the dataset's own lists leave out
NO_DRAW = "split: no official lists here; by a fixed draw, 20 % of the patients are test"
ROWS = pa.schema([(name, pa.string()) for name in ("image_id", "patient_id", "view", "split", "path")])

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Raw:
    """What a layout read. `images` has ROWS, a row an image as the dataset lists them.

    view: null where nobody says. split: train, val, test, TRAIN_AND_VAL or NO_SPLIT; null where the dataset has none.
    path: where the film should be, in the dataset; null where its file cannot be told. Two more columns, width and
    height (int32), where the dataset tells the size of the file.
    told: of patient and view, what the dataset's own tables tell as well as headers of DICOM films could. Where patient
    is not among it, patient_id is the image's name.
    labels: of each finding, in their order, int8 an image; null: not mentioned.
    boxes: as drawn, with the columns of data.drawn.sheet.SCHEMA. drawn_on: words for the films that these were drawn
    on, where those that lie here may be copies of another size; image_width and image_height are then of the former.
    sizes_needed: without these, boxes that reach far beyond a copy are not taken to be in its pixels.
    looked_at: which reader read which image, or None.
    organs: index.ORGAN_SCHEMA, or None; path is null where a mask should be and is not.
    """

    layout: str
    images: pa.Table
    labels: Mapping[str, pa.Array]
    boxes: pa.Table | None = None
    looked_at: pa.Table | None = None
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    occurring: bool = False  # a finding is one only if an image has it
    is_film: Callable[[str], bool] = field(default=lambda name: FILM.fullmatch(name) is not None)
    organs: pa.Table | None = None
    told: tuple[str, ...] = ("patient",)
    drawn_on: str = ""
    sizes_needed: bool = False


def assemble(tree: Tree, raw: Raw, reading: Reading) -> Index:
    usable, ledger = _usable(raw.images)
    ledger = raw.dropped + ledger
    path, file_faults = _paths(tree, raw.images, usable, raw.is_film)
    there = pc.if_else(pa.array(usable), path, None).to_pylist()
    listed, about_headers = from_headers(tree, raw.images, there, raw.told)
    usable, left_out = _chosen(listed, usable, reading)
    names = listed["image_id"].to_numpy()
    order = pa.array(sorted(np.flatnonzero(usable).tolist(), key=lambda row: names[row]), pa.int64())
    images = listed.take(order).combine_chunks()
    ledger += left_out
    if not len(images):
        raise CxrError(f"Nothing is left of {tree} to read: {_ledger_text(ledger)}.", MEND)
    labels = {finding: values.take(order) for finding, values in raw.labels.items()}
    if raw.occurring:
        labels = {finding: values for finding, values in labels.items() if pc.any(pc.equal(values, 1)).as_py()}
    if not labels:
        raise CxrError(f"No image of {tree} has a finding.", "Its labels say of every image that there is none.")
    split, said = _split(images)
    films = dict(zip(images["image_id"].to_pylist(), path.take(order).to_pylist(), strict=True))
    drawn, other_size, scaled = in_pixels_of_films(tree, raw.boxes, films, raw.drawn_on, raw.sizes_needed)
    boxes, box_faults = _boxes(drawn, raw.images["image_id"], images["image_id"], tuple(labels))
    organs, mask_faults = _organs(tree, raw, images["image_id"])
    columns = {
        "image_id": images["image_id"],
        "path": path.take(order),
        "split": split,
        "patient_id": images["patient_id"],
        "view": images["view"],
        "labels": pa.StructArray.from_arrays(list(labels.values()), names=list(labels)),
        "boxed": pc.is_in(images["image_id"], value_set=boxes["image_id"].combine_chunks()),
    }
    columns |= {name: images[name] for name in ("width", "height", *SPACING) if name in images.column_names}
    looked_at = raw.looked_at
    if looked_at is not None:
        looked_at = looked_at.filter(_is_in(looked_at["image_id"], images["image_id"].combine_chunks()))
    return Index(
        tree.root if not tree.base else tree.root / tree.base,
        raw.layout,
        tuple(labels),
        pa.table(columns).combine_chunks(),
        boxes,
        ledger + file_faults + other_size + box_faults + mask_faults,
        (*raw.notes, *about_headers, *said, *scaled),
        looked_at,
        tree,
        organs=organs,
    )


def struct_of(findings: Sequence[str], values: npt.NDArray[np.int8]) -> dict[str, pa.Array]:
    """Labels of Raw from N×C int8, UNMENTIONED where nobody said anything."""
    return {f: pa.array(values[:, c], mask=values[:, c] == UNMENTIONED) for c, f in enumerate(findings)}


def films_by_stem(names: Iterable[str]) -> dict[str, str]:
    """Film names without folder and ending → path: of several the DICOM, then the top before folders."""
    films: dict[str, str] = {}
    for path in sorted(filter(FILM.fullmatch, names), key=lambda p: (not DICOM.fullmatch(p), p.rpartition("/")[0], p)):
        films.setdefault(stem(path), path)
    return films


def films_and(tree: Tree, named: Iterable[str | None]) -> list[str]:
    """Files with a film's ending, and those that are named exactly: a film is told by its content, not by its name."""
    asked = {*named}
    return [name for name in tree.names if FILM.fullmatch(name) or name in asked]


def stem(path: str) -> str:
    """A film's name without folder and ending; of x.dcm.png it is x."""
    return ENDINGS.sub("", path.rpartition("/")[2])


def _ledger_text(ledger: Sequence[Dropped]) -> str:
    shown = (f"{e.reason} ({', for instance '.join((f'{e.count:,}', *e.examples[:1]))})" for e in ledger)
    return "; ".join(shown) or "no rows"


def _usable(images: pa.Table) -> tuple[Bools, tuple[Dropped, ...]]:
    """Not rows whose name could lead out of the dataset, that have no patient, or that name an image again."""
    names, patients = images["image_id"].to_pylist(), images["patient_id"].to_pylist()
    keep = np.zeros(len(names), bool)
    seen: set[str] = set()
    faults: dict[str, list[str]] = {}
    for row, (name, patient) in enumerate(zip(names, patients, strict=True)):
        if name is None or not is_safe(name):
            faults.setdefault("unsafe image name", []).append(repr(name or ""))
        elif not patient:
            faults.setdefault("no patient", []).append(name)
        elif name in seen:
            faults.setdefault("second row of an image", []).append(name)
        else:
            seen.add(name)
            keep[row] = True
    return keep, tuple(entry for reason, examples in faults.items() for entry in dropped(reason, examples))


def _chosen(images: pa.Table, usable: Bools, reading: Reading) -> tuple[Bools, tuple[Dropped, ...]]:
    """Of the usable rows, those that a list has and that show a chest from the front, or from any side if asked for."""
    outside = usable & (images["split"].fill_null("").to_numpy() == NO_SPLIT)
    lateral = usable & ~outside & (reading.views != "all")
    lateral &= _is_in(pc.utf8_upper(images["view"]), pa.array(sorted(LATERAL_VIEWS)))
    names = images["image_id"]
    ledger = dropped(IN_NO_LIST, names.filter(pa.array(outside)).to_pylist())
    ledger += dropped(LATERAL, names.filter(pa.array(lateral)).to_pylist())
    return usable & ~outside & ~lateral, ledger


def _split(images: pa.Table) -> tuple[pa.Array, tuple[str, ...]]:
    """train, val or test of every row. Where the dataset has none, and for its validation part, by a fixed draw."""
    patients = images["patient_id"].combine_chunks().dictionary_encode()
    people = patients.dictionary.to_pylist()
    held_out = pa.array([is_validation(p) for p in people], pa.bool_()).take(patients.indices)
    split = images["split"].combine_chunks()
    notes: tuple[str, ...] = ()
    if split.null_count:  # there is no split, or none of some images
        test = pa.array([split_by_patient(p) == "test" for p in people], pa.bool_()).take(patients.indices)
        drawn = pc.if_else(test, "test", TRAIN_AND_VAL)
        notes = (NO_DRAW,) if split.null_count == len(split) else (f"{NO_DRAW}, of {split.null_count:,} images",)
        split = pc.coalesce(split, drawn)
    return pc.if_else(pc.equal(split, TRAIN_AND_VAL), pc.if_else(held_out, "val", "train"), split), notes


def _paths(
    tree: Tree, images: pa.Table, usable: Bools, is_film: Callable[[str], bool]
) -> tuple[pa.Array, tuple[Dropped, ...]]:
    """Where each film lies, null where it does not; and the films that no row names."""
    wanted = [path if good else None for path, good in zip(images["path"].to_pylist(), usable, strict=True)]
    named = {*wanted}
    films = {name for name in tree.names if is_film(name) or name in named}  # named exactly: whatever its ending
    unsafe = [path for path in wanted if path is not None and not is_safe(path)]
    path = [p if p in films else None for p in wanted]
    ledger = dropped(UNSAFE_PATH, [repr(p) for p in unsafe]) + dropped("unsafe name in an archive", tree.strange)
    strangers = sorted(films - named)
    known = set(images["image_id"].to_pylist())
    again = [name for name in strangers if {(last := name.rpartition("/")[2]), last.rpartition(".")[0]} & known]
    alone = sorted({*strangers} - {*again})
    return pa.array(path, pa.string()), ledger + dropped(FILE_WITHOUT_ROW, alone) + dropped(SECOND_FILE, again)


def _boxes(
    drawn: pa.Table | None, listed: pa.ChunkedArray, images: pa.ChunkedArray, findings: Sequence[str]
) -> tuple[pa.Table, tuple[Dropped, ...]]:
    """Truth boxes. Those that cannot be used are counted: nothing may stand in `boxes` without an area."""
    if drawn is None or not len(drawn):
        return BOX_SCHEMA.empty_table(), ()
    corner = np.column_stack([drawn[name].fill_null(np.nan).to_numpy() for name in COORDINATES])
    whole = np.isfinite(corner).all(axis=1)
    faults = {
        "box without four numbers": ~whole,
        "box of an image without a row": ~_is_in(drawn["image_id"], listed.combine_chunks()),
        OF_ANOTHER: ~_is_in(drawn["image_id"], images.combine_chunks()),
        "box of a finding that no image is labelled with": ~_is_in(drawn["finding"], pa.array(findings, pa.string())),
        "box without an area": whole & (corner[:, 2:] <= corner[:, :2]).any(axis=1),
    }
    keep = np.ones(len(drawn), bool)
    ledger: tuple[Dropped, ...] = ()
    for reason, bad in faults.items():
        ledger += dropped(reason, _box_names(drawn.filter(pa.array(keep & bad))))
        keep &= ~bad
    kept = drawn.filter(pa.array(keep)).select(BOX_SCHEMA.names)
    order = [(name, "ascending") for name in BOX_SCHEMA.names]
    return kept.cast(BOX_SCHEMA).sort_by(order).combine_chunks(), ledger


def _organs(tree: Tree, raw: Raw, images: pa.ChunkedArray) -> tuple[pa.Table | None, tuple[Dropped, ...]]:
    """The masks that are there and whose film is in the index; None where there are none."""
    if raw.organs is None:
        return None, ()
    listed, left, files = set(raw.images["image_id"].to_pylist()), set(images.to_pylist()), {*tree.names, *tree.masks}
    kept: dict[tuple[str, str], str] = {}
    faults: dict[str, list[str]] = {}
    for mask in sorted(raw.organs.to_pylist(), key=lambda mask: (mask["image_id"], mask["organ"], mask["path"] or "")):
        image, organ, path = mask["image_id"], mask["organ"], mask["path"]
        if path is not None and not is_safe(path):
            faults.setdefault(UNSAFE_PATH, []).append(repr(path))
        elif path not in files:
            faults.setdefault("no file for this mask", []).append(f"{image} {organ}")
        elif image not in left:
            faults.setdefault(MASK_OF_ANOTHER if image in listed else MASK_WITHOUT_FILM, []).append(path)
        elif (image, organ) in kept:
            faults.setdefault(SECOND_MASK, []).append(path)
        else:
            kept[image, organ] = path
    ledger = tuple(entry for reason, examples in faults.items() for entry in dropped(reason, examples))
    rows = [(image, organ, path) for (image, organ), path in kept.items()]
    arrays = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return (pa.Table.from_arrays(arrays, schema=ORGAN_SCHEMA) if rows else None), ledger


def _is_in(column: pa.ChunkedArray, known: pa.Array) -> Bools:
    return pc.is_in(column, value_set=known).to_numpy()


def _box_names(drawn: pa.Table) -> list[str]:
    rows = drawn.select(["row", "image_id", "finding", *COORDINATES]).to_pylist()
    return [
        f"row {row['row']}: {row['image_id']} {row['finding']} "
        + ",".join("?" if row[name] is None else f"{row[name]:g}" for name in COORDINATES)
        for row in rows
    ]
