"""RSNA Pneumonia Detection Challenge: stage_2_train_labels.csv.

Columns patientId, x, y, width, height, Target: top left corner and size, on a 1024×1024 grid. `patientId` is one an
image and stands for both: nothing in this file tells which images are of one person. Target 1 is a box of an opacity;
Target 0, without a box, an image that was looked at and has none.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cxrmine.data.drawn.sheet import Drawn, Sheet, drawn_table, from_xywh, looked_at

SHAPE = "RSNA's stage_2_train_labels.csv"
BOX = ("x", "y", "width", "height")
COLUMNS = ("patientId", *BOX, "Target")
FINDING = "Lung Opacity"
SIDE = 1024


def recognise(names: Sequence[str]) -> bool:
    return set(COLUMNS) <= set(names)


def read(sheet: Sheet) -> Drawn:
    """A row that is neither a box of Target 1 nor none of Target 0 has no finding: the linter tells it."""
    target = sheet.numbers("Target")
    box = np.array([sheet.numbers(name) for name in BOX])
    named = sheet.text("patientId").is_valid().to_numpy(zero_copy_only=False)
    seen = looked_at(_of_image(sheet))
    keep = ~((target == 0) & named & np.isnan(box).all(axis=0))
    drawn = sheet.filter(keep)
    columns = _of_image(drawn) | {
        "finding": [FINDING if at == 1 else None for at in target[keep].tolist()],
        **from_xywh(*box[:, keep]),
        "row": drawn.row.tolist(),
    }
    return Drawn(drawn_table(columns), seen, "RSNA", (FINDING,), "xywh")


def _of_image(sheet: Sheet) -> dict[str, pa.Array]:
    name = sheet.text("patientId")
    size = pa.array(np.full(len(name), SIDE, dtype=np.int32))
    return {"image_id": name, "patient_id": name, "image_width": size, "image_height": size}
