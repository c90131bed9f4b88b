"""The words that severity is read by: lexicon.toml, and a file of one's own in the same form.

A pattern is a regular expression with three short forms: a blank is any blanks, line ends or hyphens; a letter with *
is any letters after it; ` ... ` is up to six words between, in one clause. Text is in lower case before it is matched.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from cxrmine.errors import CxrError, did_you_mean

GROUPS = ("mild", "moderate", "severe")  # 1, 2, 3
OF_A_FINDING = ("words", "not", "possible", "absent")
OF_CUES = (
    "no_cue", "denied_before", "denied_after", "gone_before", "gone_after", "possible_before", "possible_after", "ends",
    "ends_denied", "no_end", "starts", "verbs", "no_gap",
)  # fmt: skip
OF_NOUNS = ("others", "apart")
KEYS = {"severity": GROUPS, "cues": OF_CUES, "nouns": OF_NOUNS}
NAME = re.compile(r"[^\W_][\w /-]*")
NEVER = re.compile(r"(?!)")

Values = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Words:
    """The patterns of a finding: where it is said, what is something else, and what says all by itself."""

    words: re.Pattern[str]
    no: re.Pattern[str]
    possible: re.Pattern[str]
    absent: re.Pattern[str]


@dataclass(frozen=True, eq=False)
class Lexicon:
    findings: Mapping[str, Words]
    any_finding: re.Pattern[str]
    severity: tuple[re.Pattern[str], ...]  # mild, moderate, severe
    cues: Mapping[str, re.Pattern[str]]
    nouns: Mapping[str, re.Pattern[str]]
    sha256: str


@cache
def builtin() -> Lexicon:
    return _compiled(_builtin_values(), "cxrmine's own lexicon")


def load(path: Path | None) -> Lexicon:
    """The built-in lexicon, with what a person's own file adds or has otherwise."""
    if path is None:
        return builtin()
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CxrError(f"There is no lexicon {path}.", "Check the path.") from None
    except UnicodeDecodeError:
        raise CxrError(f"{path} is not a text file.", "Name a TOML file in UTF-8.") from None
    except tomllib.TOMLDecodeError as fault:
        raise CxrError(f"{path} is not valid TOML: {fault}.", "Mend that line.") from None
    except OSError as fault:
        raise CxrError(f"{path} cannot be read: {fault.strerror}.", "Name a TOML file.") from None
    _check(own, path)
    values = _builtin_values()
    for section, content in own.items():
        values.setdefault(section, {}).update(content)
    return _compiled(values, str(path))


def _builtin_values() -> Values:
    return tomllib.loads(resources.files("cxrmine.data").joinpath("lexicon.toml").read_text(encoding="utf-8"))


def _check(own: Mapping[str, Any], where: Path) -> None:
    sections = ("findings", *KEYS)
    for section, content in own.items():
        if section not in sections:
            raise CxrError(
                f"{where}: there is no section {section}.{did_you_mean(section, sections)}",
                f"The sections are {', '.join(sections)}.",
            )
        if not isinstance(content, dict):
            raise CxrError(f"{where}: {section} is a section, not a value.", f"Write [{section}] above its keys.")
        if section == "findings":
            for finding, lists in content.items():
                _check_finding(finding, lists, where)
        else:
            _check_lists(f"[{section}]", content, KEYS[section], where)


def _check_finding(finding: str, lists: Any, where: Path) -> None:
    if not isinstance(lists, dict):
        raise CxrError(f"{where}: findings.{finding} is no section.", f'Write [findings.{finding}] and words = ["…"].')
    if not NAME.fullmatch(finding):
        raise CxrError(f"{where}: {finding!r} is no name of a finding.", "Take letters, digits, blanks and _.")
    if "words" not in lists:
        raise CxrError(f"{where}: [findings.{finding}] has no words.", 'Write words = ["…"]; not, possible, absent.')
    _check_lists(f"[findings.{finding}]", lists, OF_A_FINDING, where)


def _check_lists(section: str, lists: Mapping[str, Any], known: tuple[str, ...], where: Path) -> None:
    for key, patterns in lists.items():
        if key not in known:
            raise CxrError(
                f"{where}: {section} has no key {key}.{did_you_mean(key, known)}", f"Its keys are {', '.join(known)}."
            )
        if not isinstance(patterns, list) or not all(isinstance(p, str) and p.strip() for p in patterns):
            raise CxrError(f"{where}: {key} of {section} is no list of words.", f'Write {key} = ["…", "…"].')


def _compiled(values: Values, where: str) -> Lexicon:
    stops = "|".join(_expression(p, "") for p in values["cues"]["no_gap"])

    def one(patterns: Iterable[str], key: str) -> re.Pattern[str]:
        return _pattern(patterns, stops, f"{where}: {key}")

    lists = {name: {key: own.get(key, []) for key in OF_A_FINDING} for name, own in sorted(values["findings"].items())}
    findings = {name: Words(*(one(of[key], f"{key} of {name}") for key in OF_A_FINDING)) for name, of in lists.items()}
    said = [p for of in lists.values() for key in ("words", "possible", "absent") for p in of[key]]
    return Lexicon(
        findings,
        one(said, "findings"),
        tuple(one(values["severity"][group], f"severity, {group}") for group in GROUPS),
        {key: one(values["cues"][key], key) for key in OF_CUES},
        {key: one(values["nouns"][key], key) for key in OF_NOUNS},
        hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
    )


def _pattern(patterns: Iterable[str], stops: str, where: str) -> re.Pattern[str]:
    """One expression of them all; the longer ones are tried first."""
    parts = []
    for pattern in sorted(patterns, key=lambda text: (-len(text), text)):
        part = _expression(pattern, stops)
        try:
            re.compile(part)
        except re.error as fault:
            raise CxrError(f"{where} has {pattern!r}, which is no pattern: {fault}.", "Mend it.") from None
        parts.append(part)
    whole = rf"(?:(?<!\w)|(?=\W))(?:{'|'.join(parts)})(?:(?!\w)|(?<=\W))"
    return re.compile(whole) if parts else NEVER


def _expression(pattern: str, stops: str) -> str:
    between = rf":?(?:[\s-]+(?!(?:{stops})(?!\w))[\w/']+){{0,6}}?[\s-]+"
    parts = [_plain(part) for part in pattern.split(" ... ")]
    return between.join(parts)


def _plain(text: str) -> str:
    text = re.sub(r"(?<=\w)\*", r"\\w*", text)
    text = re.sub(r"\((?!\?)", "(?:", text)
    return text.replace(" ", r"[\s-]+")
