"""The films of the JSRT database as they are given out: 2048 × 2048 words and nothing else.

A word is 16 bits, the upper byte first, and holds 12; 0 is the brightest. Such a file says nowhere what it is. Taken
for one is what has exactly that length, is of no other kind, and has no word above 4095.
"""

import numpy as np

from cxrmine.data.gray import spread

SIDE = 2048
BRIGHTEST = 4095


def is_headerless(data: bytes) -> bool:
    return len(data) == 2 * SIDE * SIDE and int(np.frombuffer(data, np.uint8)[::2].max()) <= BRIGHTEST >> 8


def headerless_size(data: bytes) -> tuple[int, int]:
    return SIDE, SIDE


def decode_headerless(data: bytes) -> np.ndarray:
    """2048×2048 uint8, bones bright, the darkest pixel 0 and the brightest 255."""
    words = np.frombuffer(data, ">u2").astype(np.uint16).reshape(SIDE, SIDE)
    return spread(BRIGHTEST - words)
