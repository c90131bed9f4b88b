"""Open-i: the chest X-rays of Indiana University, with a report each.

Demner-Fushman et al. 2016, "Preparing a collection of radiology examinations for distribution and retrieval". 3,955
reports, one a patient, of which 104 have no film; 7,470 films, frontal and lateral.

ecgen-radiology/*.xml (NLMCXR_reports.tgz)
    uId: the report, and so the patient. parentImage id: a film, a row each here. MeSH major: what people indexed the
    report with, as `Opacity/lung/base/left`; `normal` alone where there is nothing, `No Indexing` where nobody did it.
    Text, captions and MeSH automatic (what a program found) are not read.
NLMCXR_png.tgz, NLMCXR_dcm.tgz, unpacked or not
    <id>.png. The DICOM files go without the report's number: 2_IM-0652-1001.dcm is CXR2_IM-0652-1001, and
    1_IM-0001-3001.dcm is CXR1_1_IM-0001-3001. Kaggle's 2_IM-0652-1001.dcm.png is taken too.
indiana_projections.csv (Kaggle's)
    filename, projection: Frontal or Lateral. Where it is missing nobody says which films are lateral, the reports
    least of all: view is what DICOM headers say, or null; such lateral films stay in, and a note says so.

Findings are the terms of FINDINGS, by what comes before the first slash, wherever in the chest the rest says that it
is; `Thickening` is one only of the pleura. Left out: devices, the spine's wear, and signs without a disease
(`Lung/hypoinflation`, `Markings`, `Density`, `Calcinosis`, `Aorta/tortuous`). A term is present, or uncertain where it
is called borderline; a finding without a term is absent, since people indexed the whole report; nothing is mentioned
where a report has no term, or only NO_WORD. All films of a report have its labels. There are no boxes and no split.
An XML file that declares a document type or entities is refused, as is one that is not UTF-8.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
import pyarrow as pa

from cxrmine.data.assemble import Raw, films_by_stem, stem, struct_of
from cxrmine.data.index import UNMENTIONED, Dropped, dropped
from cxrmine.data.markup import xml_root
from cxrmine.data.reading import Reading
from cxrmine.data.rows import read_rows
from cxrmine.data.tree import Content, Tree

SHAPE = "Open-i (a folder ecgen-radiology of XML reports, or NLMCXR_reports.tgz where archives are read)"
TOP = re.compile(r"ecgen-radiology|NLMCXR_reports(\.tgz|\.tar\.gz|\.tar|\.zip)?")
REPORT = re.compile(r"(NLMCXR_reports[^/]*/)?ecgen-radiology/[^/]+\.xml")
VIEWS = "indiana_projections.csv"
NO_WORD = {"no indexing", "technical quality of image unsatisfactory"}
FINDINGS = {  # the first word of a term → the finding, in ChestX-ray14's words where it has it
    "airspace disease": "Airspace Disease",
    "bullous emphysema": "Emphysema",
    "calcified granuloma": "Calcified Granuloma",
    "cardiomegaly": "Cardiomegaly",
    "cicatrix": "Cicatrix",
    "consolidation": "Consolidation",
    "emphysema": "Emphysema",
    "fractures, bone": "Fracture",
    "granuloma": "Granuloma",
    "hemopneumothorax": "Pneumothorax",
    "hernia, hiatal": "Hernia",
    "hydropneumothorax": "Pneumothorax",
    "infiltrate": "Infiltration",
    "mass": "Mass",
    "nodule": "Nodule",
    "opacity": "Opacity",
    "pleural effusion": "Effusion",
    "pneumonia": "Pneumonia",
    "pneumothorax": "Pneumothorax",
    "pulmonary atelectasis": "Atelectasis",
    "pulmonary congestion": "Pulmonary Congestion",
    "pulmonary edema": "Edema",
    "pulmonary emphysema": "Emphysema",
    "pulmonary fibrosis": "Fibrosis",
}
THICKENING, PLEURA = "thickening", "Pleural_Thickening"


class Report(NamedTuple):
    patient: str
    terms: tuple[str, ...]
    images: tuple[str, ...]


def recognise(tree: Tree) -> str:
    found = [name for name in tree.top if TOP.fullmatch(name) and (tree.archives or not tree.has(name))]
    return f"{found[0]} is in it" if found and any(map(REPORT.fullmatch, tree.names)) else ""


def read(tree: Tree, reading: Reading) -> Raw:
    names = sorted(name for name in tree.names if REPORT.fullmatch(name))
    reports, faulty = [], []
    for name, content in tree.stream(names):
        report = _report(content)
        if report is None:
            faulty.append(name)
        else:
            reports.append(report)
    rows = [(image, report) for report in reports for image in report.images]
    films = films_by_stem(tree.names)
    views, torn = _views(tree)
    paths = [next((films[name] for name in _names(image) if name in films), None) for image, _ in rows]
    images = {
        "image_id": [image for image, _ in rows],
        "patient_id": [report.patient for _, report in rows],
        "view": [next((views[name] for name in _names(image) if name in views), None) for image, _ in rows],
        "split": [None] * len(rows),
        "path": paths,
    }
    findings = tuple(sorted({*FINDINGS.values(), PLEURA}))
    values = np.array([_values(report.terms, findings) for _, report in rows], np.int8).reshape(-1, len(findings))
    return Raw(
        "Open-i",
        pa.table({name: pa.array(column, pa.string()) for name, column in images.items()}),
        struct_of(findings, values),
        dropped=dropped("report that cannot be read", faulty) + torn,
        notes=tuple(_notes(reports, views)),
        occurring=True,
    )


def _report(content: Content) -> Report | None:
    """What one XML file says; None where it cannot be read, or names no report."""
    root = xml_root(content)
    if root is None:
        return None
    patient = report_id(root)
    terms = (" ".join((term.text or "").lower().split()) for term in root.iterfind("MeSH/major"))
    return Report(patient, tuple(filter(None, terms)), images_of(root)) if patient else None


def report_id(root: Element) -> str:
    who = root.find("uId")
    return who.get("id", "").strip() if who is not None else ""


def images_of(root: Element) -> tuple[str, ...]:
    return tuple(image.get("id", "").strip() for image in root.iterfind("parentImage"))


def _values(terms: tuple[str, ...], findings: tuple[str, ...]) -> list[int]:
    """A label a finding: 1, or −1 where the term that has it is borderline."""
    if not set(terms) - NO_WORD:
        return [UNMENTIONED] * len(findings)
    labels: dict[str, int] = {}
    for term in terms:
        first, *rest = term.split("/")
        finding = FINDINGS.get(first, PLEURA if first == THICKENING and "pleura" in rest else None)
        if finding:
            labels[finding] = max(labels.get(finding, -1), -1 if "borderline" in rest else 1)
    return [labels.get(finding, 0) for finding in findings]


def _names(image: str) -> tuple[str, ...]:
    """What the film of an image may be called, without its ending."""
    return image, image.removeprefix("CXR"), re.sub(r"^CXR\d+_(?=\d+_IM)", "", image)


def _views(tree: Tree) -> tuple[dict[str, str], tuple[Dropped, ...]]:
    """Film → view; empty where no table has it."""
    name = tree.first(VIEWS)
    if not name:
        return {}, ()
    sheet, torn = read_rows(tree, name, ("filename", "projection"))
    pairs = zip(sheet.text("filename").to_pylist(), sheet.text("projection").to_pylist(), strict=True)
    return {stem(film): view.upper() for film, view in pairs if film and view}, torn


def _notes(reports: list[Report], views: dict[str, str]) -> Iterator[str]:
    bare = sum(not report.images for report in reports)
    silent = sum(not set(report.terms) - NO_WORD for report in reports)
    yield f"labels: MeSH major terms of {len(reports):,} reports; {silent:,} are not indexed, {bare:,} have no film"
    if not views:
        yield f"views: the reports do not say them; lateral films stay in, but for what {VIEWS} or DICOM headers tell"
