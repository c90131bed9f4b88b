"""RSNA Pneumonia Detection Challenge 2018, as Kaggle has it.

Shih et al. 2019, "Augmenting the National Institutes of Health chest radiograph dataset with expert annotations of
possible pneumonia". 26,684 training films of 1024×1024 pixels as DICOM with 9,555 boxes on 6,012 of them, and 3,000
test films without labels.

stage_2_train_labels.csv
    patientId, x, y, width, height, Target: a row a box (Target 1), or one row without numbers for a film that has none
    (Target 0). Top left corner and size, in pixels of the DICOM.
stage_2_detailed_class_info.csv
    patientId, class: as many rows a film as it has in the labels. `Lung Opacity` is Target 1; `No Lung Opacity / Not
    Normal` and `Normal` are Target 0, and no findings: that something else is wrong is not said to be anywhere, nor
    what it is. They are counted in a note.
stage_2_train_images/, or the folder itself
    <patientId>.dcm; .png and .jpg copies are taken too.
stage_2_test_images/, stage_2_sample_submission.csv
    Without labels, and so no part of the index: films there are counted in a note.
pneumonia-challenge-dataset-mappings_2018.json, anywhere in the folder
    From RSNA's own page of the challenge, not from Kaggle: a list of objects with subset_img_id, the patientId here,
    and img_id, the film's name in ChestX-ray14, whose number is the patient. Its other keys are not read.

The files of the first stage (stage_1_…) are read where those of the second are missing; each table may be .gz. The one
finding is `Lung Opacity`. Nobody names the readers of a box, and there is no official split. Boxes are on a grid of
1024×1024: where a copy of a film has another size, they are scaled. `patientId` is one a film. These are films of
ChestX-ray14 under new names, from both sides of its split, and a patient there may have several: who that is, only the
mappings tell. Without them each film counts as a patient of its own, and a drawn split may part a patient's films.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from cxrmine.data.assemble import FILM, Raw, films_by_stem, stem
from cxrmine.data.drawn import nih, rsna
from cxrmine.data.drawn.read import parse_json
from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.index import Dropped
from cxrmine.data.reading import Reading
from cxrmine.data.rows import read_rows
from cxrmine.data.tree import Tree
from cxrmine.errors import CxrError

SHAPE = "RSNA Pneumonia (stage_2_train_labels.csv in the folder)"
STAGES = ("stage_2", "stage_1")
TEST = re.compile(r"(^|/)(stage_\d_)?test[^/]*/", re.IGNORECASE)
MAPPINGS = "pneumonia-challenge-dataset-mappings_2018.json"
MAPPINGS_NAMED = re.compile(r"(.*/)?pneumonia-challenge-dataset-mappings[^/]*\.json(\.gz)?", re.IGNORECASE)
DRAWN_ON = f"films of {rsna.SIDE}×{rsna.SIDE} pixels"
LEAK = "these are films of ChestX-ray14, of both sides of its split: who trains there and tests here, tests on training"


def recognise(tree: Tree) -> str:
    found = _table(tree, "train_labels")
    return f"{found} is in it" if found else ""


def read(tree: Tree, reading: Reading) -> Raw:
    name = _table(tree, "train_labels") or ""
    sheet, ledger = read_rows(tree, name, rsna.COLUMNS)
    labels = _labels(sheet)
    image = pa.array(labels, pa.string())
    of_test = (path for path in tree.names if FILM.fullmatch(path) and TEST.search(path))
    unlabelled = frozenset(path for path in of_test if stem(path) not in labels)
    films = films_by_stem(tree.names)
    images = {
        "image_id": image,
        "view": pa.nulls(len(image), pa.string()),
        "split": pa.nulls(len(image), pa.string()),
        "path": pa.array([films.get(word) for word in labels], pa.string()),
    }
    images["patient_id"], about_patients = _patients(tree, list(labels))
    classes, torn = _classes(tree, labels)
    return Raw(
        "RSNA Pneumonia",
        pa.table(images),
        {rsna.FINDING: pa.array(labels.values(), pa.int8())},
        boxes=rsna.read(sheet).table,
        dropped=ledger + torn,
        notes=(f"labels: {name}", *_notes(classes, len(unlabelled)), about_patients, f"CAREFUL: {LEAK}"),
        is_film=lambda path: FILM.fullmatch(path) is not None and path not in unlabelled,
        drawn_on=DRAWN_ON,
    )


def _table(tree: Tree, kind: str) -> str | None:
    return tree.first(*(f"{stage}_{kind}.csv" for stage in STAGES))


def _labels(sheet: Sheet) -> dict[str, int | None]:
    """Image → 1 where a row has Target 1, else 0 where one has Target 0, else null."""
    labels: dict[str, int | None] = {}
    for name, target in zip(sheet.text("patientId").to_pylist(), sheet.numbers("Target").tolist(), strict=True):
        if name is not None:
            before = labels.get(name)
            labels[name] = max(int(target), before or 0) if target in (0, 1) else before
    return labels


def _classes(tree: Tree, labels: dict[str, int | None]) -> tuple[Counter[str], tuple[Dropped, ...]]:
    """Images of the index by the class that they have in the other table."""
    name = _table(tree, "detailed_class_info")
    if not name:
        return Counter(), ()
    sheet, ledger = read_rows(tree, name, ("patientId", "class"))
    pairs = zip(sheet.text("patientId").to_pylist(), sheet.text("class").to_pylist(), strict=True)
    return Counter(word for image, word in set(pairs) if image in labels and word), ledger


def _notes(classes: Counter[str], unlabelled: int) -> Iterator[str]:
    if classes:
        yield "classes of the images: " + ", ".join(f"{word} {count:,}" for word, count in sorted(classes.items()))
    if unlabelled:
        yield f"test films without labels, not in the index: {unlabelled:,}"


def _patients(tree: Tree, images: Sequence[str]) -> tuple[pa.Array, str]:
    """Who each image is of, and what to say of it."""
    names = [name for name in tree.names if MAPPINGS_NAMED.fullmatch(name)]
    if not names:
        return pa.array(images, pa.string()), (
            "CAREFUL: patients: each image counts as one of its own, and a person may be in it under several, on both "
            f"sides of a drawn split; {MAPPINGS} from RSNA's page of the challenge, in this folder, tells them"
        )
    number = _mapped(tree, names[0])
    known = [number.get(image) for image in images]
    alone = known.count(None)
    note = f"patients: those of ChestX-ray14, by {names[0]}"
    if alone:
        note += f"; {alone:,} images are not in it, and each counts as a patient of its own"
    return pa.array([who or image for who, image in zip(known, images, strict=True)], pa.string()), note


def _mapped(tree: Tree, name: str) -> dict[str, str]:
    """patientId → the number of the patient in ChestX-ray14."""
    where = f"{tree}/{name}"
    entries = parse_json(tree.text(name), where)
    whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    pairs = [(entry.get("subset_img_id"), entry.get("img_id")) for entry in entries] if whole else []
    number = {str(image): who for image, film in pairs if image and (who := nih.patient(str(film)))}
    if not number:
        raise CxrError(
            f"{where} is no list of objects with subset_img_id and img_id.",
            "Get it again, or move it out of the folder.",
        )
    return number
