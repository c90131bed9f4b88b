"""Damaged films by the thousand: each must be read or be Unreadable with a reason, in bounded time and memory.

    python examples/fuzz_films.py --files 10000 --seed 0

Small made-up films as PNG, JPEG and DICOM of every transfer syntax are cut, have bits flipped (in their headers more
often than elsewhere) or stretches overwritten, and are read as a dataset's films and their headers would be. The same
seed damages the same way. Printed: how often which kind was read or refused, the slowest file by the clock, and the
largest memory of this process and of the helpers that decode apart. Exit 1, with the number of the file, where anything
else happened.
"""

import argparse
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from cxrmine.data import apart
from cxrmine.data.dicom import is_dicom
from cxrmine.data.dicom_words import VIEWS
from cxrmine.data.headers import header_facts
from cxrmine.data.images import Unreadable, decode_image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.films import every_kind

HEAD = 1200  # bytes that hold most of a header
SMALL = 40, 64


def sound_films() -> dict[str, bytes]:
    """One of every kind, at 8 and at 12 bits."""
    rows, columns = np.mgrid[: SMALL[0], : SMALL[1]]
    speckle = np.random.default_rng(0).integers(0, 8, SMALL)
    eight, twelve = (
        (3 * columns + rows + speckle).astype(np.uint8),
        (60 * columns + rows + 8 * speckle).astype(np.uint16),
    )
    films = {
        "png": cv2.imencode(".png", eight)[1].tobytes(),
        "png-16": cv2.imencode(".png", twelve)[1].tobytes(),
        "jpeg": cv2.imencode(".jpg", eight)[1].tobytes(),
        "jpeg-progressive": cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    }
    for bits, pixels in ((8, eight), (12, twelve)):
        films |= {f"dicom-{name}-{bits}": data for name, data in every_kind(pixels).items()}
    return films


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    way = random.choice(["cut", "flip", "flips", "head", "head", "overwrite", "pixels"])
    if way == "cut":
        return data[: int(random.integers(1, len(data)))]
    whole = bytearray(data)
    start = 128 if is_dicom(data) else 0
    code = max(data.find(mark) for mark in (b"\xff\x4f\xff\x51", b"\xff\xd8\xff"))
    if way == "pixels" and code > 0:  # the header of a compressed frame
        places = random.integers(code + 2, min(len(data), code + 120), random.integers(1, 4))
    elif way in ("head", "pixels"):
        places = random.integers(start, min(len(data), start + HEAD), random.integers(1, 4))
    elif way == "overwrite":
        first = int(random.integers(start, len(data)))
        places = np.arange(first, min(len(data), first + int(random.integers(2, 40))))
    else:
        places = random.integers(start, len(data), 1 if way == "flip" else random.integers(2, 60))
    for place in places:
        whole[place] = int(random.choice([whole[place] ^ (1 << int(random.integers(8))), random.integers(256), 0, 255]))
    return bytes(whole)


def outcome(data: bytes) -> str:
    """read, a reason, or what should not be, in capitals."""
    try:
        facts = header_facts(data)
        if facts and (facts.view not in {None, *VIEWS} or not 0 < min(facts.spacing or (1,)) < np.inf):
            return "WRONG: a header that says what it may not"
        pixels = decode_image(data)
        if pixels.dtype != np.uint8 or pixels.ndim != 2:
            return f"WRONG: {pixels.dtype} {pixels.shape}"
        if is_dicom(data) and (facts is None or (facts.height, facts.width) != pixels.shape):
            return "WRONG: read, and its header is not"
        return "read"
    except Unreadable as fault:
        return fault.why
    except BaseException as fault:
        return f"WRONG: {type(fault).__name__}: {fault}"


def helpers_memory() -> float:
    """MiB, the most of any helper that lives, ever."""
    most = 0
    for pid in apart.helpers():
        status = Path(f"/proc/{pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
    return most / 1024


def main() -> int:
    options_of = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options_of.add_argument("--files", type=int, default=10_000)
    options_of.add_argument("--seed", type=int, default=0)
    options_of.add_argument("--minutes", type=float, default=1e9, help="end earlier")
    options_of.add_argument("--kind", default="", help="only kinds with this in their name")
    options = options_of.parse_args()
    sound = {kind: data for kind, data in sound_films().items() if options.kind in kind}
    right = {kind: decode_image(data) for kind, data in sound.items()}
    counts: Counter[tuple[str, str]] = Counter()
    slowest, wrong, memory, began = (0.0, ""), [], 0.0, time.monotonic()
    for number in range(options.files):
        random = np.random.default_rng((options.seed, number))
        kind = str(random.choice(list(sound)))
        start = time.monotonic()
        result = outcome(damaged(sound[kind], random))
        slowest = max(slowest, (time.monotonic() - start, f"file {number}, {kind}"))
        if number % 10 == 0 and not (decode_image(sound[kind]) == right[kind]).all():
            result = "WRONG: the sound film after it came out otherwise"
        if number % 100 == 0:
            memory = max(memory, helpers_memory())
        counts[kind, result] += 1
        if result.startswith("WRONG"):
            wrong.append(f"file {number}, {kind}: {result}")
        if time.monotonic() - began > 60 * options.minutes:
            break
    show(counts, slowest, max(memory, helpers_memory()), time.monotonic() - began, wrong)
    return bool(wrong)


def show(
    counts: Counter[tuple[str, str]], slowest: tuple[float, str], memory: float, seconds: float, wrong: list[str]
) -> None:
    lines = [f"{'kind':32}{'read':>8}{'refused':>9}{'crashed':>9}{'too long':>10}"]
    for kind in sorted({kind for kind, _ in counts}):
        of_kind = {result: count for (name, result), count in counts.items() if name == kind}
        read, crashed, slow = (of_kind.get(what, 0) for what in ("read", apart.CRASHED, apart.TOO_SLOW))
        lines += [f"{kind:32}{read:8}{sum(of_kind.values()) - read - crashed - slow:9}{crashed:9}{slow:10}"]
    reasons: Counter[str] = Counter()
    for (_, result), count in counts.items():
        reasons[re.sub(r"-?\d+ × -?\d+", "W × H", result)] += count
    lines += ["", *(f"{count:8}  {result}" for result, count in reasons.most_common(40))]
    here, ended = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    lines += [
        "",
        f"{sum(counts.values())} files in {seconds:.0f} s; slowest {slowest[0]:.2f} s ({slowest[1]})",
        f"memory: {here:.0f} MiB here; in a helper {memory:.0f} MiB where looked at, no more than {ended:.0f}",
        *(wrong or ["Nothing else happened."]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
