"""How much of mining is the network, and how much memory mining takes. Films are made up, networks untrained.

    python examples/bench_mine.py                # ResNet-50 of the recipe am, 512 pixels, three rounds
    python examples/bench_mine.py --device cuda --images 2048 --batch-size 64
    python examples/bench_mine.py --memory       # `cxrmine mine`, the recipe demo-am, 1,000 and 10,000 films

Time: from the first film to the finished table, against the bare forward passes of all rounds on the same films,
decoded beforehand; in one process, with the same batches and threads, in turn. The ratio is bare over whole; loading
the networks is told beside it. Heads are moved so that maps are positive in places: there is something to box.

Memory: the largest resident size of the whole command, each time in a fresh process. The 10,000 films are the 1,000 ten
times under other names and patients: hard links where the folder allows them.
"""

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cxrmine.cores import threads
from cxrmine.data.datasets import open_dataset
from cxrmine.data.index import Index
from cxrmine.files import write_json
from cxrmine.learn.checkpoint import save_weights
from cxrmine.learn.inference import forward
from cxrmine.learn.loader import batches, inference_groups
from cxrmine.learn.team import Team
from cxrmine.methods.registry import build
from cxrmine.recipe_files import load_recipe
from cxrmine.runs import RunFolder, open_run, write_recipe
from cxrmine.stages import phantom
from cxrmine.stages.mine import Mine
from cxrmine.stages.miner import Miner

SMALL, COPIES = 1000, 10  # films of the two measurements of memory: so many, and so many times as many


def main() -> None:
    options_of = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options_of.add_argument("--memory", action="store_true")
    options_of.add_argument("--images", type=int, default=64)
    options_of.add_argument("--size", type=int, default=512, help="pixels of film and input")
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--batch-size", type=int, default=16)
    options_of.add_argument("--device", default="cpu")
    options_of.add_argument("--workers", type=int, default=None)
    options_of.add_argument("--repeat", type=int, default=3)
    options = options_of.parse_args()
    say(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    with tempfile.TemporaryDirectory() as folder:
        (memory if options.memory else speed)(Path(folder), options)


def speed(folder: Path, options: argparse.Namespace) -> None:
    data, out = folder / "data", folder / "b.parquet"
    phantom.run(phantom.Phantom(data, options.images, options.size, workers=options.workers))
    index = open_dataset(data).select("all")
    sets = (f"data.size={options.size}", f"mine.rounds={options.rounds}", "network.weights=none")
    untrained(folder / "run", "am", sets, index)
    opened, size = open_run(folder / "run"), options.batch_size
    config = Mine(opened.folder.path, data, out, "all", device=options.device, batch_size=size, workers=options.workers)
    start = time.perf_counter()
    miner = Miner(config, opened.recipe, opened, None, index, len(index), Team(options.device))
    say(f"loading {options.rounds} networks: {time.perf_counter() - start:.1f} s")
    groups = inference_groups(len(index), size)
    films = [batch.images for batch in batches(index, opened.recipe.data, groups, threads(options.workers))]

    def bare() -> None:
        for images in films:
            logits, _ = forward(miner.objective, images, size, miner.world)
        logits.cpu()  # waits for all of them

    forward(miner.objective.eval(), films[0], size, miner.world)  # warm
    taken = []
    for _ in range(options.repeat):
        seconds = timed(bare), timed(lambda: miner.run(out, {}))
        taken.append(seconds)
        say(f"bare {seconds[0]:.2f} s, mining {seconds[1]:.2f} s, ratio {seconds[0] / seconds[1]:.3f}")
    ratios = sorted(alone / whole for alone, whole in taken)
    count = pq.ParquetFile(out).metadata.num_rows
    say(
        f"{len(index)} films, {count} boxes, {options.rounds} rounds at {options.size} pixels, batches of {size}, "
        f"{miner.world.device}, {torch.get_num_threads()} threads for the network, {threads(options.workers)} beside it"
    )
    say(f"images/s: {len(index) / statistics.median(whole for _, whole in taken):.2f}")
    say(f"ratio: median {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f} of {len(ratios)})")


def memory(folder: Path, options: argparse.Namespace) -> None:
    few, many = folder / "few", folder / "many"
    phantom.run(phantom.Phantom(few, SMALL, 256, workers=options.workers))
    copied(few, many, COPIES)
    untrained(folder / "run", "demo-am", (), open_dataset(few))
    for data, films in ((few, SMALL), (many, SMALL * COPIES)):
        words = ["mine", "--run", folder / "run", "--data", data, "--split", "all", "--out", folder / "b.parquet"]
        words += ["--device", options.device, "--overwrite"]
        peaks = sorted(peak(words) for _ in range(options.repeat))
        say(f"{films:,} films: median {statistics.median(peaks):.0f} MB ({peaks[0]:.0f} to {peaks[-1]:.0f})")


def untrained(folder: Path, name: str, sets: tuple[str, ...], index: Index) -> None:
    """A finished run of that recipe, with weights as they are at random."""
    recipe = load_recipe(name, sets)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"findings": index.findings})})
    run, findings = RunFolder(folder), index.findings
    films = next(batches(index, recipe.data, [np.arange(4)], 1)).images
    for t in range(1, recipe.mine.rounds + 1):
        torch.manual_seed(t)
        objective = build(recipe, torch.full((len(findings),), 0.5))
        centre_maps(objective.eval(), films)
        save_weights(run.round_weights(t), objective)
        write_json(run.round_thresholds(t), dict.fromkeys(findings, 0.5))
    save_weights(run.weights, objective)
    write_json(run.thresholds, dict.fromkeys(findings, 0.5))
    nobody = pa.array([], pa.string())
    pq.write_table(pa.table({"patient_id": nobody, "split": nobody}), run.patients)
    write_recipe(run, recipe, index.fingerprint)


@torch.no_grad()
def centre_maps(objective: Any, films: torch.Tensor) -> None:
    """Turn each finding's weights until the mean of its maps is 0: at random, many maps are negative all over."""
    _, features = objective.layers(films)
    mean, weight = features.mean(dim=(0, 2, 3)), objective.top().weight
    weight -= torch.outer(weight @ mean, mean) / (mean @ mean)


def copied(few: Path, many: Path, times: int) -> None:
    """The same films several times, under other names and of other patients."""
    (many / "images").mkdir(parents=True)
    with (few / "Data_Entry_2017_v2020.csv").open() as file:
        header, *rows = list(csv.reader(file))
    tests = set((few / "test_list.txt").read_text().split())
    entries, lists = [header], {True: [], False: []}
    for i in range(times):
        for name, labels, follow_up, patient, *others in rows:
            again = f"{i}-{name}"
            entries.append([again, labels, follow_up, f"{i}-{patient}", *others])
            lists[name in tests].append(again)
            link(few / "images" / name, many / "images" / again)
    (many / "Data_Entry_2017_v2020.csv").write_text("\n".join(map(",".join, entries)) + "\n")
    (many / "test_list.txt").write_text("\n".join(lists[True]))
    (many / "train_val_list.txt").write_text("\n".join(lists[False]))


def link(film: Path, again: Path) -> None:
    try:
        again.hardlink_to(film)
    except OSError:
        again.write_bytes(film.read_bytes())


def peak(words: list[object]) -> float:
    """The largest resident size of a command, in MB."""
    probe = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10)\n"
    )
    command = [sys.executable, "-c", probe, sys.executable, "-m", "cxrmine", *map(str, words)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def timed(work) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
