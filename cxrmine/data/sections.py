"""A report's text in its sections: those that say what is seen, and never why it was asked for or what was before.

A heading is one of the names below before a colon, at the beginning of a line or of a sentence; in capitals anywhere
before a colon, or alone in a line, as are the commonest in any letters; or ADDENDUM before who wrote it and when. Other
words before a colon (LUNGS:, EFFUSION:) belong to the section they are in.
Where a report has no heading that is read, all is read that is under none that is not; there, and before an IMPRESSION
without FINDINGS, an empty line ends a section that is not read, since what comes after it often has no heading.
"""

import re

READ = (
    "FINDINGS?", "IMPRESSIONS?", "CONCLUSIONS?", "INTERPRETATION", "OPINION", "SUMMARY", "RESULTS?", "REPORT",
    "ADDENDUM", "CHEST FINDINGS?", "DIAGNOSTIC IMPRESSION", "RADIOLOGIC(?:AL)? (?:FINDINGS?|IMPRESSION)",
)  # fmt: skip
UNREAD = (
    r"INDICATIONS?", r"(?:\w+ )?HISTORY(?: OF [\w ]+)?", r"CLINICAL[\w ]*", r"COMPARISONS?(?: STUD(?:Y|IES))?",
    r"TECHNIQUE", r"REASON FOR[\w ]*", r"EXAM(?:INATION)?S?(?: DATE| TYPE)?", r"STUDY(?: DATE)?", r"PROCEDURE",
    r"PRIORS?(?: [\w ]+)?", r"PREVIOUS[\w ]*", r"TYPE OF EXAM(?:INATION)?",
    r"NOTIFICATION", r"RECOMMENDATIONS?",
    r"WET READ", r"(?:ADMITTING |PROVISIONAL )?DIAGNOSIS", r"VIEWS?", r"PROTOCOL", r"CONTRAST", r"DOSE",
    r"MEDICATIONS?",
    r"(?:ELECTRONICALLY )?SIGNED(?: BY)?", r"DICTATED(?: BY)?", r"ATTESTATION", r"REFERRING[\w ]*", r"PATIENT[\w ]*",
    r"DATE", r"FINAL REPORT", r"PRELIMINARY REPORT", r"TITLE", r"SYMPTOMS?", r"REQUEST[\w ]*",
)  # fmt: skip
_JOINED = rf"(?:{'|'.join(READ)})(?:\s*(?:AND|/|&|,)\s*(?:{'|'.join(READ)}))*"
_NAMES = rf"(?P<read{{0}}>{_JOINED})|(?:{'|'.join(UNREAD)})"
_COMMON = ("Findings?|Impressions?|Conclusions?", "(?:Clinical )?[Hh]istory|Indications?|Comparisons?|Technique")
_END = r"[ \t]*(?:\([^)\n]*\)[ \t]*)?:"
HEADING = re.compile(
    rf"^[ \t]*(?i:{_NAMES.format(1)}){_END}"  # at the begin of a line
    rf"|^[ \t]*(?:{_NAMES.format(2)})[ \t]*$"  # alone in a line
    rf"|^[ \t]*(?:(?P<read5>{_COMMON[0]})|{_COMMON[1]})[ \t]*$"
    r"|^[ \t]*(?P<read6>ADDENDUM)(?=[ \t]+(?:DR\b|BY\b|[_\d]))[^\n]*$"  # with who and when
    rf"|(?<=[.!?;:])\s+(?=[A-Z])(?i:{_NAMES.format(3)}){_END}"  # in a line, after a sentence
    rf"|(?<=\s)(?:{_NAMES.format(4)}){_END}",  # in a line
    re.MULTILINE,
)
EMPTY_LINE = re.compile(r"\n[ \t]*\n")
FINDINGS = re.compile(r"FINDING|REPORT|RESULT", re.IGNORECASE)

Section = tuple[str, str]  # its name in capitals, "" where it has none, and its text


def sections(report: str) -> list[Section]:
    """Those that are read, each with its text as it stands."""
    parts: list[tuple[str, bool, str]] = []  # name, whether it is read, text
    begin, name, is_read = 0, "", True
    for heading in HEADING.finditer(report):
        parts.append((name, is_read, report[begin : heading.start()]))
        found = next(filter(None, heading.groups()), None)
        name = " ".join((found or heading[0].strip().rstrip(":")).upper().split())
        begin, is_read = heading.end(), found is not None
    parts.append((name, is_read, report[begin:]))
    known = [part for part in parts if part[0] and part[1]]
    if any(FINDINGS.search(name) for name, _, _ in known):
        return [(name, text) for name, _, text in known]
    return [section for part in parts if (section := _seen(*part))[1].strip()]


def _seen(name: str, is_read: bool, text: str) -> Section:
    """What a part says of what is seen, where nothing is headed FINDINGS."""
    if is_read:
        return name, text
    end = EMPTY_LINE.search(text.rstrip())
    return "", text[end.end() :] if end else ""
