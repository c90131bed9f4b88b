"""NIH ChestX-ray14's BBox_List_2017.csv, as NIH ships it and as others have saved it again.

Image, finding, x, y, w, h by position: the header's `Bbox [x,y,w,h]` is not quoted, and so is more names than there are
fields. Pixels of the PNG, which is 1024×1024 whatever the radiograph was; of a film that has not NIH's name
(00000001_000) the size is not known. `Infiltrate` is `Infiltration` elsewhere. The
patient is the number in the image's name, written as in Data_Entry: 00013118_008.png is of 13118.
"""

import csv
import io
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cxrmine.data.drawn.sheet import Drawn, Sheet, as_float, drawn_table, from_xywh
from cxrmine.errors import CxrError

SHAPE = "NIH's BBox_List_2017.csv"
COLUMNS = ("Image Index", "Finding Label", "x", "y", "w", "h")
SIDE = 1024
PUBLISHED_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
OTHER_SPELLINGS = {"Infiltrate": "Infiltration"}
PUBLISHED = re.compile(r"\d{8}_\d{3}\.")
NAME = re.compile(r"(\d+)_\d+\.\w+")


def header(names: Sequence[str]) -> tuple[str, ...] | None:
    """COLUMNS, where `names` is the header that NIH wrote over them; else None."""
    published = len(names) > 2 and tuple(names[:2]) == COLUMNS[:2] and names[2].startswith("Bbox")
    return COLUMNS if published else None


def recognise(names: Sequence[str]) -> bool:
    return tuple(names) == COLUMNS


def read(sheet: Sheet) -> Drawn:
    images, words = (sheet.text(name).to_pylist() for name in COLUMNS[:2])
    published = np.array([PUBLISHED.match(image or "") is not None for image in images], dtype=bool)
    size = pa.array(np.full(len(images), SIDE, dtype=np.int32), mask=~published)
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


def by_position(text: str, where: str) -> Sheet:
    """The list as a sheet of COLUMNS, whatever its header is; a copy without one keeps its first box."""
    try:
        rows = [[word.strip() for word in row] for row in csv.reader(io.StringIO(text, newline="")) if any(row)]
    except csv.Error as fault:
        raise CxrError(f"{where} is not a table: {fault}.", "Get the file again.") from None
    if rows and np.isnan([as_float(word) for word in (rows[0] + [""] * 6)[2:6]]).any():
        rows = rows[1:]
    fields = zip(*((row + [""] * 6)[:6] for row in rows), strict=True) if rows else [()] * 6
    columns = {name: pa.array(field, pa.string()) for name, field in zip(COLUMNS, fields, strict=True)}
    return Sheet(where, columns, np.arange(1, len(rows) + 1))


def patient(image_id: str | None) -> str | None:
    match = NAME.fullmatch(image_id or "")
    return (match[1].lstrip("0") or "0") if match else None
