"""What the tests of scores share: boxes whose IoU with the truth is a known fraction, and one way to score them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from cxrmine.boxes.scan import REGION, Mined, open_boxes, read_mined
from cxrmine.boxes.table import BOX_ORDER, SCHEMA, BoxWriter, order_in_pair, truth_table
from cxrmine.scoring.cover import Labels, people
from cxrmine.scoring.cover import build as build_cover
from cxrmine.scoring.localization import Bounds
from cxrmine.scoring.protocols import PROTOCOLS, Protocol
from cxrmine.scoring.scores import Prediction, Rules, Scores, score_boxes
from cxrmine.tables import COORDINATES, build, ordered

Box = tuple[float, float, float, float]
TRUTH: Box = (0, 0, 10, 10)
MISS: Box = (50, 50, 60, 60)


def covers(tenths: float) -> Box:
    """A box inside TRUTH whose IoU with it is tenths / 10."""
    return (0, 0, tenths, 10)


def table(rows: Sequence[tuple], **more: Any) -> pa.Table:
    """Rows of (image, finding, box) as predictions, sorted; ranks are the order within the pair as given."""
    boxes = build(SCHEMA, {"score": [0.5] * len(rows), **_columns(rows), **more})
    if boxes["rank"].null_count:
        image, finding = (boxes[name].combine_chunks() for name in BOX_ORDER[:2])
        place = boxes.schema.get_field_index("rank")
        ranks = pa.array(order_in_pair(image, finding)).cast(pa.int16())
        boxes = boxes.set_column(place, boxes.schema.field(place), ranks)
    return ordered(boxes, BOX_ORDER)


def truth(rows: Sequence[tuple], **more: Any) -> pa.Table:
    """Rows of (image, finding, box) as boxes that a person drew."""
    return truth_table(_columns(rows) | more)


def mined(
    labels: Mapping[str, Mapping[str, int]],
    unreadable: Sequence[str] = (),
    asked: int = 0,
    patients: Mapping[str, str] | None = None,
) -> Mined:
    """What was mined, from image → finding → label; `asked`: how many findings the network knows."""
    known = sorted({finding for of in labels.values() for finding in of})
    known += [f"another {k}" for k in range(len(known), asked)]
    pairs: list[dict[str, Any]] = []
    for image, of in sorted(labels.items()):
        status = "unreadable: cut off" if image in unreadable else "no box" if of else "no pair"
        rows = [{"finding": finding, "label": label} for finding, label in sorted(of.items())] or [{}]
        who = (patients or {}).get(image)
        pairs += [{"image_id": image, "patient_id": who, "status": status, **row} for row in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "b.parquet"
        with BoxWriter(path, {"recipe": {"data": {"findings": known}}}) as writer:
            writer.write([], pairs)
        found = read_mined(open_boxes(path))
    assert found is not None
    return found


def scored(
    boxes: pa.Table,
    drawn: pa.Table,
    rules: str | Protocol = "cai2018",
    *,
    looked_at: Mined | None = None,
    labels: Labels | None = None,
    everything: pa.Table | None = None,
    bounds: Bounds | None = None,
    samples: int = 0,
    seed: int = 0,
    **prediction: Any,
) -> Scores:
    """`boxes` against `drawn`; `everything`: also the truth that is not judged."""
    names = people(drawn, [looked_at], labels)
    cover = build_cover(drawn, drawn if everything is None else everything, looked_at, labels, names)
    protocol = PROTOCOLS[rules] if isinstance(rules, str) else rules
    regions = boxes.select(REGION)
    made = Prediction("cam", lambda: [boxes], lambda rows: regions.take(pa.array(rows)), looked_at, **prediction)
    return score_boxes(made, drawn, cover, Rules(protocol, len(names), bounds, samples, seed))


def score(*arguments: Any, **options: Any) -> dict[str, Any]:
    """The same, as the JSON has it."""
    return scored(*arguments, **options).document()


def _columns(rows: Sequence[tuple]) -> dict[str, Any]:
    columns: dict[str, Any] = {name: [row[i] for row in rows] for i, name in enumerate(("image_id", "finding"))}
    columns |= {name: [float(row[2][i]) for row in rows] for i, name in enumerate(COORDINATES)}
    return columns | {"image_width": [100] * len(rows), "image_height": [100] * len(rows)}
