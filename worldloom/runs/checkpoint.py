"""Checkpoints: `RUN/checkpoints/step-00001200/` with two safetensors files and one JSON file, never a pickle.

Nothing in a checkpoint is ever executed: weights are plain tensors, the configuration is JSON checked name by name.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from worldloom import registry
from worldloom.data.spec import DataSpec
from worldloom.errors import NotAllowed, UserError
from worldloom.model import WorldModel
from worldloom.models import FAMILIES, rebuild
from worldloom.runs import folders
from worldloom.runs.parts import PartUse
from worldloom.runs.run import FORMAT, Run, RunRecord, check_format, damaged, read_json
from worldloom.runs.tensors import check_tensors, read_tensors, sha256, to_bytes

MODEL, TRAINER, AUXILIARY, STATE = "model.safetensors", "optimizer.safetensors", "auxiliary.safetensors", "state.json"
# By the key of its hash in `state.json`: the file of the auxiliary module, as it is written and as it once was.
AUXILIARY_FILES = {"auxiliary_hash": AUXILIARY, "companion_hash": "policy.safetensors"}
NOT_PROGRESS = frozenset({"format", "step", "family", "config", "spec", "hash", "trainer_hash", *AUXILIARY_FILES})


@dataclass(frozen=True)
class Checkpoint:
    """One saved training state. `model` are the weights; `trainer` the optimiser's tensors and the random states.

    `auxiliary` are the weights of what was trained along with the model, a policy and its critic, where there was one.
    `progress` is JSON: seconds of training, losses, and the loader's position. `spec` is the `DataSpec` as JSON, which
    holds the action normaliser; those of observations are buffers of the model.
    """

    step: int
    family: str
    config: dict[str, Any]
    model: Mapping[str, Tensor]
    trainer: Mapping[str, Tensor]
    progress: dict[str, Any]
    spec: dict[str, Any]
    hash: str = ""
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, run: Path) -> Path:
        """Write it whole or not at all. Raises `UserError` when the disk refuses; earlier checkpoints stay."""
        path = folder(run, self.step)
        model, trainer = to_bytes(self.model), to_bytes(self.trainer)
        state = {
            **self.progress,
            "format": FORMAT,
            "step": self.step,
            "family": self.family,
            "config": self.config,
            "spec": self.spec,
            "hash": sha256(model),
            "trainer_hash": sha256(trainer),
        }
        files = {MODEL: model, TRAINER: trainer}
        if self.auxiliary:
            files[AUXILIARY] = to_bytes(self.auxiliary)
            state["auxiliary_hash"] = sha256(files[AUXILIARY])
        files[STATE] = json.dumps(state, indent=1).encode()
        try:
            folders.write_folder(path, files)
        except OSError as error:
            what = f"{path} could not be written ({error.strerror or error})"
            raise UserError(f"{what}: free some space and continue with --resume. {last_good(run)}") from error
        return path

    @classmethod
    def read(cls, run: Path, step: int | None = None, *, trainer: bool = True) -> Self:
        """The checkpoint at `step`, by default the last. Without `trainer` the optimiser is not read.

        Raises `UserError` naming the file that is missing, cut, changed or no safetensors file.
        """
        path = choose(run, step)
        state = read_state(path)
        try:
            return cls(
                step=state["step"],
                family=state["family"],
                config=state["config"],
                model=_read_file(path / MODEL, state["hash"]),
                trainer=_read_file(path / TRAINER, state["trainer_hash"]) if trainer else {},
                auxiliary=_read_auxiliary(path, state),
                spec=state["spec"],
                progress={k: v for k, v in state.items() if k not in NOT_PROGRESS},
                hash=state["hash"],
            )
        except KeyError as error:
            raise damaged(path / STATE, error) from error

    def fill(self, model: WorldModel, path: Path) -> None:
        """Put the weights into `model`. Raises `UserError` naming the first tensor that does not belong there."""
        weights = {model.current_name(name): tensor for name, tensor in self.model.items()}
        check_tensors(model.own_state(), weights, path)
        model.load_state_dict(weights, strict=not model.frozen)

    def fill_auxiliary(self, auxiliary: nn.Module, path: Path) -> None:
        """Put the weights of what was trained along with the model into `auxiliary`. Raises `UserError` likewise."""
        check_tensors(auxiliary.state_dict(), self.auxiliary, path / AUXILIARY)
        auxiliary.load_state_dict(dict(self.auxiliary))


def auxiliary_hash(state: Mapping[str, Any]) -> str | None:
    """The hash of the auxiliary module's weights in a `state.json`, None where the model was trained alone."""
    return next((str(state[key]) for key in AUXILIARY_FILES if key in state), None)


def load(
    run: Path | str,
    device: str = "cpu",
    step: int | None = None,
    *,
    family: type[WorldModel] | None = None,
    allow: Sequence[str] = (),
    parts: Mapping[str, Path | str] | None = None,
) -> tuple[WorldModel, Run]:
    """The model of a run at `step` (default: the last checkpoint), in eval mode, and where it came from.

    A family of your own is never imported because the run names it: give its class as `family`, or its
    `module:Class` in `allow`. `parts` are frozen parts that moved, by name, each RUN or RUN@STEP. Raises `UserError`
    for a folder that is no run, a missing, cut or changed file, a pickle under another name, a family that was not
    allowed, a checkpoint made with another family or configuration than `run.json` says, and a frozen part that is gone
    or has other weights than the run was trained with.
    """
    path = Path(run)
    registry.allow(*allow)
    record = RunRecord.load(path).moved(parts or {})
    model = restore_model(record, path, family)
    checkpoint = Checkpoint.read(path, step, trainer=False)
    check_origin(record, checkpoint, path)
    checkpoint.fill(model, folder(path, checkpoint.step) / MODEL)
    return model.to(device).eval(), Run(
        path=path,
        step=checkpoint.step,
        family=record.family,
        spec=record.spec,
        datasets=record.datasets,
        image_size=record.image_size,
        config=record.config,
        checkpoint_hash=checkpoint.hash,
        train_seconds=float(checkpoint.progress.get("seconds", 0.0)),
    )


def restore_model(record: RunRecord, run: Path, family: type[WorldModel] | None = None) -> WorldModel:
    """The model that `run.json` describes: its frozen parts as they are, the rest untrained. Raises `UserError`.

    `family` is its class where that is known already.
    """
    parts = {name: open_part(name, use, run) for name, use in record.parts.items() if use.frozen}
    try:
        made = FAMILIES[record.family] if family is None else FAMILIES.adopt(record.family, family)
        return rebuild(made, record.spec, record.config, parts)
    except NotAllowed as error:  # of the family, or of a part of it such as an ensemble's members
        raise error.named_in(run / "run.json") from error
    except UserError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise damaged(run / "run.json", error) from error


def open_part(name: str, use: PartUse, run: Path) -> nn.Module:
    """A part of the model of `run`. Raises `UserError` naming both runs if it is gone, both hashes if it differs."""
    path = folder(use.run, use.step)
    remedy = f"put it back, or say where it is now with --part {name}=RUN of `worldloom train --resume` or `evaluate`"
    if not path.is_dir() or not (use.run / "run.json").exists():
        raise UserError(f"part {name!r} of {run} is gone: it was trained with {path}, which is not there; {remedy}")
    model, found = load(use.run, step=use.step)
    if found.checkpoint_hash != use.hash:
        raise UserError(
            f"part {name!r} of {run} has changed: it was trained with the weights {use.hash}, but {path} holds "
            f"{found.checkpoint_hash}; {remedy}"
        )
    return part_of(model, name)


def part_of(model: WorldModel, name: str) -> nn.Module:
    """What a run's model gives as the part `name`: its own part of that name, or all of it where it has none."""
    return model.get_submodule(name) if name in model.part_types else model


def folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def steps_saved(run: Path) -> list[int]:
    """The steps that have a whole checkpoint, in order."""
    names = (re.fullmatch(r"step-(\d+)", path.name) for path in (run / "checkpoints").glob("step-*"))
    return sorted(int(match[1]) for match in names if match)


def choose(run: Path, step: int | None = None) -> Path:
    """The folder of a step's checkpoint, by default the last one's."""
    saved = steps_saved(run)
    if not saved:
        raise UserError(f"{run} has no checkpoint yet: train it with `worldloom train ... --out {run}` first")
    if step is not None and step not in saved:
        raise UserError(f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, saved))}")
    return folder(run, saved[-1] if step is None else step)


def last_good(run: Path) -> str:
    """Where somebody who just lost a training can pick it up."""
    return f"The last checkpoint is {choose(run)}." if steps_saved(run) else "No checkpoint had been saved."


def prune(run: Path, keep: int = 2) -> None:
    """Remove old checkpoints, but not the last `keep` and not the one with the lowest held-out loss."""
    saved = steps_saved(run)
    kept = {*saved[-keep:], best_step(run)}
    for step in saved:
        if step not in kept:
            folders.remove_folder(folder(run, step))


def best_step(run: Path) -> int | None:
    """The saved step with the lowest held-out loss, None when none was measured."""
    losses = {step: read_state(folder(run, step)).get("held_out_loss") for step in steps_saved(run)}
    measured = {step: loss for step, loss in losses.items() if loss is not None}
    return min(measured, key=lambda step: measured[step]) if measured else None


def read_state(path: Path) -> dict[str, Any]:
    """The `state.json` of one checkpoint folder."""
    state = read_json(path / STATE, f"the checkpoint {path} is not whole")
    try:
        check_format(path / STATE, state)
    except KeyError as error:
        raise damaged(path / STATE, error) from error
    if state.get("step") != int(path.name.removeprefix("step-")):
        raise damaged(path / STATE, ValueError(f"its step is {state.get('step')!r}"))
    return state


def check_origin(record: RunRecord, checkpoint: Checkpoint, run: Path) -> None:
    """Refuse a checkpoint that was copied in from another run."""
    path = folder(run, checkpoint.step)
    if checkpoint.family != record.family:
        raise UserError(f"{path} holds a {checkpoint.family!r}, but {run}/run.json describes a {record.family!r}")
    for name in sorted({*record.config} & {*checkpoint.config}):  # a run goes on under a version that knows more
        ours, theirs = record.config[name], checkpoint.config[name]
        if json.dumps(ours) != json.dumps(theirs):
            raise UserError(
                f"{path} was made with {name} = {theirs!r}, but {run}/run.json says {ours!r}: it belongs to another run"
            )
    theirs = DataSpec.from_json(checkpoint.spec).to_json()  # whichever version wrote it
    for name, ours in record.spec.to_json().items():
        if ours != theirs[name]:
            raise UserError(
                f"{path} was made for other data than {run}/run.json describes: {name!r} differs, and with it how "
                f"numbers are scaled. Put back the run.json that this run was started with"
            )


def _read_file(path: Path, expected_hash: str) -> dict[str, Tensor]:
    return read_tensors(path, expected_hash, _other_steps(path))


def _read_auxiliary(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    for key, name in AUXILIARY_FILES.items():
        if key in state:
            return _read_file(path / name, state[key])
    return {}


def _other_steps(path: Path) -> str:
    broken = path.parent
    others = [str(s) for s in steps_saved(broken.parent.parent) if folder(broken.parent.parent, s) != broken]
    if not others:
        return "there is no other checkpoint in this run, so train it again"
    return f"delete {broken}, and the run goes on from step {others[-1]}"
