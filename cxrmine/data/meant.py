"""Which file, or which image, is meant by a path, the end of a path, or a name alone."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

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
    places, asked = _Places(there, lost), Counter(map(_name, distinct))
    choices = {word: places.near(word, asked[_name(word)] == 1) for word in lost}
    claims = Counter(found[0] for found in choices.values() if len(found) == 1)
    unclear = {w for w, found in choices.items() if len(found) > 1}
    unclear |= {w for w, found in choices.items() if found and (claims[found[0]] > 1 or found[0] in distinct)}
    of = {word: word for word in distinct if word in known}
    of |= {word: found[0] for word, found in choices.items() if found and word not in unclear}
    return [None if word is None else of.get(word) for word in wanted], sorted(unclear)


class _Places:
    """The paths that are there, to be looked up by their names, and by all that may be said of where they lie.

    A dataset may have 200,000 films of three names, each in its own folder: nothing here goes through films of a name.
    """

    def __init__(self, there: Iterable[str], wanted: Iterable[str]) -> None:
        self.named: dict[str, list[str]] = {}  # by name, with its ending
        self.called: dict[str, list[str]] = {}  # by name, with its ending and without it
        self.whole: dict[str, list[str]] = {}  # by the path without its ending
        self.ending: dict[str, list[str]] = {}  # by those ends of it that are wanted
        ends = set(map(_bare, wanted))
        for path in there:
            name, bare = _name(path), _bare(path)
            self.named.setdefault(name, []).append(path)
            for word in {name, _bare(name)}:
                self.called.setdefault(word, []).append(path)
            self.whole.setdefault(bare, []).append(path)
            for end in _ends(bare):
                if end in ends:
                    self.ending.setdefault(end, []).append(path)

    def near(self, word: str, alone: bool) -> list[str]:
        """Those that `word` may mean; `alone`: nothing else that is wanted has its name."""
        name, known = _name(word), _name(word) in self.called
        alike = self.called[name] if known else self.named.get(_bare(name), [])
        longest, *shorter = _ends(_bare(word))
        near = [*self.ending.get(longest, []), *(path for end in shorter for path in self.whole.get(end, []))]
        if known:
            near = [path for path in near if name in (_name(path), _bare(_name(path)))]
        else:
            near = [path for path in near if _name(path) == _bare(name)]
        return near or (alike if alone else [])


def _ends(path: str) -> Iterator[str]:
    """a/b/c, b/c, c"""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _bare(path: str) -> str:
    return ENDING.sub("", path)
