"""Damaged films of every kind: each is read or is Unreadable, and the sound one after them comes out right."""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np

from cxrmine.data.images import decode_image

FUZZ = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "fuzz_films.py"))
EACH = 11


def test_damaged_films_are_read_or_refused() -> None:
    sound = FUZZ["sound_films"]()
    right = {kind: decode_image(data) for kind, data in sound.items()}
    assert len(sound) == 29
    outcomes: Counter[str] = Counter()
    for kind, data in sound.items():
        for number in range(EACH):
            spoilt = FUZZ["damaged"](data, np.random.default_rng((7, number, len(data))))
            outcomes[FUZZ["outcome"](spoilt)] += 1
        assert (decode_image(data) == right[kind]).all()
    assert not [outcome for outcome in outcomes if outcome.startswith("WRONG")]
    assert outcomes["read"] > 50
    assert outcomes.total() - outcomes["read"] > 100


def test_the_command_says_so_where_something_is_broken() -> None:
    outcome = FUZZ["outcome"]
    outcome.__globals__["decode_image"] = lambda data: np.zeros((3, 3), np.uint16)
    assert outcome(b"") == "WRONG: uint16 (3, 3)"
    outcome.__globals__["decode_image"] = lambda data: [][0]
    assert outcome(b"").startswith("WRONG: IndexError")
