"""Whether a network learns as much from 12-bit DICOM films as from the same films as 8-bit PNG.

    python examples/dicom_or_png.py OUT              # three seeds, about five minutes on two idle cores

Each seed draws the same phantoms twice, trains the demo's recipe on each with the same seed, and scores both on the
test films. Prints the AUC of each (mean over findings), their difference, and the standard deviation over the seeds.
"""

import statistics
import sys
from pathlib import Path

from cxrmine.scoring.figures import MEAN
from cxrmine.stages import phantom, predict, score, train

SEEDS = (0, 1, 2)
IMAGES, SIZE = 1200, 256


def main(out: Path) -> None:
    auc = {kind: [of_seed(out / f"{kind}-{seed}", kind, seed) for seed in SEEDS] for kind in ("png", "dicom")}
    for seed, png, dicom in zip(SEEDS, auc["png"], auc["dicom"], strict=True):
        say(f"seed {seed}: PNG {png:.4f}, DICOM {dicom:.4f}, difference {dicom - png:+.4f}")
    means = {kind: statistics.mean(values) for kind, values in auc.items()}
    spread = ", ".join(f"{kind} {statistics.stdev(values):.4f}" for kind, values in auc.items())
    say(f"mean: PNG {means['png']:.4f}, DICOM {means['dicom']:.4f}, difference {means['dicom'] - means['png']:+.4f}")
    say(f"standard deviation over the seeds: {spread}")


def of_seed(folder: Path, kind: str, seed: int) -> float:
    if not (folder / "data").exists():
        phantom.run(phantom.Phantom(folder / "data", IMAGES, SIZE, kind, seed))  # type: ignore[arg-type]
    train.run(train.Train(folder / "data", "demo", folder / "run", (f"train.seed={seed}",), device="cpu"))
    out = folder / "predicted.parquet"
    predict.run(predict.Predict(folder / "run", folder / "data", out, "test", device="cpu"))
    areas = score.run(score.Score((out,), folder / "data")).document["auc"]
    return statistics.mean(at["auc"] for finding, at in areas.items() if finding != MEAN)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
