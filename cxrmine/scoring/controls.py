"""What would be scored without looking at the images: mean box, typical box, random map. A method has to beat these.

Each is a boxes table, so that it goes through the same scoring. The boxes it learns from are other patients': the
truth of split `train` without the scored patients, for a finding that has any; else the scored patients of the four
other folds, of five that a hash of the patient's name decides.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.extract import extract, to_input
from cxrmine.boxes.geometry import mean_box, scale, typical_box
from cxrmine.boxes.table import BOX_ORDER, SCHEMA, order_in_pair
from cxrmine.cores import threads
from cxrmine.data.images import fit_geometry
from cxrmine.scoring.cover import named
from cxrmine.scoring.judged import SIZES, codes, corners, numbers
from cxrmine.tables import COORDINATES, build, ordered

FOLDS = 5
MOST_REFERENCES = 400  # a typical box compares all with all
MOST_RANDOM, SOME_RANDOM = 1000, 500  # of more pairs, random maps are drawn for some
RANDOM_CELLS = 16  # a side of the random map, before it is brought to the input's size
RANDOM_SIZE = 128
IN_SAMPLE = "mean box (in-sample)"
OUTSIDE, FOLDED = "train split, other patients", f"scored patients, {FOLDS} folds by patient"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
PAIR = ["image_id", "finding", "split", "patient_id", *SIZES]


class _Drawn(NamedTuple):
    """Truth boxes of images of known size."""

    table: pa.Table
    finding: Ints
    boxes: Floats  # as fractions of their image's sides


def box_controls(
    scored: pa.Table, truth: pa.Table, others: pa.Table | None = None
) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """(tables of `mean box`, `typical box` and IN_SAMPLE for the pairs of `scored`, where each finding's come from).

    `scored` is the judged truth, `truth` all of it; `others`: further pairs that get a box, with the columns of PAIR.
    References are compared as fractions of their image's sides and scaled to the image they are put on; a pair whose
    image has no known size, or that no reference is left for, gets no box. IN_SAMPLE learns from the very boxes it is
    scored on: what a method could seem to reach by that alone.
    """
    pairs = placed_on(scored, others)
    findings = pc.unique(scored["finding"].cast(pa.string())).sort()
    finding, sizes, fold_of = codes(pairs["finding"], findings), _sizes(pairs), _folds(pairs)
    own, others_boxes = _drawn(scored, findings), _of_others(truth, scored, findings)
    own_fold = _folds(own.table)
    boxes = {name: np.full((len(pairs), 4), np.nan) for name in ("mean box", "typical box", IN_SAMPLE)}
    origin: dict[str, str] = {}
    for f, name in enumerate(findings.to_pylist()):
        rows = np.flatnonzero((finding == f) & np.isfinite(sizes).all(axis=1))
        outside = others_boxes.boxes[others_boxes.finding == f]
        mine, folds = own.boxes[own.finding == f], own_fold[own.finding == f]
        origin[name] = OUTSIDE if len(outside) else FOLDED
        groups = (
            [(rows, outside)] if len(outside) else [(rows[fold_of[rows] == k], mine[folds != k]) for k in range(FOLDS)]
        )
        for members, references in groups:
            if len(members) and len(references):
                boxes["mean box"][members] = scale(mean_box(references), *sizes[members].T)
                boxes["typical box"][members] = scale(_typical(references), *sizes[members].T)
        if len(rows):
            boxes[IN_SAMPLE][rows] = scale(mean_box(mine), *sizes[rows].T)
    return {control: _table(control, pairs, values) for control, values in boxes.items()}, origin


def random_control(pairs: pa.Table, recipe: Mapping[str, Any], seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """(boxes, their pairs): a random smooth map for each pair, cut as the recipe cuts its own.

    Of more than MOST_RANDOM pairs, SOME_RANDOM at equal steps. The map is smooth, so RANDOM_SIZE pixels are enough.
    """
    mine, data = recipe.get("mine", {}), recipe.get("data", {})
    size, fit = min(int(data.get("size", RANDOM_SIZE)), RANDOM_SIZE), data.get("fit", "stretch")
    options = {key: mine[key] for key in ("way", "top", "cuts", "min_area") if mine.get(key)}
    pairs = at_equal_steps(pairs, MOST_RANDOM if len(pairs) <= MOST_RANDOM else SOME_RANDOM)

    def boxes_of(pair: dict[str, Any]) -> list[dict[str, Any]]:
        if pair["image_width"] is None or pair["image_height"] is None:
            return []
        geometry = fit_geometry(pair["image_width"], pair["image_height"], size, fit)
        noise = random_map(pair["image_id"], pair["finding"], size, seed)
        visible = np.zeros_like(noise)
        visible[geometry.film()] = noise[geometry.film()]
        cut = extract(visible, **options)
        boxes = geometry.to_original(cut.boxes)
        seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # not wholly beside the film
        rows = []
        for rank, i in enumerate(np.flatnonzero(seen), start=1):
            worth = {"rank": rank, "score": float(cut.scores[i]), "threshold": float(cut.thresholds[i])}
            region = {"region": cut.regions[i], "region_height": size, "region_width": size}
            place = dict(zip(COORDINATES, boxes[i].tolist(), strict=True))
            rows.append({**pair, **worth, **place, **region, "source": "random map"})
        return rows

    with ThreadPoolExecutor(threads(None)) as pool:
        rows = [row for rows in pool.map(boxes_of, pairs.to_pylist()) for row in rows]
    return ordered(build(SCHEMA, rows), BOX_ORDER), pairs


def random_map(image_id: str, finding: str, size: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Smoothed noise, 0..1, size×size: the same for the same names and seed."""
    name = f"{image_id}\0{finding}\0{seed}".encode()
    noise = np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8], "big"))
    smooth = cv2.GaussianBlur(noise.random((RANDOM_CELLS, RANDOM_CELLS)).astype(np.float32), (0, 0), 1.5)
    above = np.maximum(smooth - smooth.mean(), 0)
    return to_input(above / above.max(), (size, size), align="resize")


def placed_on(scored: pa.Table, others: pa.Table | None) -> pa.Table:
    """The judged pairs, and those others; sorted."""
    pairs = judged_pairs(scored)
    if others is None:
        return pairs
    return ordered(pa.concat_tables([pairs, others.cast(pairs.schema)]), BOX_ORDER[:2])


def at_equal_steps(pairs: pa.Table, most: int) -> pa.Table:
    if len(pairs) <= most:
        return pairs
    return pairs.take(pa.array(np.linspace(0, len(pairs) - 1, most).astype(np.int64)))


def judged_pairs(truth: pa.Table) -> pa.Table:
    """The first truth row of each (image, finding)."""
    image, finding = (truth[name].unify_dictionaries().combine_chunks() for name in ("image_id", "finding"))
    return truth.filter(pa.array(order_in_pair(image, finding) == 1)).select(PAIR)


@cache
def fold(patient_id: str) -> int:
    """0 to 4, the same on every machine, for ever."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") % FOLDS


def _folds(table: pa.Table) -> Ints:
    """The fold of each row's patient; where none is known, of its image."""
    encoded = named(table["image_id"], table["patient_id"]).dictionary_encode()
    of_name = np.array([fold(name) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    return of_name[encoded.indices.to_numpy()]


def _drawn(truth: pa.Table, findings: pa.Array) -> _Drawn:
    truth = truth.filter(pa.array(np.isfinite(_sizes(truth)).all(axis=1)))
    return _Drawn(truth, codes(truth["finding"], findings), scale(corners(truth), *(1 / _sizes(truth)).T))


def _of_others(truth: pa.Table, scored: pa.Table, findings: pa.Array) -> _Drawn:
    """The boxes of split train whose patients are not scored."""
    train = truth.filter(pc.equal(truth["split"].cast(pa.string()), "train"))
    people = pc.unique(named(scored["image_id"], scored["patient_id"]))
    known = pc.is_in(named(train["image_id"], train["patient_id"]), value_set=people)
    return _drawn(train.filter(pc.invert(known)), findings)


def _sizes(table: pa.Table) -> Floats:
    return np.stack([numbers(table, name) for name in SIZES], axis=1)


def _typical(references: Floats) -> Floats:
    if len(references) > MOST_REFERENCES:
        references = references[np.linspace(0, len(references) - 1, MOST_REFERENCES).astype(int)]
    return typical_box(references)


def _table(control: str, pairs: pa.Table, boxes: Floats) -> pa.Table:
    """The pairs that have a box, as a boxes table."""
    has = np.isfinite(boxes).all(axis=1)
    chosen, count = pairs.filter(pa.array(has)), int(has.sum())
    columns = {name: chosen[name] for name in PAIR} | dict(zip(COORDINATES, boxes[has].T, strict=True))
    one = {"rank": np.ones(count, np.int16), "score": np.ones(count, np.float32)}
    source = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [control])
    return build(SCHEMA, columns | one | {"source": source})
