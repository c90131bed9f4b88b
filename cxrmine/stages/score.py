"""Boxes and truth → every figure, beside what a mean box, a typical box and a random map would have scored."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.boxes.shards import Boxes, grouped, read_boxes
from cxrmine.errors import CxrError
from cxrmine.files import sha256
from cxrmine.scoring.controls import box_controls, random_control
from cxrmine.scoring.protocols import Protocol, protocol
from cxrmine.scoring.scores import readable_images, score_boxes
from cxrmine.scoring.truth import Truth, read

SCHEMA_VERSION = 1
SHOWN = ("0.1", "0.3", "0.5")
NEAR = 0.8  # how alike two words are of which one is the other misspelt; Pneumonia and Pneumothorax are 0.67


@dataclass(frozen=True)
class Score:
    predictions: tuple[Path, ...]  # each a file, a folder or a glob; none: the controls alone
    truth: Path  # a dataset's folder, Parquet or CSV
    protocol: str = "cai2018"
    afp_per: str | None = None  # finding, all or rows; None: the protocol's
    splits: tuple[str, ...] = ()  # judge truth of these splits; none: of all
    findings: tuple[str, ...] = ()  # judge these; none: all that have truth
    controls: bool = True
    run_patients: Path | None = None  # a run's patients.parquet: who it has seen


@dataclass(frozen=True)
class ScoreResult:
    """`rows`: (name, scores) of every control and then every prediction; `document`: what goes into the JSON."""

    protocol: Protocol
    rows: list[tuple[str, dict[str, Any]]]
    document: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def run(config: Score) -> ScoreResult:
    rules = protocol(config.protocol, config.afp_per)
    methods = _predictions(config)
    truth = read(config.truth, config.splits, config.findings, methods)
    _refuse_misspelt(truth.judged, methods)
    mined_images = next((readable_images(boxes.images) for _, boxes in methods if boxes.images is not None), None)
    controls: dict[str, dict[str, Any]] = {}
    references: dict[str, str] = {}
    if config.controls:
        recipe = methods[0][1].meta.get("recipe", {}) if methods else {}
        tables, references = box_controls(truth.judged, truth.everything)
        tables["random map"] = random_control(truth.judged, recipe)
        like = Boxes(tables["random map"], {"recipe": recipe}, None)
        controls = {n: _scores(rules, truth, like._replace(table=t), mined_images) for n, t in tables.items()}
    predicted = [(name, _scores(rules, truth, boxes, mined_images)) for name, boxes in methods]
    made_elsewhere = _not_of_run(config, methods)
    leakage = {} if made_elsewhere else _leakage(config, truth.judged)
    document = _document(rules, predicted, controls, references, leakage)
    document["counts"] = {**document["counts"], "truth_boxes_on_images_not_mined": truth.not_mined}
    strange = [n for n, b in methods if truth.dataset and b.meta.get("dataset", truth.dataset) != truth.dataset]
    notes = [f"CAREFUL: the boxes of {', '.join(strange)} were mined from another dataset."] if strange else []
    notes += [rules.sentence(), *_control_notes(controls, references)]
    if made_elsewhere:
        notes.append(f"{made_elsewhere} was not mined with this run: whom its network has seen is not known.")
    notes += [*_leakage_notes(leakage, methods), *_prediction_notes(predicted)]
    if truth.not_mined:
        notes.append(f"{truth.not_mined:,} truth boxes lie on images that were not mined: not judged.")
    result = ScoreResult(rules, [*controls.items(), *predicted], document, notes)
    return result


def csv(result: ScoreResult) -> str:
    return "".join(",".join(map(_cell, line)) + "\n" for line in figures(result))


def _scores(rules: Protocol, truth: Truth, boxes: Boxes, mined_images: int | None) -> dict[str, Any]:
    """`mined_images` is another table's count, for one that has no images table of its own."""
    if boxes.images is not None:
        mined_images = readable_images(boxes.images)
    fit = boxes.meta.get("recipe", {}).get("data", {}).get("fit", "stretch")
    scores = score_boxes(boxes.table, truth.judged, rules, images=boxes.images, mined_images=mined_images, fit=fit)
    if truth.images is not None:
        strangers = set(pc.unique(boxes.table["image_id"]).to_pylist()) - truth.images
        scores["counts"]["images_not_in_dataset"] = len(strangers)
    return scores


def _predictions(config: Score) -> list[tuple[str, Boxes]]:
    """Each by the source its boxes most often name, with its file's name where two would be called the same."""
    groups = grouped(config.predictions)
    predicted = [read_boxes(paths) for paths in groups]
    names = []
    for boxes, paths in zip(predicted, groups, strict=True):
        source = Counter(boxes.table["source"].to_pylist()).most_common(1)
        names.append((source[0][0] if source else None) or paths[0].stem)
    twice = {name for name, count in Counter(names).items() if count > 1}
    full = [f"{name} ({paths[0].stem})" if name in twice else name for name, paths in zip(names, groups, strict=True)]
    return list(zip(full, predicted, strict=True))


def _refuse_misspelt(judged: pa.Table, methods: list[tuple[str, Boxes]]) -> None:
    """A truth finding that a method was never asked for, but nearly: its pairs would all count as missed."""
    findings = pc.unique(judged["finding"].cast(pa.string())).to_pylist()
    for name, boxes in methods:
        known = boxes.meta.get("recipe", {}).get("data", {}).get("findings") or ()
        lowered = {word.lower(): word for word in known}
        for finding in findings:
            near = get_close_matches(finding.lower(), lowered, 1, cutoff=NEAR)
            if finding not in known and near:
                raise CxrError(
                    f"The truth has boxes of {finding}, which {name} does not know. Did you mean {lowered[near[0]]}?",
                    "Name findings alike in truth and boxes, or judge others with --finding.",
                )


def _not_of_run(config: Score, methods: list[tuple[str, Boxes]]) -> str:
    """The first prediction that says it was made with other weights than those of the run that was named."""
    weights = config.run_patients and config.run_patients.with_name("model.safetensors")
    if not weights or not weights.is_file():
        return ""
    ours = sha256(weights)
    return next((name for name, boxes in methods if boxes.meta.get("weights_sha256", ours) != ours), "")


def _leakage(config: Score, judged: pa.Table) -> dict[str, int]:
    """How many of the judged patients the run has trained or validated on; empty where no run was named."""
    path = config.run_patients
    if path is None:
        return {}
    if not path.is_file():
        raise CxrError(f"There is no run in {path.parent}: it has no {path.name}.", "Name a run's folder with --run.")
    try:
        table = pq.ParquetFile(path).read()
        split = dict(zip(table["patient_id"].cast(pa.string()).to_pylist(), table["split"].to_pylist(), strict=True))
    except (pa.ArrowException, OSError, KeyError):
        raise CxrError(f"{path} is not a run's table of patients.", "Name the folder of a run with --run.") from None
    known = judged["patient_id"].cast(pa.string())
    ours = set(known.drop_null().to_pylist())
    trained = sum(split.get(patient) == "train" for patient in ours)
    seen = sum(patient in split for patient in ours)
    nameless = judged["image_id"].cast(pa.string()).filter(known.is_null())
    return {"patients": seen, "trained": trained, "of": len(ours), "images_without_patient": len(pc.unique(nameless))}


def _document(
    rules: Protocol,
    methods: list[tuple[str, dict[str, Any]]],
    controls: dict[str, dict[str, Any]],
    references: dict[str, str],
    leakage: dict[str, int],
) -> dict[str, Any]:
    """The first prediction's figures at the top; further predictions under `others`."""
    name, first = methods[0] if methods else ("", {})
    document: dict[str, Any] = {"schema": SCHEMA_VERSION, "kind": "boxes", "method": name, "protocol": rules.describe()}
    document |= {"counts": first.get("counts", {}), "leakage": leakage, **first}
    return document | {"others": dict(methods[1:]), "controls": controls, "references": references}


def _control_notes(controls: dict[str, dict[str, Any]], references: dict[str, str]) -> Iterator[str]:
    if references:
        yield f"Mean and typical box from: {'; '.join(sorted(set(references.values())))}."
    bare = {name: scores["counts"]["judged_pairs_without_box"] for name, scores in controls.items()}
    if any(bare.values()):
        said = ", ".join(f"{name} {count:,}" for name, count in bare.items() if count)
        pairs = next(iter(controls.values()))["counts"]["judged_pairs"]
        yield (
            f"Of {pairs:,} judged pairs, controls have no box for: {said} (the image's size is not known, "
            "no other patient has a box of that finding, or the random map nothing to cut)."
        )


def _leakage_notes(leakage: dict[str, int], methods: list[tuple[str, Boxes]]) -> Iterator[str]:
    """Boxes of training films are the product, so there that is said plainly; anywhere else it is a leak."""
    if not leakage:
        return
    of, trained = leakage["of"], leakage["trained"]
    if leakage["patients"]:
        product = bool(methods) and all(boxes.meta.get("split") == "train" for _, boxes in methods)
        said = f"The run was trained on {trained:,} of the {of:,} judged patients"
        if leakage["patients"] > trained:
            said += f", and validated on {leakage['patients'] - trained:,}"
        yield f"{said}: these are boxes of its training films." if product else f"LEAKS: {said}."
    elif of:
        yield f"None of the {of:,} judged patients was trained or validated on."
    if leakage["images_without_patient"]:
        unknown = leakage["images_without_patient"]
        yield f"The patients of {unknown:,} judged images are not known: the run may have seen them."


def _prediction_notes(methods: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    told = {
        "unjudged": "boxes of pairs without truth are unjudged",
        "judged_pairs_without_box": "judged pairs have no box",
        "images_not_in_dataset": "images are not in the dataset",
    }
    for name, scores in methods:
        counts = scores["counts"]
        said = [f"{counts[key]:,} {text}" for key, text in told.items() if counts.get(key)]
        if counts["findings_without_truth"]:
            said.append(f"no truth for {', '.join(counts['findings_without_truth'])}")
        if said:
            yield f"{name}: {'; '.join(said)}."


Table = tuple[str, list[str], list[list[str]], str]


def summary_table(result: ScoreResult) -> Table:
    """Title, header, rows and note for console.table: one row a method, macro over findings."""
    rule = result.protocol.rule
    header = ["", *(f"Acc (AFP) {rule} {t}" for t in SHOWN), "top-1 IoU"]
    rows = [
        [name, *(cell(scores["mean"]["acc_afp"][t]) for t in SHOWN), f"{scores['mean']['top1']['mean_iou']:.3f}"]
        for name, scores in result.rows
    ]
    return "Boxes against truth, mean over findings", header, rows, "\n".join(result.notes)


def finding_tables(result: ScoreResult) -> list[Table]:
    """One table a threshold: a row a finding, a column a method."""
    names = [name for name, _ in result.rows]
    findings = list(result.rows[0][1]["acc_afp"]) if result.rows else []
    return [
        (
            f"Acc (AFP) at IoU {result.protocol.rule} {t}",
            ["finding", *names],
            [[f, *(cell(scores["acc_afp"][f][t]) for _, scores in result.rows)] for f in findings],
            result.protocol.sentence(),
        )
        for t in SHOWN
    ]


def figures(result: ScoreResult) -> Iterator[tuple[Any, ...]]:
    """Every figure as one line: method, measure, finding (`mean` for the macro), threshold, figure, value."""
    yield "method", "measure", "finding", "threshold", "figure", "value"
    for method, scores in result.rows:
        for measure in ("acc_afp", "iou", "ior", "top1"):
            for finding, values in (*scores[measure].items(), ("mean", scores["mean"][measure])):
                for key, value in values.items():
                    if isinstance(value, dict):
                        yield from ((method, measure, finding, key, figure, v) for figure, v in value.items())
                    elif measure == "top1":
                        yield method, measure, finding, "", key, value
                    else:
                        yield method, measure, finding, key, "share", value


def cell(at: dict[str, Any]) -> str:
    return f"{at['acc']:.3f} ({at['afp']:.2f})"


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(c in text for c in ',"\n') else text
