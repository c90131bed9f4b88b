"""Boxes that were drawn on films of another size than those that lie here, brought into these films' pixels.

What a box was drawn on is told by its form (ChestX-ray14 and RSNA: 1024×1024) or by a table of the dataset; what lies
here is told by the head of the film's file. Only copies are compared, PNG and JPEG: a DICOM file is what was drawn on.
Each side is scaled by itself, which is right for a copy that was shrunk or stretched, and not for one that was cut or
has bars. So that it happened is always said. Where nothing tells what was drawn on, and a box reaches far beyond its
film, no box of a copy can be trusted: all are left out.
"""

import re
import struct
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxrmine.data.encoded import FRAME_LS, JPEG_START, NEXT_MARKER, NO_FRAME, PNG_START, SCAN
from cxrmine.data.index import OF_ANOTHER_SIZE, Dropped, dropped
from cxrmine.data.tree import ONE_WAY, Tree
from cxrmine.tables import COORDINATES

ORIGINAL = re.compile(r".+\.(dcm|dicom|img)", re.IGNORECASE)
TOLD = ("image_width", "image_height")
HEAD = 2**16  # bytes, in which the size of nearly all files stands
SAMPLED = 8  # films of a tar archive that are looked at before its others: there is no short way to these
BEYOND = 0.05  # of a film's side, and a pixel: as far over the edge a box may be drawn and tell nothing of the scale
ALIKE = 0.02  # by which the two scales of a film may differ

Size = tuple[int, int]
Floats = npt.NDArray[np.float64]


def in_pixels_of_films(
    tree: Tree, boxes: pa.Table | None, path_of: Mapping[str, str | None], drawn_on: str, sizes_needed: bool
) -> tuple[pa.Table | None, tuple[Dropped, ...], tuple[str, ...]]:
    """The boxes, the ledger and notes. `drawn_on`: words for what they were drawn on; where there are none, boxes are
    in pixels of the films whatever their size; and so is, unless `sizes_needed`, a box of which no size is told."""
    if boxes is None or not drawn_on:
        return boxes, (), ()
    paths = [path_of.get(name or "") for name in boxes["image_id"].to_pylist()]
    told = np.column_stack([boxes[name].cast(pa.float64()).fill_null(np.nan).to_numpy() for name in TOLD])
    copies = {path for path in paths if path and not ORIGINAL.fullmatch(path)}
    sizes = _sizes(tree, copies, {path: (w, h) for path, (w, h) in zip(paths, told.tolist(), strict=True) if path})
    films = np.array([sizes.get(path or "", (np.nan, np.nan)) for path in paths], np.float64).reshape(-1, 2)
    corner = np.column_stack([boxes[name].fill_null(np.nan).to_numpy() for name in COORDINATES])
    with np.errstate(invalid="ignore"):
        scale = films / told
        other = np.isfinite(scale).all(axis=1) & (scale != 1).any(axis=1)
        unsure = np.isfinite(films).all(axis=1) & np.isnan(told).any(axis=1) & sizes_needed
        beyond = unsure & (corner[:, 2:] > films * (1 + BEYOND) + 1).any(axis=1)
    factor = np.where(other[:, None], np.tile(scale, 2), 1.0)
    for place, name in enumerate(COORDINATES):
        values = corner[:, place] * factor[:, place]
        column = pa.array(values, pa.float64(), mask=~np.isfinite(values))
        boxes = boxes.set_column(boxes.column_names.index(name), name, column)
    notes = _said(scale[other], [path for path, is_other in zip(paths, other, strict=True) if is_other], drawn_on)
    if not beyond.any():
        return boxes, (), notes
    row = int(np.flatnonzero(beyond)[0])
    (width, height), reach = films[row].astype(int).tolist(), corner[row, 2:]
    notes += (
        f"boxes: {unsure.sum():,} are left out, as they are in pixels of {drawn_on}, and {paths[row]} is "
        f"{width}×{height} where a box reaches {reach[0]:g},{reach[1]:g}; use those films, or put a table of their "
        "sizes beside these",
    )
    return boxes.filter(pa.array(~unsure)), dropped(OF_ANOTHER_SIZE, _names(boxes.filter(pa.array(unsure)))), notes


def _said(scale: Floats, paths: list[str | None], drawn_on: str) -> tuple[str, ...]:
    if not len(scale):
        return ()
    films = len({*paths})
    note = (
        f"boxes: {len(scale):,} on {films:,} films were drawn on {drawn_on}, and are scaled to the size of these copies"
    )
    uneven = {path for path, (x, y) in zip(paths, scale.tolist(), strict=True) if abs(x / y - 1) > ALIKE}
    if uneven:
        note += f"; {len(uneven):,} of these films have other proportions, so each side is scaled by itself"
    return (note,)


def _names(boxes: pa.Table) -> list[str]:
    return [f"{row['image_id']} {row['finding']}" for row in boxes.select(["image_id", "finding"]).to_pylist()]


# --- the sizes of files


def _sizes(tree: Tree, paths: Iterable[str], told: Mapping[str, tuple[float, float]]) -> dict[str, Size]:
    """Of all these films; in a tar archive of a few, where those have the size that is told."""
    apart: dict[str, list[str]] = {}
    for path in sorted(paths):
        archive = tree.container(path) or ("" if tree.root.is_dir() else tree.root.name)
        apart.setdefault(archive if ONE_WAY.fullmatch(archive) else "", []).append(path)
    sizes = _read(tree, apart.pop("", []))
    if apart:
        few = next(iter(apart.values()))[:SAMPLED]
        sizes |= (sampled := _read(tree, few))
        if any(size != told.get(path) for path, size in sampled.items()):
            sizes |= _read(tree, [path for inside in apart.values() for path in inside if path not in sampled])
    return sizes


def _read(tree: Tree, paths: Iterable[str]) -> dict[str, Size]:
    sizes: dict[str, Size] = {}
    packed: list[str] = []
    for path in paths:
        if not tree.root.is_dir() or tree.container(path):
            packed.append(path)
        elif (size := _of_file(tree, path)) is not None:
            sizes[path] = size
    for path, content in tree.stream(packed):
        if isinstance(content, bytes) and (size := announced_size(content)) is not None:
            sizes[path] = size
    return sizes


def _of_file(tree: Tree, path: str) -> Size | None:
    """None too where it cannot be read, which is told where films are."""
    where = tree.root / path
    try:
        if not where.is_file():  # reading a pipe would wait for ever
            return None
        with where.open("rb") as file:
            head = file.read(HEAD)
            return announced_size(head) or (announced_size(head + file.read()) if head.startswith(JPEG_START) else None)
    except OSError:
        return None


def announced_size(head: bytes) -> Size | None:
    """Width and height that the beginning of a PNG or JPEG tells, whether or not the rest is whole."""
    if head.startswith(PNG_START) and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
        return (width, height) if width and height else None
    start = 2
    while head.startswith(JPEG_START) and (marker := NEXT_MARKER.search(head, start)):
        code, segment = head[marker.start() + 1], marker.end()
        if code == SCAN or segment + 7 > len(head):
            return None
        if (0xC0 <= code <= 0xCF and code not in NO_FRAME) or code == FRAME_LS:
            height, width = struct.unpack_from(">HH", head, segment + 3)
            return (width, height) if width and height else None
        start = segment + struct.unpack_from(">H", head, segment)[0]
    return None
