"""The rules by which a sentence is read: where a finding is, and what is said of it.

After NegEx (Chapman et al. 2001, "A simple algorithm for identifying negated findings and diseases in discharge
summaries"): a cue acts on what follows it, or on what is before it, as far as its scope goes. All functions work on
one sentence in lower case with one blank between words, and on spans of it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from cxrmine.data.lexicon import NEVER, Lexicon

FORWARD = ("denied_before", "gone_before", "possible_before")
BACKWARD = ("denied_after", "gone_after", "possible_after")
ENDS = ("ends", "ends_denied")
MARKS = re.compile(r"[;:]")
LIST_GOES_ON = re.compile(r"\b(?:or|nor|versus|vs)\b|/")
BREAK = re.compile(r",|\band\b|\(")
OR = re.compile(r"\b(?:and/or|or|versus|vs)\b\.?|/")
NEGATION = re.compile(r"no\b|not\b|without\b")
WORD = re.compile(r"[\w']+")
SUBJECT = re.compile(r"(?:heart|cardiac)\b.*\b(?:enlarged|increased|large|borderline|normal|unremarkable|limits)")
FARTHEST = 6  # words from `or` to what it parts


class Span(NamedTuple):
    start: int
    end: int


class Found(NamedTuple):
    """A finding's words in a sentence. `whole`: it begins with its own subject (the heart is enlarged), so that cues
    before it are about something else."""

    finding: str
    span: Span
    kind: str  # present, possible or denied, by its own words
    whole: bool


class Cue(NamedTuple):
    kind: str
    span: Span


def findings(text: str, lexicon: Lexicon) -> list[Found]:
    """By place; of one finding, of those that overlap the longest. What is inside something else is not there."""
    found: list[Found] = []
    for finding, words in lexicon.findings.items():
        own: list[Found] = []
        for kind, pattern in (("present", words.words), ("possible", words.possible), ("denied", words.absent)):
            for m in pattern.finditer(text) if pattern is not NEVER else ():
                own.append(Found(finding, Span(*m.span()), kind, SUBJECT.match(m[0]) is not None))
        if not own:
            continue
        hidden = [Span(*m.span()) for m in words.no.finditer(text)]
        own.sort(key=lambda one: one.span.start - one.span.end)
        kept: list[Found] = []
        for one in own:
            again = any(overlap(one.span, other.span) for other in kept)
            if not again and not any(inside(one.span, other) for other in hidden):
                kept.append(one)
        found += kept
    return sorted(found, key=lambda one: (one.span, one.finding))


def cues(text: str, lexicon: Lexicon) -> list[Cue]:
    """All that are not inside a longer one, nor in something that is none: no longer is one cue, no change none."""
    none = [Span(*m.span()) for m in lexicon.cues["no_cue"].finditer(text)]
    not_ends = [Span(*m.span()) for m in lexicon.cues["no_end"].finditer(text)]
    found = [
        Cue(kind, Span(*m.span())) for kind in (*FORWARD, *BACKWARD, *ENDS) for m in lexicon.cues[kind].finditer(text)
    ]
    found = [
        cue for cue in found if not any(overlap(cue.span, other) for other in (not_ends if cue.kind in ENDS else none))
    ]
    acting = [cue.span for cue in found if cue.kind not in ENDS]
    return [cue for cue in found if not any(inside(cue.span, other) and cue.span != other for other in acting)]


# --- what is said of a finding


def status(text: str, one: Found, all_found: Sequence[Found], found_cues: Sequence[Cue], lexicon: Lexicon) -> str:
    """present, possible, denied or gone. A denial counts more than a doubt, and a cue more than `or`."""
    if one.kind == "denied":
        return "denied"
    acting = {
        cue.kind.partition("_")[0]
        for cue in found_cues
        if cue.kind not in ENDS and _acts(text, cue, one, all_found, found_cues, lexicon)
    }
    for kind in ("denied", "gone", "possible"):
        if kind in acting:
            return kind
    return "possible" if one.kind == "possible" or parted(text, one.span, all_found, lexicon) else "present"


def _acts(
    text: str, cue: Cue, one: Found, all_found: Sequence[Found], found_cues: Sequence[Cue], lexicon: Lexicon
) -> bool:
    if inside(cue.span, one.span):
        return cue.kind in FORWARD
    kinds = ENDS if cue.kind == "denied_before" else ENDS[:1]
    ends = [other.span for other in found_cues if other.kind in kinds]
    if cue.kind in FORWARD:
        if one.whole or cue.span.end > one.span.start:
            return False
        between = Span(cue.span.end, one.span.start)
        return not _closed(text, between, ends) and not _begins_anew(text, cue, between, lexicon)
    if cue.kind in BACKWARD:
        if cue.span.start < one.span.end:
            return False
        between = Span(one.span.end, cue.span.start)
        return not _closed(text, between, ends) and not _left_behind(text, between, all_found, lexicon)
    return False


def _closed(text: str, between: Span, ends: Sequence[Span]) -> bool:
    """Whether a clause ends in between."""
    return MARKS.search(text, *between) is not None or any(inside(end, between) for end in ends)


def _begins_anew(text: str, cue: Cue, between: Span, lexicon: Lexicon) -> bool:
    """Whether a comma, `and` or ( after a cue begins something that is said anew: No pneumothorax, small effusion."""
    for mark in BREAK.finditer(text, *between):
        rest = text[mark.end() :]
        if mark[0] == "(" and not re.match(r" ?(?:and|or|nor|including)\b", rest):
            return True
        goes_on = LIST_GOES_ON.search(rest) is not None and mark[0] != "and"
        if lexicon.cues["verbs"].search(text, cue.span.end, mark.start()) and not goes_on:
            return True
        if "includ" in text[cue.span.start : mark.start()]:  # differential considerations include …
            continue
        if cue.kind in ("possible_before", "gone_before") and mark[0] == "," and not goes_on:
            return True
        words = rest.lstrip()
        if mark[0] == ",":
            words = re.sub(r"^(?:and|or|nor)\s+", "", words)
        anew = lexicon.cues["starts"].match(words) or any(p.match(words) for p in lexicon.severity)
        if anew and not goes_on:
            return True
    return False


def _left_behind(text: str, between: Span, all_found: Sequence[Found], lexicon: Lexicon) -> bool:
    """Whether a cue after a finding is about something else, that comes between: Effusion, pneumonia is not seen."""
    if re.search(r"\b(?:is|are|was|were|has|have)\b", text[between.start : between.end]):
        return True
    said = text[between.start : between.end]
    comma = said.rfind(",")
    if comma < 0 or not said[comma + 1 :].strip():
        return False
    tail = said[comma + 1 :]
    return not re.match(r"\s*(?:and|or|nor)\b", tail) and (
        any(inside(other.span, between) for other in all_found) or lexicon.nouns["others"].search(tail) is not None
    )


def parted(text: str, span: Span, all_found: Sequence[Found], lexicon: Lexicon) -> bool:
    """Whether the finding is one of those that `or` parts: atelectasis or scarring, infiltrate/edema, A versus B."""
    things = sorted(
        {*(one.span for one in all_found), *(Span(*m.span()) for m in lexicon.nouns["others"].finditer(text))}
    )
    unchanged = [m.end() for m in lexicon.cues["no_cue"].finditer(text) if NEGATION.match(m[0])]
    for mark in OR.finditer(text):
        before = [thing for thing in things if thing.end <= mark.start()]
        after = [thing for thing in things if thing.start >= mark.end()]
        if not before or not after or any(thing.start < mark.end() and mark.start() < thing.end for thing in things):
            continue
        left, right = max(before, key=lambda thing: thing.end), after[0]
        if not _near(text, left.end, mark.start()) or not _near(text, mark.end(), right.start):
            continue
        if any(end <= left.start and _near(text, end, left.start) for end in unchanged):
            continue  # no change in effusion or atelectasis: both are there
        if overlap(right, span) or span in _listed(text, left, before):
            return True
    return False


def _listed(text: str, last: Span, before: Sequence[Span]) -> list[Span]:
    """The things of a list that ends with `last`, parted by commas."""
    chain = [last]
    for thing in reversed(before):
        if overlap(thing, chain[-1]):
            chain.append(thing)
        elif thing.end <= chain[-1].start:
            said = text[thing.end : chain[-1].start]
            if "," not in said or not _near(text, thing.end, chain[-1].start):
                break
            chain.append(thing)
    return chain


def _near(text: str, start: int, end: int) -> bool:
    said = text[start:end]
    return len(WORD.findall(said)) <= FARTHEST and not re.search(
        r"\b(?:with|without|and|but|is|are|was|were|which|that|there)\b|[;:]", said
    )


def inside(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end


def overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end
