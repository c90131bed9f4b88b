"""From nothing to scored boxes in one folder. Run again on the same folder, it goes on where it stopped."""

from dataclasses import dataclass
from pathlib import Path

from cxrmine.errors import CxrError
from cxrmine.files import write_json, write_text
from cxrmine.report.overlay import contact_sheet, save_png
from cxrmine.stages import phantom, score, train

IMAGES, SIZE = 1200, 256  # the budget is a number of images, so that a slow machine gets the same result
CASES = 12
SETTINGS = """\
# What the bare commands use in this folder: cxrmine train, cxrmine mine --out boxes.parquet, cxrmine score
data = "data"
run = "run"
recipe = "demo"
boxes = "boxes.parquet"
truth = "data/truth.parquet"
"""


@dataclass(frozen=True)
class Demo:
    directory: Path
    seed: int = 0
    workers: int | None = None


@dataclass(frozen=True)
class DemoResult:
    directory: Path
    score: score.ScoreResult
    macro_auc: float


def run(config: Demo) -> DemoResult:
    folder = config.directory
    data, trained = folder / "data", folder / "run"
    settings = folder / "cxrmine.toml"
    if folder.exists() and any(folder.iterdir()) and not settings.exists():
        raise CxrError(f"{folder} is not empty and holds no demo.", "Choose another folder: cxrmine demo DIR.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(settings, SETTINGS)
    if not data.exists():
        phantom.run(phantom.Phantom(data, IMAGES, SIZE, "png", config.seed, config.workers))
    fitted = train.run(
        train.Train(data, "demo", trained, (f"train.seed={config.seed}",), device="cpu", workers=config.workers)
    )
    mined = _mine(config, data, trained)
    result = score.run(score.Score(mined, data / "truth.parquet", run_patients=trained / "patients.parquet"))
    write_json(folder / "scores.json", result.document)
    sheet = contact_sheet(_cases(folder, mined[-1]), "Twelve boxed test films, from the best first box to the worst")
    save_png(sheet, folder / "contact-sheet.png")
    return DemoResult(folder, result, fitted.macro_auc)
