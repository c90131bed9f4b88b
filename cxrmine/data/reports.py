"""Radiology reports in the forms that they come in. What cannot be read is counted with its reason.

Open-i (ecgen-radiology/*.xml, NLMCXR_reports.tgz, or a folder that has one of them)
    AbstractText labelled FINDINGS and IMPRESSION. study_id is uId, image_id each parentImage.
MIMIC-CXR (files/p10/p10000032/s50414267.txt, mimic-cxr-reports.zip, or a folder that has it)
    study_id is the number, 50414267; a report names no image. Also any other folder or archive of .txt files, whose
    study_id is the file's name, or its path where two have one name.
A table (.csv, .csv.gz, .parquet; `reports.csv` of a folder, as the phantom has it)
    A report a row: image and study by any usual name, and findings and impression, or else text. --columns names
    others; where it names text, that is all that is read.
Sections of running text are told apart by data.sections.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cxrmine.data.archives import Archives, Watch
from cxrmine.data.columns import shown
from cxrmine.data.drawn.sheet import Sheet
from cxrmine.data.encoded import Unreadable
from cxrmine.data.index import Dropped, dropped
from cxrmine.data.layouts.openi import images_of, report_id
from cxrmine.data.markup import xml_root
from cxrmine.data.sections import Section, sections
from cxrmine.data.sheets import read_own
from cxrmine.data.tree import ARCHIVE, Content, Tree
from cxrmine.data.words import plain
from cxrmine.errors import CxrError, UsageError, did_you_mean
from cxrmine.settings import assignments

# Ours → theirs, whatever their case, blanks and underscores; of several the first.
NAMES = {
    "image": ("image_id", "image", "image_index", "image_name", "dicom_id", "filename", "file_name", "film", "path"),
    "study": ("study_id", "study", "report_id", "accession", "accession_number", "uid", "exam_id", "id"),
    "text": (
        "report",
        "text",
        "report_text",
        "full_report",
        "note",
        "note_text",
        "report_content",
        "narrative",
        "body",
    ),
    "findings": ("findings", "finding", "findings_text"),
    "impression": ("impression", "impressions", "conclusion", "impression_text"),
}
TEXTS = ("text", "findings", "impression")
EXAMPLE = "study=accession,text=body"
XML = re.compile(r"(?:.*/)?[^/]+\.xml", re.IGNORECASE)
NOTE = re.compile(r"(?:.*/)?s(\d+)\.txt", re.IGNORECASE)
TEXT = re.compile(r".*\.txt", re.IGNORECASE)
TABLE = re.compile(r".+\.(csv|csv\.gz|parquet)", re.IGNORECASE)
NO_REPORT = re.compile(r"(.*/)?(readme|licen[cs]e|sha256sums|(train_val|test|train|val)_list)[^/]*\.txt", re.IGNORECASE)
INSIDE = (  # at the top of a folder, what has the reports and nothing else, before a whole dataset is walked through
    re.compile(r"ecgen-radiology"),
    re.compile(r"NLMCXR_reports(\.tgz|\.tar\.gz|\.tar|\.zip)?"),
    re.compile(r"mimic-cxr-reports(\.zip|\.tar|\.tar\.gz|\.tgz)?"),
)
OF_OPENI = ("FINDINGS", "IMPRESSION")
UNREADABLE = "report that cannot be read"
SECOND = "second report of a study or image"
WITHOUT_TEXT = "report without a text that says what is seen"
WITHOUT_NAME = "row without a study or image"


class Report(NamedTuple):
    study: str
    images: tuple[str | None, ...]  # (None,) where the report names none
    sections: tuple[Section, ...]


class Reports(NamedTuple):
    """found: sorted by study and image, each once. sections of the empty ones are (): they are in the ledger, too."""

    form: str
    found: list[Report]
    dropped: tuple[Dropped, ...]


def open_reports(path: Path, columns: str = "", watch: Watch | None = None) -> Reports:
    """All reports in a file, an archive or a folder; `columns`: ours=theirs, of a table."""
    told = _told(columns)
    if not path.exists():
        raise CxrError(f"There are no reports at {path}.", "Name a folder, an archive or a table of reports.")
    if path.is_file() and TABLE.fullmatch(path.name):
        return _of_table(Tree(path.parent), path.name, told)
    if path.is_file() and not ARCHIVE.fullmatch(path.name):
        raise CxrError(
            f"{path} is no table of reports and no archive.", "Name a .csv, .parquet, .tgz or .zip file, or a folder."
        )
    tree = _tree_of(path, watch)
    if tree.root.is_dir() and tree.has("reports.csv"):
        return _of_table(tree, "reports.csv", told)
    if columns:
        raise UsageError(f"{path} has no table of reports, whose columns could be named.", "Leave --columns out.")
    return _of_files(tree)


def _told(columns: str) -> dict[str, str]:
    told = assignments(columns, EXAMPLE) if columns else {}
    for name in told:
        if name not in NAMES:
            raise UsageError(
                f"--columns: reports have no column {name!r} to be named.{did_you_mean(name, [*NAMES])}",
                f"Write ours=theirs, like {EXAMPLE}; ours are {', '.join(NAMES)}.",
            )
    return told


def _tree_of(path: Path, watch: Watch | None) -> Tree:
    if path.is_dir():
        top = Tree(path).top
        inside = next((name for form in INSIDE for name in top if form.fullmatch(name)), None)
        path = path / inside if inside else path
    return Tree(path, archives=True, listed=Archives(watch))


# --- files


def _of_files(tree: Tree) -> Reports:
    names = [name for name in tree.names if XML.fullmatch(name)]
    form = "Open-i"
    read: Callable[[Content, str], Report | None] = _of_xml
    if not names:
        names = [name for name in tree.names if NOTE.fullmatch(name)]
        form, read = "MIMIC-CXR", _of_note
    if not names:
        names = [name for name in tree.names if TEXT.fullmatch(name) and not NO_REPORT.fullmatch(name)]
        form = "text files"
    if not names:
        raise CxrError(
            f"{tree} has no reports: no .xml, no .txt, and no reports.csv.",
            "Name the folder, the archive or the table that has them.",
        )
    alone = len({_stem(name) for name in names}) == len(names)  # else two folders have files of one name
    found, faulty = [], []
    for name, content in tree.stream(names):
        report = read(content, _stem(name) if alone else name.rpartition(".")[0])
        if report is None:
            faulty.append(name)
        else:
            found.append(report)
    return _sorted(form, found, dropped(UNREADABLE, sorted(faulty)))


def _stem(name: str) -> str:
    note = NOTE.fullmatch(name)
    return note[1] if note else name.rpartition("/")[2].rpartition(".")[0]


def _of_xml(content: Content, _name: str) -> Report | None:
    root = xml_root(content)
    if root is None or not report_id(root):
        return None
    parts = ((part.get("Label", "").strip().upper(), part.text or "") for part in root.iter("AbstractText"))
    kept = tuple((label, text) for label, text in parts if label in OF_OPENI and text.strip())
    return Report(report_id(root), tuple(filter(None, images_of(root))) or (None,), kept)


def _of_note(content: Content, name: str) -> Report | None:
    if isinstance(content, Unreadable):
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return Report(name, (None,), tuple(sections(text)))


def _sorted(form: str, found: list[Report], ledger: tuple[Dropped, ...]) -> Reports:
    """The first of each, and what is said of the others."""
    found.sort(key=lambda report: (report.study, tuple(image or "" for image in report.images)))
    kept: dict[tuple[str, tuple[str | None, ...]], Report] = {}
    again = []
    for report in found:
        key = (report.study, report.images)
        if kept.setdefault(key, report) is not report:
            again.append(report.study)
    silent = [report.study for report in kept.values() if not report.sections]
    ledger += dropped(SECOND, again) + dropped(WITHOUT_TEXT, silent)
    return Reports(form, [*kept.values()], ledger)


# --- tables


def _of_table(tree: Tree, name: str, told: Mapping[str, str]) -> Reports:
    tables, faults = read_own(tree, [name], {})
    if faults:
        raise faults[0]
    sheet = tables[0].sheet
    alone = {"findings", "impression"} - {*told} if "text" in told else set()  # a text that is told is all there is
    of = {ours: theirs for ours in NAMES if ours not in alone and (theirs := _column(sheet, told, ours))}
    if not {*TEXTS} & {*of}:
        raise _missing(sheet, "the text of reports", "text=THEIRS")
    if not {"image", "study"} & {*of}:
        raise _missing(sheet, "the name of a study or image", "study=THEIRS")
    columns = {ours: sheet.text(of[ours]).to_pylist() for ours in of}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    found, nameless = [], []
    for number, row in zip(sheet.row, rows, strict=True):
        study = row.get("study") or row.get("image")
        if study:
            found.append(Report(study, (row.get("image"),), tuple(_of_row(row))))
        else:
            nameless.append(f"row {number}")
    return _sorted(f"table {name}", found, tables[0].ledger + dropped(WITHOUT_NAME, nameless))


def _of_row(row: Mapping[str, str | None]) -> Iterator[Section]:
    """Where it has findings or an impression of their own, these; or else the sections of its text."""
    own = [(ours.upper(), text) for ours in ("findings", "impression") if (text := row.get(ours))]
    yield from own or sections(row.get("text") or "")


def _column(sheet: Sheet, told: Mapping[str, str], ours: str) -> str:
    if ours in told:
        if told[ours] not in sheet.columns:
            raise CxrError(
                f"{sheet.where} has no column {told[ours]!r} for {ours}.{did_you_mean(told[ours], [*sheet.columns])}",
                f"Its columns are {shown([*sheet.columns])}.",
            )
        return told[ours]
    known = {plain(name): name for name in reversed([*sheet.columns]) if name not in told.values()}
    return next((known[plain(name)] for name in NAMES[ours] if plain(name) in known), "")


def _missing(sheet: Sheet, what: str, example: str) -> CxrError:
    return CxrError(
        f"{sheet.where} has no column that is known to be {what}; its columns are {shown([*sheet.columns])}.",
        f"Name it: --columns {example}.",
    )
