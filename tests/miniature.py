"""Thirty-two small films with findings and boxes, which the tests of every layout write in that layout's own form."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

WIDTH, HEIGHT = 60, 48
FINDINGS = ("Cardiomegaly", "Pneumothorax")  # in every layout's vocabulary, spelled alike


class Case(NamedTuple):
    """One film of a patient. A finding is a bright square: Cardiomegaly below, Pneumothorax above."""

    number: int
    patient: int
    split: str  # train, val or test
    boxes: tuple[tuple[str, int, int, int, int], ...]  # finding, x_min, y_min, x_max, y_max
    pixels: np.ndarray  # HEIGHT×WIDTH uint8

    @property
    def findings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(box[0] for box in self.boxes))


def cases(count: int = 32) -> list[Case]:
    """Two films a patient; of four films one has nothing, one each finding, and one both."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        pixels = rng.integers(40, 80, (HEIGHT, WIDTH), dtype=np.uint8)
        boxes = []
        for bit, (finding, top) in enumerate(zip(FINDINGS, (28, 4), strict=True)):
            if number >> bit & 1:
                left, side = int(rng.integers(4, 36)), int(rng.integers(10, 16))
                pixels[top : top + side, left : left + side] += 120
                boxes.append((finding, left, top, left + side, top + side))
        split = ("train", "train", "train", "val", "test")[number // 2 % 5]
        made.append(Case(number, number // 2, split, tuple(boxes), pixels))
    return made


def organ_masks(height: int = HEIGHT, width: int = WIDTH) -> dict[str, np.ndarray]:
    """True inside: two lungs and a heart as rectangles, the patient's left lung on the right."""
    places = {"right_lung": (0.1, 0.4, 0.1), "left_lung": (0.6, 0.9, 0.1), "heart": (0.4, 0.7, 0.5)}
    masks = {}
    for organ, (left, right, top) in places.items():
        masks[organ] = np.zeros((height, width), bool)
        masks[organ][round(top * height) : round(0.8 * height), round(left * width) : round(right * width)] = True
    return masks


def write_gif(path: Path, mask: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, "GIF")


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def write_jpg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def write_dicom(path: Path, pixels: np.ndarray, patient: str = "", view: str = "", **tags: object) -> None:
    """12 bits stored in 16, uncompressed, as a radiograph; further DICOM keywords by name."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    film.Modality, film.PatientID, film.ViewPosition = "DX", patient, view
    film.Rows, film.Columns = pixels.shape
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    for name, value in tags.items():
        setattr(film, name, value)
    film.PixelData = (pixels.astype("<u2") << 4).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)
