"""What several tests share: one small phantom dataset, and one small run trained on it."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

TINY = (
    "data.size=64",
    "network.layers=[1, 1, 1, 1]",
    "network.channels=[8, 8, 16, 16]",
    "network.stride=8",
    "train.batch_size=16",
    "train.save_every=3",
    "train.phases.0.epochs=2",
)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 made-up films at 96 pixels."""
    from cxrmine.stages import phantom

    folder = tmp_path_factory.mktemp("phantom") / "data"
    phantom.run(phantom.Phantom(folder, images=160, size=96, format="png", seed=7, workers=1))
    return folder


@pytest.fixture(scope="session")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo's recipe, very small, on those films."""
    from cxrmine.stages import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train.run(train.Train(dataset, "demo", folder, TINY, device="cpu", workers=1))
    return folder


@pytest.fixture(autouse=True)
def unread_settings() -> None:
    """A process reads cxrmine.toml once; tests share a process, and each stands in its own folder."""
    from cxrmine import settings

    settings._file.cache_clear()
