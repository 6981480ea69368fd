"""A run folder's description of itself: `RUN/run.json`, written before the first step, and anew when it is resumed."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch

from worldloom import __version__
from worldloom.data import durable
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError, unknown
from worldloom.runs.folders import split_step
from worldloom.runs.parts import PartUse

FORMAT = 1


@dataclass(frozen=True)
class DatasetUse:
    """Which episodes of a dataset were trained on and which were not.

    `fingerprint` and `identity` are the data's at that time; the latter is the same in a copy, and "" in old runs.
    """

    path: str
    fingerprint: str
    weight: float
    train: list[int]
    held_out: list[int]
    identity: str = ""


@dataclass(frozen=True)
class Run:
    """A trained model's origin, as `load` found it. `train_seconds` is wall time in the training loop up to `step`."""

    path: Path
    step: int
    family: str
    spec: DataSpec
    datasets: list[DatasetUse]
    image_size: tuple[int, int] | None
    config: dict[str, Any]
    checkpoint_hash: str
    train_seconds: float

    @property
    def side(self) -> int:
        """Of the square pictures that this model observes; 0 is the environment's own size."""
        return self.image_size[0] if self.image_size and self.image_size[0] == self.image_size[1] else 0


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`. `config` are the family's hyperparameters, `machine` what `auto` settings became.

    `settings` is what the command that made the run was asked for, as JSON: its flags by name. `parts` are those of
    the model that come from other runs.
    """

    family: str
    config: dict[str, Any]
    spec: DataSpec
    datasets: list[DatasetUse]
    image_size: tuple[int, int] | None
    settings: dict[str, Any]
    machine: dict[str, Any]
    parts: dict[str, PartUse] = field(default_factory=dict)

    def moved(self, parts: Mapping[str, Path | str]) -> Self:
        """The same, but with the frozen `parts` looked for where they are now, each RUN or RUN@STEP.

        Raises `UserError` for a name that is not one of them. That the weights are the same is checked on loading.
        """
        uses = dict(self.parts)
        for name, place in parts.items():
            if name not in uses or not uses[name].frozen:
                raise unknown("frozen part of this run", name, [n for n, use in uses.items() if use.frozen])
            run, step = split_step(Path(place))
            uses[name] = replace(uses[name], run=run.resolve(), step=uses[name].step if step is None else step)
        return replace(self, parts=uses)

    def save(self, run: Path) -> None:
        versions = {"worldloom": __version__, "torch": torch.__version__, "python": platform.python_version()}
        content = {
            "format": FORMAT,
            "family": self.family,
            "config": self.config,
            "spec": self.spec.to_json(),
            "datasets": [asdict(use) for use in self.datasets],
            "image_size": self.image_size,
            "settings": self.settings,
            "machine": self.machine,
            "parts": {name: use.to_json(run) for name, use in self.parts.items()},
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
                image_size=_size(content["image_size"]),
                settings=dict(content["settings"]),
                machine=content["machine"],
                parts={name: PartUse.from_json(use, run) for name, use in content.get("parts", {}).items()},
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise damaged(run / "run.json", error) from error


def _size(stored: list[int] | None) -> tuple[int, int] | None:
    return None if stored is None else (stored[0], stored[1])


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
