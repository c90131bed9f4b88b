"""Whether those who are judged were trained on: the patients of truth against the patients of a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.errors import CxrError
from cxrmine.files import sha256
from cxrmine.runs import RunFolder, starts, strangers


def not_known(patients: Path | None, methods: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """Why a run's patients do not tell whom the networks behind these predictions have seen; nothing where they do.

    They do for the run's own weights and for those that it descends from.
    """
    run = patients and RunFolder(patients.parent)
    if not run or not run.weights.is_file():
        return []
    if strangers(run):
        return [f"The run in {run.path} learned boxes that another network mined: whom that one has seen is not known."]
    ours = {sha256(run.weights), *starts(run)}
    made_with = ((name, meta.get("weights_sha256")) for name, meta in methods)
    others = [name for name, weights in made_with if weights and weights not in ours]
    return [f"{name} was not made with this run: whom its network has seen is not known." for name in others[:1]]


def leakage(path: Path | None, judged: pa.Table) -> dict[str, int]:
    """How many of the judged patients the run has trained or validated on; empty where no run was named."""
    if path is None:
        return {}
    split = _split_of(path)
    known = judged["patient_id"].cast(pa.string())
    ours = set(map(_plain, pc.unique(known.drop_null()).to_pylist()))
    trained = sum(split.get(patient) == "train" for patient in ours)
    seen = sum(patient in split for patient in ours)
    nameless = judged["image_id"].cast(pa.string()).filter(known.is_null())
    return {"patients": seen, "trained": trained, "of": len(ours), "images_without_patient": len(pc.unique(nameless))}


def seen_images(path: Path, patients: pa.ChunkedArray) -> dict[str, int]:
    """Of images of these patients, how many are of patients that the run was trained on, and validated on."""
    split = _split_of(path)
    images = pc.value_counts(patients.combine_chunks()).to_pylist()
    count = {"train": 0, "val": 0}
    for image in images:
        where = split.get(_plain(image["values"]))
        count = {name: n + image["counts"] * (name == where) for name, n in count.items()}
    return count


def seen_others(path: Path, images: pa.Table) -> bool:
    """Whether a run has seen patients who are not among those of a dataset's train and val."""
    here = images.filter(pc.not_equal(images["split"], "test"))["patient_id"].cast(pa.string()).to_pylist()
    return not set(_split_of(path)) <= set(map(_plain, here))


def _split_of(path: Path) -> dict[str, str]:
    """Of each patient that the run knows: train or val."""
    if not path.is_file():
        raise CxrError(f"There is no run in {path.parent}: it has no {path.name}.", "Name a run's folder with --run.")
    try:
        table = pq.ParquetFile(path).read()
        names = map(_plain, table["patient_id"].cast(pa.string()).to_pylist())
        return dict(zip(names, table["split"].to_pylist(), strict=True))
    except (pa.ArrowException, OSError, KeyError):
        raise CxrError(f"{path} is not a run's table of patients.", "Name the folder of a run with --run.") from None


def _plain(patient: str) -> str:
    """00000013 and 13 are one patient."""
    return patient.lstrip("0") or "0" if patient.isdigit() else patient


def notes(found: dict[str, int], products: bool) -> Iterator[str]:
    """Boxes of training films are the product, so there that is said plainly; anywhere else it is a leak."""
    if not found:
        return
    of, trained = found["of"], found["trained"]
    if found["patients"]:
        said = f"The run was trained on {trained:,} of the {of:,} judged patients"
        if found["patients"] > trained:
            said += f", and validated on {found['patients'] - trained:,}"
        yield f"{said}: these are boxes of its training films." if products else f"LEAKS: {said}."
    elif of:
        yield f"None of the {of:,} judged patients was trained or validated on."
    if found["images_without_patient"]:
        unknown = found["images_without_patient"]
        yield f"The patients of {unknown:,} judged images are not known: the run may have seen them."


def refuse(found: dict[str, int], run_named: bool) -> None:
    """--strict: a leak is an error, and so is one that cannot be ruled out."""
    if not run_named:
        raise CxrError("--strict cannot rule out a leak: no run is named that made these boxes.", "Name it with --run.")
    if found["patients"]:
        raise CxrError(
            f"The run has seen {found['patients']:,} of the {found['of']:,} judged patients.",
            "Judge other patients, or leave --strict out to see the figures.",
        )
    if found["images_without_patient"]:
        raise CxrError(
            f"The patients of {found['images_without_patient']:,} judged images are not known: a leak is possible.",
            "Give the truth a patient_id, or leave --strict out.",
        )
