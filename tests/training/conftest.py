"""A toy dataset on disk, made once, and the toy family registered for every test of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import register_toy, write_toy_dataset
from worldloom.training.settings import TrainSettings

MakeSettings = Callable[..., TrainSettings]


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("toy") / "data", episodes=12, length=24)


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, toy_cache: Path) -> None:
    register_toy(monkeypatch)
    monkeypatch.setenv("WORLDLOOM_CACHE", str(toy_cache))
    torch.set_num_threads(1)


@pytest.fixture
def toy_settings(toy_data: Path, tmp_path: Path) -> MakeSettings:
    """Settings of a training that takes a fraction of a second; every value can be replaced."""

    def make(**changes: Any) -> TrainSettings:
        values: dict[str, Any] = {
            "family": "toy",
            "data": (toy_data,),
            "out": tmp_path / "run",
            "size": "debug",
            "steps": 6,
            "batch_size": 4,
            "length": 8,
            "lr": 3e-3,
            "warmup": 2,
            "image_size": 16,
            "held_out": 0.2,
            "precision": "fp32",
            "threads": 1,
            "checkpoint_every": 2,
            "preview_every": 0,
            "log_every": 1,
        }
        return TrainSettings(**{**values, **changes})

    return make
