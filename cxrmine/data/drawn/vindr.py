"""VinDr-CXR: train.csv of the VinBigData challenge, and PhysioNet's annotations_train.csv and annotations_test.csv.

Corners in pixels of the DICOM, whose size is not in the file. A row a box and reader (`rad_id`; the test list is a
consensus and names none). A reader who found nothing has a row `No finding` without a box. `class_id` and any other
column are not read.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from cxrmine.data.drawn.sheet import Drawn, Sheet, corners, drawn_table, looked_at
from cxrmine.tables import COORDINATES

SHAPE = "VinDr-CXR's train.csv or annotations_train.csv"
COLUMNS = ("image_id", "class_name", *COORDINATES)
NORMAL = "no finding"  # whatever its case
FINDINGS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
    "Rib fracture",
)  # fmt: skip


def recognise(names: Sequence[str]) -> bool:
    return set(COLUMNS) <= set(names)


def read(sheet: Sheet) -> Drawn:
    """A row `No finding` with a box, or without an image, stays among the boxes, for the linter to find."""
    seen = looked_at({"image_id": sheet.text("image_id"), "reader": sheet.text("rad_id")})
    box = [sheet.numbers(name) for name in COORDINATES]
    normal = pc.fill_null(pc.equal(pc.utf8_lower(sheet.text("class_name")), NORMAL), False).to_numpy(
        zero_copy_only=False
    )
    named = sheet.text("image_id").is_valid().to_numpy(zero_copy_only=False)
    drawn = sheet.filter(~(normal & named & np.isnan(box).all(axis=0)))
    table = drawn_table(
        {
            "image_id": drawn.text("image_id"),
            "finding": drawn.text("class_name"),
            **corners(*(drawn.numbers(name) for name in COORDINATES)),
            "reader": drawn.text("rad_id"),
            "row": drawn.row.tolist(),
        }
    )
    return Drawn(table, seen, "VinDr", FINDINGS)
