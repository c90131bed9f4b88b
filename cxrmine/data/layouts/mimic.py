"""MIMIC-CXR-JPG 2.0.0 and 2.1.0, and MIMIC-CXR (DICOM) with MIMIC-CXR-JPG's tables copied beside its own.

Johnson et al. 2019, "MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs" and "MIMIC-CXR, a
de-identified publicly available database of chest radiographs with free-text reports". 377,110 films of 227,835 studies
and 65,379 patients, at full size (most are 2,544×3,056 or 3,056×2,544).

mimic-cxr-2.0.0-metadata.csv.gz (also in 2.1.0; other version numbers are taken too)
    dicom_id, subject_id, study_id, ViewPosition, Rows and Columns (the film's height and width), and others.
    ViewPosition is AP 147,173, PA 96,161, LATERAL 82,853, LL 35,133, empty about 15,800 times, and 22 films have rarer
    words. LATERAL, LL and XTABLE LATERAL are side views; empty is null, and such films are read as frontal ones, though
    some are not; so are the 8 oblique ones (LAO, LPO, RAO, SWIMMERS).
cxr-record-list.csv.gz
    subject_id, study_id, dicom_id, path: MIMIC-CXR's own list, read where there is no metadata. It tells no view:
    DICOM films have one in their header, and side views of JPG films stay in; a note says so.
mimic-cxr-2.0.0-chexpert.csv.gz, mimic-cxr-2.0.0-negbio.csv.gz
    subject_id, study_id, then 14 columns, as CheXpert has them: 1.0, 0.0, -1.0 or blank, mined from the report of the
    study, so all its films have the same; also what only another film of the study shows. 227,827 studies have labels;
    films of the others have none, and are counted. CheXpert's labels are read where both are there; to read NegBio's,
    say labels = "negbio" under columns. `No Finding` is no finding to mine (see layouts.chexpert).
mimic-cxr-2.0.0-split.csv.gz
    dicom_id, split: train, validate (`val` here), test; by patient. Without it, patients are drawn.
files/p10/p10000032/s50414267/<dicom_id>.jpg or .dcm, also without files/
    The films. Where both are there the JPG is read.

Tables may be unpacked. `image_id` is dicom_id as it stands, without an ending: unique, and the same in JPG and DICOM.
Rows and Columns are not those of copies that somebody made smaller: a few films are measured, and if one is of another
size, no size is told. Reports, mimic-cxr-2.1.0-test-set-labeled.csv and MS-CXR's boxes are not read.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import NO_SPLIT, Raw
from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.index import WITHOUT_IMAGE, Dropped, dropped
from cxrmine.data.layouts import chexpert
from cxrmine.data.reading import Reading
from cxrmine.data.rows import read_rows
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError, UsageError, did_you_mean, rows_text

COLUMNS = ("labels",)
SHAPE = "MIMIC-CXR or MIMIC-CXR-JPG (mimic-cxr-*-metadata.csv.gz or cxr-record-list.csv.gz in the folder)"
RECORDS = "cxr-record-list.csv"
IDS = ("dicom_id", "subject_id", "study_id")
LABELERS = ("chexpert", "negbio")
SPLITS = {"train": "train", "validate": "val", "test": "test"}
FILM = re.compile(r"(?:.*/)?(p\d\d/p\d+/s\d+/[^/]+)\.(?:jpe?g|png|dcm)", re.IGNORECASE)
MEASURED = 4  # films whose size is compared with what the metadata say


def recognise(tree: Tree) -> str:
    name = next(iter(_files(tree, "metadata")), None) or tree.first(RECORDS)
    return f"{name} is in it" if name else ""


def read(tree: Tree, reading: Reading) -> Raw:
    metadata = _only(tree, "metadata")
    name = metadata or tree.first(RECORDS) or RECORDS
    sheet, ledger = read_rows(tree, name, IDS, ("ViewPosition", "Rows", "Columns"))
    dicom, subject, study = (sheet.columns[column] for column in IDS)
    labels, label_faults, notes = _labels(tree, reading, _study(subject, study))
    if not metadata:
        notes += (
            f"views: not in {name}, so that side views stay in where no DICOM header tells them; copy "
            "mimic-cxr-2.0.0-metadata.csv.gz beside it",
        )
    split, split_faults, said = _split(tree, dicom)
    columns = {
        "image_id": dicom,
        "patient_id": subject,
        "view": sheet.text("ViewPosition"),
        "split": split,
        "path": _paths(tree, dicom, subject, study),
    }
    sizes, size_notes = _sizes(tree, sheet, columns["path"])
    return Raw(
        "MIMIC-CXR",
        pa.table(columns | sizes),
        labels,
        dropped=ledger + label_faults + split_faults,
        notes=(*notes, *said, *size_notes),
        is_film=lambda path: FILM.fullmatch(path) is not None,
        told=("patient", "view") if metadata else ("patient",),  # the metadata's views are those of the headers
    )


def _files(tree: Tree, kind: str) -> list[str]:
    """The files of one kind, of any version; X.csv beside X.csv.gz is one, read unpacked."""
    form = re.compile(rf"mimic-cxr-[\d.]+-{kind}\.csv(\.gz)?")
    found = [name for name in tree.top if form.fullmatch(name) and tree.has(name)]
    return [name for name in found if not name.endswith(".gz") or name.removesuffix(".gz") not in found]


def _only(tree: Tree, kind: str) -> str | None:
    found = _files(tree, kind)
    if len(found) > 1:
        raise CxrError(f"{tree} has {len(found)} files of {kind}: {', '.join(found)}.", "Keep the one to use.")
    return found[0] if found else None


def _study(subject: pa.Array, study: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(subject, study, "/")


def _labels(
    tree: Tree, reading: Reading, study: pa.Array
) -> tuple[dict[str, pa.Array], tuple[Dropped, ...], tuple[str, ...]]:
    """The labels of every film, by its study; the ledger and notes."""
    name, note = _label_file(tree, reading)
    sheet, ledger = read_rows(tree, name, IDS[1:], chexpert.FINDINGS)
    known = [finding for finding in chexpert.FINDINGS if finding in sheet.columns]
    of_study = _study(*(sheet.columns[column] for column in IDS[1:]))
    sheet, of_study, again = _once(sheet, of_study)
    strangers = of_study.filter(pc.invert(pc.is_in(of_study, value_set=study)))
    ledger += dropped(f"{name}: second row of a study", again)
    ledger += dropped(WITHOUT_IMAGE, sorted(strangers.to_pylist()))
    row = pc.index_in(study, value_set=of_study)
    labels = {finding: values.take(row) for finding, values in chexpert.labels(sheet, known).items()}
    notes = (note, f"images of studies without labels: {row.null_count:,}") if row.null_count else (note,)
    return labels, ledger, notes


def _label_file(tree: Tree, reading: Reading) -> tuple[str, str]:
    """The table of labels to read, and a note of it."""
    there = {labeler: name for labeler in LABELERS if (name := _only(tree, labeler))}
    wanted = reading.columns.get("labels", "")
    if wanted and wanted not in LABELERS:
        raise UsageError(
            f"There are no labels named {wanted!r}.{did_you_mean(wanted, LABELERS)}",
            f"There are {', '.join(LABELERS)}.",
        )
    if not there or (wanted and wanted not in there):
        kinds = wanted or " or ".join(LABELERS)
        raise CxrError(
            f"{tree} has no labels: no file mimic-cxr-*-{kinds}.csv.gz.", "Copy it there from MIMIC-CXR-JPG."
        )
    chosen = wanted or next(iter(there))
    others = [f'{name} is there too (labels = "{labeler}")' for labeler, name in there.items() if labeler != chosen]
    return there[chosen], "; ".join([f"labels: {there[chosen]}", *others])


def _once(sheet: Sheet, keys: pa.Array) -> tuple[Sheet, pa.Array, list[str]]:
    """The first row of every key, and the keys that come again."""
    encoded = keys.dictionary_encode()
    if len(encoded.dictionary) == len(keys):
        return sheet, keys, []
    place = encoded.indices.to_numpy()
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(place, return_index=True)[1]] = True
    return sheet.filter(first), keys.filter(pa.array(first)), keys.filter(pa.array(~first)).to_pylist()


def _split(tree: Tree, dicom: pa.Array) -> tuple[pa.Array, tuple[Dropped, ...], tuple[str, ...]]:
    """The split of every film, null where there is no list."""
    name = _only(tree, "split")
    if not name:
        return pa.nulls(len(dicom), pa.string()), (), ()
    sheet, ledger = read_rows(tree, name, ("dicom_id", "split"))
    encoded = sheet.columns["split"].dictionary_encode()
    words = encoded.dictionary.to_pylist()
    for word in words:
        if word not in SPLITS:
            rows = sheet.row[pc.equal(sheet.columns["split"], word).to_numpy(zero_copy_only=False)].tolist()
            raise CxrError(f"{sheet.where}: split is {word!r} in {rows_text(rows)}.", f"It knows {', '.join(SPLITS)}.")
    split = pa.array([SPLITS[word] for word in words], pa.string()).take(encoded.indices)
    row = pc.index_in(dicom, value_set=sheet.columns["dicom_id"])
    return pc.fill_null(split.take(row), NO_SPLIT), ledger, (f"split: official ({name})",)


def _paths(tree: Tree, dicom: pa.Array, subject: pa.Array, study: pa.Array) -> pa.Array:
    """Where each film lies: of several the JPG, and files/ before other folders."""
    films: dict[str, str] = {}
    found = [(name.lower().endswith(".dcm"), name, match[1]) for name in tree.names if (match := FILM.fullmatch(name))]
    for _, name, key in sorted(found):
        films.setdefault(key, name)
    begin = pa.array(["p"] * len(dicom), pa.string())
    folder = pc.binary_join_element_wise(begin, pc.utf8_slice_codeunits(subject, 0, 2), "")
    person = pc.binary_join_element_wise(begin, subject, "")
    keys = pc.binary_join_element_wise(folder, person, pc.binary_join_element_wise("s", study, ""), dicom, "/")
    return pa.array([films.get(key) for key in keys.to_pylist()], pa.string())


def _sizes(tree: Tree, sheet: Sheet, path: pa.Array) -> tuple[dict[str, pa.Array], tuple[str, ...]]:
    """width and height as the metadata have them, unless a film is of another size; and a note then."""
    if not {"Columns", "Rows"} <= set(sheet.columns):
        return {}, ()
    sizes = {"width": sheet.sides("Columns"), "height": sheet.sides("Rows")}
    there = pc.indices_nonzero(pc.is_valid(path))[:MEASURED]
    said = {path[at.as_py()].as_py(): tuple(side[at.as_py()].as_py() for side in sizes.values()) for at in there}
    for name, content in tree.stream(said):
        size = chexpert.film_size(content)
        if size and None not in said[name] and size != said[name]:
            of = "{}×{}".format(*said[name])
            return {}, (f"sizes: not read, as {name} is {size[0]}×{size[1]} and {of} in {sheet.where}",)
    return sizes, ()
