"""A run folder's description of itself: `RUN/run.json`, written before the first step, and anew when it is resumed."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from worldloom import __version__
from worldloom.data import durable
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.runs.train_settings import TrainSettings

FORMAT = 1


@dataclass(frozen=True)
class DatasetUse:
    """Which episodes of a dataset were trained on and which were not; `fingerprint` is the data's at that time."""

    path: str
    fingerprint: str
    weight: float
    train: list[int]
    held_out: list[int]


@dataclass(frozen=True)
class Run:
    """A trained model's origin, as `load` found it. `train_seconds` is wall time in the training loop up to `step`."""

    path: Path
    step: int
    family: str
    spec: DataSpec
    datasets: list[DatasetUse]
    image_size: tuple[int, int]
    config: dict[str, Any]
    checkpoint_hash: str
    train_seconds: float


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`. `config` are the family's hyperparameters, `machine` what `auto` settings became."""

    family: str
    config: dict[str, Any]
    spec: DataSpec
    datasets: list[DatasetUse]
    image_size: tuple[int, int]
    settings: TrainSettings
    machine: dict[str, Any]

    def save(self, run: Path) -> None:
        versions = {"worldloom": __version__, "torch": torch.__version__, "python": platform.python_version()}
        content = {
            "format": FORMAT,
            "family": self.family,
            "config": self.config,
            "spec": self.spec.to_json(),
            "datasets": [asdict(use) for use in self.datasets],
            "image_size": self.image_size,
            "settings": self.settings.to_json(),
            "machine": self.machine,
            "versions": versions,
        }
        durable.write_json(run / "run.json", content)

    @classmethod
    def load(cls, run: Path) -> Self:
        """Raises `UserError` when `run` is no run folder or its `run.json` is damaged."""
        content = read_json(run / "run.json", f"{run} is not a run of `worldloom train`")
        try:
            check_format(run / "run.json", content)
            return cls(
                family=content["family"],
                config=content["config"],
                spec=DataSpec.from_json(content["spec"]),
                datasets=[DatasetUse(**use) for use in content["datasets"]],
                image_size=(content["image_size"][0], content["image_size"][1]),
                settings=TrainSettings.from_json(content["settings"]),
                machine=content["machine"],
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise damaged(run / "run.json", error) from error


def read_json(path: Path, missing: str) -> dict[str, Any]:
    """One JSON object; a `UserError` saying `missing` where there is no such file, or where it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{missing}: there is no {path}") from None
    except (ValueError, OSError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, TypeError(f"want a JSON object, got {type(content).__name__}"))
    return content


def check_format(path: Path, content: dict[str, Any]) -> None:
    """Refuse a file that a later worldloom wrote."""
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']!r}, want {FORMAT}: use the worldloom that wrote it")


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a file of a run that cannot be understood."""
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return UserError(f"{path} is damaged ({what}): restore the file, or delete its folder")
