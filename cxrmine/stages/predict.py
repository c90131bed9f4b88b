"""A run and a dataset → image-level probabilities. What is whole is not done again, what breaks off leaves nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrmine.boxes.shards import shard_path
from cxrmine.boxes.table import read_meta
from cxrmine.data.datasets import open_dataset
from cxrmine.errors import CxrError, UsageError
from cxrmine.files import check_writable
from cxrmine.recipe_files import load_overrides
from cxrmine.runs import open_finder
from cxrmine.scoring.probabilities import write_probabilities
from cxrmine.stages.mine import provenance, shard_of


@dataclass(frozen=True)
class Predict:
    run: Path
    data: Path
    out: Path
    split: str = "test"
    overrides: tuple[str, ...] = ()  # data.max_unreadable=share
    shard: tuple[int, int] = (1, 1)
    device: str = "auto"
    batch_size: int = 32
    workers: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class PredictResult:
    out: Path
    already_done: bool
    images: int = 0
    findings: int = 0
    unreadable: int = 0


def run(config: Predict) -> PredictResult:
    shard, shards = config.shard
    out = shard_path(config.out, shard, shards) if shards > 1 else config.out
    _check_place(config.out, out)
    opened = open_finder(config.run)
    recipe = load_overrides(opened.recipe, config.overrides, only=("data.max_unreadable",))
    index = open_dataset(config.data)
    chosen = index.select(config.split)
    meta = {"kind": "probabilities", **provenance(config.split, config.shard, recipe, opened, index)}
    if not config.overwrite and _is_done(out, meta):
        return PredictResult(out, already_done=True)
    check_writable(out)
    from cxrmine.stages.predictor import predict  # torch comes in here, once the input is known to be good

    part = shard_of(chosen, shard, shards)
    table = predict(config, recipe, opened, part, len(chosen))
    write_probabilities(out, table, meta)
    findings = recipe.data.findings
    unreadable = table[findings[0]].null_count
    return PredictResult(out, already_done=False, images=len(table), findings=len(findings), unreadable=unreadable)


def summary(config: Predict, result: PredictResult) -> str:
    if result.already_done:
        return f"{result.out} is predicted already."
    return (
        f"Probabilities of {result.findings} findings in {result.images} images of {config.split} → {result.out}"
        f" ({result.unreadable} images unreadable)"
    )


def _check_place(wanted: Path, out: Path) -> None:
    for path in (wanted, out):
        if path.is_dir():
            raise UsageError(f"--out {path} is a folder.", f"Name a file, for instance {path / 'predicted.parquet'}.")
    if out.suffix != ".parquet" or out.name.endswith(".images.parquet"):
        raise UsageError(
            f"--out {wanted} is no name for a table of probabilities.",
            "It ends in .parquet, and not in .images.parquet, which is a table beside boxes.",
        )


def _is_done(out: Path, meta: dict[str, Any]) -> bool:
    """Whether the table is there. One that was made otherwise is refused: it may be somebody's work."""
    if not out.exists():
        return False
    before = read_meta(out)
    changed = [key for key in meta if before.get(key) != meta[key]]
    if changed:
        raise CxrError(
            f"{out} exists and was made otherwise (its {', '.join(changed)} differ{'s' * (len(changed) == 1)}).",
            "Choose another --out, or say --overwrite.",
        )
    return True
