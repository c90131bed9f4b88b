"""Write a phantom dataset: synthetic chest films in ChestX-ray14's own layout, with the truth of every lesion."""

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrmine.boxes.table import truth_table, write_boxes
from cxrmine.console import progress
from cxrmine.cores import available
from cxrmine.data.index import is_validation
from cxrmine.data.organs import ORGANS
from cxrmine.data.phantom.cohort import Case, cases, render
from cxrmine.data.phantom.film import to_byte
from cxrmine.data.phantom.findings import FINDINGS
from cxrmine.errors import CxrError
from cxrmine.files import atomic_folder, write_json, write_text

GENERATOR = "1"  # changes when the same seed gives other films
SMALLEST = 64
UID_ROOT = "2.25."  # numbers made from a UUID need no registered root
DATA_ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Phantom:
    """What to write, and where."""

    directory: Path
    images: int = 1200
    size: int = 512  # pixels a side
    format: Literal["png", "dicom"] = "png"
    seed: int = 0
    workers: int | None = None  # processes; none: one a core


@dataclass(frozen=True)
class PhantomResult:
    """What was written."""

    directory: Path
    images: int
    patients: int
    test_images: int
    normal: int
    boxes: int  # of all lesions, as in truth.parquet
    listed_boxes: int  # of them in BBox_List_2017.csv
    positives: dict[str, int] = field(default_factory=dict)  # images per finding


def run(config: Phantom) -> PhantomResult:
    check(config)
    films = list(cases(config.images, config.seed))
    with atomic_folder(config.directory) as folder:
        for sub in ("images", *(f"organs/{organ}" for organ in ORGANS)):
            (folder / sub).mkdir(parents=True)
        write = partial(write_film, folder=folder, size=config.size, form=config.format)
        boxes = list(progress(in_processes(write, films, config.workers), len(films), "phantom"))
        result = count(config.directory, films, boxes)
        write_tables(folder, films, boxes, config)
        counts = {k: v for k, v in asdict(result).items() if k not in ("directory", "images")}
        write_json(folder / "phantom.json", {
            "generator": GENERATOR, "seed": config.seed, "images": config.images, "size": config.size,
            "format": config.format, "counts": counts,
        })  # fmt: skip
    return result


def check(config: Phantom) -> None:
    if config.images < 1:
        raise CxrError(f"A phantom of {config.images} images is empty.", "Ask for one image or more.")
    if config.size < SMALLEST:
        raise CxrError(f"Films of {config.size} pixels are too small to draw.", f"Ask for {SMALLEST} or more.")
    if config.format not in ("png", "dicom"):
        raise CxrError(f"There is no image format {config.format!r}.", "Choose png or dicom.")
    if config.seed < 0:
        raise CxrError(f"The seed {config.seed} is negative.", "Choose a seed of 0 or more.")
    place = config.directory
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CxrError(f"{place} exists and is not empty.", "Remove it, or name a new folder.")


def in_processes(
    write: "partial[tuple[Box, ...]]", films: list[Case], workers: int | None
) -> Iterator[tuple[Box, ...]]:
    """The boxes of each film, in order. Each film has its own random numbers: who draws it makes no difference."""
    workers = min(workers or available(), max(1, len(films) // 16))
    if workers == 1:
        yield from map(write, films)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(write, films, chunksize=8)


def write_film(case: Case, folder: Path, size: int, form: str) -> tuple[Box, ...]:
    film = render(case, size)
    if form == "dicom":
        save_dicom(folder / "images" / image_id(case, form), film.gray, case)
    else:
        save_png(folder / "images" / image_id(case, form), to_byte(film.gray))
    for organ in ORGANS:
        save_png(folder / "organs" / organ / f"{case.name}.png", film.organs[organ], two_valued=True)
    return film.boxes


def image_id(case: Case, form: str) -> str:
    return f"{case.name}.{'dcm' if form == 'dicom' else 'png'}"


def save_png(path: Path, image: NDArray[np.uint8], two_valued: bool = False) -> None:
    options = [cv2.IMWRITE_PNG_BILEVEL, 1] if two_valued else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    written, data = cv2.imencode(".png", image, options)
    if not written:
        raise CxrError(f"{path} could not be encoded.", "Check the OpenCV installation.")
    path.write_bytes(data.tobytes())


def save_dicom(path: Path, gray: NDArray[np.uint16], case: Case) -> None:
    """12 bits in 16, nothing from the clock: every number comes from the seed and the case."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    def uid(*of: object) -> str:
        return generate_uid(prefix=UID_ROOT, entropy_srcs=["cxrmine phantom", GENERATOR, *map(str, of)])

    data = Dataset()
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = uid(case.seed, case.name, "image")
    data.StudyInstanceUID = uid(case.seed, case.name, "study")
    data.SeriesInstanceUID = uid(case.seed, case.name, "series")
    data.PatientID = str(case.patient)
    data.PatientName = f"Phantom^{case.patient}"
    data.PatientSex = "F" if case.person.female else "M"
    data.PatientAge = f"{case.person.age:03d}Y"
    data.Modality, data.ViewPosition, data.BodyPartExamined = "DX", case.person.view, "CHEST"
    data.Rows, data.Columns = gray.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = gray.astype("<u2").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def write_tables(folder: Path, films: list[Case], boxes: list[tuple[Box, ...]], config: Phantom) -> None:
    names = [image_id(case, config.format) for case in films]
    entries, listed, reports, severities = [DATA_ENTRY_HEADER], [BOX_HEADER], ["image_id,report"], []
    for name, case, found in zip(names, films, boxes, strict=True):
        person, (width, height) = case.person, case.original
        entries.append(
            f"{name},{'|'.join(case.findings) or 'No Finding'},{case.follow_up},{case.patient},{person.age},"
            f"{'F' if person.female else 'M'},{person.view},{width},{height},{case.spacing},{case.spacing}"
        )
        reports.append(f'{name},"{case.report}"')
        worst = {f: max(x.severity for x in case.lesions if x.finding == f) for f in case.findings}
        severities += [f"{name},{finding},{severity}" for finding, severity in worst.items()]
        if case.boxed:
            for lesion, (x0, y0, x1, y1) in zip(case.lesions, found, strict=True):
                # the published list has its own word for this one
                label = "Infiltrate" if lesion.finding == "Infiltration" else lesion.finding
                listed.append(f"{name},{label},{float(x0)},{float(y0)},{float(x1 - x0)},{float(y1 - y0)}")
    write_lines(folder / "Data_Entry_2017_v2020.csv", entries)
    write_lines(folder / "BBox_List_2017.csv", listed)
    write_lines(folder / "reports.csv", reports)
    write_lines(folder / "severity.csv", ["image_id,finding,severity", *severities])
    # as published: no newline after the last name
    for list_name, test in (("train_val_list.txt", False), ("test_list.txt", True)):
        write_text(folder / list_name, "\n".join(n for n, c in zip(names, films, strict=True) if c.test == test))
    write_boxes(folder / "truth.parquet", truth(names, films, boxes, config.size), {"generator": GENERATOR})


def write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "\n".join(lines) + "\n")


def truth(names: list[str], films: list[Case], boxes: list[tuple[Box, ...]], size: int):  # type: ignore[no-untyped-def]
    """Every lesion of every film, the larger first where a finding has two."""
    columns: dict[str, list] = {k: [] for k in (
        "image_id", "finding", "split", "patient_id", "x_min", "y_min", "x_max", "y_max", "image_width", "image_height",
    )}  # fmt: skip
    for name, case, found in zip(names, films, boxes, strict=True):
        split = "test" if case.test else "val" if is_validation(str(case.patient)) else "train"
        lesions = zip(case.lesions, found, strict=True)
        for lesion, (x0, y0, x1, y1) in sorted(lesions, key=lambda pair: -area(pair[1])):
            row = (name, lesion.finding, split, str(case.patient), x0, y0, x1, y1, size, size)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return truth_table(columns)


def area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def count(directory: Path, films: list[Case], boxes: list[tuple[Box, ...]]) -> PhantomResult:
    positives = Counter(finding for case in films for finding in case.findings)
    return PhantomResult(
        directory=directory,
        images=len(films),
        patients=len({case.patient for case in films}),
        test_images=sum(case.test for case in films),
        normal=sum(not case.lesions for case in films),
        boxes=sum(map(len, boxes)),
        listed_boxes=sum(len(found) for case, found in zip(films, boxes, strict=True) if case.boxed),
        positives={finding: positives[finding] for finding in FINDINGS},
    )
