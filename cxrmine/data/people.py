"""Who is a patient, and from where a film was taken, where a table leaves it to the headers of DICOM films."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cxrmine.cores import threads
from cxrmine.data.tree import Tree, is_safe

DICOM = re.compile(r".+\.(dcm|dicom)", re.IGNORECASE)

Texts = list[str | None]


def people(
    tree: Tree, image: Sequence[str], path: Sequence[str | None], facts: Mapping[str, Texts]
) -> tuple[Texts, Texts, tuple[str, ...]]:
    """patient_id and view of every image, and what to say of who is a patient."""
    silent = "patient" not in facts or "view" not in facts
    films = [word for word in path if silent and word and DICOM.fullmatch(word) and is_safe(word)]
    headers = _headers(tree, sorted({*films}))
    view = facts.get("view") or [headers.get(word or "", ("", ""))[1] or None for word in path]
    if "patient" in facts:
        return facts["patient"], view, ()
    person = [headers.get(word or "", ("", ""))[0] for word in path]
    if len(image) > 2 and len({*person}) == 1:
        person = [""] * len(image)  # a name that was put in place of all others
    first: dict[str, str] = {}
    for name, who in sorted(zip(image, person, strict=True)):
        first.setdefault(who, name)
    patient: Texts = [first[who] if who else name for name, who in zip(image, person, strict=True)]
    alone = person.count("")
    notes = [f"patients: from the headers of {len(image) - alone:,} DICOM films"] * (alone < len(image))
    if alone:
        notes.append(
            f"CAREFUL: nobody says who the patient of {alone:,} images is, so each of these is taken for a patient of "
            "its own; images of one patient may be in two splits"
        )
    return patient, view, tuple(notes)


def _headers(tree: Tree, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """PatientID and ViewPosition of DICOM films. The first only tells who is the same: it must not be written."""
    loose = [name for name in names if tree.root.is_dir() and not tree.container(name)]
    with warnings.catch_warnings(), ThreadPoolExecutor(threads(None)) as pool:
        warnings.simplefilter("ignore")
        told = dict(zip(loose, pool.map(lambda name: _header(tree.root / name), loose), strict=True))
        for name, content in tree.stream(sorted({*names} - {*loose})):
            told[name] = _header(io.BytesIO(content)) if isinstance(content, bytes) else ("", "")
    return told


def _header(film: Path | io.BytesIO) -> tuple[str, str]:
    import pydicom

    try:
        head = pydicom.dcmread(film, stop_before_pixels=True, specific_tags=["PatientID", "ViewPosition"])
        return str(head.get("PatientID") or "").strip(), str(head.get("ViewPosition") or "").strip()
    except Exception:  # pydicom's faults have no common base; a film that cannot be read is found where it is decoded
        return "", ""
