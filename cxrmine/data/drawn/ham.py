"""HAM's BBoxes.json: boxes on CheXpert images (Ouyang et al. 2021).

`{"train/patient40093/study4/view1_frontal.jpg": {"Cardiomegaly": [[x1, y1, x2, y2], …], …}, …}`: corners, in pixels of
the full-size image, whose size is not in the file. The image is the key as written; its first folder is the split
(`valid` is our `val`). Two of the nine findings have a second spelling, `edema` and `Enlarg_Cardiomediastinum`: left as
it is, for the linter to tell. An image with no box at all may be an oversight, and is told too.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from cxrmine.data.drawn.sheet import Drawn, corners, drawn_table, four

SHAPE = "HAM's BBoxes.json of CheXpert"
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged_Cardiomediastinum", "Fracture",
    "Pleural_Effusion", "Pneumonia", "Pneumothorax",
)  # fmt: skip
PATH = re.compile(r"(?:.*/)?(?P<folder>train|valid)/(?P<patient>patient\d+)/.*")
SPLITS = {"train": "train", "valid": "val"}


def recognise(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and all(isinstance(found, dict) for found in document.values())
        and all(isinstance(boxes, list) for found in document.values() for boxes in found.values())
        and any(PATH.fullmatch(image) for image in document)
    )


def read(document: Any, where: str) -> Drawn:
    rows = list(_boxes(document))
    names = [PATH.fullmatch(image) for image, _, _ in rows]
    box = np.array([four(box) for _, _, box in rows], dtype=np.float64).reshape(-1, 4)
    table = drawn_table(
        {
            "image_id": [image for image, _, _ in rows],
            "finding": [finding for _, finding, _ in rows],
            **corners(*box.T),
            "patient_id": [name and name["patient"] for name in names],
            "split": [name and SPLITS[name["folder"]] for name in names],
            "row": list(range(1, len(rows) + 1)),
        }
    )
    without_box = tuple(image for image, found in document.items() if not any(found.values()))
    return Drawn(table, None, "CheXpert BBoxes.json (HAM)", FINDINGS, without_box=without_box)


def _boxes(document: dict[str, dict[str, list[Any]]]) -> Iterator[tuple[str, str, Any]]:
    for image, found in document.items():
        for finding, boxes in found.items():
            for box in boxes:
                yield image, finding, box
