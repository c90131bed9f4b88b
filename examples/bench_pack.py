"""How fast films are packed, and read from a pack, against decoding them. Films are made up.

    python examples/bench_pack.py                                  # 64 films of 1024 pixels as 8,192 images; to 512
    python examples/bench_pack.py --images 24576 --sources folder  # where the start and the end weigh less
    python examples/bench_pack.py --images 65536 --workers 16

Packing: films a second of `cxrmine pack`, from a folder, a .zip and a .tar.gz, from the start of its processes to the
finished pack, against one thread that decodes and resizes the same films from memory just before and after; the ratio
is to workers times that.
Loading: uint8 batches of one process from the pack, against the same loader on the PNGs; then with the batches
augmented as training does. The files are in the system's cache for all of them.
"""

import argparse
import os
import platform
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

from cxrmine.config import Augment, Data
from cxrmine.cores import available, keep_freed_memory
from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import decode_image, prepare
from cxrmine.data.index import Index
from cxrmine.stages import phantom
from cxrmine.stages.pack import Pack, run

DECODED, LOADED = 512, 512  # films of one thread, of the loaders
AUGMENT = Augment(flip=0.5, shift=0.05, zoom=0.1, rotate=5.0, contrast=0.1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--films", type=int, default=64, help="different films")
    options.add_argument("--images", type=int, default=8192, help="images, which are these films again and again")
    options.add_argument("--side", type=int, default=1024, help="pixels of the films")
    options.add_argument("--size", type=int, default=512, help="pixels of the pack")
    options.add_argument("--workers", type=int, default=available())
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--sources", default=",".join(SOURCES), help="some of these, with commas; folder is one")
    asked = options.parse_args()
    sources = asked.sources.split(",")
    if not {"folder"} <= set(sources) <= set(SOURCES):
        options.error(f"--sources are some of {', '.join(SOURCES)}, and folder")
    say(f"{platform.processor() or platform.machine()}, {available()} cores, OpenCV {cv2.__version__}")
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the processes of `pack` do
    with tempfile.TemporaryDirectory() as folder:
        root = dataset(Path(folder), asked.films, asked.images, asked.side)
        for number in range(asked.repeat):
            measure(root, Path(folder), sources, asked.size, asked.workers, number)


def measure(root: Path, folder: Path, sources: list[str], size: int, workers: int, number: int) -> None:
    index = open_dataset(root)
    contents = [(root / path).read_bytes() for path in index.table["path"].to_pylist()[:DECODED]]

    def decode() -> float:
        def go() -> None:
            for content in contents:
                prepare(decode_image(content), size, "stretch")

        return len(contents) / timed(go)

    say(f"run {number + 1}")
    before = decode()
    for source in (SOURCES[kind](root, folder) for kind in sources):
        out = folder / f"pack-{number}-{source.suffix}"
        rate = len(index) / timed(partial(run, Pack(source, out, size, workers=workers)))
        after = decode()  # the machine's pace changes: what is compared lies between
        alone, before = (before + after) / 2, after
        kind = "".join(source.suffixes) or "folder"
        share = rate / (workers * alone)
        say(f"  pack, {kind}: {rate:.1f} films/s, {share:.2f} of {workers} × {alone:.1f} of one thread")
    os.sync()  # what is still on its way to the disk takes its time from what comes
    some = np.arange(len(index)) < LOADED
    packed, index = open_dataset(folder / f"pack-{number}-").filter(some), index.filter(some)
    decoded = loaded(index, size)
    fast, augmented = loaded(packed, size), loaded(packed, size, augment=True)
    say(f"  loader, PNGs: {decoded:.1f} films/s; pack: {fast:,.0f} ({fast / decoded:.0f} times)")
    say(f"  loader, pack, augmented: {augmented:.1f} films/s ({augmented / decoded:.1f} times)")


def loaded(index: Index, size: int, augment: bool = False) -> float:
    # Here, because the processes of `pack` import this file, and torch takes seconds.
    from cxrmine.learn.augment import draw, warp
    from cxrmine.learn.loader import batches, inference_groups

    groups = inference_groups(len(index), 32)

    def go() -> None:
        for epoch, batch in enumerate(batches(index, Data(size=size), groups, workers=1)):
            if augment:
                matrices, _ = draw(AUGMENT, 0, epoch, batch.rows)
                warp(batch.images.float(), matrices)

    go()  # so that all of it is in memory
    return len(index) / timed(go)


def dataset(folder: Path, films: int, images: int, side: int) -> Path:
    """Made-up films, each under several names: hard links where the folder allows them."""
    made = folder / "made"
    phantom.run(phantom.Phantom(made, films, side, "png", 0, None))
    root = folder / "films"
    (root / "images").mkdir(parents=True)
    rows = ["Image Index,Finding Labels,Patient ID"]
    for number, film in enumerate(islice(cycle(sorted((made / "images").iterdir())), images)):
        name = f"{number:06}.png"
        try:
            (root / "images" / name).hardlink_to(film)
        except OSError:
            (root / "images" / name).write_bytes(film.read_bytes())
        rows.append(f"{name},{'Mass' if number % 2 else 'No Finding'},{number}")
    (root / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")
    return root


def zipped(root: Path, folder: Path) -> Path:
    path = folder / "films.zip"
    if not path.exists():
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(root))
    return path


def tarred(root: Path, folder: Path) -> Path:
    path = folder / "films.tar.gz"
    if not path.exists():
        with tarfile.open(path, "w:gz", compresslevel=1, dereference=True) as archive:
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                archive.addfile(_plain(archive, file, root), file.open("rb"))
    return path


def _plain(archive: tarfile.TarFile, file: Path, root: Path) -> tarfile.TarInfo:
    """A member with its bytes, where the file is one of several hard links."""
    info = archive.gettarinfo(str(file), str(file.relative_to(root)))
    info.type, info.linkname, info.size = tarfile.REGTYPE, "", file.stat().st_size
    return info


SOURCES = {"folder": lambda root, _: root, "zip": zipped, "tar.gz": tarred}


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
