"""200 sentences of Open-i's reports, drawn by a seed, and what a reader of them should find: openi_sentences.csv.

The text is not in this project; it is read from the archive of reports. Half of the sentences are any, half have one
of the words of severity that Tang 2018 names; no text twice. 100 are `open`: the lexicon may be made with them in
view. 100 are `blind`: they were annotated before there was a lexicon, and nobody changes a word of it because of them.

They were annotated by one of the authors of this project, not by a radiologist, by these rules.

    Finding      present, without a severity
    Finding 1    present and mild; 2 moderate, 3 severe. Of a range, the higher end.
    Finding ?    possible: may, possible, question, suspected, likely, borderline; A or B, A/B, A versus B
    Finding !    not judged: the word that decides was taken out of the report (XXXX)

Judged are the findings of ChestX-ray14 and Fracture; what is not listed is not present: denied, gone, or not spoken of.
- By their own words alone. Airspace disease, opacity, density, scar, granuloma, blunted sulcus, volume loss,
  congestion, failure, hyperinflation are none of them. A nodular opacity or density is a Nodule, pleural fluid is an
  Effusion.
- Cardiomegaly is an enlarged or large heart or cardiac silhouette, not a cardiomediastinal silhouette. That word itself
  (large) is no severity.
- `Consistent with` is present. Old fractures are present. A minimally displaced fracture has no severity.
"""

import csv
import random
import re
import tarfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

SEED = 2018
SEVERE = re.compile(r"\b(minimal|tiny|small|mild|middle-size|moderate|remarkable|large|severe)(ly)?\b", re.IGNORECASE)
TABLE = Path(__file__).with_suffix(".csv")


class Sentence(NamedTuple):
    report: str
    section: str
    number: int
    text: str


class Expected(NamedTuple):
    present: dict[str, int | None]  # finding → severity
    possible: set[str]
    unjudged: set[str]


def sentences(archive: Path) -> list[Sentence]:
    """All with two words at least, by report, section and place; no text twice."""
    found = []
    with tarfile.open(archive) as files:
        for member in files:
            content = files.extractfile(member) if member.name.endswith(".xml") else None
            if content:
                found += _of_report(ElementTree.fromstring(content.read()))
    found.sort(key=lambda one: (int(one.report.removeprefix("CXR")), one.section, one.number))
    first: dict[str, Sentence] = {}
    for one in found:
        first.setdefault(one.text.lower(), one)
    return list(first.values())


def _of_report(root: ElementTree.Element) -> list[Sentence]:
    report = root.find("uId").attrib["id"]  # type: ignore[union-attr]
    texts = [(part.get("Label", ""), part.text or "") for part in root.iter("AbstractText")]
    return [
        Sentence(report, section, number, text)
        for section, whole in texts
        if section in ("FINDINGS", "IMPRESSION")
        for number, text in enumerate(re.split(r"(?<=[.!?])\s+", whole.strip()))
        if len(re.findall(r"[a-z]{2,}", text.lower())) > 1
    ]


def drawn(known: list[Sentence]) -> dict[str, list[Sentence]]:
    rng = random.Random(SEED)
    any_words = rng.sample(known, 100)
    severe = rng.sample([one for one in known if SEVERE.search(one.text) and one not in any_words], 100)
    return {"open": any_words[:50] + severe[:50], "blind": any_words[50:] + severe[50:]}


def expected(half: str) -> dict[tuple[str, str, int], Expected]:
    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["half"] == half]
    return {(row["report"], row["section"], int(row["sentence"])): _parsed(row["expected"]) for row in rows}


def _parsed(text: str) -> Expected:
    result = Expected({}, set(), set())
    for part in filter(None, text.split("; ")):
        finding, _, mark = part.partition(" ")
        if mark in "?!" and mark:
            (result.possible if mark == "?" else result.unjudged).add(finding)
        else:
            result.present[finding] = int(mark) if mark else None
    return result
