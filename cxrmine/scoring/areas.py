"""Image-level probabilities against labels: areas under the ROC curve, how two tables differ, and the JSON of both."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine import __version__
from cxrmine.boxes.shards import shard_stem
from cxrmine.data.index import SPLITS, UNMENTIONED, Index
from cxrmine.errors import CxrError
from cxrmine.scoring.classification import auc_interval, delong_test
from cxrmine.scoring.comparison import Differences
from cxrmine.scoring.figures import MEAN, Key
from cxrmine.scoring.probabilities import NAMES, Probabilities, aligned, refuse_strange
from cxrmine.scoring.statistics import holm

SCHEMA_VERSION = 1
UNCERTAIN = -1
PROTOCOL = {
    "name": "auc",
    "interval": "DeLong, 95 %, normal, clipped to 0..1; images count as independent",
    "test": "DeLong, paired, two-sided; other minus first; p_holm over the findings of one comparison",
    "uncertain": "left out",
    "unmentioned": "left out",
}

Floats = npt.NDArray[np.float64]


def score_probabilities(
    table: pa.Table, labels: npt.NDArray[np.int8], findings: Sequence[str], patients: Sequence[str]
) -> dict[str, Any]:
    """counts, auc and its macro mean. A row of `table`, of `labels` (N×C) and of `patients` is one image.

    Of each finding positives, negatives, uncertain, unmentioned and missing (without a probability) are all N images.
    """
    given = [name for name in table.column_names if name not in NAMES]
    scored = {f: numbers(table, f) for f in findings if f in given}
    areas = {f: _area(labels[:, list(findings).index(f)], values) for f, values in scored.items()}
    without = np.isnan(np.stack(list(scored.values()))).all(axis=0) if scored else np.ones(len(table), bool)
    absent = table["image_id"].is_null().to_numpy()
    counts = {
        "images": len(table),
        "patients": len(set(patients)),
        "images_without_row": int(absent.sum()),
        "images_without_probability": int((without & ~absent).sum()),
        "findings_without_labels": [f for f in given if f not in findings],
        "findings_without_probabilities": [f for f in findings if f not in given],
    }
    return {"counts": counts, "auc": areas, "mean": _mean("auc", areas)}


def compare(
    a: pa.Table, b: pa.Table, labels: npt.NDArray[np.int8], findings: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Per finding that both have: AUC of `b` minus AUC of `a` on the images with both probabilities, and p_holm."""
    result: dict[str, dict[str, Any]] = {}
    for c, finding in enumerate(findings):
        if finding in a.column_names and finding in b.column_names:
            first, second = numbers(a, finding), numbers(b, finding)
            both = np.isfinite(first) & np.isfinite(second)
            label = labels[both, c]
            figures = delong_test(label, second[both], first[both])._asdict()
            counts = {"positives": int((label == 1).sum()), "negatives": int((label == 0).sum())}
            result[finding] = {key: _plain(value) for key, value in figures.items()} | counts
    corrected = holm([math.nan if at["p"] is None else at["p"] for at in result.values()])
    for at, p in zip(result.values(), corrected, strict=True):
        at["p_holm"] = _plain(float(p))
    return result


def judged_images(methods: Sequence[tuple[str, Probabilities]], index: Index, splits: str | None = None) -> Index:
    """The images of `splits`, else of the split that all tables say they are of, else of those they have images of."""
    said = {probabilities.meta.get("split") for _, probabilities in methods}
    if splits is None and len(said) == 1 and None not in said:
        splits = str(said.pop())
    if splits is None:
        there = [p.table["image_id"].cast(pa.string()).combine_chunks() for _, p in methods]
        mine = index.table.filter(pc.is_in(index.table["image_id"], value_set=pa.concat_arrays(there)))
        splits = ",".join(split for split in SPLITS if split in pc.unique(mine["split"]).to_pylist())
    if not splits:
        names = ", ".join(name for name, _ in methods)
        raise CxrError(f"{index.root} has none of the images of {names}.", "Score with the dataset they are of.")
    return index.select(splits)


def document(
    methods: Sequence[tuple[str, Probabilities]],
    index: Index,
    splits: str | None = None,
    findings: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What goes into the JSON: the first method's figures at the top, further ones and how they differ below.

    `index` is the whole dataset; `findings` those to score, else all that it labels.
    """
    for name, probabilities in methods:
        refuse_strange(name, (*probabilities.findings, *probabilities.others), index.findings)
    judged = judged_images(methods, index, splits)
    there = [split for split in SPLITS if split in pc.unique(judged.table["split"]).to_pylist()]
    asked = tuple(findings or index.findings)
    labels = judged.labels(asked)
    tables = [aligned(probabilities.table, judged.table["image_id"]) for _, probabilities in methods]
    scores = []
    for (_, probabilities), table in zip(methods, tables, strict=True):
        score = score_probabilities(table, labels, asked, judged.table["patient_id"].to_pylist())
        unknown = [f for f in (*probabilities.findings, *probabilities.others) if f not in index.findings]
        score["counts"] |= {
            "splits": there,
            "findings_without_labels": unknown,
            **_elsewhere(probabilities.table, index, judged),
        }
        scores.append(score)
    names = [name for name, _ in methods]
    differences = {n: compare(tables[0], t, labels, asked) for n, t in zip(names[1:], tables[1:], strict=True)}
    return {
        "schema": SCHEMA_VERSION,
        "kind": "probabilities",
        "version": __version__,
        "method": names[0],
        "protocol": PROTOCOL,
        **scores[0],
        "others": dict(zip(names[1:], scores[1:], strict=True)),
        "differences": differences,
        "mean_differences": {name: _mean("difference", figures) for name, figures in differences.items()},
    }


def named(paths: Sequence[Path]) -> list[str]:
    """What to call tables by: their files' names, with the path where two are called the same."""
    stems = [shard_stem(path) for path in paths]
    return [
        f"{stem} ({path.with_suffix('')})" if stems.count(stem) > 1 else stem
        for stem, path in zip(stems, paths, strict=True)
    ]


def by_method(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The document's figures of each method, the first one too."""
    return {document["method"]: document, **document["others"]}


def keyed(figures: Mapping[str, Any]) -> tuple[dict[Key, float], dict[Key, tuple[float, float]]]:
    """(AUC by finding and their mean, the intervals), as the tables have them."""
    known = {f: at for f, at in figures["auc"].items() if at["auc"] is not None}
    values = {Key("auc", f, "", "auc"): at["auc"] for f, at in known.items()}
    if figures["mean"]["auc"] is not None:
        values[Key("auc", MEAN, "", "auc")] = figures["mean"]["auc"]
    return values, {
        Key("auc", f, "", "auc"): (at["low"], at["high"]) for f, at in known.items() if at["low"] is not None
    }


def differing(document: Mapping[str, Any]) -> dict[str, Differences]:
    """By method and finding, and the difference of the means, which is not tested."""
    names = ("difference", "low", "high", "p", "p_holm")
    result: dict[str, Differences] = {}
    for method, of in document["differences"].items():
        result[method] = {Key("auc", f, "", "auc"): {name: at[name] for name in names} for f, at in of.items()}
        mean = document["mean_differences"][method]["difference"]
        result[method][Key("auc", MEAN, "", "auc")] = dict.fromkeys(names) | {"difference": mean}
    return result


def told(counts: Mapping[str, Any]) -> str:
    """What was judged and what was not, in words."""
    said = [f"{counts['images']:,} images of {counts['patients']:,} patients, split {', '.join(counts['splits'])}"]
    words = {"images_without_row": "without a row", "images_without_probability": "without a probability"}
    said += [f"{counts[key]:,} of them {text}" for key, text in words.items() if counts.get(key)]
    for key, text in (("findings_without_labels", "no labels"), ("findings_without_probabilities", "no probabilities")):
        if counts[key]:
            said.append(f"{text} for {', '.join(counts[key])}")
    return "; ".join(said)


def _elsewhere(table: pa.Table, index: Index, judged: Index) -> dict[str, int]:
    """How many of a table's images are not judged, and why."""
    images = table["image_id"].cast(pa.string())
    known, scored = (
        int(pc.sum(pc.is_in(images, value_set=one.table["image_id"].combine_chunks())).as_py() or 0)
        for one in (index, judged)
    )
    return {"images_of_other_splits": known - scored, "images_not_in_dataset": len(images) - known}


def _area(label: npt.NDArray[np.int8], probability: Floats) -> dict[str, Any]:
    there = np.isfinite(probability)
    label = label[there]
    area, low, high = auc_interval(label, probability[there])
    return {
        **{"auc": _plain(area), "low": _plain(low), "high": _plain(high)},
        **{"positives": int((label == 1).sum()), "negatives": int((label == 0).sum())},
        **{"uncertain": int((label == UNCERTAIN).sum()), "unmentioned": int((label == UNMENTIONED).sum())},
        "missing": int((~there).sum()),
    }


def _mean(figure: str, findings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The macro mean over those findings of which the figure can be had, and how many they are."""
    known = [at[figure] for at in findings.values() if at[figure] is not None]
    return {figure: math.fsum(known) / len(known) if known else None, "findings": len(known)}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def numbers(table: pa.Table, name: str) -> Floats:
    """NaN for null."""
    return table[name].cast(pa.float64()).to_numpy()
