"""Parts of other runs on their way into a new model: frozen as they are, or as the weights to begin with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError, unknown
from worldloom.model import WorldModel
from worldloom.runs.checkpoint import load, part_of
from worldloom.runs.folders import split_step
from worldloom.runs.parts import PartUse, parse_parts
from worldloom.runs.tensors import check_tensors
from worldloom.runs.train_settings import TrainSettings


@dataclass(frozen=True)
class Part:
    """A module of another run, where it is from, and the data it was trained on."""

    module: nn.Module
    use: PartUse
    spec: DataSpec


def read_parts(settings: TrainSettings) -> dict[str, Part]:
    """What --part and --init-part name. Raises `UserError` for a folder that is no run or has no such checkpoint."""
    frozen = {name: read_part(name, place, True) for name, place in parse_parts(settings.part).items()}
    initial = parse_parts(settings.init_part, "--init-part")
    return frozen | {name: read_part(name, place, False) for name, place in initial.items()}


def read_part(name: str, place: Path, frozen: bool) -> Part:
    run, step = split_step(place)
    model, found = load(run, step=step)
    return Part(part_of(model, name), PartUse(run.resolve(), found.step, found.checkpoint_hash, frozen), found.spec)


def check_observations(parts: Mapping[str, Part], spec: DataSpec) -> None:
    """Raise `UserError` where a part was trained on an observation that the data lack or have in another shape."""
    for name, part in parts.items():
        for key, wanted in part.spec.obs.items():
            found = spec.obs.get(key)
            if found is None or (found.kind, found.shape) != (wanted.kind, wanted.shape):
                there = "no such key" if found is None else f"{found.kind} {found.shape}"
                raise UserError(
                    f"part {name!r} of {part.use.run} was trained on {key!r}, {wanted.kind} {wanted.shape}, but the "
                    f"data have {there}: choose data like its own"
                )


def initialise_parts(model: WorldModel, parts: Mapping[str, Part]) -> None:
    """Copy the weights of the parts that are not frozen into `model`. Raises `UserError` where they do not fit."""
    for name, part in parts.items():
        if part.use.frozen:
            continue
        if name not in model.part_types:
            raise unknown(f"part of family {model.family!r}", name, model.part_types)
        module = model.get_submodule(name)
        check_tensors(module.state_dict(), part.module.state_dict(), part.use.run)
        module.load_state_dict(part.module.state_dict())
