"""Sentences of real reports that a person annotated (openi_sentences.py), against what is read of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from cxrmine.data.lexicon import builtin
from cxrmine.data.severity import decided, read_report
from tests.openi_sentences import Expected, Sentence, drawn, expected, sentences

REPORTS = Path(__file__).parents[2] / "shared" / "data" / "openi" / "NLMCXR_reports.tgz"
HALVES = ("open", "blind")
pytestmark = pytest.mark.skipif(not REPORTS.is_file(), reason="the reports of Open-i are not on this machine")


class Known(dict[str, list[Sentence]]):
    """The sentences of both halves. A test that fails must not show those that are blind."""

    def __repr__(self) -> str:
        return "the annotated sentences"


class Figures(NamedTuple):
    """Counts of (sentence, finding): read as present, annotated as present, both, and of these the same severity."""

    read: int
    annotated: int
    both: int
    same: int

    def __str__(self) -> str:
        shares = (("precision", self.both, self.read), ("recall", self.both, self.annotated))
        shares += (("severity", self.same, self.both),)
        return ", ".join(f"{name} {a / b:.3f} = {a}/{b}" for name, a, b in shares)


def figures(pairs: Sequence[tuple[Sentence, Expected]]) -> Figures:
    counts = [0, 0, 0, 0]
    for sentence, wanted in pairs:
        found = decided(read_report([("", sentence.text)], builtin()))
        present = {
            finding: one.severity
            for finding, one in found.items()
            if one.status == "present" and finding not in wanted.unjudged
        }
        both = present.keys() & wanted.present.keys()
        same = [finding for finding in both if present[finding] == wanted.present[finding]]
        for place, group in enumerate((present, wanted.present, both, same)):
            counts[place] += len(group)
    return Figures(*counts)


def pairs_of(known: Known, *halves: str) -> list[tuple[Sentence, Expected]]:
    return [(one, expected(half)[one.report, one.section, one.number]) for half in halves for one in known[half]]


@pytest.fixture(scope="module")
def known() -> Known:
    return Known(drawn(sentences(REPORTS)))


def test_the_annotated_sentences_are_those_of_the_draw(known: Known) -> None:
    for half in HALVES:
        drawn_ids = [(one.report, one.section, one.number) for one in known[half]]
        assert len(drawn_ids) == len(set(drawn_ids)) == 100
        assert list(expected(half)) == drawn_ids


def test_open(known: Known) -> None:
    """The lexicon was made with these in view."""
    of = figures(pairs_of(known, "open"))
    print(f"open: {of}")  # noqa: T201  (for docs/severity.md)
    assert of.read == of.annotated == of.both == of.same > 30


def test_blind(known: Known) -> None:
    """These were annotated before there was a lexicon, and it was made without them."""
    for halves in (("blind",), HALVES):
        of = figures(pairs_of(known, *halves))
        print(f"{' and '.join(halves)}: {of}")  # noqa: T201
        assert of.both >= 0.95 * of.read
        assert of.both >= 0.90 * of.annotated
        assert of.same >= 0.90 * of.both
