"""Who is a patient, and from where a film was taken, where only the headers of DICOM films say so."""

import re
from collections import Counter
from collections.abc import Collection, Sequence

import pyarrow as pa

from cxrmine.data.dicom import Facts
from cxrmine.data.dicom_words import NOBODY
from cxrmine.data.headers import read_headers
from cxrmine.data.tree import Tree

OF_NO_HEADER = re.compile(r".+\.(png|jpe?g|img)", re.IGNORECASE)
SHARE, AT_LEAST = 0.2, 10  # a PatientID of more of the films, and of more films than that, is no person's
SPACING = ("spacing_x", "spacing_y")
NAMELESS = Facts(0, 0, None, None, None)


def from_headers(
    tree: Tree, images: pa.Table, path: Sequence[str | None], told: Collection[str]
) -> tuple[pa.Table, tuple[str, ...]]:
    """The images with what headers add to them, and what to say of that.

    `told`: of patient and view, what is not asked of headers. They are read where an image has no view, or, where
    patient is not told, of all films; their spacing is taken along. Without a patient an image is one of its own.
    """
    view = images["view"].to_pylist()
    patients, views = "patient" not in told, "view" not in told
    silent = [patients or (views and word is None) for word in view]
    asked = [name for name, lacks in zip(path, silent, strict=True) if lacks and name and not OF_NO_HEADER.match(name)]
    headers = read_headers(tree, sorted({*asked}))
    facts = [headers.get(name or "", NAMELESS) for name in path]
    notes: tuple[str, ...] = ()
    if views:
        found = [word or fact.view for word, fact in zip(view, facts, strict=True)]
        images = _with(images, "view", pa.array(found, pa.string()))
        if more := view.count(None) - found.count(None):
            notes = (f"views: from the headers of {more:,} DICOM films",)
    if any(fact.spacing for fact in facts):
        for name, side in zip(SPACING, (1, 0), strict=True):
            images = _with(images, name, pa.array([f.spacing and f.spacing[side] for f in facts], pa.float64()))
    if not patients:
        return images, notes
    who, said = _patients(images["image_id"].to_pylist(), [(fact.patient or "").strip() for fact in facts])
    return _with(images, "patient_id", pa.array(who, pa.string())), notes + said


def _patients(image: Sequence[str | None], person: Sequence[str]) -> tuple[list[str | None], tuple[str, ...]]:
    """Of every image the first one of its patient, so that no name is written; and what to say of it."""
    counts = Counter(filter(None, person))
    known = counts.total()
    nobody = {word for word, films in counts.items() if _stands_for_nobody(word, films, known)}
    first: dict[str, str] = {}
    for name, who in sorted((name or "", who) for name, who in zip(image, person, strict=True)):
        if name and who in counts and who not in nobody:
            first.setdefault(who, name)
    patient: list[str | None] = [first.get(who, name) for name, who in zip(image, person, strict=True)]
    notes = []
    replaced = sum(counts[word] for word in nobody)
    alone = len(image) - known + replaced
    if known - replaced:
        notes.append(f"patients: from the headers of {known - replaced:,} DICOM films")
    if replaced:
        notes.append(
            f"CAREFUL: the PatientID in the headers of {replaced:,} DICOM films is no person's, but a word put in "
            f"place of many (like ANONYMOUS, or one that more than {SHARE:.0%} of the films have), so it is not read"
        )
    if alone:
        notes.append(
            f"CAREFUL: nobody says who the patient of {alone:,} images is, so each of these is taken for a patient of "
            "its own; images of one patient may be in two splits"
        )
    return patient, tuple(notes)


def _stands_for_nobody(word: str, films: int, known: int) -> bool:
    plain = re.sub(r"[\W_]", "", word).upper()
    if plain in NOBODY or not plain.strip("X"):
        return True
    return known == films > 2 or (films > AT_LEAST and films > SHARE * known)


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name not in table.column_names:
        return table.append_column(name, values)
    return table.set_column(table.column_names.index(name), name, values)
