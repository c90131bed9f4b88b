"""Which file is meant by a path or the end of one: the same as a slow search says, and soon."""

import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from cxrmine.data.meant import ENDING, meant


@pytest.mark.parametrize(
    ("wanted", "there", "found", "unclear"),
    [
        (["a.png"], ["f/a.png"], ["f/a.png"], []),
        (["v1/f/a.png"], ["f/a.png", "g/a.png"], ["f/a.png"], []),
        (["f/a"], ["x/f/a.dcm", "x/g/a.dcm"], ["x/f/a.dcm"], []),
        (["f/a.png"], ["x/f/a", "g/a"], ["x/f/a"], []),
        (["f/a.png"], ["x/f/a.jpg"], [None], []),
        (["f/a.png"], ["g/a.png"], ["g/a.png"], []),
        (["f/a.png", "h/a.png"], ["g/a.png"], [None, None], []),
        (["a.png"], ["f/a.png", "g/a.png"], [None], ["a.png"]),
        (["f/a.png", "x/f/a.png"], ["y/x/f/a.png"], [None, None], ["f/a.png", "x/f/a.png"]),
        (["f/a.png", "a.png"], ["f/a.png"], ["f/a.png", None], ["a.png"]),
        ([None, "a.png"], ["a.png"], [None, "a.png"], []),
    ],
)
def test_by_hand(wanted: list[str | None], there: list[str], found: list[str | None], unclear: list[str]) -> None:
    assert meant(wanted, there) == (found, unclear)


def slow(wanted: Sequence[str | None], there: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Every path with every other, as the rule is told."""

    def name(path: str) -> str:
        return path.split("/")[-1]

    def bare(path: str) -> str:
        return ENDING.sub("", path)

    def choices(word: str) -> list[str]:
        alike = [path for path in there if name(word) in (name(path), bare(name(path)))]
        alike = alike or [path for path in there if name(path) == bare(name(word))]
        mine = "/" + bare(word)
        near = [p for p in alike if mine.endswith("/" + bare(p)) or ("/" + bare(p)).endswith(mine)]
        return near or (alike if [name(other) for other in words].count(name(word)) == 1 else [])

    words = list(dict.fromkeys(word for word in wanted if word is not None))
    may = {word: choices(word) for word in words if word not in there}
    claims = Counter(found[0] for found in may.values() if len(found) == 1)
    good = {
        word: found[0]
        for word, found in may.items()
        if len(found) == 1 and claims[found[0]] == 1 and found[0] not in words
    }
    unclear = sorted(word for word, found in may.items() if found and word not in good)
    return [word if word in there else good.get(word or "") for word in wanted], unclear


def test_small_trees_by_chance() -> None:
    draw = random.Random(0)

    def path() -> str:
        folders = [draw.choice("abc") for _ in range(draw.randint(0, 3))]
        name = draw.choice("xyz") + draw.choice(["", ".png", ".PNG", ".jpg", ".dcm", ".dcm.png", ".txt"])
        whole = "/".join([*folders, name])
        return draw.choice([whole] * 6 + ["/" + whole, "./" + whole, whole + "/"])

    several = elsewhere = 0
    for _ in range(4000):
        there = list(dict.fromkeys(path() for _ in range(draw.randint(0, 8))))
        wanted = [draw.choice([None, *[path()] * 9]) for _ in range(draw.randint(0, 6))]
        found, unclear = meant(wanted, there)
        assert (found, unclear) == slow(wanted, there), (wanted, there)
        several += len(unclear)
        elsewhere += sum(film not in (None, word) for word, film in zip(wanted, found, strict=True))
    assert several > 500
    assert elsewhere > 500


def test_many_films_of_one_name() -> None:
    """A search through all films of a name would take the square of their number: minutes here, days of CheXpert."""
    there = [f"train/patient{i:05}/study1/view1_frontal.jpg" for i in range(20_000)]
    start = time.process_time()
    assert meant([f"CheXpert-v1.0/{path}" for path in there], there) == (there, [])
    assert meant([path.removeprefix("train/") for path in there], there) == (there, [])
    assert meant([f"other/{path.removeprefix('train/')}" for path in there], there) == ([None] * len(there), [])
    assert time.process_time() - start < 20
