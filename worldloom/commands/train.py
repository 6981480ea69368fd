"""The command `worldloom train`."""

from typing import Annotated

from tyro.conf import arg

from worldloom.registry import allow, allow_typed
from worldloom.runs.train_settings import TrainSettings


def train(settings: Annotated[TrainSettings, arg(name="")]) -> None:
    """Train a world model on one or several datasets.

    Under torchrun the batch is shared by the processes: torchrun --nproc-per-node 2 --no-python worldloom train ...
    """
    # torch takes a second to import, which `worldloom train --help` and a mistyped flag need not wait for.
    from worldloom.training.session import run_training

    allow(*settings.allow)
    allow_typed(settings.family, *(override.partition("=")[2] for override in settings.overrides))
    run_training(settings)
