"""Which file, or which image, is meant by a path, the end of a path, or a name alone."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

ENDING = re.compile(r"(\.(png|jpe?g|dcm|dicom|img))+$", re.IGNORECASE)


def meant(wanted: Sequence[str | None], there: Collection[str]) -> tuple[list[str | None], list[str]]:
    """Of each of `wanted` the one of `there`, or None; and those of `wanted` that may mean several, or one that another
    means too.

    The same path comes first; then paths of which one is the end of the other (b/c.png and a/b/c.png); then the same
    name, where nothing else that is wanted has it. An ending may be missing on one side.
    """
    known, distinct = set(there), dict.fromkeys(word for word in wanted if word is not None)
    lost = [word for word in distinct if word not in known]
    if not lost:
        return list(wanted), []
    names, asked = _by_name(there), Counter(map(_name, distinct))
    choices = {word: _near(word, names, asked) for word in lost}
    claims = Counter(found[0] for found in choices.values() if len(found) == 1)
    unclear = {w for w, found in choices.items() if len(found) > 1}
    unclear |= {w for w, found in choices.items() if found and (claims[found[0]] > 1 or found[0] in distinct)}
    of = {word: word for word in distinct if word in known}
    of |= {word: found[0] for word, found in choices.items() if found and word not in unclear}
    return [None if word is None else of.get(word) for word in wanted], sorted(unclear)


def _near(word: str, names: dict[str, list[str]], asked: Counter[str]) -> list[str]:
    name = _name(word)
    alike = names.get(name) or [path for path in names.get(_bare(name), []) if _name(path) == _bare(name)]
    ends = [path for path in alike if _one_ends_the_other(_bare(path), _bare(word))]
    return ends or (alike if asked[name] == 1 else [])


def _by_name(there: Iterable[str]) -> dict[str, list[str]]:
    """Paths by their name with its ending, and without it."""
    names: dict[str, list[str]] = {}
    for path in there:
        for name in {_name(path), _bare(_name(path))}:
            names.setdefault(name, []).append(path)
    return names


def _one_ends_the_other(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _bare(path: str) -> str:
    return ENDING.sub("", path)
