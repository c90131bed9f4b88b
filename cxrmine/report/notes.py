"""What is said under a score's tables: where controls come from, what was not judged, and what to be careful of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cxrmine.scoring.court import Method
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.scores import Scores
from cxrmine.scoring.truth import Truth

FIXED = ("mean box", "typical box", "random map")
TUNING = {"held-out": "chosen on other patients", "oracle": "chosen on the scored patients themselves"}


def odd_dataset(truth: Truth, methods: Sequence[Method]) -> Iterator[str]:
    strange = [m.name for m in methods if truth.dataset and m.scan.meta.get("dataset", truth.dataset) != truth.dataset]
    if strange:
        yield f"CAREFUL: the boxes of {', '.join(strange)} were mined from another dataset."


def of_controls(controls: dict[str, Scores], origins: dict[str, str]) -> Iterator[str]:
    if origins:
        yield f"Mean and typical box from: {'; '.join(sorted(set(origins.values())))}."
    bare = {name: s.counts["judged_pairs_without_box"] for name, s in controls.items() if name in FIXED}
    if any(bare.values()):
        said = ", ".join(f"{name} {count:,}" for name, count in bare.items() if count)
        pairs = next(iter(controls.values())).counts["judged_pairs"]
        yield (
            f"Of {pairs:,} judged pairs, controls have no box for: {said} (the image's size is not known, "
            "no other patient has a box of that finding, or the random map nothing to cut)."
        )


def of_predictions(predicted: dict[str, Scores]) -> Iterator[str]:
    told = {
        "unjudged": "boxes of pairs without truth are unjudged",
        "judged_pairs_without_box": "judged pairs have no box",
        "images_not_in_dataset": "images are not in the dataset",
    }
    for name, scores in predicted.items():
        counts = scores.counts
        said = [f"{counts['judged']:,} boxes of {counts['judged_pairs']:,} pairs are judged"]
        said += [f"{counts[key]:,} {text}" for key, text in told.items() if counts.get(key)]
        if counts["findings_without_truth"]:
            said.append(f"no truth for {', '.join(counts['findings_without_truth'])}")
        yield f"{name}: {'; '.join(said)}."


def of_tuning(choice: str, told: dict[str, Any], gap: Mapping[Key, float]) -> Iterator[str]:
    cuts = ", ".join(f"{finding} {cut:g}" for finding, cut in told["cuts"].items())
    yield (
        f"{choice} cuts: {TUNING[choice]} for the best {told['objective']}, on {told['picked_on']:,} pairs; scored on "
        f"{told['scored_on']:,} pairs, half of the patients: {cuts}."
    )
    shown = [(key, gap[key]) for key in (Key("acc_afp", MEAN, t, "acc") for t in ("0.1", "0.3", "0.5")) if key in gap]
    yield f"Oracle minus held-out: {', '.join(f'Acc {value:+.3f} at {key.at}' for key, value in shown)}."
