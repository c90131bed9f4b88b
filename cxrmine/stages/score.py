"""Predictions and truth → every figure, beside what a mean box, a typical box and a random map would have scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.boxes.shards import grouped
from cxrmine.data.datasets import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.report import by_severity
from cxrmine.report import notes as remarks
from cxrmine.report import scores as report
from cxrmine.report.beside import beside, references
from cxrmine.scoring import areas, leakage, roc
from cxrmine.scoring.bounds import read_bounds, unbounded
from cxrmine.scoring.by_severity import BY, areas_by_severity, of_truth
from cxrmine.scoring.comparison import Differences
from cxrmine.scoring.controls import IN_SAMPLE, judged_pairs
from cxrmine.scoring.court import Court, Method, court, open_methods
from cxrmine.scoring.figures import MEAN, nested
from cxrmine.scoring.from_maps import open_maps
from cxrmine.scoring.probabilities import is_probabilities, read_probabilities
from cxrmine.scoring.protocols import AUC, OVERALL, Protocol, known_word, protocol
from cxrmine.scoring.readers import How
from cxrmine.scoring.scores import Scores
from cxrmine.scoring.truth import Asked, Seen, Truth, read, refuse_misspelt, refuse_strangers

OF_BOXES = (  # what says nothing where probabilities are scored: the areas have DeLong's intervals
    *("protocol", "afp_per", "order", "bounds", "columns", "names", "readers", "by_reader", "skip_faulty"),
    *("maps", "tune", "samples", "seed"),
)
FLAGS = {"names": "name", "samples": "bootstrap"}  # where the command line has another word


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
    roc: bool = False  # of probabilities: their ROC curves too
    by: str = ""  # severity: the same figures of mild, moderate and severe findings
    severity: Path | None = None  # the file that says how severe they are; None: the one beside the truth


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
    curves: list[roc.Curve] = field(default_factory=list)
    parts: list[by_severity.Part] = field(default_factory=list)  # of each severity, of what the tables show

    def tables(self) -> dict[str, report.Table]:
        """By kind and number: summary, differences:N, readers, severity, severity_findings:N, findings:N, sizes."""
        boxes = self.document["kind"] == "boxes"
        what = "Boxes against truth" if boxes else "Probabilities against labels"
        tables = {"summary": report.summary(what, self.rows, self.protocol, self.notes)}
        test = report.BY_BOOTSTRAP if boxes else report.BY_DELONG
        compared = report.compared(self.compared, self.document["method"], self.protocol, test)
        tables |= {f"differences:{n}": table for n, table in enumerate(compared)}
        if self.by_reader:
            tables["readers"] = report.summary("Boxes against each reader's alone", self.by_reader, self.protocol)
        if self.parts:
            tables |= by_severity.tables(self.parts, self.rows, self.protocol, self.document["severity"])
        tables |= {f"findings:{n}": table for n, table in enumerate(report.by_finding(self.rows, self.protocol))}
        return tables | ({"sizes": report.by_size(self.rows, self.edges, self.protocol)} if self.edges else {})

    def csv(self) -> str:
        return report.csv([*self.hidden, *self.rows, *(part.row for part in self.parts)])


def run(config: Score) -> ScoreResult:
    if config.by:
        known_word("way of splitting figures", config.by, {BY: BY})
    elif config.severity is not None:
        raise UsageError("--severity says what --by severity splits by.", "Add --by severity, or leave it out.")
    if _has_probabilities(config):
        return _of_probabilities(config)
    rules = protocol(config.protocol, config.afp_per, config.order)
    _refuse_useless(config, rules)
    bounds, printed = read_bounds(config.bounds), references(config.against, rules)
    methods = _told_apart(open_methods(config.predictions)) if config.predictions else []
    looked = [*(method.seen() for method in methods), *_seen_on_maps(config, methods)]
    truth = _truth(config, methods, looked)
    notes = [*remarks.of_origin(truth, methods, looked), *truth.notes]
    findings = pc.unique(truth.judged["finding"].cast(pa.string())).to_pylist()
    theirs = beside(printed, findings, rules)
    if bounds is not None:
        free = unbounded(bounds, findings)
        rules = replace(rules, departs=f"{rules.departs} {remarks.of_bounds(config.bounds, free, rules)}".strip())
    not_known = leakage.not_known(config.run_patients, [(m.name, m.scan.meta) for m in methods])
    leak = _leak(config, truth.judged, not_known)
    of_pairs = of_truth(truth, config.truth, config.severity, config.names) if config.by else None
    judge = court(rules, truth, methods, bounds, config.samples, config.seed, of_pairs)
    controls, origins, predicted = judge.judge(config.controls)
    compared = report.differing(predicted)
    document = report.document(rules, predicted, controls, compared, leak, (config.samples, config.seed))
    document["counts"] |= {"truth_boxes_on_images_not_mined": truth.not_mined}
    document |= {"references": origins, "bounds": bounds, "against": report.published(printed, theirs)}
    notes += remarks.of_controls(controls, origins, len(judged_pairs(truth.judged)), rules)
    notes += [*remarks.of_absent(predicted, rules), *not_known]
    products = bool(methods) and all(m.scan.meta.get("split") == "train" for m in methods)
    notes += [*leakage.notes(leak, products), *remarks.of_predictions(predicted)]
    if truth.not_mined:
        notes.append(f"{truth.not_mined:,} truth boxes lie on images that were not mined: not judged.")
    unshown = {IN_SAMPLE, *remarks.without_box(controls)}
    shown = {name: scores for name, scores in (controls | predicted).items() if name not in unshown}
    rows, parts = report.rows_of((name, s.figures) for name, s in shown.items()), by_severity.of_boxes(shown)
    if rules.name == "maxboxacc2":
        rows = [report.as_maxboxacc2(row) for row in rows]
        parts = [part._replace(row=report.as_maxboxacc2(part.row)) for part in parts]
    from_maps = _from_maps(config, rules, judge, document, notes)
    rows += report.rows_of((name, s.figures) for name, s in from_maps.items())
    parts += by_severity.of_boxes(from_maps)
    notes = [*remarks.of_intervals(rows, rules, config.samples, len(methods)), *notes]
    notes = document["notes"] = remarks.ordered([*notes, *remarks.of_references(printed, theirs)])
    hidden = report.rows_of((n, s.figures) for n, s in controls.items() if n == IN_SAMPLE)
    edges = next((scores.edges for scores in (predicted | controls).values()), [])
    of = (hidden, compared, _by_reader(config, judge, document), edges)
    if of_pairs is not None:
        document["severity"] = of_pairs.told
    return ScoreResult(rules, rows + theirs, document, notes, *of, parts=parts)


def _of_probabilities(config: Score) -> ScoreResult:
    """Areas under ROC curves, where the predictions are tables of probabilities and the truth is a dataset's labels."""
    if not config.truth.is_dir():
        raise CxrError(f"{config.truth} has no labels.", "Name the dataset's folder with --truth.")
    printed = references(config.against, AUC)
    index = open_dataset(config.truth)
    groups = grouped(config.predictions)
    names = areas.named([paths[0] for paths in groups])
    methods = [(name, read_probabilities(paths, index.findings)) for name, paths in zip(names, groups, strict=True)]
    splits = ",".join(config.splits) or None
    document = areas.document(methods, index, splits, config.findings or None)
    judged = areas.judged_images(methods, index, splits)
    if config.by:
        document["severity"], split = areas_by_severity(methods, index, judged, [*document["auc"]], config.severity)
        for name, of_method in {document["method"]: document, **document["others"]}.items():
            of_method["by"] = {BY: split[name]}
    not_known = leakage.not_known(config.run_patients, [(name, p.meta) for name, p in methods])
    leak = _leak(config, judged.table, not_known)
    strange = [n for n, p in methods if p.meta.get("dataset", index.fingerprint) != index.fingerprint]
    notes = [f"CAREFUL: the probabilities of {', '.join(strange)} are of another dataset."] if strange else []
    notes += [f"{name}: {areas.told(of['counts'])}." for name, of in areas.by_method(document).items()]
    notes += [*not_known, *leakage.notes(leak, products=False)]
    rows = [report.Row(name, *areas.keyed(of)) for name, of in areas.by_method(document).items()]
    theirs = beside(printed, list(document["auc"]), AUC)
    rows += theirs
    curves = roc.curves(methods, index, splits, config.findings or None) if config.roc else []
    notes += remarks.of_curves(curves)
    notes = remarks.ordered([*notes, *remarks.of_references(printed, theirs)])
    document |= {"leakage": leak, "against": report.published(printed, theirs)}
    of = (document | {"notes": notes}, notes)
    parts = by_severity.of_areas(document)
    return ScoreResult(AUC, rows, *of, compared=areas.differing(document), curves=curves, parts=parts)


def _has_probabilities(config: Score) -> bool:
    """Whether these are tables of probabilities; boxes beside them, or what says nothing of them, is refused."""
    places = [path.absolute() for path in config.predictions]
    if twice := [str(p) for p, at in zip(config.predictions, places, strict=True) if places.count(at) > 1]:
        raise UsageError(f"{twice[0]} is named twice.", "Name it once.")
    tables = {path: is_probabilities(path) for path in config.predictions}
    if not any(tables.values()):
        return False
    first = next(path for path, found in tables.items() if found)
    if boxes := [path for path, found in tables.items() if not found and path.exists()]:
        raise UsageError(f"{first} has probabilities, and {boxes[0]} has none.", "Score boxes and probabilities apart.")
    default = Score((), config.truth)
    given = [name for name in OF_BOXES if getattr(config, name) != getattr(default, name)]
    if given:
        flags = ", ".join(f"--{FLAGS.get(name, name).replace('_', '-')}" for name in given)
        raise UsageError(f"{first} has probabilities, and these are for boxes: {flags}.", "Leave them out.")
    return True


def _refuse_useless(config: Score, rules: Protocol) -> None:
    """What is asked for, and would do nothing."""
    if config.roc:
        raise UsageError("--roc is of probabilities, and boxes are scored here.", "Leave it out.")
    if config.maps is None and (config.tune or rules.name == "maxboxacc2"):
        what = f"--tune {config.tune}" if config.tune else f"Protocol {rules.name}"
        raise UsageError(f"{what} needs the maps.", "Mine with --maps DIR, and name that folder here with --maps.")
    if config.tune:
        known_word("way of tuning", config.tune, remarks.TUNING)
    if config.order is not None and not config.bounds:
        raise UsageError(
            "--order says which boxes come first where a bound ends their list, and there is no bound.",
            "Add --bounds, or leave --order out.",
        )
    if config.by_reader and not config.predictions:
        raise UsageError("--by-reader judges boxes, and none are named.", "Name boxes, or leave it out.")
    if config.by and all(column.measure in OVERALL for column in rules.columns):
        raise UsageError(
            f"Protocol {rules.name} shows measures of all images, and --by splits those of judged pairs.",
            "Choose another with --protocol: cai2018, ham2021, agcl2018.",
        )


def _truth(config: Score, methods: Sequence[Method], looked: Sequence[Seen]) -> Truth:
    what = (config.splits, config.findings, config.columns, config.names, config.readers, config.skip_faulty)
    truth = read(Asked(config.truth, *what), looked)
    if config.by_reader and truth.drawn is None:
        raise CxrError("The truth does not have boxes of several readers.", "Leave --by-reader out.")
    words = [method.recipe.get("data", {}).get("findings") for method in methods]
    known = {one.name: of or one.findings for one, of in zip(looked, words, strict=False)}
    refuse_misspelt(truth.judged, known)
    refuse_strangers(truth.everything, looked, str(config.truth))
    return truth


def _told_apart(methods: Sequence[Method]) -> list[Method]:
    """With the path in the name where two files of one name have boxes of one source, or it is a control's name."""
    names = [method.name for method in methods]
    again = [names.count(name) > 1 or name in remarks.CONTROLS for name in names]
    paths = [method.scan.paths[0].with_suffix("") for method in methods]
    return [
        replace(method, name=f"{method.scan.source} ({path})") if taken else method
        for method, path, taken in zip(methods, paths, again, strict=True)
    ]


def _seen_on_maps(config: Score, methods: Sequence[Method]) -> list[Seen]:
    """The images of the maps, where no boxes tell which were mined."""
    if config.maps is None or methods:
        return []
    return [Seen(f"the maps in {config.maps}", open_maps(config.maps).looked_at(), mined=True)]


def _leak(config: Score, judged: pa.Table, not_known: list[str]) -> dict[str, int]:
    leak = {} if not_known else leakage.leakage(config.run_patients, judged)
    if config.strict:
        leakage.refuse(leak, config.run_patients is not None and not not_known)
    return leak


def _from_maps(
    config: Score, rules: Protocol, judge: Court, document: dict[str, Any], notes: list[str]
) -> dict[str, Scores]:
    """Scores of what was made from a folder of maps, and what is said of them."""
    if config.maps is None:
        return {}
    shown = {}
    best = judge.all_cuts(config.maps)
    document["maxboxacc2"] = best.document()["maxboxacc2"]
    document.setdefault(MEAN, {})["maxboxacc2"] = best.document()[MEAN]["maxboxacc2"]
    if rules.name == "maxboxacc2":
        shown["maps, best of all cuts"] = best
    else:
        notes += remarks.of_maps(best)
    if config.tune:
        tuned = judge.tuned(config.maps)
        told = {name: {**tuned.told.get(name, {}), **scores.document()} for name, scores in tuned.scores.items()}
        held_out, oracle = (tuned.scores[f"{choice} cuts"].figures.values for choice in ("held-out", "oracle"))
        gap = {key: oracle[key] - held_out[key] for key in held_out if key.finding == MEAN}
        gap = {key: by for key, by in gap.items() if by == by}
        document["tuning"] = {"choice": config.tune, **told, "gap": nested(gap).get(MEAN, {})}
        name = f"{config.tune} cuts"
        shown[f"{name}, half of the patients"] = tuned.scores[name]
        shown |= {own: scores for own, scores in tuned.scores.items() if own not in tuned.told}
        notes += remarks.of_tuning(config.tune, tuned.told[name], gap)
    return shown


def _by_reader(config: Score, judge: Court, document: dict[str, Any]) -> list[report.Row]:
    if not config.by_reader:
        return []
    readers = judge.by_reader()
    document["by_reader"] = {r: {name: s.document() for name, s in of.items()} for r, of in readers.items()}
    return report.rows_of((f"{name} against {r}", s.figures) for r, of in readers.items() for name, s in of.items())
