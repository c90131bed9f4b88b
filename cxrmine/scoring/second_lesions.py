"""Second lesions: of the pairs with two truth boxes or more, how many are hit beyond the first.

Acc counts every truth box, and most pairs have one, so what erasing is for hardly shows in it. Here a pair with n truth
boxes of which k are hit (IoU > T) has n - 1 second lesions, and k - 1 of them are hit. A method that draws more boxes
hits more; `take` compares at equal numbers: of the list B (rank 1 of all pairs, then rank 2, …; inside a rank by score)
the first so many.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cxrmine.boxes.geometry import iou_matrix
from cxrmine.tables import COORDINATES

Pair = tuple[str, str]


class Second(NamedTuple):
    """`hit` of `lesions` second lesions, with so many boxes."""

    hit: int
    lesions: int
    boxes: int


def second_lesions(boxes: pa.Table, truth: pa.Table, at: float, take: int | None = None) -> Second:
    """Of the pairs in `truth` that have two boxes or more; all of `boxes`, or the first `take` of the list B."""
    true = {pair: corners for pair, corners in _corners(truth, range(len(truth))).items() if len(corners) > 1}
    chosen = _list_b(boxes, true)[:take]
    mined = _corners(boxes, chosen)
    hit = 0
    for pair, corners in mined.items():
        found = (iou_matrix(corners, true[pair]).max(axis=0) > at).sum()
        hit += max(0, int(found) - 1)
    return Second(hit, sum(len(corners) - 1 for corners in true.values()), len(chosen))


def _list_b(boxes: pa.Table, true: dict[Pair, np.ndarray]) -> list[int]:
    """The rows of `boxes` that belong to these pairs, in the order in which they are taken."""
    names, findings = boxes["image_id"].to_pylist(), boxes["finding"].to_pylist()
    ranks, scores = boxes["rank"].to_pylist(), boxes["score"].to_pylist()
    rows = [i for i in range(len(boxes)) if (names[i], findings[i]) in true]
    return sorted(rows, key=lambda i: (ranks[i], -scores[i], names[i], findings[i]))


def _corners(table: pa.Table, rows: list[int] | range) -> dict[Pair, np.ndarray]:
    """n×4 a pair, of these rows."""
    place = np.stack([table[name].to_numpy() for name in COORDINATES], axis=1)
    names, findings = table["image_id"].to_pylist(), table["finding"].to_pylist()
    grouped: dict[Pair, list[int]] = defaultdict(list)
    for i in rows:
        grouped[names[i], findings[i]].append(i)
    return {pair: place[of] for pair, of in grouped.items()}
