"""Every prediction and every control before the same truth, patients and rules."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.scan import REGION, Mined, Scan, ahead, open_boxes, read_mined
from cxrmine.boxes.shards import grouped
from cxrmine.boxes.table import BOX_ORDER
from cxrmine.cores import pool
from cxrmine.errors import CxrError
from cxrmine.scoring.by_severity import PairSeverities
from cxrmine.scoring.controls import IN_SAMPLE, at_equal_steps, box_controls, placed_on, random_control
from cxrmine.scoring.cover import Labels, absent_pairs, build, judged_by, named, on_images, only, people
from cxrmine.scoring.judged import Confidence, Cover, codes
from cxrmine.scoring.localization import Bounds
from cxrmine.scoring.overall import maxboxacc2_figures
from cxrmine.scoring.protocols import Protocol
from cxrmine.scoring.readers import by_reader, reader_against_rest
from cxrmine.scoring.scores import Prediction, Rules, Scores, score_boxes
from cxrmine.scoring.truth import Seen, Truth, seen
from cxrmine.scoring.tuning import halves, tune
from cxrmine.tables import ordered

READERS = "reader against the others"
MOST_CONTROLLED = 20_000  # pairs that controls are scored on


@dataclass(frozen=True)
class Method:
    """A prediction, by the source its boxes most often name."""

    name: str
    scan: Scan
    mined: Mined | None
    coming: Iterator[pa.Table]  # its chunks, once

    @property
    def recipe(self) -> dict[str, Any]:
        return self.scan.meta.get("recipe", {})

    def prediction(self, dataset: pa.Array | None) -> Prediction:
        fit = self.recipe.get("data", {}).get("fit", "stretch")
        ours = "weights_sha256" in self.scan.meta  # our scores are each pair's own: only P makes them one scale
        by: Confidence = "product" if ours else "score"
        return Prediction(self.name, self.scan.chunks, self.scan.regions, self.mined, fit, by, dataset)

    def seen(self) -> Seen:
        if self.mined is not None:
            return seen(self.name, self.mined, None)
        boxes = pa.concat_tables(list(self.scan.chunks()))
        if len(boxes) == 0:
            raise CxrError(
                f"{self.scan.paths[0]} has no boxes, and no table beside it of the images that were looked at.",
                "Name boxes, or keep B.images.parquet beside B.parquet.",
            )
        return seen(self.name, None, boxes)


class Tuned(NamedTuple):
    """Boxes that were cut anew from maps, each finding at one cut; scored on half of the patients."""

    scores: dict[str, Scores]  # held-out cuts, oracle cuts, and the first prediction as it is
    told: dict[str, dict[str, Any]]  # by the same names: which cuts, on how many pairs they were chosen


@dataclass(frozen=True)
class Court:
    rules: Rules
    truth: Truth
    methods: Sequence[Method]
    everybody: pa.StringArray  # the patients that a bootstrap draws from

    @property
    def recipe(self) -> dict[str, Any]:
        return self.methods[0].recipe if self.methods else {}

    @property
    def mined(self) -> Mined | None:
        return next((method.mined for method in self.methods if method.mined is not None), None)

    @property
    def overall(self) -> bool:
        """Whether controls get boxes on absent pairs too: where the tables show what needs these."""
        return self.rules.protocol.overall

    def judge(self, controls: bool) -> tuple[dict[str, Scores], dict[str, str], dict[str, Scores]]:
        """(controls, where they come from, predictions), two at a time: NumPy works outside Python's lock."""
        with pool() as workers:
            predicted = {method.name: workers.submit(self._method, method) for method in self.methods}
            judging: dict[str, Future[Scores]] = {}
            origins: dict[str, str] = {}
            if controls:
                base = self._cover(self.truth.judged, self.mined)
                placed = self._placed(base, self.truth.judged)
                some = at_equal_steps(placed, MOST_CONTROLLED)
                cover, share = only(base, some), len(some) / len(placed)
                judged = self.truth.judged.filter(judged_by(cover, self.truth.judged))
                others = absent_pairs(cover, self.everybody) if self.overall else None
                tables, origins = box_controls(judged, self.truth.everything, others)
                judging = {n: workers.submit(self._control, n, table, cover, share) for n, table in tables.items()}
                boxes, pairs = random_control(some, self.recipe)
                share = len(pairs) / len(placed)
                judging["random map"] = workers.submit(self._control, "random map", boxes, only(base, pairs), share)
                if self.truth.drawn is not None:
                    judging[READERS] = workers.submit(self._readers, self.truth.drawn)
            done = [{name: job.result() for name, job in jobs.items()} for jobs in (judging, predicted)]
            return done[0], origins, done[1]

    def tuned(self, maps: Path) -> Tuned:
        """The cuts chosen on other patients, and on those that they are scored on."""
        judged = halves(self.truth.judged)[1]
        scores, told = {}, {}
        for choice in ("held-out", "oracle"):
            table, what = tune(maps, self.truth.judged, choice)
            name = f"{choice} cuts"
            scores[name] = self._control(name, table, self._cover(judged, self.mined), 1.0, judged)
            told[name] = what
        for method in self.methods[:1]:  # what the recipe's own cuts reach on that half
            cover = self._cover(judged, method.mined)
            own = score_boxes(replace(method.prediction(None), control=True), judged, cover, self.rules)
            scores[f"{method.name}, same half"] = own
        return Tuned(scores, told)

    def all_cuts(self, maps: Path) -> Scores:
        """MaxBoxAccV2 of a folder of maps."""
        return Scores(maxboxacc2_figures(maps, self.truth.judged), {}, [])

    def by_reader(self) -> dict[str, dict[str, Scores]]:
        """Every prediction against each reader's boxes alone."""
        drawn = self.truth.drawn if self.truth.drawn is not None else self.truth.judged.slice(0, 0)
        rules = replace(self.rules, overall=self.overall)
        scores: dict[str, dict[str, Scores]] = {}
        for reader, own in by_reader(drawn).items():
            for m in self.methods:
                cover = on_images(self._cover(own, m.mined), self._looked_at_by(reader, own))
                scores.setdefault(reader, {})[m.name] = score_boxes(m.prediction(None), own, cover, rules)
        return scores

    def _looked_at_by(self, reader: str, own: pa.Table) -> pa.Array:
        """The images that this reader looked at, with or without drawing on them."""
        looked_at = self.truth.looked_at
        if looked_at is None:
            return pc.unique(own["image_id"].cast(pa.string()))
        return pc.unique(looked_at.filter(pc.equal(looked_at["reader"], reader))["image_id"].cast(pa.string()))

    def _cover(self, judged: pa.Table, mined: Mined | None) -> Cover:
        return build(judged, self.truth.everything, mined, self.truth.labels, self.everybody)

    def _placed(self, cover: Cover, judged: pa.Table) -> pa.Table:
        """The pairs that controls have boxes on."""
        return placed_on(judged, absent_pairs(cover, self.everybody) if self.overall else None)

    def _method(self, method: Method) -> Scores:
        cover = self._cover(self.truth.judged, method.mined)
        prediction = replace(method.prediction(self.truth.images), chunks=lambda: method.coming)
        return score_boxes(prediction, self.truth.judged, cover, self.rules)

    def _control(
        self, name: str, table: pa.Table, cover: Cover, share: float, judged: pa.Table | None = None
    ) -> Scores:
        """`share`: of all pairs, those that this control is scored on."""
        fit, regions = self.recipe.get("data", {}).get("fit", "stretch"), table.select(REGION)
        drawn = Prediction(
            name, lambda: [table], lambda rows: regions.take(pa.array(rows)), self.mined, fit, control=True
        )
        judged = self.truth.judged if judged is None else judged
        samples = 0 if name == IN_SAMPLE else self.rules.samples
        rules = replace(self.rules, overall=self.overall, samples=samples, share=share)
        return score_boxes(drawn, judged.filter(judged_by(cover, judged)), cover, rules)

    def _readers(self, drawn: pa.Table) -> Scores:
        """Each reader's boxes against the other readers', merged; an image counts once for each of its readers."""
        whole = self._cover(self.truth.judged, None)
        boxes, truths, images, people = [], [], [], []
        for one in reader_against_rest(drawn, self.truth.looked_at, self.truth.readers):
            boxes.append(_renamed(one.predictions, one.reader))
            truths.append(_renamed(one.truth, one.reader))
            known = one.images.filter(pc.is_in(one.images, value_set=whole.images))
            people.append(self.everybody.take(pa.array(whole.patient[codes(known, whole.images)])))
            images.append(_read_by(known, one.reader))
        truth, table = (ordered(pa.concat_tables(parts), BOX_ORDER) for parts in (truths, boxes))
        labels = _absent_elsewhere(pa.concat_arrays(images), pa.concat_arrays(people), truth)
        cover = build(truth, truth, None, labels if self.truth.looked_at is not None else None, self.everybody)
        rules = replace(self.rules, overall=self.overall, protocol=replace(self.rules.protocol, afp_per="finding"))
        rules = replace(rules, severities=None)  # these images are one reader's each, and no file speaks of them
        return score_boxes(Prediction(READERS, lambda: [table], control=True), truth, cover, rules)


def court(
    rules: Protocol,
    truth: Truth,
    methods: Sequence[Method],
    bounds: Bounds | None,
    samples: int,
    seed: int,
    severities: PairSeverities | None = None,
) -> Court:
    everybody = people(truth.judged, [method.mined for method in methods], truth.labels)
    common = Rules(rules, len(everybody), bounds, samples, seed, severities=severities)
    return Court(common, truth, methods, everybody)


def open_methods(predictions: Sequence[Path]) -> list[Method]:
    """Each by the source its boxes most often name, with its file's name where two would be called the same."""
    groups = grouped(predictions)
    scans = [open_boxes(paths) for paths in groups]
    coming = [ahead(scan.chunks()) for scan in scans]
    names = [scan.source for scan in scans]
    twice = {name for name, count in Counter(names).items() if count > 1}
    full = [f"{name} ({paths[0].stem})" if name in twice else name for name, paths in zip(names, groups, strict=True)]
    mined = [read_mined(scan) for scan in scans]
    return [Method(*of) for of in zip(full, scans, mined, coming, strict=True)]


def _renamed(table: pa.Table, reader: str) -> pa.Table:
    """The same with images that are this reader's own, of the patients that they were."""
    columns = {
        "patient_id": named(table["image_id"], table["patient_id"]),
        "image_id": _read_by(table["image_id"], reader),
    }
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), values.cast(table.schema.field(place).type))
    return table


def _read_by(images: pa.Array | pa.ChunkedArray, reader: str) -> pa.Array | pa.ChunkedArray:
    return pc.binary_join_element_wise(images.cast(pa.string()), reader, " read by ")


def _absent_elsewhere(images: pa.Array, people: pa.Array, truth: pa.Table) -> Labels:
    """What readers who looked at these images say by drawing nothing."""
    order = pc.sort_indices(images)
    findings = tuple(sorted(pc.unique(truth["finding"].cast(pa.string())).to_pylist()))
    nothing = np.zeros((len(images), len(findings)), np.int8)
    sizes = np.full((len(images), 2), np.nan)
    normal = np.ones(len(images), dtype=bool)  # those with truth boxes are taken out where the cover is built
    return Labels(images.take(order), people.take(order), findings, nothing, normal, sizes, complete=True)
