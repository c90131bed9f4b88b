"""The half of `predict` that needs torch: films through the network, probabilities into one array."""

import numpy as np
import pyarrow as pa
import torch

from cxrmine import console
from cxrmine.config import Recipe
from cxrmine.cores import threads
from cxrmine.data.index import Index
from cxrmine.errors import CxrError
from cxrmine.learn import parallel
from cxrmine.learn.inference import infer
from cxrmine.methods.organ_weighted import about_organs
from cxrmine.methods.registry import load
from cxrmine.runs import Run
from cxrmine.scoring.probabilities import OK, build_probabilities
from cxrmine.stages.predict import Predict


def predict(config: Predict, recipe: Recipe, opened: Run, index: Index, of: int) -> pa.Table:
    """A row an image of `index`: this shard's images, out of `of`."""
    world = parallel.accelerator(config.device)
    objective = load(opened).to(world.device).to(memory_format=torch.channels_last)
    names = index.table["image_id"].to_pylist()
    probabilities = np.full((len(index), len(recipe.data.findings)), np.nan, np.float32)
    status = [OK] * len(index)
    unreadable = 0
    stream = infer(objective, index, recipe.data, config.batch_size, threads(config.workers), world)
    with console.progress_bar(len(index), f"predict {config.split}") as bar:
        for batch, logits, _ in stream:
            if len(batch.rows):
                probabilities[batch.rows] = 1 / (1 + np.exp(-logits))
                _refuse_no_number(probabilities[batch.rows], config)
            for row, why in batch.unreadable:
                status[row] = f"unreadable: {why}"
                console.log(f"unreadable: {names[row]}: {status[row]}")
            unreadable += len(batch.unreadable)
            if unreadable > recipe.data.max_unreadable * of:  # of all shards: one bad film in a small one is no fault
                last = batch.unreadable[-1][0]
                raise CxrError(
                    f"{unreadable} of {of} images cannot be read, the last is {names[last]} ({status[last]}).",
                    "See all with cxrmine check, or allow more with --set data.max_unreadable=SHARE.",
                )
            bar.advance(len(batch.rows) + len(batch.unreadable))
    if said := about_organs(objective, f"of {len(index)} images"):
        console.log(said)
    return build_probabilities(index, recipe.data.findings, probabilities, status)


def _refuse_no_number(probabilities: np.ndarray, config: Predict) -> None:
    if np.isnan(probabilities).any():
        raise CxrError(
            f"The network of {config.run} gives no number for some images: its training went astray.",
            "Train again with --fresh and a lower rate.",
        )
