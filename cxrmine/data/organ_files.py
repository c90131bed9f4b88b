"""Which mask file is of which film and which organ.

Masks in `organs/<organ>/<film's name without its ending>.png` belong to any dataset, whatever its layout. Layouts that
have masks of their own find them, and say with `of_every_film` which are missing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cxrmine.cores import threads
from cxrmine.data.assemble import Raw, stem
from cxrmine.data.encoded import Unreadable
from cxrmine.data.index import ORGAN_SCHEMA, Index, dropped
from cxrmine.data.organs import ORGANS, Mask, decode_mask
from cxrmine.data.tree import Content, Tree

OTHER_SIDE = {"left_lung": "right_lung", "right_lung": "left_lung"}
ASKED = 20  # films whose masks tell what left and right mean
ROWS = 256  # of a mask, that are enough to tell on which side it lies
SEVERAL = "mask of several films of one name"
SWAPPED = (
    "organs: the masks that are called left lie on the left of the picture, which is the patient's right; left and "
    "right are swapped"
)

Found = tuple[str, str, str | None]  # image, organ, path


def with_own_masks(tree: Tree, raw: Raw) -> Raw:
    """`raw` with the masks that lie in the folder `organs` of the dataset."""
    if not tree.masks:
        return raw
    of: dict[str, set[str]] = {}
    for image, path in zip(*(raw.images[name].to_pylist() for name in ("image_id", "path")), strict=True):
        if image is not None:
            of.setdefault(stem(path or image), set()).add(image)
    found: list[Found] = []
    several = []
    for mask in tree.masks:
        name, organ = stem(mask), mask.split("/")[-2]
        images = of.get(name, {name})
        if len(images) == 1:
            found.append((next(iter(images)), organ, mask))
        else:
            several.append(mask)
    organs = table_of(found)
    if raw.organs is not None:
        organs = pa.concat_tables([raw.organs, organs])
    return replace(raw, organs=organs, dropped=raw.dropped + dropped(SEVERAL, several))


def table_of(found: Iterable[Found]) -> pa.Table:
    columns = list(zip(*found, strict=True)) or [()] * len(ORGAN_SCHEMA)
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=ORGAN_SCHEMA)


def of_every_film(images: Sequence[str], found: Sequence[Found]) -> pa.Table | None:
    """Raw.organs of a dataset that has a mask of every film: one that is not there has no path. An organ of which
    there is none at all was not downloaded, and is not missed."""
    there = {(image, organ) for image, organ, _ in found}
    organs = sorted({organ for _, organ, _ in found})
    missing = [(image, organ, None) for image in images for organ in organs if (image, organ) not in there]
    return table_of([*found, *missing]) if found else None


def right_sides(index: Index) -> Index:
    """The masks by the patient's sides, whatever side their names were meant to be of, and a note of them.

    In a frontal film the patient's left lung lies on the right. Where the masks called left lie on the left of those
    called right in most of the first films that have both, all names are swapped. One film that was mirrored keeps its.
    """
    if index.organs is None:
        return index
    swapped = _are_the_pictures(index)
    names = [OTHER_SIDE.get(o, o) if swapped else o for o in index.organs["organ"].to_pylist()]
    organs = index.organs.set_column(1, ORGAN_SCHEMA.field("organ"), pa.array(names, pa.string()))
    counts = Counter(names)
    said = ", ".join(f"{organ} {counts[organ]:,}" for organ in ORGANS if counts[organ])
    notes = [f"organs: masks beside the films, {said}; a pack does not carry them"]
    if swapped:
        notes.append(SWAPPED)
    order = [("image_id", "ascending"), ("organ", "ascending")]
    return replace(index, organs=organs.sort_by(order).combine_chunks(), notes=(*index.notes, *notes))


def _are_the_pictures(index: Index) -> bool:
    """Whether left is the picture's in most of the first films that have a mask of both lungs."""
    assert index.organs is not None
    assert index.tree is not None
    of: dict[str, dict[str, str]] = {}
    for mask in index.organs.to_pylist():
        of.setdefault(mask["image_id"], {})[mask["organ"]] = mask["path"]
    both = [(m["left_lung"], m["right_lung"]) for m in of.values() if OTHER_SIDE.keys() <= m.keys()][:ASKED]
    most = ASKED // 2 + 1
    said = _say(index.tree, both[:most])
    if not (len(said) == most and len({*said}) == 1):  # as it is, others could not outvote them
        said += _say(index.tree, both[most:])
    return 2 * sum(said) > len(said)


def _say(tree: Tree, both: Sequence[tuple[str, str]]) -> list[bool]:
    """Of pairs of masks called left and right, whether left lies on the left; of those that can be read."""
    with ThreadPoolExecutor(threads(None)) as pool:
        middle = dict(pool.map(_middle, tree.stream(path for pair in both for path in pair)))
    places = [(middle[left], middle[right]) for left, right in both]
    return [left < right for left, right in places if not np.isnan(left + right)]


def _middle(file: tuple[str, Content]) -> tuple[str, float]:
    """How far from the left, 0 to 1, the middle of a mask lies; not a number where it cannot be read or is empty."""
    path, content = file
    try:
        if isinstance(content, Unreadable):
            raise content
        mask: Mask = decode_mask(content)
    except Unreadable:  # whoever uses it or checks the dataset will hear of it
        return path, float("nan")
    columns = mask[:: max(1, len(mask) // ROWS)].sum(axis=0)
    if not columns.any():
        return path, float("nan")
    return path, float(np.average(np.arange(len(columns)) + 0.5, weights=columns) / len(columns))
