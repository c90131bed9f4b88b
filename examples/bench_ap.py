"""COCO's average precision of half a million boxes: how long cxrmine takes, and how long its peers do.

    uv run --group bench python examples/bench_ap.py            # some minutes: two peers take about a minute a run
    uv run --group bench python examples/bench_ap.py --quick    # without pycocotools and torchmetrics

112,120 images, 14 findings, 179,342 pairs of an image and a finding with one truth box each, three boxes a pair (whole
pixels, a normal error of 60; the confidence is random): 538,026 boxes. Everyone gets the same boxes in the form that is
its own, in memory: Arrow tables, arrays, COCO's dictionaries, a list of tensors. The time is from there to AP at ten
IoUs and 101 recalls, in two parts: to load (join, index) and to evaluate. The runs of the quick ones take turns.

The peers do as they do by default: four ranges of area, and three numbers of boxes an image. With --same-work they do
what cxrmine does, one range and one number. All must agree with cxrmine to 1e-6.
"""

import argparse
import contextlib
import gc
import importlib.util
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cxrmine.scoring.detection import ap, rank
from cxrmine.scoring.greedy import COCO_IOUS, true_positives
from cxrmine.scoring.judged import ABSENT, JUDGED, Cover, collect, match
from cxrmine.tables import COORDINATES, NAME

IMAGES, FINDINGS, PAIRS, A_PAIR, SIDE = 112_120, 14, 179_342, 3, 1024
NAMES = [f"finding {f:02}" for f in range(FINDINGS)]
FILMS = [f"{i:08}.png" for i in range(IMAGES)]
AGREE = 1e-6

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Step = Callable[[], Any]


class World(NamedTuple):
    """Sorted by image, finding and rank. `of`: the pair of each box."""

    image: Ints  # P
    finding: Ints  # P
    truth: Floats  # P×4
    of: Ints  # N
    boxes: Floats  # N×4
    confidence: npt.NDArray[np.float32]  # N


class Peer(NamedTuple):
    """`prepare` puts the world into the peer's own form, and gives the two steps that are timed: load(), and
    evaluate(what it gave), which is AP, findings × IoUs, or its means over findings."""

    name: str
    module: str
    most_runs: int
    prepare: Callable[[World, bool], tuple[Step, Callable[[Any], Floats]]]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="leave out pycocotools and torchmetrics")
    asked.add_argument("--same-work", action="store_true", help="peers look at one range of area, 100 boxes an image")
    asked.add_argument("--repeat", type=int, default=7, help="runs of the quick ones")
    options = asked.parse_args()
    world = make_world()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    say(f"{len(world.boxes):,} boxes, {len(world.truth):,} truth boxes; {machine}; {time.strftime('%Y-%m-%d')}")
    peers = [peer for peer in PEERS if peer.most_runs > 1 or not options.quick]
    missing = [peer for peer in peers if importlib.util.find_spec(peer.module) is None]
    for peer in missing:
        say(f"{peer.name} is not installed and is left out: uv sync --group bench")
    seconds: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in peers if peer not in missing}
    figures: dict[str, Floats] = {}
    for turn in range(options.repeat):
        for peer in peers:
            if peer not in missing and turn < peer.most_runs:
                spent, figures[peer.name] = timed(peer, world, options.same_work)
                seconds[peer.name].append(spent)
    compare(figures)
    table(seconds)


def timed(peer: Peer, world: World, same_work: bool) -> tuple[tuple[float, float], Floats]:
    load, evaluate = peer.prepare(world, same_work)
    gc.collect()
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        loaded = load()
        between = time.perf_counter()
        result = evaluate(loaded)
        end = time.perf_counter()
    return (between - start, end - between), result


def compare(figures: dict[str, Floats]) -> None:
    ours = figures["cxrmine"]
    say(f"mean AP {ours.mean():.6f}, at 0.5 {ours.mean(axis=0)[0]:.6f}, at 0.75 {ours.mean(axis=0)[5]:.6f}")
    for name, theirs in figures.items():
        at = [COCO_IOUS.index(0.5), COCO_IOUS.index(0.75)]
        mean = np.append(ours.mean(), ours.mean(axis=0)[at])
        difference = float(np.abs(theirs - (ours if theirs.shape == ours.shape else mean)).max())
        if difference > AGREE:
            raise SystemExit(f"{name} does not agree: a difference of {difference:.2g}")
        say(f"{name}: greatest difference from cxrmine {difference:.1g}, of {theirs.size} figures")


def table(seconds: dict[str, list[tuple[float, float]]]) -> None:
    totals = {name: [sum(parts) for parts in runs] for name, runs in seconds.items()}
    ours, ours_evaluate = (statistics.median(v) for v in (totals["cxrmine"], [e for _, e in seconds["cxrmine"]]))
    say("| | runs | load, s | evaluate, s | total, s (least to most) | total, ratio | evaluate, ratio |")
    say("| --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in seconds.items():
        load, evaluate = (statistics.median(part) for part in zip(*runs, strict=True))
        total = statistics.median(totals[name])
        spread = f"{min(totals[name]):.2f} to {max(totals[name]):.2f}"
        say(
            f"| {name} | {len(runs)} | {load:.2f} | {evaluate:.2f} | {total:.2f} ({spread}) "
            f"| {total / ours:.1f} | {evaluate / ours_evaluate:.1f} |"
        )


def make_world() -> World:
    rng = np.random.default_rng(0)
    pairs = np.sort(rng.choice(IMAGES * FINDINGS, PAIRS, replace=False))
    centre, size = rng.uniform(150, 870, (PAIRS, 2)), rng.lognormal(5.2, 0.5, (PAIRS, 2)).clip(30, 600)
    truth = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, SIDE).round()
    moved = (np.repeat(truth, A_PAIR, axis=0) + rng.normal(0, 60, (PAIRS * A_PAIR, 4))).round()
    low, high = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])
    low = low.clip(0, SIDE - 8)
    boxes = np.concatenate([low, np.maximum(high.clip(8, SIDE), low + 4)], axis=1)
    of = np.repeat(np.arange(PAIRS), A_PAIR)
    return World(*np.divmod(pairs, FINDINGS), truth, of, boxes, rng.random(len(boxes), dtype=np.float32))


def cxrmine_ap(world: World, same_work: bool) -> tuple[Step, Callable[[Any], Floats]]:
    """Tables of boxes and truth in, as they are read from Parquet."""
    of = world.of
    boxes = named_table(world.image[of], world.finding[of], world.boxes)
    boxes = boxes.append_column("rank", pa.array(np.tile(np.arange(1, A_PAIR + 1, dtype=np.int16), PAIRS)))
    boxes = boxes.append_column("score", pa.array(world.confidence))
    boxes = boxes.append_column("probability", pa.array(np.ones(len(of), np.float32)))
    truth = named_table(world.image, world.finding, world.truth)
    state = np.full((IMAGES, FINDINGS), ABSENT, np.int8)
    state[world.image, world.finding] = JUDGED
    unknown = np.full((IMAGES, 2), np.nan)
    cover = Cover(NAMES, pa.array(FILMS), np.arange(IMAGES), state, np.zeros(IMAGES, bool), unknown)

    def evaluate(loaded: Any) -> Floats:
        judged, absent, *_ = loaded
        true = true_positives(judged, match(judged), COCO_IOUS)
        return ap(rank(judged, absent, cover, most=100), true)

    return (lambda: collect([boxes], truth, cover)), evaluate


def named_table(image: Ints, finding: Ints, boxes: Floats) -> pa.Table:
    columns = {
        "image_id": pa.DictionaryArray.from_arrays(image.astype(np.int32), pa.array(FILMS)).cast(NAME),
        "finding": pa.DictionaryArray.from_arrays(finding.astype(np.int32), pa.array(NAMES)).cast(NAME),
        "image_width": pa.array(np.full(len(image), SIDE, np.int32)),
        "image_height": pa.array(np.full(len(image), SIDE, np.int32)),
    }
    return pa.table(columns | {name: pa.array(boxes[:, k].astype(np.float32)) for k, name in enumerate(COORDINATES)})


def hotcoco_ap(world: World, same_work: bool) -> tuple[Step, Callable[[Any], Floats]]:
    """Columns in: its fastest door."""
    from hotcoco import COCO, COCOeval

    images, categories, sides, found = coco_lists(), coco_categories(), wide_high(world.truth), coco_results(world)

    def load() -> tuple[Any, Any]:
        truth = COCO.from_arrays(images, categories, world.image + 1, world.finding + 1, sides)
        return truth, truth.load_res(found)

    return load, lambda loaded: coco_ap(COCOeval(*loaded, "bbox"), same_work)


def faster_coco_ap(world: World, same_work: bool) -> tuple[Step, Callable[[Any], Floats]]:
    from faster_coco_eval import COCO, COCOeval_faster

    annotations, found = coco_dictionary(world), coco_results(world)

    def load() -> tuple[Any, Any]:
        truth = COCO(annotations)
        return truth, truth.loadRes(found)

    return load, lambda loaded: coco_ap(COCOeval_faster(*loaded, "bbox"), same_work)


def pycocotools_ap(world: World, same_work: bool) -> tuple[Step, Callable[[Any], Floats]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, found = coco_dictionary(world), coco_results(world)

    def load() -> tuple[Any, Any]:
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        return truth, truth.loadRes(found)

    return load, lambda loaded: coco_ap(COCOeval(*loaded, "bbox"), same_work)


def torchmetrics_ap(world: World, same_work: bool) -> tuple[Step, Callable[[Any], Floats]]:
    """Tensors in, an image at a time; its figures are means over findings."""
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    truth_ends, box_ends = (np.searchsorted(at, np.arange(IMAGES + 1)) for at in (world.image, world.image[world.of]))
    corners, truth = (torch.from_numpy(boxes.astype(np.float32)) for boxes in (world.boxes, world.truth))
    label, truth_label = torch.from_numpy(world.finding[world.of]), torch.from_numpy(world.finding)
    score = torch.from_numpy(world.confidence)
    shown = [
        {"boxes": corners[a:b], "scores": score[a:b], "labels": label[a:b]}
        for a, b in zip(box_ends[:-1].tolist(), box_ends[1:].tolist(), strict=True)
    ]
    drawn = [
        {"boxes": truth[a:b], "labels": truth_label[a:b]}
        for a, b in zip(truth_ends[:-1].tolist(), truth_ends[1:].tolist(), strict=True)
    ]

    def load() -> Any:
        metric = MeanAveragePrecision(iou_thresholds=list(COCO_IOUS))
        metric.warn_on_many_detections = False
        metric.update(shown, drawn)
        return metric

    def evaluate(metric: Any) -> Floats:
        result = metric.compute()
        return np.array([float(result[name]) for name in ("map", "map_50", "map_75")])

    return load, evaluate


def coco_lists() -> list[dict[str, int]]:
    return [{"id": i + 1, "width": SIDE, "height": SIDE} for i in range(IMAGES)]


def coco_categories() -> list[dict[str, Any]]:
    return [{"id": f + 1, "name": name} for f, name in enumerate(NAMES)]


def coco_dictionary(world: World) -> dict[str, Any]:
    rows = zip(world.image.tolist(), world.finding.tolist(), wide_high(world.truth).tolist(), strict=True)
    annotations = [
        {"id": k, "image_id": i + 1, "category_id": f + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for k, (i, f, box) in enumerate(rows, start=1)
    ]
    return {"images": coco_lists(), "categories": coco_categories(), "annotations": annotations}


def coco_results(world: World) -> Floats:
    """N×7: image, x, y, width, height, score, category."""
    of = world.of
    ends = world.confidence.astype(np.float64), world.finding[of] + 1
    return np.column_stack([world.image[of] + 1, wide_high(world.boxes), *ends])


def wide_high(boxes: Floats) -> Floats:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def coco_ap(evaluation: Any, same_work: bool) -> Floats:
    if same_work:
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])  # IoUs × recalls × findings × areas × numbers of boxes
    return precision[:, :, :, 0, -1].mean(axis=1).T


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


PEERS = (
    Peer("cxrmine", "cxrmine", 100, cxrmine_ap),
    Peer("hotcoco", "hotcoco", 100, hotcoco_ap),
    Peer("faster-coco-eval", "faster_coco_eval", 3, faster_coco_ap),
    Peer("pycocotools", "pycocotools", 1, pycocotools_ap),
    Peer("torchmetrics", "torchmetrics", 1, torchmetrics_ap),
)


if __name__ == "__main__":
    main()
