"""Damaged films of every kind: each is read or is Unreadable, and the sound one after them comes out right."""

import runpy
from collections import Counter
from pathlib import Path

import numpy as np

from cxrmine.data.headers import header_facts
from cxrmine.data.images import decode_image
from tests.films import EXPLICIT, dicom

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


def test_damaged_headers_say_nothing_or_what_they_may(tmp_path: Path) -> None:
    """The same from the file, whose pixels are not read, as from its bytes."""
    tags = {"ViewPosition": "PA", "PatientID": "p-17", "PixelSpacing": [0.2, 0.3]}
    sound = dicom(np.zeros((40, 64), np.uint8), EXPLICIT, **tags)
    file, silent, others = tmp_path / "a.dcm", 0, set()
    for number in range(300):
        spoilt = bytearray(sound)
        random = np.random.default_rng((11, number))
        for place in random.integers(128, sound.index(b"\xe0\x7f\x10\x00"), 1 + number % 3):
            spoilt[place] = random.integers(256)
        file.write_bytes(spoilt)
        facts = header_facts(file)
        assert facts == header_facts(bytes(spoilt))
        assert not FUZZ["outcome"](bytes(spoilt)).startswith("WRONG")
        silent += facts is None
        others.add(facts and facts.view)
    assert silent > 10
    assert others >= {None, "PA"}


def test_the_command_says_so_where_something_is_broken() -> None:
    outcome = FUZZ["outcome"]
    outcome.__globals__["decode_image"] = lambda data: np.zeros((3, 3), np.uint16)
    assert outcome(b"") == "WRONG: uint16 (3, 3)"
    outcome.__globals__["decode_image"] = lambda data: [][0]
    assert outcome(b"").startswith("WRONG: IndexError")
