"""How well lungs and heart are outlined on made-up films that were not trained on, and how long that takes to learn.

    python examples/organs_on_phantoms.py OUT --seeds 0,1,2 --device cpu
    python examples/organs_on_phantoms.py OUT --films ../shared/data/images --pictures OUT/films.png --device cpu

A seed draws 600 films and trains the recipe demo-organs on them; Dice and IoU are means over the films of the test
split. --films: also what the first seed's network says of other films, which have no masks: each organ's share of the
film, the left lung's area over the right one's, and how well the outlines agree with those of the mirrored film.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from cxrmine.data.datasets import open_dataset
from cxrmine.data.images import prepare, read_image
from cxrmine.data.organs import ORGANS, with_masks
from cxrmine.learn import parallel
from cxrmine.learn.organs import OrganNet, outlined
from cxrmine.methods.registry import load_organs
from cxrmine.runs import open_run
from cxrmine.stages import phantom, train
from cxrmine.stages.validation import OfOrgans

IMAGES, SIZE, SHOWN = 600, 256, 384
COLOURS = ((80, 80, 255), (80, 255, 80), (255, 160, 60))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--device", default="auto")
    options.add_argument("--films", type=Path, help="a folder of PNG files")
    options.add_argument("--pictures", type=Path, help="where to draw their outlines")
    asked = options.parse_args()
    seeds = [int(word) for word in asked.seeds.split(",")]
    figures = [of_seed(asked.out / f"seed-{seed}", seed, asked.device) for seed in seeds]
    for name in ("dice", "iou"):
        for organ in ORGANS:
            values = [one[name][organ] for one in figures]
            say(f"{name} {organ}: {statistics.mean(values):.4f}, of the seeds {', '.join(f'{v:.4f}' for v in values)}")
    if asked.films:
        say(f"{asked.films.name}: share of the film, left over right lung, Dice of each lung with the mirrored film's")
        on_films(asked.out / f"seed-{seeds[0]}" / "run", sorted(asked.films.glob("*.png")), asked.pictures)


def of_seed(folder: Path, seed: int, device: str) -> dict[str, dict[str, float]]:
    data = folder / "data"
    if not data.exists():
        phantom.run(phantom.Phantom(data, IMAGES, SIZE, "png", seed))
    start = time.perf_counter()
    learned = train.run(train.Train(data, "demo-organs", folder / "run", (f"train.seed={seed}",), device=device))
    took = "trained before" if learned.already_done else f"{time.perf_counter() - start:.0f} s"
    opened = open_run(folder / "run")
    test = with_masks(open_dataset(data)).select("test")
    world = parallel.accelerator(device)
    net = load_organs(opened).to(world.device)
    say(f"seed {seed}: {learned.images} films, {took}; {len(test)} test films, {torch.get_num_threads()} threads")
    measured: dict[str, dict[str, float]] = OfOrgans(net, opened.recipe, test, 2, world).measure()
    return measured


def on_films(run: Path, films: list[Path], pictures: Path | None) -> None:
    opened = open_run(run)
    net, size = load_organs(opened).eval(), opened.recipe.data.size
    drawn = []
    for path in films:
        film, _ = prepare(read_image(path), size, opened.recipe.data.fit)
        left, right, _ = organs = masks(net, film)
        left_back, right_back, _ = masks(net, film[:, ::-1])[:, :, ::-1]  # of the mirrored film, mirrored back
        shares = " ".join(f"{organ} {mask.mean():.3f}" for organ, mask in zip(ORGANS, organs, strict=True))
        again = f"{overlap(left, right_back):.2f} {overlap(right, left_back):.2f}"
        say(f"  {path.name}: {shares}; {left.sum() / max(right.sum(), 1):.2f}; {again}")
        drawn.append(picture(film, organs))
    if pictures and drawn:
        cv2.imwrite(str(pictures), np.hstack(drawn))


def masks(net: OrganNet, film: np.ndarray) -> np.ndarray:
    """O×s×s."""
    with torch.inference_mode():
        found: np.ndarray = outlined(net.net, torch.from_numpy(film.copy())[None, None], film.shape[0])[0].numpy()
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice."""
    return float(2 * (one & other).sum() / max(one.sum() + other.sum(), 1))


def picture(film: np.ndarray, organs: np.ndarray) -> np.ndarray:
    shown = cv2.cvtColor(cv2.resize(film, (SHOWN, SHOWN)), cv2.COLOR_GRAY2BGR)
    for mask, colour in zip(organs, COLOURS, strict=True):
        large = cv2.resize(mask.astype(np.uint8), (SHOWN, SHOWN), interpolation=cv2.INTER_NEAREST)
        edges, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, edges, -1, colour, 2)
    return shown


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
