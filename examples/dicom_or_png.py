"""Whether a network learns as much from 12-bit DICOM films as from the same films as 8-bit PNG.

    python examples/dicom_or_png.py OUT                  # three seeds, about seven minutes on two idle cores
    python examples/dicom_or_png.py OUT --seeds 0,1,2,3,4
    python examples/dicom_or_png.py OUT --noise 1,2      # beside the PNG, two draws of noise on them

Each seed draws the same phantoms twice, trains the demo's recipe on each with the same seed, and scores both on the
test films. Prints the AUC of each (mean over findings), their difference, and the standard deviation over the seeds.
Noise: a quarter of a PNG's pixels, one gray level up or down, about as much as a decoded DICOM film differs.
"""

import argparse
import statistics
import sys
from pathlib import Path

import cv2
import numpy as np

from cxrmine.data.images import read_image
from cxrmine.scoring.figures import MEAN
from cxrmine.stages import phantom, predict, score, train

IMAGES, SIZE = 1200, 256


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    options.add_argument("--noise", type=numbers, default=[], help="seeds of noise")
    asked = options.parse_args()
    auc = {kind: [of_seed(asked.out, kind, seed) for seed in asked.seeds] for kind in ("png", "dicom")}
    for seed, png, dicom in zip(asked.seeds, auc["png"], auc["dicom"], strict=True):
        say(f"seed {seed}: PNG {png:.4f}, DICOM {dicom:.4f}, difference {dicom - png:+.4f}")
        for noise in asked.noise:
            say(f"  noise {noise}: {of_seed(asked.out, 'png', seed, noise):.4f}")
    means = {kind: statistics.mean(values) for kind, values in auc.items()}
    spread = ", ".join(f"{kind} {statistics.stdev(values):.4f}" for kind, values in auc.items())
    say(f"mean: PNG {means['png']:.4f}, DICOM {means['dicom']:.4f}, difference {means['dicom'] - means['png']:+.4f}")
    say(f"standard deviation over the seeds: {spread}")


def of_seed(out: Path, kind: str, seed: int, noise: int = 0) -> float:
    folder = out / (f"noise{noise}-{seed}" if noise else f"{kind}-{seed}")
    if not (folder / "data").exists():
        phantom.run(phantom.Phantom(folder / "data", IMAGES, SIZE, kind, seed))  # type: ignore[arg-type]
        if noise:
            disturb(folder / "data" / "images", noise, seed)
    train.run(train.Train(folder / "data", "demo", folder / "run", (f"train.seed={seed}",), device="cpu"))
    predicted = folder / "predicted.parquet"
    predict.run(predict.Predict(folder / "run", folder / "data", predicted, "test", device="cpu"))
    areas = score.run(score.Score((predicted,), folder / "data")).document["auc"]
    return statistics.mean(at["auc"] for finding, at in areas.items() if finding != MEAN)


def disturb(images: Path, noise: int, seed: int) -> None:
    rng = np.random.default_rng((noise, seed))
    for path in sorted(images.iterdir()):
        film = read_image(path).astype(int)
        film += (rng.random(film.shape) < 0.25) * rng.choice([-1, 1], film.shape)
        cv2.imwrite(str(path), np.clip(film, 0, 255).astype(np.uint8))


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
