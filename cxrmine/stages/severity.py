"""Reports → what they say of each finding and how severe it is: a row a study, image and finding, and every mention."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from cxrmine import __version__
from cxrmine.boxes.table import read_meta
from cxrmine.console import progress_bar
from cxrmine.data.index import Dropped
from cxrmine.data.lexicon import GROUPS, Lexicon, load
from cxrmine.data.reports import Report, Reports, open_reports
from cxrmine.data.severity import DENIED, GONE, LABELS, POSSIBLE, PRESENT, Mention, decided, read_report
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import atomic, check_writable
from cxrmine.tables import NAME, build, ordered, with_meta

SCHEMA = pa.schema(
    [
        ("study_id", NAME),
        ("image_id", NAME),
        ("finding", NAME),
        ("label", pa.int8()),
        ("severity", pa.int8()),
        ("section", NAME),
        ("sentence", pa.int32()),
        ("words", NAME),
        ("severity_words", NAME),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("text", pa.string()),
    ]
)
MENTIONS_SCHEMA = SCHEMA.insert(3, pa.field("status", NAME))
ORDER = ("study_id", "image_id", "finding")
OF_A_REPORT = ("study_id", "image_id")  # in it mentions stay in the order of its text
AT_ONCE = 20_000  # reports whose rows are held as objects
WITHOUT_WORD = "without a word"
ENDINGS = (".parquet", ".csv")
WORTH_A_BAR = 2.0  # seconds


@dataclass(frozen=True)
class Severity:
    reports: Path
    out: Path
    lexicon: Path | None = None
    columns: str = ""


@dataclass(frozen=True)
class SeverityResult:
    config: Severity
    form: str
    reports: int
    silent: int  # reports without a mention of any finding
    rows: int
    mentions: int
    counts: dict[str, dict[str, int]]  # finding → reports that have it present, possible, denied, and how severe
    dropped: tuple[Dropped, ...]

    @cached_property
    def document(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "kind": "severity",
            "form": self.form,
            "reports": {"read": self.reports, "without_a_finding": self.silent},
            "rows": self.rows,
            "mentions": self.mentions,
            "findings": self.counts,
            "dropped": [asdict(entry) for entry in self.dropped],
        }


def mentions_path(out: Path) -> Path:
    """S.parquet → S.mentions.parquet"""
    return out.with_name(f"{out.stem}.mentions{out.suffix}")


def run(config: Severity) -> SeverityResult:
    _check_place(config.out)
    lexicon = load(config.lexicon)
    reports = open_reports(config.reports, config.columns, progress_bar)
    counts = {
        finding: dict.fromkeys((PRESENT, POSSIBLE, DENIED, *GROUPS, WITHOUT_WORD), 0) for finding in lexicon.findings
    }
    tables, all_tables, silent = [], [], 0
    with progress_bar(len(reports.found), "reading", "reports", after=WORTH_A_BAR) as bar:
        for part in _parts(reports.found):
            rows: list[tuple[Report, Mention]] = []
            every: list[tuple[Report, Mention]] = []
            for report in part:
                found = read_report(report.sections, lexicon)
                best = decided(found)
                silent += not found
                every += ((report, one) for one in found)
                rows += ((report, one) for one in best.values())
                _count(counts, best)
                bar.advance()
            tables.append(_table(SCHEMA, rows))
            all_tables.append(_table(MENTIONS_SCHEMA, every))
    table = ordered(_joined(SCHEMA, tables), ORDER)
    mentions = ordered(_joined(MENTIONS_SCHEMA, all_tables), OF_A_REPORT)
    meta = _provenance(reports, lexicon)
    _write(mentions_path(config.out), mentions, {"kind": "severity mentions", **meta})
    _write(config.out, table, {"kind": "severity", **meta})
    return SeverityResult(
        config, reports.form, len(reports.found), silent, len(table), len(mentions), counts, reports.dropped
    )


def _parts(found: Sequence[Report]) -> Iterator[Sequence[Report]]:
    for first in range(0, len(found), AT_ONCE):
        yield found[first : first + AT_ONCE]


def _count(counts: dict[str, dict[str, int]], best: dict[str, Mention]) -> None:
    for finding, one in best.items():
        of = counts[finding]
        of[DENIED if one.status == GONE else one.status] += 1
        if one.status == PRESENT:
            of[GROUPS[one.severity - 1] if one.severity else WITHOUT_WORD] += 1


def _table(schema: pa.Schema, rows: Sequence[tuple[Report, Mention]]) -> pa.Table:
    """A row a mention and image."""
    own = {name: [getattr(one, name) for _, one in rows] for name in schema.names if name in Mention._fields}
    own["study_id"] = [report.study for report, _ in rows]
    own["label"] = [LABELS[one.status] for _, one in rows]
    own["severity_words"] = [words or None for words in own["severity_words"]]
    of_mention = pa.table({name: pa.array(values, _plain(schema.field(name).type)) for name, values in own.items()})
    each = of_mention.take(np.repeat(np.arange(len(rows)), [len(report.images) for report, _ in rows]))
    images = pa.array([image for report, _ in rows for image in report.images], pa.string())
    return build(schema, {**{name: each[name] for name in own}, "image_id": images})


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _joined(schema: pa.Schema, tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries() if tables else build(schema, {})


# --- what is written


def _provenance(reports: Reports, lexicon: Lexicon) -> dict[str, Any]:
    digest = hashlib.sha256()
    for report in reports.found:
        digest.update(json.dumps(report).encode())
    return {
        "version": __version__,
        "lexicon_sha256": lexicon.sha256,
        "reports_sha256": digest.hexdigest(),
        "form": reports.form,
    }


def _write(path: Path, table: pa.Table, meta: dict[str, Any]) -> None:
    with atomic(path) as temporary:
        if path.suffix == ".csv":
            csv.write_csv(table.cast(pa.schema([(f.name, _plain(f.type)) for f in table.schema])), temporary)
        else:
            pq.write_table(table.replace_schema_metadata(with_meta(table.schema, meta).metadata), temporary)


def _check_place(out: Path) -> None:
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder.", f"Name a file, for instance {out / 'severity.parquet'}.")
    if out.suffix not in ENDINGS or out.stem.endswith(".mentions"):
        raise UsageError(f"--out {out} is no name for this table.", "It ends in .parquet or .csv, not in .mentions.*.")
    for path in (out, mentions_path(out)):
        if path.exists() and not _is_ours(path):
            raise CxrError(f"{path} exists, and is no table that this command wrote.", "Choose another --out.")
        check_writable(path)


def _is_ours(path: Path) -> bool:
    if path.suffix == ".parquet":
        return str(read_meta(path).get("kind", "")).startswith("severity")
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith('"study_id","image_id","finding",')
