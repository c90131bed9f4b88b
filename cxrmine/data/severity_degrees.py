"""Which word of severity is whose: small left effusion; effusion, moderate on the right; the heart is mildly enlarged.

One sentence in lower case, with one blank between words, and spans of it, as in data.severity_rules.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cxrmine.data.lexicon import Lexicon
from cxrmine.data.severity_rules import WORD, Found, Span, inside

FARTHEST = 8  # words from a word of severity to its finding
RANGE = re.compile(r"[ -]*(?:(?:to|or|and)\b|/|,|-)?[ -]*")
SIDE = (
    "(?:left|right|upper|middle|mid|lower|central|peripheral|medial|lateral|apical|basilar|basal|bibasilar|hilar|"
    "perihilar|anterior|posterior)"
)
SIDES = re.compile(rf"\b{SIDE}(?:[ -]\w+)? and (?:x{{3,}} )?{SIDE}\b|\bbut \w+\b")
# what may stand between a finding and a word about it: place, mark, verb, change, manner, side
PLACE = r"(?:(?:in|on|at|within|of|along|involving) (?:[\w-]+ ){0,5}?[\w-]+)"
CHANGE = (
    r"(?:has|have|had)? ?(?:slightly )?(?:increased|decreased|changed|enlarged|improved|progressed) ?(?:in size ?)?,? ?"
    r"(?:(?:and )?(?:is|are) )?(?:(?:from \w+ )?to )?"
)
NOW = re.compile(r"\b(?:now|currently|become|became)\b")
MANNER = "(?:now|currently|still|again|at least|only|relatively|quite|very|also|probably|likely|noted|seen|x{3,})"
LINK = re.compile(
    rf" ?(?:{PLACE} ?)?(?:,? ?(?:previously|formerly) \w+ ?)?(?:of )?(?:,|\(|-|:)? ?(?:and )?(?:(?:which|that) )?"
    rf"(?:(?:is|are|remains?|appears? to be|appears?|seems?|(?:has |have )?(?:become|became)) ?)?"
    rf"(?:{CHANGE})?(?:{MANNER} ?,? ?)*"
    r"(?:(?:(?:on|in|at) )?(?:the )?(?:right|left) ?,? ?)?"
)
# and what may follow that word, if it is about what was before
AFTER = "and|but|than|though|with|has|have|had|is|are|unchanged|bilaterally|on|at|overall|in the"
TAIL = re.compile(
    r" ?(?:in (?:size|degree|volume|severity|amount|extent)|sized?|degree|severity|extent)? ?"
    rf"(?:$|[.,;:)]|(?:{AFTER})\b|(?:on the )?(?:right|left|bilateral|size)(?= ?(?:$|[.,;)])))"
)
SAME = re.compile(r" ?,? ?(?:most )?(?:consistent|compatible) with (?:[\w-]+ ){0,3}")
BEFORE_NOW = re.compile(r"\b(?:previously|formerly|was|were|not|from|more|less|no longer)(?: an?)?[\s-]*$")


class Degree(NamedTuple):
    """Words of severity: mild to moderate is one, of the higher group."""

    level: int
    span: Span


def degrees(text: str, found: Sequence[Found], lexicon: Lexicon) -> list[Degree]:
    """All but those that a finding's words begin or end with: a large heart is no more than an enlarged one."""
    single = [
        Degree(level, Span(*m.span()))
        for level, pattern in enumerate(lexicon.severity, start=1)
        for m in pattern.finditer(text)
        if not any(
            one.span.start == m.start() or one.span.end == m.end() for one in found if inside(Span(*m.span()), one.span)
        )
    ]
    single.sort(key=lambda one: (one.span.start, -one.span.end))
    joined: list[Degree] = []
    for one in single:
        if joined and one.span.start < joined[-1].span.end:
            continue
        if joined and RANGE.fullmatch(text, joined[-1].span.end, one.span.start):
            last = joined.pop()
            if re.search(r"\bfrom\s+$", text[: last.span.start]):  # large to small: what it is now
                joined.append(one)
            else:
                joined.append(Degree(max(last.level, one.level), Span(last.span.start, one.span.end)))
        else:
            joined.append(one)
    return [one for one in joined if not BEFORE_NOW.search(text[: one.span.start])]


def owners(text: str, found: Sequence[Found], lexicon: Lexicon) -> list[tuple[Degree, list[int]]]:
    """Each word of severity that belongs to a finding, and the findings' places in `found`: inside its words, behind
    it (effusion, small, …), or else before it. What it is now counts instead of what it was."""
    owned: list[tuple[Degree, list[int]]] = []
    others = [Span(*m.span()) for m in lexicon.nouns["others"].finditer(text)]
    linked: dict[int, int] = {}  # where the words about a finding go on: effusions, left small, right moderate
    for degree in degrees(text, found, lexicon):
        span = degree.span
        around = [i for i, one in enumerate(found) if inside(span, one.span)]
        if around:
            owned.append((degree, around))
            continue
        behind = [i for i, one in enumerate(found) if one.span.end <= span.start]
        if behind and TAIL.match(text, span.end):
            end = max(found[i].span.end for i in behind)
            begin = linked.get(end, end)
            if LINK.fullmatch(text, begin, span.start) and not any(inside(o, Span(begin, span.start)) for o in others):
                places = [i for i in behind if found[i].span.end == end]
                if NOW.search(text, begin, span.start):  # the large effusion is now small
                    owned = [(one, of) for one, of in owned if not {*of} & {*places}]
                linked[end] = span.end
                owned.append((degree, places))
                continue
        ahead = [i for i, one in enumerate(found) if one.span.start >= span.end]
        if ahead:
            start = min(found[i].span.start for i in ahead)
            if _modifies(text, span, start, others, lexicon):
                owned.append((degree, [i for i in ahead if found[i].span.start == start]))
    return owned


def alike(text: str, found: Sequence[Found]) -> Iterator[tuple[int, int]]:
    """Places of two findings of which the first is what the second is consistent with: it is as severe."""
    for second, one in enumerate(found):
        for first, other in enumerate(found[:second]):
            if SAME.fullmatch(text, other.span.end, one.span.start):
                yield second, first


def _modifies(text: str, span: Span, start: int, others: Sequence[Span], lexicon: Lexicon) -> bool:
    """Whether a word of severity belongs to the finding that begins at `start`."""
    between = Span(span.end, start)
    said = text[between.start : between.end]
    if re.search(r"ly$", text[span.start : span.end]) and WORD.search(re.sub(r"^[\s-]*sized?\b", "", said)):
        return False
    if (
        len(WORD.findall(said)) > FARTHEST
        or re.search(r"[;:()]|\.(?!\d)", said)
        or any(inside(o, between) for o in others if not _is_removed(text, o))
    ):
        return False
    said = SIDES.sub("", said)
    if lexicon.nouns["apart"].search(said):
        return False
    return all(_joins(said, mark, lexicon) for mark in re.finditer(r",|\b(?:and|or)\b|/", said))


def _is_removed(text: str, span: Span) -> bool:
    return text[span.start : span.end].strip("x_") == ""


def _joins(said: str, mark: re.Match[str], lexicon: Lexicon) -> bool:
    """Whether a comma parts adjectives (mild, stable) or `and` two sides (small left and moderate right)."""
    rest = said[mark.end() :].lstrip()
    if any(pattern.match(rest) for pattern in lexicon.severity):
        return True
    return mark[0] == "," and not said[: mark.start()].strip()
