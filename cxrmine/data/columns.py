"""Which column of a table means what: the one that is told, or one with a name that people give it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.words import plain
from cxrmine.errors import CxrError, did_you_mean, some_text

# Ours → theirs, whatever their case, blanks and underscores; of several the first, of findings the first with words.
NAMES = {
    "image": ("image", "image_id", "image_index", "image_name", "img", "img_id", "dicom_id", "film"),
    "path": (
        "path", "file_path", "image_path", "img_path", "dicom_path", "filename", "file_name", "image_file", "file",
    ),
    "findings": ("findings", "finding_labels", "labels", "classes", "diseases", "pathologies", "diagnoses"),
    "finding": (
        "finding", "finding_label", "finding_name", "label", "class", "class_name", "category", "category_name",
        "disease", "pathology", "diagnosis",
    ),
    "split": ("split", "set", "subset", "partition"),
    "patient": ("patient", "patient_id", "subject", "subject_id", "pid"),
    "view": ("view", "view_position", "projection"),
    "reader": ("reader", "reader_id", "rad_id", "radiologist", "annotator"),
    "x_min": ("x_min", "x1", "left", "bbox_x_min"),
    "y_min": ("y_min", "y1", "top", "bbox_y_min"),
    "x_max": ("x_max", "x2", "right", "bbox_x_max"),
    "y_max": ("y_max", "y2", "bottom", "bbox_y_max"),
    "x": ("x", "bbox_x"),
    "y": ("y", "bbox_y"),
    "width": ("width", "w", "bbox_width", "bbox_w"),
    "height": ("height", "h", "bbox_height", "bbox_h"),
}  # fmt: skip
FORMS = (("x_min", "y_min", "x_max", "y_max"), ("x", "y", "width", "height"), ("x_min", "y_min", "width", "height"))
OF_FINDINGS = ("findings", "finding")
OF_BOXES = tuple(dict.fromkeys(name for form in FORMS for name in form))
NO_FINDING = frozenset({"", "id", "index", "unnamed0", "sex", "gender", "male", "female", "age", "fold", "followup"})
MEANING = {"1": 1, "0": 0, "-1": -1, "u": -1, "uncertain": -1}
MOSTLY = 0.9  # of a column's values are such: then it is meant to be of them, and the others are wrong
SHOWN = 12  # columns in a message


class Columns(NamedTuple):
    of: dict[str, str]  # ours → theirs
    text: str  # theirs, of the findings in words; "" where each has a column
    flags: tuple[str, ...]  # theirs, a finding each
    box: tuple[str, ...]  # ours, a form of FORMS, or none
    unread: tuple[str, ...]


def resolve(sheet: Sheet, told: Mapping[str, str]) -> Columns:
    """An error says which column is not to be found."""
    of = {ours: theirs for ours in NAMES if ours != "findings" and (theirs := _found(sheet, told, ours))}
    if "image" not in of and "path" not in of:
        raise _missing(sheet, "the film's name", "image=THEIRS")
    box = next((form for form in FORMS if {*form} <= {*of} and {*OF_BOXES} & {*told} <= {*form}), ())
    if lone := [name for name in told if name in OF_BOXES and name not in box]:
        raise CxrError(
            f"{sheet.where}: {lone[0]} is named, and the other sides of a box are not known.",
            f"A box is {', or '.join(' '.join(form) for form in FORMS)}: name the others too.",
        )
    of = {ours: theirs for ours, theirs in of.items() if ours not in OF_BOXES or ours in box}
    text, flags = _of_findings(sheet, told, of)
    read = {*of.values(), text, *flags}
    return Columns(of, text, flags, box, tuple(name for name in sheet.columns if name and name not in read))


def codes(column: pa.Array) -> tuple[dict[str, int | None], pa.DictionaryArray]:
    """What each of the column's different texts means, None where it is no 1, 0 or -1, nor a word for that."""
    encoded = column.dictionary_encode()
    return {text: MEANING.get(_tidy(text)) for text in encoded.dictionary.to_pylist()}, encoded


def _tidy(text: str) -> str:
    """-1 of −1.0"""
    return re.sub(r"(?<=\d)\.0*$", "", text.strip().lower().replace("−", "-"))


def _found(sheet: Sheet, told: Mapping[str, str], ours: str) -> str:
    if ours not in told:
        known = {plain(name): name for name in reversed([*sheet.columns])}
        there = [known[plain(name)] for name in NAMES[ours] if plain(name) in known]
        in_words = (name for name in there if ours in OF_FINDINGS and len(there) > 1 and _has_words(sheet, name))
        return next(in_words, there[0] if there else "")
    if told[ours] not in sheet.columns:
        raise _not_there(sheet, ours, told[ours])
    return told[ours]


def _of_findings(sheet: Sheet, told: Mapping[str, str], of: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The column of findings in words, or those of a finding each: those that are told, or words, or 1 and 0."""
    if "findings" in told:
        names = [told["findings"]] if told["findings"] in sheet.columns else re.split(r"\s*[|;,]\s*", told["findings"])
        for name in names:
            if name not in sheet.columns:
                raise _not_there(sheet, "findings", name)
        return (names[0], ()) if len(names) == 1 and _has_words(sheet, names[0]) else ("", tuple(names))
    joined = _found(sheet, told, "findings")
    for name in (joined, of.get("finding", "")):
        if name and (_has_words(sheet, name) or name == told.get("finding")):
            return name, ()
    taken = {theirs for ours, theirs in of.items() if ours != "finding"}
    flags = tuple(name for name in sheet.columns if name not in taken and _is_flags(sheet, name))
    if not flags:
        raise _missing(sheet, "findings", "findings=THEIRS, or findings=A,B where each finding has its own")
    return "", flags


def _has_words(sheet: Sheet, name: str) -> bool:
    meaning, _ = codes(sheet.text(name).drop_null())
    return any(code is None and not is_number(text) for text, code in meaning.items())


def _is_flags(sheet: Sheet, name: str) -> bool:
    """Whether all that is said there is 1, 0, -1 or a word for it. A column of which nearly all is so is an error."""
    if plain(name) in NO_FINDING:
        return False
    column = sheet.text(name)
    meaning, encoded = codes(column.drop_null())
    known = [text for text, code in meaning.items() if code is not None]
    share = pc.mean(pc.is_in(encoded.cast(pa.string()), value_set=pa.array(known, pa.string()))).as_py() or 0.0
    if MOSTLY <= share < 1:
        wrong = next(text for text, code in meaning.items() if code is None)
        raise wrong_value(sheet, name, wrong, "name the columns of findings: --columns findings=A,B")
    return share == 1


def wrong_value(sheet: Sheet, name: str, text: str, otherwise: str = "leave it empty") -> CxrError:
    row = sheet.row[pc.index(sheet.text(name), text).as_py()]
    return CxrError(
        f"{sheet.where}: {name} is {text!r} in row {row}.",
        f"It can be 1, 0, -1 (or uncertain) or empty: mend it, or {otherwise}.",
    )


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _not_there(sheet: Sheet, ours: str, theirs: str) -> CxrError:
    return CxrError(
        f"{sheet.where} has no column {theirs!r} for {ours}.{did_you_mean(theirs, [*sheet.columns])}",
        f"Its columns are {shown([*sheet.columns])}.",
    )


def _missing(sheet: Sheet, what: str, example: str) -> CxrError:
    return CxrError(
        f"{sheet.where} has no column that is known to be {what}; its columns are {shown([*sheet.columns])}.",
        f"Name it: --columns {example}.",
    )


def shown(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= SHOWN else some_text(names)
