"""PadChest, of the Hospital San Juan in Alicante.

Bustos et al. 2020, "PadChest: A large chest x-ray image dataset with multi-label annotated reports". 160,868 films of
67,625 patients, 16-bit PNG of the size they were taken at; 174 findings, 19 diagnoses and 104 places, mined from
Spanish reports: 27 % by physicians, the others by a network that learned from these.

PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (or another name that begins so; may be .gz)
    ImageID: the film's file, with its ending. ImageDir: its folder, 0 to 54. PatientID. Projection: PA, AP,
    AP_horizontal, L (lateral), COSTAL (ribs), EXCLUDE (no chest), UNK. MethodLabel: Physician or RNN_model.
    Labels: a Python list as text, `['pleural effusion', ' normal']`, of which some have blanks around a label; empty or
    nan where there was no report. Rows_DICOM, Columns_DICOM: height and width of the film.
    The first column has no name; labelCUIS and LocalizationsCUIS have cells of several lines.
    PhotometricInterpretation_DICOM, MONOCHROME1 or MONOCHROME2 of the DICOM that a film was made of, is not read.
0/ … 54/, 0.zip … 54.zip, or all in one folder
    The films. One that is not in its ImageDir is taken from wherever it is.

Labels are read without blanks around them and in small letters. Findings are all of them, devices and diagnoses too,
but for NO_FINDING: `normal` is none, and the other three are about the report. A label that is not among an image's is
absent; where an image has none but those three, nobody said anything. Films of ribs and of no chest are left out and
counted. There are no boxes, and no official split. Whether the PNG of a MONOCHROME1 film is a negative is not settled
here: no film was at hand, and of the loaders that people published some invert those films and others none. Films are
read as they are, and check warns of those that look inverted.
"""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.assemble import FILM, Raw, films_by_stem, stem
from cxrmine.data.drawn.sheet import MOST_PIXELS, Sheet
from cxrmine.data.index import NO_CHEST, dropped
from cxrmine.data.reading import Reading
from cxrmine.data.rows import read_rows
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError

SHAPE = "PadChest (a file PADCHEST_chest_x_ray_images_labels*.csv or .csv.gz in the folder)"
TABLE = re.compile(r"PADCHEST_chest_x_ray_images_labels.*\.csv(\.gz)?", re.IGNORECASE)
NEEDED = ("ImageID", "PatientID", "Labels")
SIZES = {"width": "Columns_DICOM", "height": "Rows_DICOM"}
OTHERS = ("ImageDir", "Projection", "MethodLabel", *SIZES.values())
NORMAL = "normal"
NO_FINDING = {NORMAL, "exclude", "suboptimal study", "unchanged", ""}
QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
VIEWS = {"L": "LATERAL", "UNK": None}  # the others as they are
NOT_A_CHEST = ("COSTAL", "EXCLUDE")


def recognise(tree: Tree) -> str:
    found = _tables(tree)
    return f"{found[0]} is in it" if found else ""


def read(tree: Tree, reading: Reading) -> Raw:
    name = _only(tree)
    everything, ledger = read_rows(tree, name, NEEDED, OTHERS)
    projection = pc.utf8_upper(everything.text("Projection"))
    other = pc.is_in(projection, value_set=pa.array(NOT_A_CHEST)).to_numpy(zero_copy_only=False)
    sheet, aside = everything.filter(~other), everything.filter(other)
    ledger += dropped(NO_CHEST, sorted(aside.columns["ImageID"].to_pylist()))
    left_out = {stem(image) for image in aside.columns["ImageID"].to_pylist()}
    left_out -= {stem(image) for image in sheet.columns["ImageID"].to_pylist()}
    views = [VIEWS.get(word, word) for word in sheet.text("Projection").to_pylist()]
    images = {
        "image_id": sheet.columns["ImageID"],
        "patient_id": sheet.columns["PatientID"],
        "view": pa.array(views, pa.string()),
        "split": pa.nulls(len(views), pa.string()),
        "path": _paths(tree, sheet),
    }
    images |= {ours: _sides(sheet, theirs) for ours, theirs in SIZES.items() if theirs in sheet.columns}
    return Raw(
        "PadChest",
        pa.table(images),
        _labels(sheet.columns["Labels"]),
        dropped=ledger,
        notes=(f"labels: {name}", *_notes(sheet)),
        is_film=lambda path: FILM.fullmatch(path) is not None and stem(path) not in left_out,
    )


def _tables(tree: Tree) -> list[str]:
    found = [name for name in tree.top if TABLE.fullmatch(name) and tree.has(name)]
    return [name for name in found if name.removesuffix(".gz") not in found or not name.endswith(".gz")]


def _only(tree: Tree) -> str:
    """The one table of labels; X.csv beside X.csv.gz is one, read unpacked."""
    found = _tables(tree)
    if len(found) > 1:
        raise CxrError(f"{tree} has {len(found)} tables of labels: {', '.join(found)}.", "Keep the one to use.")
    return found[0]


def _labels(column: pa.StringArray) -> dict[str, pa.Array]:
    """Each of the different texts that make up the column is read once and spread over its rows."""
    encoded = column.dictionary_encode()
    combinations = [_words(text) for text in encoded.dictionary.to_pylist()]
    findings = sorted(set().union(*combinations) - NO_FINDING)
    silent = np.array([words <= NO_FINDING - {NORMAL} for words in combinations], bool)
    rows = encoded.indices.to_numpy()
    known = {f: np.array([f in words for words in combinations], np.int8)[rows] for f in findings}
    return {f: pa.array(values, mask=silent[rows]) for f, values in known.items()}


def _words(text: str) -> set[str]:
    """The labels of a Python list written as text."""
    return {" ".join((single or double).lower().split()) for single, double in QUOTED.findall(text)}


def _paths(tree: Tree, sheet: Sheet) -> pa.Array:
    """The film in its ImageDir, or else the first of its name without the ending."""
    there, films = frozenset(tree.names), films_by_stem(tree.names)
    folders, names = sheet.text("ImageDir").to_pylist(), sheet.columns["ImageID"].to_pylist()
    own = [f"{folder}/{name}" for folder, name in zip(folders, names, strict=True)]
    paths = [path if path in there else films.get(stem(name)) for path, name in zip(own, names, strict=True)]
    return pa.array(paths, pa.string())


def _sides(sheet: Sheet, name: str) -> pa.Array:
    """Widths or heights; null where there is no size."""
    values = sheet.numbers(name)
    with np.errstate(invalid="ignore"):
        good = (values >= 1) & (values == np.round(values)) & (values <= MOST_PIXELS)
    return pa.array(np.where(good, values, 0).astype(np.int32), mask=~good)


def _notes(sheet: Sheet) -> Iterator[str]:
    methods = Counter(word or "nobody" for word in sheet.text("MethodLabel").to_pylist())
    if "MethodLabel" in sheet.columns:
        yield "labelled by: " + ", ".join(f"{word} {count:,}" for word, count in sorted(methods.items()))
    views = Counter(word or "unknown" for word in sheet.text("Projection").to_pylist())
    if "Projection" not in sheet.columns:
        yield "views: no column Projection, so lateral films stay in"
    elif unknown := views["UNK"] + views["unknown"]:
        yield f"views: unknown of {unknown:,} films, which stay in"
