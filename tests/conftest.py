"""The toy family, registered for every test, and toy data and runs that tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.latent import register_latent
from tests.toy import register_toy, write_toy_dataset
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

MakeSettings = Callable[..., TrainSettings]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The surroundings of every test: the toy families are registered, and one cache folder is shared."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        register_toy(patch)
        register_latent(patch)
        patch.setenv("WORLDLOOM_CACHE", str(folder))
        torch.set_num_threads(1)
        yield folder


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("toy") / "data", episodes=12, length=24)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy family on a dataset of its own: `RUN/run.json` and a checkpoint, the data beside it."""
    folder = tmp_path_factory.mktemp("run")
    data = write_toy_dataset(folder / "data", episodes=16, length=30)
    train_toy(folder / "run", data, steps=30, length=12, held_out=0.4)
    return folder / "run"


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and the runs `ensemble` and `single`."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_toy_dataset(folder / "data", episodes=8, length=20)
    short: dict[str, Any] = {"size": "debug", "steps": 10, "length": 10, "held_out": 0.3}
    members = ("member=toy", "members=2")
    train_toy(folder / "ensemble", data, family="ensemble", overrides=members, **short)
    train_toy(folder / "single", data, **short)
    return folder


@pytest.fixture(scope="session")
def rssm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of family rssm that has learned next to nothing, `RUN/run.json`, the data beside it."""
    folder = tmp_path_factory.mktemp("rssm")
    data = write_toy_dataset(folder / "data")
    train_toy(folder / "run", data, family="rssm", size="debug", steps=6, length=8)
    return folder / "run"


def train_toy(out: Path, data: Path, family: str = "toy", **settings: Any) -> None:
    shape: dict[str, Any] = {"batch_size": 4, "image_size": 16, "preview_every": 0}
    run_training(TrainSettings(family, (data,), out, **shape, **settings))


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
