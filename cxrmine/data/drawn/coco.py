"""COCO's JSON for detection: images, annotations and categories.

`bbox` is x, y, w, h in pixels of the image. The image is its `file_name` as written, the finding its category's name.
Every image of the list was looked at. A crowd (`iscrowd`) is a box around many things, and refused.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cxrmine.data.drawn.sheet import Drawn, as_number, drawn_table, four, from_xywh, looked_at, sides
from cxrmine.errors import CxrError, rows_text

SHAPE = "COCO JSON with images, annotations and categories"
LISTS = ("images", "annotations", "categories")


def recognise(document: Any) -> bool:
    return isinstance(document, dict) and set(LISTS) <= set(document)


def read(document: Any, where: str) -> Drawn:
    images, annotations, categories = (_entries(document, name, where) for name in LISTS)
    place = _ids(images, "images", "file_name", where)
    kinds = _ids(categories, "categories", "name", where)
    crowds = [i for i, entry in enumerate(annotations, start=1) if entry.get("iscrowd")]
    if crowds:
        raise CxrError(
            f"{where} has {len(crowds):,} crowds (iscrowd) among its annotations: {rows_text(crowds)}.",
            "A crowd is a box around several things; remove it, or draw each.",
        )
    of_image = _columns_of_images(images, where)
    at = pa.array([place.get(_key(entry, "image_id")) for entry in annotations], pa.int64())
    words = [entry["name"] for entry in categories]
    kind = [kinds.get(_key(entry, "category_id")) for entry in annotations]
    box = np.array([four(entry.get("bbox")) for entry in annotations], dtype=np.float64).reshape(-1, 4)
    columns = {name: column.take(at) for name, column in of_image.items()} | {
        "finding": [None if k is None else words[k] for k in kind],
        **from_xywh(*box.T),
        "row": list(range(1, len(annotations) + 1)),
    }
    return Drawn(drawn_table(columns), looked_at(of_image), "COCO", tuple(words), "xywh")


def _entries(document: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    entries = document[name]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CxrError(f"{where}: {name} is not a list of objects.", "Write the file again, as COCO has it.")
    return entries


def _ids(entries: Sequence[dict[str, Any]], what: str, named: str, where: str) -> dict[Any, int]:
    """id → place; each id and each name must be there, once."""
    for name in ("id", named):
        values = [_key(entry, name) for entry in entries]
        bad = [i for i, value in enumerate(values, start=1) if value is None or (name == named and value == "")]
        again = len(values) - len(set(values))
        if bad or again:
            said = f"{len(bad):,} have none" if bad else f"{again:,} have one that another has"
            raise CxrError(f"{where}: of {len(values):,} {what}, {said}: {name}.", f"Give each of the {what} its own.")
    if not all(isinstance(entry[named], str) for entry in entries):
        raise CxrError(f"{where}: {named} of {what} is not always text.", "Write it in quotes.")
    return {entry["id"]: place for place, entry in enumerate(entries)}


def _key(entry: dict[str, Any], name: str) -> int | str | None:
    value = entry.get(name)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _columns_of_images(images: Sequence[dict[str, Any]], where: str) -> dict[str, pa.Array]:
    columns = {"image_id": pa.array([entry["file_name"] for entry in images], pa.string())}
    number = np.arange(1, len(images) + 1)
    for name in ("width", "height"):
        values = np.array([as_number(entry.get(name, math.nan)) for entry in images], dtype=np.float64)
        given = np.array([entry.get(name) is not None for entry in images], dtype=bool)
        columns[f"image_{name}"] = sides(values, given, f"{name} of images", where, number)
    return columns
