"""What would be scored without looking at the images: mean box, typical box, random map. A method has to beat these.

Each is a boxes table, so that it goes through the same scoring. The boxes it learns from are other patients': the
truth of split `train` without the scored patients, for a finding that has any; else the scored patients of the four
other folds, of five that a hash of the patient's name decides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.extract import extract, to_input
from cxrmine.boxes.geometry import mean_box, scale, typical_box
from cxrmine.boxes.table import BOX_ORDER, COORDINATES, SCHEMA, build, order_in_pair, ordered
from cxrmine.data.images import fit_geometry
from cxrmine.scoring.localization import corners, numbers

FOLDS = 5
MOST_REFERENCES = 1000  # a typical box compares all with all
RANDOM_CELLS = 16  # a side of the random map, before it is brought to the input's size
DEFAULT_SIZE = 512

Floats = npt.NDArray[np.float64]
Strings = npt.NDArray[np.object_]
PAIR = ["image_id", "finding", "split", "patient_id", "image_width", "image_height"]


def box_controls(scored: pa.Table, truth: pa.Table) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """(tables of `mean box` and `typical box` for the pairs of `scored`, whose boxes each finding's come from).

    `scored` is the judged truth, `truth` all of it. References are compared as fractions of their image's sides and
    scaled to the image they are put on; a pair whose image has no known size, or that no reference is left for, gets
    no box.
    """
    pairs = judged_pairs(scored)
    finding, patient = _text(pairs["finding"]), patients(pairs)
    sizes = _sizes(pairs)
    placed: dict[str, list[tuple[Floats, npt.NDArray[np.int64]]]] = {"mean box": [], "typical box": []}
    origin: dict[str, str] = {}
    for name in sorted(set(finding)):
        rows = np.flatnonzero((finding == name) & np.isfinite(sizes).all(axis=1))
        origin[name], groups = _references(name, patient[rows], scored, truth)
        for members, references in groups:
            if len(references) and len(members):
                for control, box in (("mean box", mean_box(references)), ("typical box", _typical(references))):
                    placed[control].append((scale(box, *sizes[rows[members]].T), rows[members]))
    return {control: _table(control, pairs, boxes) for control, boxes in placed.items()}, origin


def random_control(scored: pa.Table, recipe: Mapping[str, Any], seed: int = 0) -> pa.Table:
    """A random smooth map for each judged pair, cut as the recipe cuts the network's."""
    mine, data = recipe.get("mine", {}), recipe.get("data", {})
    size, fit = int(data.get("size", DEFAULT_SIZE)), data.get("fit", "stretch")
    options = {key: mine[key] for key in ("way", "top", "cuts", "min_area") if mine.get(key)}
    rows: list[dict[str, Any]] = []
    for pair in judged_pairs(scored).to_pylist():
        if pair["image_width"] is None or pair["image_height"] is None:
            continue
        geometry = fit_geometry(pair["image_width"], pair["image_height"], size, fit)
        noise = random_map(pair["image_id"], pair["finding"], size, seed)
        visible = np.zeros_like(noise)
        visible[geometry.film()] = noise[geometry.film()]
        cut = extract(visible, **options)
        boxes = geometry.to_original(cut.boxes)
        seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # not wholly beside the film
        for rank, i in enumerate(np.flatnonzero(seen), start=1):
            worth = {"rank": rank, "score": float(cut.scores[i]), "threshold": float(cut.thresholds[i])}
            region = {"region": cut.regions[i], "region_height": size, "region_width": size}
            place = dict(zip(COORDINATES, boxes[i].tolist(), strict=True))
            rows.append({**pair, **worth, **place, **region, "source": "random map"})
    return ordered(build(SCHEMA, rows), BOX_ORDER)


def random_map(image_id: str, finding: str, size: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Smoothed noise, 0..1, size×size: the same for the same names and seed."""
    name = f"{image_id}\0{finding}\0{seed}".encode()
    noise = np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()[:8], "big"))
    smooth = cv2.GaussianBlur(noise.random((RANDOM_CELLS, RANDOM_CELLS)).astype(np.float32), (0, 0), 1.5)
    above = np.maximum(smooth - smooth.mean(), 0)
    return to_input(above / above.max(), (size, size), align="resize")


def judged_pairs(truth: pa.Table) -> pa.Table:
    """The first truth row of each (image, finding)."""
    image, finding = (truth[name].unify_dictionaries().combine_chunks() for name in ("image_id", "finding"))
    return truth.filter(pa.array(order_in_pair(image, finding) == 1)).select(PAIR)


def patients(table: pa.Table) -> Strings:
    """Each row's patient; where none is known, the image stands for its own."""
    return _text(pc.coalesce(table["patient_id"].cast(pa.string()), table["image_id"].cast(pa.string())))


def fold(patient_id: str) -> int:
    """0 to 4, the same on every machine, for ever."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:8], "big") % FOLDS


def _references(
    finding: str, patient: Strings, scored: pa.Table, truth: pa.Table
) -> tuple[str, list[tuple[npt.NDArray[np.int64], Floats]]]:
    """(where they come from, [(the pairs that get them, n×4 references)]) of one finding."""
    train = truth.filter(pc.and_(pc.equal(truth["finding"], finding), pc.equal(truth["split"], "train")))
    others = ~np.isin(patients(train), patients(scored))
    boxes = _fractions(train.filter(pa.array(others)))
    if len(boxes):
        return "train split, other patients", [(np.arange(len(patient)), boxes)]
    own = scored.filter(pc.equal(scored["finding"], finding))
    own_fold = np.array([fold(p) for p in patients(own)], dtype=np.int64)
    pair_fold = np.array([fold(p) for p in patient], dtype=np.int64)
    groups = []
    for k in range(FOLDS):
        away = own.filter(pa.array(own_fold != k))
        groups.append((np.flatnonzero(pair_fold == k), _fractions(away)))
    return f"scored patients, {FOLDS} folds by patient", groups


def _fractions(table: pa.Table) -> Floats:
    """Boxes as fractions of their image's sides; those of an image without known size are left out."""
    sizes = _sizes(table)
    known = np.isfinite(sizes).all(axis=1)
    return scale(corners(table)[known], *(1 / sizes[known]).T)


def _sizes(table: pa.Table) -> Floats:
    return np.stack([numbers(table, "image_width"), numbers(table, "image_height")], axis=1)


def _typical(references: Floats) -> Floats:
    if len(references) > MOST_REFERENCES:
        references = references[np.linspace(0, len(references) - 1, MOST_REFERENCES).astype(int)]
    return typical_box(references)


def _table(control: str, pairs: pa.Table, placed: Sequence[tuple[Floats, npt.NDArray[np.int64]]]) -> pa.Table:
    rows = np.concatenate([rows for _, rows in placed]) if placed else np.empty(0, dtype=np.int64)
    boxes = np.concatenate([boxes for boxes, _ in placed]) if placed else np.empty((0, 4))
    chosen = pairs.take(pa.array(rows))
    columns = {name: chosen[name] for name in PAIR} | dict(zip(COORDINATES, boxes.T, strict=True))
    one = {"rank": np.ones(len(rows), np.int64), "score": np.ones(len(rows)), "source": [control] * len(rows)}
    return ordered(build(SCHEMA, columns | one), BOX_ORDER)


def _text(column: pa.ChunkedArray) -> Strings:
    return np.asarray(column.cast(pa.string()).to_pylist(), dtype=object)
