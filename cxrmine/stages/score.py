"""Predictions and truth → every figure, beside what a mean box, a typical box and a random map would have scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.shards import grouped
from cxrmine.data.layouts import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.report import notes as remarks
from cxrmine.report import scores as report
from cxrmine.scoring import areas, leakage, published
from cxrmine.scoring.bounds import read_bounds
from cxrmine.scoring.comparison import Differences, differences
from cxrmine.scoring.controls import IN_SAMPLE
from cxrmine.scoring.court import Court, Method, court, open_methods
from cxrmine.scoring.figures import MEAN, nested
from cxrmine.scoring.from_maps import open_maps
from cxrmine.scoring.probabilities import is_probabilities, read_probabilities
from cxrmine.scoring.protocols import AUC, Protocol, known_word, protocol
from cxrmine.scoring.readers import How
from cxrmine.scoring.scores import Scores
from cxrmine.scoring.truth import Asked, Seen, read, seen

SCHEMA_VERSION = 1
NEAR = 0.8  # how alike two words are of which one is the other misspelt; Pneumonia and Pneumothorax are 0.67


@dataclass(frozen=True)
class Score:
    predictions: tuple[Path, ...]  # each a file, a folder or a glob; none: the controls alone
    truth: Path  # a dataset's folder, or boxes in any known form
    protocol: str = "cai2018"
    afp_per: str | None = None  # finding, all or rows; None: the protocol's
    order: str | None = None  # of the list of boxes inside a rank: image or score; None: the protocol's
    bounds: str = ""  # where the list stops: wang2017, PAPER:TABLE:METHOD, or a CSV of finding, threshold, afp
    splits: tuple[str, ...] = ()  # judge truth of these splits; none: of all
    findings: tuple[str, ...] = ()  # judge these; none: all that have truth
    columns: Mapping[str, str] | None = None  # what a CSV of truth calls our columns
    names: Mapping[str, str] | None = None  # findings of truth to rename
    readers: How = "fused"  # what becomes of boxes that several readers drew
    by_reader: bool = False  # also against each reader's own boxes
    skip_faulty: bool = False
    maps: Path | None = None  # a folder of maps: for tuning, and for MaxBoxAccV2
    tune: str = ""  # held-out or oracle: cut the maps anew
    against: tuple[str, ...] = ()  # published tables to stand beside ours: cai2018:2
    samples: int = 1000  # of the bootstrap; 0: no intervals
    seed: int = 0
    controls: bool = True
    run_patients: Path | None = None  # a run's patients.parquet: who it has seen
    strict: bool = False  # a leak is an error


@dataclass(frozen=True)
class ScoreResult:
    """`rows`: what the tables show, controls first; `document`: what goes into the JSON."""

    protocol: Protocol
    rows: list[report.Row]
    document: dict[str, Any]
    notes: list[str]
    hidden: list[report.Row] = field(default_factory=list)  # a control that no table shows
    compared: dict[str, Differences] = field(default_factory=dict)
    by_reader: list[report.Row] = field(default_factory=list)
    edges: list[float] = field(default_factory=list)

    def tables(self) -> dict[str, report.Table]:
        """By kind and number: summary, differences:N, readers, findings:N, sizes."""
        tables = {"summary": report.summary(self.rows, self.protocol, self.notes)}
        compared = report.compared(self.compared, self.document["method"], self.protocol)
        tables |= {f"differences:{n}": table for n, table in enumerate(compared)}
        if self.by_reader:
            tables["readers"] = report.summary(self.by_reader, self.protocol)
        tables |= {f"findings:{n}": table for n, table in enumerate(report.by_finding(self.rows, self.protocol))}
        return tables | ({"sizes": report.by_size(self.rows, self.edges)} if self.edges else {})

    def csv(self) -> str:
        return report.csv([*self.hidden, *self.rows])


def run(config: Score) -> ScoreResult:
    if config.predictions and is_probabilities(config.predictions[0]):
        return _of_probabilities(config)
    rules = protocol(config.protocol, config.afp_per, config.order)
    _refuse_missing_maps(config, rules)
    methods = open_methods(config.predictions) if config.predictions else []
    truth = read(_asked(config), [*map(_seen, methods), *_seen_on_maps(config, methods)])
    _refuse_misspelt(truth.judged, methods)
    made_elsewhere = leakage.not_of_run(config.run_patients, [(m.name, m.scan.meta) for m in methods])
    leak = {} if made_elsewhere else leakage.leakage(config.run_patients, truth.judged)
    if config.strict:
        leakage.refuse(leak, config.run_patients is not None and not made_elsewhere)
    judge = court(rules, truth, methods, read_bounds(config.bounds), config.samples, config.seed)
    controls, origins, predicted = judge.judge(config.controls)
    document = _document(rules, config, predicted, controls, origins, leak)
    document["counts"] |= {"truth_boxes_on_images_not_mined": truth.not_mined}
    notes = [*remarks.odd_dataset(truth, methods), *truth.notes, *remarks.of_controls(controls, origins)]
    if made_elsewhere:
        notes.append(f"{made_elsewhere} was not mined with this run: whom its network has seen is not known.")
    products = bool(methods) and all(m.scan.meta.get("split") == "train" for m in methods)
    notes += [*leakage.notes(leak, products), *remarks.of_predictions(predicted)]
    if truth.not_mined:
        notes.append(f"{truth.not_mined:,} truth boxes lie on images that were not mined: not judged.")
    rows = report.rows_of((name, s.figures) for name, s in (controls | predicted).items() if name != IN_SAMPLE)
    rows += _from_maps(config, rules, judge, document, notes)
    references = [reference for table in config.against for reference in published.against(table)]
    notes += [f"{reference.name}: {reference.differs}." for reference in references]
    compared = _compared(predicted, document)
    return ScoreResult(
        rules,
        rows + [report.Row(r.name, r.values, {}) for r in references],
        document,
        notes,
        report.rows_of((name, s.figures) for name, s in controls.items() if name == IN_SAMPLE),
        compared,
        _by_reader(config, judge, document),
        next((scores.edges for scores in predicted.values()), []),
    )


def _of_probabilities(config: Score) -> ScoreResult:
    """Areas under ROC curves, where the predictions are tables of probabilities and the truth is a dataset's labels."""
    if not config.truth.is_dir():
        raise CxrError(f"{config.truth} has no labels.", "Name the dataset's folder with --truth.")
    index = open_dataset(config.truth)
    groups = grouped(config.predictions)
    methods = [(paths[0].stem, read_probabilities(paths, index.findings)) for paths in groups]
    splits = ",".join(config.splits) or None
    document = areas.document(methods, index, splits, config.findings or None)
    judged = areas.judged_images(methods, index, splits).table
    leak = leakage.leakage(config.run_patients, judged)
    if config.strict:
        leakage.refuse(leak, config.run_patients is not None)
    strange = [n for n, p in methods if p.meta.get("dataset", index.fingerprint) != index.fingerprint]
    notes = [f"CAREFUL: the probabilities of {', '.join(strange)} are of another dataset."] if strange else []
    notes += [f"{name}: {areas.told(of['counts'])}." for name, of in areas.by_method(document).items()]
    rows = [report.Row(name, *areas.keyed(of)) for name, of in areas.by_method(document).items()]
    references = [reference for table in config.against for reference in published.against(table)]
    notes += [*leakage.notes(leak, products=False), *(f"{r.name}: {r.differs}." for r in references)]
    rows += [report.Row(r.name, r.values, {}) for r in references]
    return ScoreResult(AUC, rows, document | {"leakage": leak}, notes, compared=areas.differing(document))


def _asked(config: Score) -> Asked:
    how = (config.columns, config.names, config.readers, config.skip_faulty)
    return Asked(config.truth, config.splits, config.findings, *how)


def _seen(method: Method) -> Seen:
    if method.mined is not None:
        return seen(method.name, method.mined, None)
    return seen(method.name, None, pa.concat_tables(list(method.scan.chunks())))


def _seen_on_maps(config: Score, methods: Sequence[Method]) -> list[Seen]:
    """The images of the maps, where no boxes tell which were mined."""
    if config.maps is None or methods:
        return []
    return [Seen(f"the maps in {config.maps}", open_maps(config.maps).looked_at(), mined=True)]


def _refuse_missing_maps(config: Score, rules: Protocol) -> None:
    if config.maps is None and (config.tune or rules.name == "maxboxacc2"):
        what = f"--tune {config.tune}" if config.tune else f"Protocol {rules.name}"
        raise UsageError(f"{what} needs the maps.", "Mine with --maps DIR, and name that folder here with --maps.")
    if config.tune:
        known_word("way of tuning", config.tune, remarks.TUNING)


def _from_maps(
    config: Score, rules: Protocol, judge: Court, document: dict[str, Any], notes: list[str]
) -> list[report.Row]:
    """Rows of what was made from a folder of maps, and what is said of them."""
    if config.maps is None:
        return []
    rows = []
    if rules.name == "maxboxacc2":
        scores = judge.all_cuts(config.maps)
        document["maxboxacc2"] = scores.document()["maxboxacc2"]
        rows.append(report.Row.of("maps, best of all cuts", scores.figures))
    if config.tune:
        tuned = judge.tuned(config.maps)
        told = {name: {**tuned.told[name], **scores.document()} for name, scores in tuned.scores.items()}
        held_out, oracle = (tuned.scores[f"{choice} cuts"].figures.values for choice in ("held-out", "oracle"))
        gap = {key: oracle[key] - held_out[key] for key in held_out if key.finding == MEAN}
        document["tuning"] = {"choice": config.tune, **told, "gap": nested(gap)[MEAN]}
        name = f"{config.tune} cuts"
        rows.append(report.Row.of(name, tuned.scores[name].figures))
        notes += remarks.of_tuning(config.tune, tuned.told[name], gap)
    return rows


def _by_reader(config: Score, judge: Court, document: dict[str, Any]) -> list[report.Row]:
    if not config.by_reader:
        return []
    if judge.truth.drawn is None:
        raise CxrError("The truth does not have boxes of several readers.", "Leave --by-reader out.")
    readers = judge.by_reader()
    document["by_reader"] = {r: {name: s.document() for name, s in of.items()} for r, of in readers.items()}
    return report.rows_of((f"{name} against {r}", s.figures) for r, of in readers.items() for name, s in of.items())


def _refuse_misspelt(judged: pa.Table, methods: Sequence[Method]) -> None:
    """A truth finding that a method was never asked for, but nearly: its pairs would all count as missed."""
    findings = pc.unique(judged["finding"].cast(pa.string())).to_pylist()
    for method in methods:
        known = method.recipe.get("data", {}).get("findings") or ()
        lowered = {word.lower(): word for word in known}
        for finding in findings:
            near = get_close_matches(finding.lower(), lowered, 1, cutoff=NEAR)
            if finding not in known and near:
                raise CxrError(
                    f"The truth has boxes of {finding}, which {method.name} does not know. "
                    f"Did you mean {lowered[near[0]]}?",
                    f"Say so with --name {finding}={lowered[near[0]]}, or judge others with --finding.",
                )


def _document(
    rules: Protocol,
    config: Score,
    predicted: dict[str, Scores],
    controls: dict[str, Scores],
    origins: dict[str, str],
    leak: dict[str, int],
) -> dict[str, Any]:
    """The first prediction's figures at the top, further predictions under `others`."""
    documents = {name: scores.document() for name, scores in predicted.items()}
    name = next(iter(documents), "")
    first = documents.pop(name, {})
    bootstrap = {"samples": config.samples, "seed": config.seed, "unit": "patient", "interval": "percentile, 95 %"}
    document: dict[str, Any] = {"schema": SCHEMA_VERSION, "kind": "boxes", "method": name, "protocol": rules.describe()}
    document |= {"counts": first.get("counts", {}), "leakage": leak, **first, "bootstrap": bootstrap}
    document |= {"others": documents, "controls": {n: s.document() for n, s in controls.items()}}
    return document | {"references": origins}


def _compared(predicted: dict[str, Scores], document: dict[str, Any]) -> dict[str, Differences]:
    """How every further prediction differs from the first."""
    figures = [(name, scores.figures) for name, scores in predicted.items()]
    compared = {name: differences(figures[0][1], other) for name, other in figures[1:]}
    document["differences"] = {name: nested(by_key) for name, by_key in compared.items()}
    return compared
