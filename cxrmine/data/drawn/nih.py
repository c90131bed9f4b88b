"""NIH ChestX-ray14's BBox_List_2017.csv, as NIH ships it and as others have saved it again.

Image, finding, x, y, w, h by position: the header's `Bbox [x,y,w,h]` is not quoted, and so is more names than there are
fields. Pixels of the PNG, which is 1024×1024 whatever the radiograph was. `Infiltrate` is `Infiltration` elsewhere. The
patient is the number in the image's name, written as in Data_Entry: 00013118_008.png is of 13118.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cxrmine.data.drawn.sheet import Drawn, Sheet, drawn_table, from_xywh
from cxrmine.data.layouts.chestxray14 import OTHER_SPELLINGS, PUBLISHED_FINDINGS

SHAPE = "NIH's BBox_List_2017.csv"
COLUMNS = ("Image Index", "Finding Label", "x", "y", "w", "h")
SIDE = 1024
NAME = re.compile(r"(\d+)_\d+\.\w+")


def header(names: Sequence[str]) -> tuple[str, ...] | None:
    """COLUMNS, where `names` is the header that NIH wrote over them; else None."""
    published = len(names) > 2 and tuple(names[:2]) == COLUMNS[:2] and names[2].startswith("Bbox")
    return COLUMNS if published else None


def recognise(names: Sequence[str]) -> bool:
    return tuple(names) == COLUMNS


def read(sheet: Sheet) -> Drawn:
    images, words = (sheet.text(name).to_pylist() for name in COLUMNS[:2])
    size = pa.array(np.full(len(images), SIDE, dtype=np.int32))
    table = drawn_table(
        {
            "image_id": images,
            "finding": [OTHER_SPELLINGS.get(word, word) for word in words],
            **from_xywh(*(sheet.numbers(name) for name in COLUMNS[2:])),
            "patient_id": [patient(image) for image in images],
            "image_width": size,
            "image_height": size,
            "row": sheet.row.tolist(),
        }
    )
    return Drawn(table, None, "NIH BBox_List", PUBLISHED_FINDINGS, "xywh")


def patient(image_id: str | None) -> str | None:
    match = NAME.fullmatch(image_id or "")
    return (match[1].lstrip("0") or "0") if match else None
