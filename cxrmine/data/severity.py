"""What a report says of findings, and how severe it calls them.

A sentence is read by the rules of data.severity_rules with the words of data.lexicon. Of a report: what is present
somewhere is present, or else what is possible somewhere is possible; or else it is absent (denied, or gone by now).
Its severity is the highest that is said of it where it is present. So FINDINGS and IMPRESSION weigh the same.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from cxrmine.data.lexicon import Lexicon
from cxrmine.data.severity_degrees import alike, owners
from cxrmine.data.severity_rules import cues, findings, status

PRESENT, POSSIBLE, DENIED, GONE = "present", "possible", "denied", "gone"
LABELS = {PRESENT: 1, POSSIBLE: -1, DENIED: 0, GONE: 0}  # as the index has them
RANK = {PRESENT: 2, POSSIBLE: 1, DENIED: 0, GONE: 0}
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bvs\.)(?<!\bdr\.)(?<!\bapprox\.)\s+|\n[ \t]*\n\s*", re.IGNORECASE)
PIECE = re.compile(r"\S(?:.{0,998}(?!\S)|.{0,998})", re.DOTALL)  # what is longer is no sentence that people write
ITEM = re.compile(r"[\W\d]*")
SMALL = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # of the same length, unlike str.lower()
KEPT = 2**18  # sentences whose reading is remembered


class Said(NamedTuple):
    """One mention in a sentence; start and end are places in it."""

    finding: str
    status: str
    severity: int | None
    words: str
    severity_words: str
    start: int
    end: int


class Mention(NamedTuple):
    """The same in a report; sentences are counted from 1 in their section, start and end in its text."""

    finding: str
    status: str
    severity: int | None
    section: str
    sentence: int
    words: str
    severity_words: str
    start: int
    end: int
    text: str


class Sentence(NamedTuple):
    start: int
    text: str


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a section, without the blanks around them, and where they begin; an item's number is none."""
    begin = 0
    for end, after in [*((m.start(), m.end()) for m in SENTENCE_END.finditer(text)), (len(text), len(text))]:
        for piece in PIECE.finditer(text, begin, end):
            if not ITEM.fullmatch(piece[0].rstrip()):
                yield Sentence(piece.start(), piece[0].rstrip())
        begin = after


@lru_cache(KEPT)
def read_sentence(text: str, lexicon: Lexicon) -> tuple[Said, ...]:
    small = text.translate(SMALL)
    if not lexicon.any_finding.search(small):
        return ()
    found = findings(small, lexicon)
    if not found:
        return ()
    known = cues(small, lexicon)
    of: dict[int, list[tuple[int, int, int]]] = {}
    for degree, places in owners(small, found, lexicon):
        for place in places:
            of.setdefault(place, []).append((degree.level, *degree.span))
    for place, same in alike(small, found):
        if same in of and place not in of:
            of[place] = of[same]
    result = []
    for place, one in enumerate(found):
        said = status(small, one, found, known, lexicon)
        own = of.get(place, [])
        level = max((level for level, _, _ in own), default=None) if said == PRESENT else None
        words = ", ".join(text[start:end] for _, start, end in own)
        result.append(Said(one.finding, said, level, text[slice(*one.span)], words, *one.span))
    return tuple(result)


def read_report(sections: Iterable[tuple[str, str]], lexicon: Lexicon) -> list[Mention]:
    """Every mention, in the order of the report. `text` has one blank between words, `words` are as they stand."""
    mentions = []
    for name, whole in sections:
        for number, sentence in enumerate(sentences(whole), start=1):
            one_line = " ".join(sentence.text.split())
            found = read_sentence(one_line, lexicon)
            places = _places(sentence.text) if found and one_line != sentence.text else range(len(one_line))
            for said in found:
                start, end = sentence.start + places[said.start], sentence.start + places[said.end - 1] + 1
                place = (name, number, whole[start:end], said.severity_words, start, end, one_line)
                mentions.append(Mention(said.finding, said.status, said.severity, *place))
    return mentions


def _places(text: str) -> list[int]:
    """Where each character of the text with single blanks is in the text as it stands."""
    return [m.start() for m in re.finditer(r"\s+|\S", text)]


def decided(mentions: Iterable[Mention]) -> dict[str, Mention]:
    """Finding → the mention that decides: the first of those that say the most."""
    best: dict[str, Mention] = {}
    for one in mentions:
        other = best.get(one.finding)
        if other is None or _weight(one) > _weight(other):
            best[one.finding] = one
    return best


def _weight(one: Mention) -> tuple[int, int]:
    return RANK[one.status], one.severity or 0
