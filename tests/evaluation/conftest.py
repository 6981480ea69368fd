"""A trained toy run that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toy import ENTRY, write_toy_dataset
from worldloom.models import FAMILIES
from worldloom.training.session import run_training
from worldloom.training.settings import TrainSettings


@pytest.fixture(scope="package")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of the toy family on its own dataset: `RUN/run.json` and a checkpoint, the data beside it."""
    folder = tmp_path_factory.mktemp("toy")
    patch = pytest.MonkeyPatch()
    patch.setitem(FAMILIES.entries, "toy", ENTRY)
    patch.setenv("WORLDLOOM_CACHE", str(folder / "cache"))
    data = write_toy_dataset(folder / "data", episodes=16, length=30)
    run_training(
        TrainSettings(
            "toy",
            (data,),
            folder / "run",
            steps=30,
            batch_size=4,
            length=12,
            image_size=16,
            held_out=0.4,
            preview_every=0,
        )
    )
    yield folder / "run"
    patch.undo()
