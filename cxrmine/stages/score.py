"""Boxes and truth → every figure, beside what a mean box, a typical box and a random map would have scored."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cxrmine.boxes.door import read_truth
from cxrmine.boxes.shards import Boxes, grouped, read_boxes
from cxrmine.boxes.table import truth_table
from cxrmine.errors import CxrError
from cxrmine.files import write_json, write_text
from cxrmine.scoring.controls import box_controls, patients, random_control
from cxrmine.scoring.localization import Bounds
from cxrmine.scoring.protocols import Protocol, protocol
from cxrmine.scoring.scores import readable_images, score_boxes

SCHEMA_VERSION = 1
SHOWN = ("0.1", "0.3", "0.5")


@dataclass(frozen=True)
class Score:
    predictions: tuple[Path, ...]  # each a file, a folder or a glob; none: the controls alone
    truth: Path  # a dataset's folder, Parquet or CSV
    protocol: str = "cai2018"
    afp_per: str | None = None  # finding, all or rows; None: the protocol's
    order: str | None = None  # image or score; None: the protocol's
    splits: tuple[str, ...] = ()  # judge truth of these splits; none: of all
    findings: tuple[str, ...] = ()  # judge these; none: all that have truth
    controls: bool = True
    seed: int = 0  # of the random map
    run_patients: Path | None = None  # a run's patients.parquet: who it has seen
    bounds: Bounds | None = None  # finding → T → largest AFP
    json: Path | None = None
    csv: Path | None = None


@dataclass(frozen=True)
class ScoreResult:
    """`rows`: (name, scores) of every control and then every prediction; `document`: what goes into the JSON."""

    protocol: Protocol
    rows: list[tuple[str, dict[str, Any]]]
    document: dict[str, Any]
    notes: list[str] = field(default_factory=list)


class Truth(NamedTuple):
    everything: pa.Table
    judged: pa.Table
    images: set[str] | None  # all of the dataset's, where the truth is a dataset


def run(config: Score) -> ScoreResult:
    rules = protocol(config.protocol, config.afp_per, config.order)
    truth = read(config)
    methods = _predictions(config)
    truth, not_mined = _on_mined_images(truth, methods)
    mined_images = next((readable_images(boxes.images) for _, boxes in methods if boxes.images is not None), None)
    controls: dict[str, dict[str, Any]] = {}
    references: dict[str, str] = {}
    if config.controls:
        recipe = methods[0][1].meta.get("recipe", {}) if methods else {}
        tables, references = box_controls(truth.judged, truth.everything)
        tables["random map"] = random_control(truth.judged, recipe, config.seed)
        like = Boxes(tables["random map"], {"recipe": recipe}, None)
        controls = {n: _scores(config, rules, truth, like._replace(table=t), mined_images) for n, t in tables.items()}
    predicted = [(name, _scores(config, rules, truth, boxes, mined_images)) for name, boxes in methods]
    leakage = _leakage(config, truth.judged)
    document = _document(rules, predicted, controls, references, leakage)
    document["counts"] = {**document["counts"], "truth_boxes_on_images_not_mined": not_mined}
    notes = _notes(rules, predicted, references, leakage)
    if not_mined:
        notes.append(f"{not_mined:,} truth boxes lie on images that were not mined: not judged.")
    result = ScoreResult(rules, [*controls.items(), *predicted], document, notes)
    if config.json is not None:
        write_json(config.json, result.document)
    if config.csv is not None:
        write_text(config.csv, "".join(",".join(map(_cell, line)) + "\n" for line in figures(result)))
    return result


def _scores(config: Score, rules: Protocol, truth: Truth, boxes: Boxes, mined_images: int | None) -> dict[str, Any]:
    """`mined_images` is another table's count, for one that has no images table of its own."""
    if boxes.images is not None:
        mined_images = readable_images(boxes.images)
    fit = boxes.meta.get("recipe", {}).get("data", {}).get("fit", "stretch")
    scores = score_boxes(
        boxes.table,
        truth.judged,
        rules,
        images=boxes.images,
        mined_images=mined_images,
        fit=fit,
        bounds=config.bounds,
    )
    if truth.images is not None:
        strangers = set(pc.unique(boxes.table["image_id"]).to_pylist()) - truth.images
        scores["counts"]["images_not_in_dataset"] = len(strangers)
    return scores


def read(config: Score) -> Truth:
    """All truth boxes and the judged ones, from wherever they are."""
    images = None
    if config.truth.is_dir():
        from cxrmine.data.layouts import open_dataset

        index = open_dataset(config.truth)
        everything, images = _truth_of(index.table, index.boxes), set(index.table["image_id"].to_pylist())
    else:
        everything = read_truth(config.truth)
    judged = everything
    for name, wanted in (("split", config.splits), ("finding", config.findings)):
        if wanted:
            judged = judged.filter(pc.is_in(judged[name].cast(pa.string()), value_set=pa.array(wanted, pa.string())))
    if len(judged) == 0:
        chosen = " and ".join(", ".join(words) for words in (config.splits, config.findings) if words)
        raise CxrError(
            f"{config.truth} has no truth boxes{' of ' + chosen if chosen else ''}.",
            "Name a dataset that has boxes, or a table of them, with --truth.",
        )
    return Truth(everything, judged, images)


def _truth_of(images: pa.Table, boxes: pa.Table) -> pa.Table:
    """The boxes of a dataset with what its index knows of their images."""
    at = pc.index_in(boxes["image_id"], images["image_id"].combine_chunks())
    columns = {name: boxes[name] for name in ("image_id", "finding", "x_min", "y_min", "x_max", "y_max")}
    sources = {"split": "split", "patient_id": "patient_id", "image_width": "width", "image_height": "height"}
    for name, theirs in sources.items():
        if name in boxes.column_names:
            columns[name] = boxes[name]
        elif theirs in images.column_names:
            columns[name] = images[theirs].take(at)
    return truth_table(columns)


def _on_mined_images(truth: Truth, methods: list[tuple[str, Boxes]]) -> tuple[Truth, int]:
    """The truth on images that every prediction has mined, with or without a box; and how many boxes are left out.

    Without an images table nobody can tell an image that was not mined from one where nothing was found: all count.
    """
    judged = truth.judged
    for name, boxes in methods:
        if boxes.images is None:
            continue
        mined = pc.unique(boxes.images["image_id"].cast(pa.string()))
        judged = judged.filter(pc.is_in(judged["image_id"].cast(pa.string()), value_set=mined))
        if len(judged) == 0:
            raise CxrError(
                f"No image of {name} has a truth box.",
                "Mine images that have truth (--split boxed), or name other truth.",
            )
    return truth._replace(judged=judged), len(truth.judged) - len(judged)


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


def _leakage(config: Score, judged: pa.Table) -> dict[str, Any]:
    """How many of the judged patients the run has trained or validated on; empty where no run was named."""
    if config.run_patients is None:
        return {}
    try:
        table = pq.ParquetFile(config.run_patients).read()
        seen = set(table["patient_id"].cast(pa.string()).to_pylist())
    except (pa.ArrowException, OSError, KeyError):
        raise CxrError(
            f"{config.run_patients} is not a run's table of patients.", "Name the patients.parquet of a run."
        ) from None
    ours = set(patients(judged))
    return {"patients": len(ours & seen), "of": len(ours)}


def _document(
    rules: Protocol,
    methods: list[tuple[str, dict[str, Any]]],
    controls: dict[str, dict[str, Any]],
    references: dict[str, str],
    leakage: dict[str, Any],
) -> dict[str, Any]:
    """The first prediction's figures at the top; further predictions under `others`."""
    name, first = methods[0] if methods else ("", {})
    document: dict[str, Any] = {"schema": SCHEMA_VERSION, "kind": "boxes", "method": name, "protocol": rules.describe()}
    document |= {"counts": first.get("counts", {}), "leakage": leakage, **first}
    return document | {"others": dict(methods[1:]), "controls": controls, "references": references}


def _notes(
    rules: Protocol, methods: list[tuple[str, dict[str, Any]]], references: dict[str, str], leakage: dict[str, Any]
) -> list[str]:
    notes = [rules.sentence()]
    if references:
        notes.append(f"Mean and typical box from: {'; '.join(sorted(set(references.values())))}.")
    if leakage.get("patients"):
        notes.append(f"LEAKS: the run has seen {leakage['patients']} of the {leakage['of']} judged patients.")
    elif leakage:
        notes.append(f"None of the {leakage['of']} judged patients was trained or validated on.")
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
            notes.append(f"{name}: {'; '.join(said)}.")
    return notes


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
