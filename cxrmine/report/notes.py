"""What is said under a score's tables: where controls come from, what was not judged, and what to be careful of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrmine.report.scores import Row, has_intervals, shows
from cxrmine.scoring.bounds import WANG
from cxrmine.scoring.controls import IN_SAMPLE
from cxrmine.scoring.court import READERS, Method
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.judged import SIZES, numbers
from cxrmine.scoring.protocols import ORDERS, Protocol
from cxrmine.scoring.published import Reference
from cxrmine.scoring.roc import Curve, left_out
from cxrmine.scoring.scores import Scores
from cxrmine.scoring.truth import Seen, Truth

FIXED = ("mean box", "typical box", "random map")
CONTROLS = {*FIXED, IN_SAMPLE, READERS}
WHY = "the image's size is not known, no other patient has a box of that finding, or the random map has nothing to cut"
TUNING = {"held-out": "chosen on other patients", "oracle": "chosen on the scored patients themselves"}
FIRST = ("CAREFUL", "LEAKS")  # what a reader must not miss
BRACKETS = "In brackets"


def ordered(notes: Iterable[str]) -> list[str]:
    return sorted(notes, key=lambda note: not note.startswith(FIRST))


def of_origin(truth: Truth, methods: Sequence[Method], looked: Sequence[Seen]) -> Iterator[str]:
    """What is doubtful about boxes and truth being of the same films, and drawn by whom they should be."""
    strange = [m.name for m in methods if truth.dataset and m.scan.meta.get("dataset", truth.dataset) != truth.dataset]
    if strange:
        yield f"CAREFUL: the boxes of {', '.join(strange)} were mined from another dataset."
    if people := [m.name for m in methods if m.scan.source == "truth"]:
        yield f"CAREFUL: the boxes of {', '.join(people)} are truth, drawn by people."
    unsized = [s.name for s in looked if all(s.images[n].null_count == len(s.images) for n in ("width", "height"))]
    if unsized:
        yield f"{', '.join(unsized)}: the image's size is not said; taken as pixels of the truth's images."
    bare = np.isnan([numbers(truth.judged, name) for name in SIZES]).any(axis=0)
    if bare.any():
        yield (
            f"The image's size is not known for {bare.sum():,} of {len(truth.judged):,} judged truth boxes: "
            "whether they are in the same pixels as the predictions could not be checked."
        )


def of_intervals(rows: Sequence[Row], protocol: Protocol, samples: int, predictions: int) -> Iterator[str]:
    if has_intervals(rows, protocol):
        yield f"{BRACKETS}: 95 % interval by bootstrap over patients, {samples:,} samples."
    if predictions > 1 and not samples:
        yield "How the predictions differ is tested by the bootstrap, which --bootstrap 0 leaves out."


def of_bounds(asked: str, free: Sequence[str], protocol: Protocol) -> str:
    """A sentence of the protocol's."""
    all_taken = f", of {', '.join(free)} all" if free else ""
    whose = asked if ":" in asked or asked == WANG else Path(asked).name
    return f"Boxes are taken by {ORDERS[protocol.order]}, until AFP by IoU reaches the bound ({whose}){all_taken}."


def without_box(controls: Mapping[str, Scores]) -> list[str]:
    """The controls that would stand at 0 as if any method beat them."""
    return [name for name, scores in controls.items() if name in FIXED and not scores.counts["boxes"]]


def of_controls(controls: dict[str, Scores], origins: dict[str, str], pairs: int, protocol: Protocol) -> Iterator[str]:
    """`pairs`: all that are judged. Nothing where a protocol's tables have no control."""
    if not any(shows(Row.of(name, scores.figures), protocol) for name, scores in controls.items()):
        return
    if origins:
        yield f"Mean and typical box from: {'; '.join(sorted(set(origins.values())))}."
    counts = {name: scores.counts for name, scores in controls.items() if name in FIXED}
    fewer = {name: counted["judged_pairs"] for name, counted in counts.items() if counted["judged_pairs"] < pairs}
    if fewer:
        said = ", ".join(f"{name} {count:,}" for name, count in fewer.items())
        yield f"Of {pairs:,} judged pairs, controls are on some at equal steps: {said}."
    bare = {name: counted["judged_pairs_without_box"] for name, counted in counts.items() if counted["boxes"]}
    if any(bare.values()):
        said = ", ".join(f"{name} {count:,}" for name, count in bare.items() if count)
        yield f"Of {pairs:,} judged pairs, controls have no box for: {said} ({WHY})."
    if none := without_box(controls):
        yield f"Controls that have no box for any pair are not shown: {', '.join(none)} ({WHY})."
    if READERS in controls:
        pairs = controls[READERS].counts["judged_pairs"]
        yield f"{READERS}: each reader's boxes against those of the others, made one, in {pairs:,} pairs."


def of_predictions(predicted: dict[str, Scores]) -> Iterator[str]:
    told = {  # one, several
        "judged_pairs_without_box": ("judged pair has no box", "judged pairs have no box"),
        "images_not_in_dataset": ("image is not in the dataset", "images are not in the dataset"),
    }
    for name, scores in predicted.items():
        counts = scores.counts
        pairs = _many(counts["judged_pairs"], "pair", "pairs")
        judged = _many(counts["judged"], f"box of {pairs} is judged", f"boxes of {pairs} are judged")
        said = [judged]
        if counts["unjudged"]:
            absent = counts["unjudged_on_absent_pairs"]
            also = f" ({absent:,} false in measures of all images: no such finding there)" if absent else ""
            words = ("box of a pair without truth is unjudged", "boxes of pairs without truth are unjudged")
            pairs = f", {counts['unjudged_pairs']:,} of the mined pairs" if counts.get("unjudged_pairs") else ""
            said.append(_many(counts["unjudged"], *words) + pairs + also)
        said += [_many(counts[key], *words) for key, words in told.items() if counts.get(key)]
        if counts["findings_without_truth"]:
            said.append(f"no truth for {', '.join(counts['findings_without_truth'])}")
        yield f"{name}: {'; '.join(said)}."


def of_absent(predicted: dict[str, Scores], protocol: Protocol) -> Iterator[str]:
    """What needs all images, and has only those with the finding."""
    names = [name for name, scores in predicted.items() if not scores.counts["absent_pairs"]]
    if names and protocol.overall:
        yield (
            f"CAREFUL: of {', '.join(names)} no pair is known to be absent, so these figures see only pairs that have "
            "the finding. Mine with --findings all, or score against truth that says what was looked at."
        )


def _many(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def of_curves(curves: Sequence[Curve]) -> Iterator[str]:
    for name, findings in left_out(curves).items():
        yield f"{name}: no ROC curve of {', '.join(findings)}: positives or negatives are missing."


def of_references(references: Sequence[Reference], rows: Sequence[Row]) -> Iterator[str]:
    """How published figures were made otherwise than ours, once for all methods of a table; `rows`: what is shown."""
    printed = {reference.name: reference for reference in references}
    shown: dict[str, list[str]] = {}
    for row in rows:
        whole = row.values is printed[row.name].values
        of = "" if whole else "; here the mean over the judged findings it has"
        if whole and printed[row.name].own_mean:
            of = "; the mean over findings is computed here"
        shown.setdefault(f"{printed[row.name].differs}{of}", []).append(row.name)
    for differs, names in shown.items():
        yield f"{'; '.join(names)}: {differs}."


def of_maps(best: Scores) -> Iterator[str]:
    value = best.figures.values[Key("maxboxacc2", MEAN, "", MEAN)]
    yield f"MaxBoxAccV2 of the maps {value:.3f}: an upper bound, its cuts are chosen on the scored pairs (oracle)."


def of_tuning(choice: str, told: dict[str, Any], gap: Mapping[Key, float]) -> Iterator[str]:
    cuts = ", ".join(f"{finding} {cut:g}" for finding, cut in told["cuts"].items())
    picked, scored = (_many(told[name], "pair", "pairs") for name in ("picked_on", "scored_on"))
    how = f"{TUNING[choice]} for the best {told['objective']}, on {picked}"
    findings = _many(len(told["cuts"]), "finding", "findings")
    yield f"{choice} cuts: {how}; scored on {scored} of {findings}, half of the patients: {cuts}."
    shown = [(key, gap[key]) for key in (Key("acc_afp", MEAN, t, "acc") for t in ("0.1", "0.3", "0.5")) if key in gap]
    yield f"Oracle minus held-out: {', '.join(f'Acc {value:+.3f} at {key.at}' for key, value in shown)}."
