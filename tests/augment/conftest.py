"""Trained toy runs that the tests of this folder share: an ensemble, and a single model of the same data."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toy import ENTRY, write_toy_dataset
from worldloom.models import FAMILIES
from worldloom.training.session import run_training
from worldloom.training.settings import TrainSettings


@pytest.fixture(scope="package")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `data` and the runs `ensemble` and `single`."""
    folder = tmp_path_factory.mktemp("augment")
    patch = pytest.MonkeyPatch()
    patch.setitem(FAMILIES.entries, "toy", ENTRY)
    patch.setenv("WORLDLOOM_CACHE", str(folder / "cache"))
    data = write_toy_dataset(folder / "data", episodes=8, length=20)
    shape = {"size": "debug", "batch_size": 4, "length": 10, "image_size": 16, "held_out": 0.3, "preview_every": 0}
    members = ("member=toy", "members=2")
    run_training(TrainSettings("ensemble", (data,), folder / "ensemble", steps=10, overrides=members, **shape))
    run_training(TrainSettings("toy", (data,), folder / "single", steps=10, **shape))
    yield folder
    patch.undo()
