"""How severe the finding of each judged pair is on its film: what boxes and probabilities are split by.

A box counts in the severity of its own pair and in no other. Areas under ROC curves compare the films of one severity
with all films that do not have the finding.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cxrmine.data.index import Index
from cxrmine.data.severities import FILES, LEVELS, UNKNOWN, beside, placed
from cxrmine.errors import CxrError
from cxrmine.files import sha256
from cxrmine.scoring.areas import score_probabilities
from cxrmine.scoring.judged import Bools, Cover, Judged
from cxrmine.scoring.probabilities import Probabilities, aligned
from cxrmine.scoring.truth import Truth

BY = "severity"
GROUPS = {**LEVELS, "unknown": UNKNOWN}  # in the order they are shown
ABSENT = -1  # no severity: the film does not have the finding
OTHER = 2  # a label that is neither present nor absent: the film has the finding in another severity

Levels = npt.NDArray[np.int8]


class PairSeverities(NamedTuple):
    images: pa.Array  # N
    findings: list[str]
    values: Levels  # N×C: mild, moderate, severe, or UNKNOWN
    told: dict[str, Any]  # for the JSON: which file says so, and how many judged pairs are of each severity

    def of(self, judged: Judged, cover: Cover) -> dict[str, Bools]:
        """Which of the judged pairs are of each severity."""
        images = cover.images.take(pa.array(judged.pair_image))
        findings = pa.array(judged.findings, pa.string()).take(pa.array(judged.pair_finding))
        return split(self.levels(images, findings))

    def levels(self, images: pa.Array, findings: pa.Array) -> Levels:
        """Of each pair."""
        row, column = (
            pc.fill_null(pc.index_in(words.cast(pa.string()), value_set=known), -1).to_numpy(zero_copy_only=False)
            for words, known in ((images, self.images), (findings, pa.array(self.findings, pa.string())))
        )
        padded = np.pad(self.values, ((0, 1), (0, 1)), constant_values=UNKNOWN)  # where a place of -1 leads
        return padded[row, column]


def split(levels: Levels) -> dict[str, Bools]:
    """Where each severity is; `unknown` only if it is anywhere."""
    groups = {word: levels == level for word, level in GROUPS.items()}
    return {word: kept for word, kept in groups.items() if word in LEVELS or kept.any()}


def of_truth(truth: Truth, where: Path, file: Path | None, names: Mapping[str, str] | None) -> PairSeverities:
    """Of the judged truth boxes; `where`: the dataset or the file that they are from; `names`: findings to rename."""
    path, judged, index = _file(where, file), truth.judged, truth.of
    drawn = pc.unique(judged["image_id"].cast(pa.string()))
    images = drawn if index is None else index.table["image_id"].combine_chunks()
    paths = images if index is None else index.table["path"]
    findings = sorted(pc.unique(judged["finding"].cast(pa.string())).to_pylist())
    values, strangers = placed(path, images.to_pylist(), paths.to_pylist(), findings, names)
    found = PairSeverities(images, findings, values, {})
    pairs = judged.group_by(["image_id", "finding"]).aggregate([])
    levels = found.levels(*(pairs[name].combine_chunks() for name in ("image_id", "finding")))
    found.told.update(_told(path, strangers, split(levels), "pairs"))
    return found


def areas_by_severity(
    methods: Sequence[tuple[str, Probabilities]],
    index: Index,
    judged: Index,
    findings: Sequence[str],
    file: Path | None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """(what the JSON says of the file; of each method, of each severity: areas, their mean, and of how many films).

    `judged`: those images of `index` that are scored.
    """
    path = _file(index.root, file)
    images = index.table["image_id"].combine_chunks()
    levels, strangers = placed(path, images.to_pylist(), index.table["path"].to_pylist(), findings)
    labels, patients = judged.labels(findings), judged.table["patient_id"].to_pylist()
    row = pc.index_in(judged.table["image_id"], value_set=images).to_numpy()
    groups = split(np.where(labels == 1, levels[row], np.int8(ABSENT)))
    found: dict[str, dict[str, Any]] = {}
    for name, probabilities in methods:
        table = aligned(probabilities.table, judged.table["image_id"])
        for word, kept in groups.items():
            of_group = np.where((labels == 1) & ~kept, np.int8(OTHER), labels)
            score = score_probabilities(table, of_group, findings, patients)
            positives = sum(area["positives"] for area in score["auc"].values())
            counts = {"findings": score["mean"]["findings"], "positives": positives}
            found.setdefault(name, {})[word] = {"counts": counts, "auc": score["auc"], "mean": score["mean"]}
    return _told(path, strangers, groups, "films"), found


def _file(where: Path, file: Path | None) -> Path:
    """`where`: the dataset, or the file of its boxes."""
    folder = where if where.is_dir() else where.parent
    path = file or beside(folder)
    if path is None:
        raise CxrError(
            f"{where} does not say how severe a finding is: there is no {' or '.join(FILES)} in {folder}.",
            "Make a table of the reports with `cxrmine severity REPORTS --out FILE`, and name it with --severity FILE.",
        )
    return path


def _told(path: Path, strangers: int, groups: Mapping[str, Bools], what: str) -> dict[str, Any]:
    """What the JSON says of the file; an error where it helps with none of what is judged.

    `strangers`: its rows of films or findings that are not here.
    """
    counts = {word: int(kept.sum()) for word, kept in groups.items()}
    if not any(counts[word] for word in LEVELS):
        raise CxrError(
            f"{path} does not say of any of the judged {what} how severe it is.",
            "Give the severities of these films and findings: `cxrmine severity REPORTS --out FILE`.",
        )
    return {"file": path.name, "sha256": sha256(path), what: counts, "rows_of_others": strangers}
