"""Masks of the lungs and the heart: from their files to the network's input, and the index of the films that have one.

A mask is a PNG (1, 8 or 16 bits, gray, colour or with a palette) or a GIF, of which the first picture counts. Inside is
what is above half of the file's own largest value: 255 in most sets, and 1 in some.
"""

import io
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.encoded import CUT_OFF, PNG_START, Unreadable, png_size, refuse_too_large
from cxrmine.data.images import Geometry, place, stored_pixels
from cxrmine.data.index import WITHOUT_MASK, Index, dropped
from cxrmine.data.tree import read_file
from cxrmine.errors import CxrError

ORGANS = ("left_lung", "right_lung", "heart")  # of the patient: the left lung lies on the right of a frontal film
GIF_STARTS = (b"GIF87a", b"GIF89a")
DAMAGED = "damaged: its pixels cannot be decoded"

Mask = npt.NDArray[np.bool_]


def read_mask(path: Path) -> Mask:
    """H×W, true inside the organ. Unreadable where the file is no whole PNG or GIF."""
    content = read_file(path)
    if isinstance(content, Unreadable):
        raise content
    return decode_mask(content)


def decode_mask(data: bytes) -> Mask:
    """The same from bytes that are already in memory. A file of nothing but zeros is a mask of nothing."""
    if data.startswith(PNG_START):
        values = _png(data)
    elif data.startswith(GIF_STARTS):
        values = _gif(data)
    else:
        raise Unreadable("not a PNG or GIF file")
    return values > int(values.max()) / 2


def fitted_mask(path: Path, geometry: Geometry) -> npt.NDArray[np.float32]:
    """size×size: how much of each pixel of the input is inside, 0 to 1. Above 0.5 is the mask in the input.

    geometry: of the film. The mask may have another resolution: it covers the whole film, and nothing beyond it.
    """
    return place(read_mask(path).astype(np.float32), geometry)


def with_masks(index: Index) -> Index:
    """What an organ network learns from: the films that have a mask, with the organs that occur as their findings, 1
    where there is a mask and not mentioned where there is none."""
    if index.packed is not None:
        raise CxrError(
            f"{index.root} is a pack, and a pack carries no masks of organs.", "Name the dataset that it was made of."
        )
    if index.organs is None:
        raise CxrError(
            f"{index.root} has no masks of organs.",
            "Put them beside its films as organs/left_lung/NAME.png (right_lung, heart), NAME as the film's; or name a "
            "dataset that has some, such as one that cxrmine phantom writes.",
        )
    image = index.table["image_id"]
    has = pc.is_in(image, value_set=index.organs["image_id"].combine_chunks())
    without = image.filter(pc.invert(has)).to_pylist()
    kept = index.filter(has.to_numpy())
    if not len(kept):
        raise CxrError(
            f"None of the {len(index):,} films chosen from {index.root} has a mask of an organ.",
            "Choose another split.",
        )
    assert kept.organs is not None
    labels = _labels(kept.table["image_id"], kept.organs)
    columns = {name: kept.table[name] for name in kept.table.column_names}
    columns["labels"] = pa.StructArray.from_arrays(list(labels.values()), names=list(labels))
    columns["boxed"] = pa.array(np.zeros(len(kept), bool))
    return replace(
        kept,
        findings=tuple(labels),
        table=pa.table(columns).combine_chunks(),
        boxes=kept.boxes.slice(0, 0),
        dropped=kept.dropped + dropped(WITHOUT_MASK, without),
        notes=(*kept.notes, f"films with the mask of an organ: {len(kept):,} of {len(index):,}"),
    )


def _labels(image: pa.ChunkedArray, organs: pa.Table) -> dict[str, pa.Array]:
    """Of each organ that occurs, 1 where an image has its mask, else null."""
    labels = {}
    for organ in ORGANS:
        of_organ = organs["image_id"].filter(pc.equal(organs["organ"], organ)).combine_chunks()
        if len(of_organ):
            there = pc.is_in(image, value_set=of_organ).to_numpy()
            labels[organ] = pa.array(np.ones(len(image), np.int8), mask=~there)
    return labels


def _png(data: bytes) -> np.ndarray:
    picture = stored_pixels(data, *png_size(data))
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGRA2GRAY if picture.shape[2] == 4 else cv2.COLOR_BGR2GRAY)
    return picture


def _gif(data: bytes) -> np.ndarray:
    """Gray values of the first picture."""
    from PIL import Image

    if len(data) < 13:
        raise Unreadable(CUT_OFF)
    refuse_too_large(*struct.unpack_from("<HH", data, 6))
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as picture:
            refuse_too_large(*picture.size)  # a picture may reach beyond the screen that the file announces
            return np.asarray(picture.convert("L"))
    except Unreadable:
        raise
    except Exception:  # Pillow's faults have no common base
        raise Unreadable(DAMAGED) from None
