"""Checkpoints: `RUN/checkpoints/step-00001200/` with two safetensors files and one JSON file, never a pickle.

Nothing in a checkpoint is ever executed: weights are plain tensors, the configuration is JSON checked name by name.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from worldloom import registry
from worldloom.errors import NotAllowed, UserError
from worldloom.model import WorldModel
from worldloom.models import FAMILIES, rebuild
from worldloom.runs import folders
from worldloom.runs.run import FORMAT, Run, RunRecord, check_format, damaged, read_json

NOT_PROGRESS = frozenset({"format", "step", "family", "config", "spec", "hash", "trainer_hash", "companion_hash"})
MODEL, TRAINER, COMPANION, STATE = "model.safetensors", "optimizer.safetensors", "policy.safetensors", "state.json"
PICKLES = {b"PK": "a zip archive, as torch.save writes", b"\x80": "a pickle"}


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment. `model` are the weights; `trainer` the optimiser's tensors and the random states.

    `companion` are the weights of what was trained along with the model, a policy and its critic, where there was one.
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
    companion: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, run: Path) -> Path:
        """Write it whole or not at all. Raises `UserError` when the disk refuses; earlier checkpoints stay."""
        path = folder(run, self.step)
        model, trainer = _to_bytes(self.model), _to_bytes(self.trainer)
        state = {
            **self.progress,
            "format": FORMAT,
            "step": self.step,
            "family": self.family,
            "config": self.config,
            "spec": self.spec,
            "hash": _hash(model),
            "trainer_hash": _hash(trainer),
        }
        files = {MODEL: model, TRAINER: trainer}
        if self.companion:
            files[COMPANION] = _to_bytes(self.companion)
            state["companion_hash"] = _hash(files[COMPANION])
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
                model=_read_tensors(path / MODEL, state["hash"]),
                trainer=_read_tensors(path / TRAINER, state["trainer_hash"]) if trainer else {},
                companion=_read_tensors(path / COMPANION, state["companion_hash"]) if "companion_hash" in state else {},
                spec=state["spec"],
                progress={k: v for k, v in state.items() if k not in NOT_PROGRESS},
                hash=state["hash"],
            )
        except KeyError as error:
            raise damaged(path / STATE, error) from error

    def fill(self, model: WorldModel, path: Path) -> None:
        """Put the weights into `model`. Raises `UserError` naming the first tensor that does not belong there."""
        check_tensors(model.state_dict(), self.model, path)
        model.load_state_dict(dict(self.model))

    def fill_companion(self, companion: nn.Module, path: Path) -> None:
        """Put the weights of what was trained along with the model into `companion`. Raises `UserError` likewise."""
        check_tensors(companion.state_dict(), self.companion, path / COMPANION)
        companion.load_state_dict(dict(self.companion))


def load(
    run: Path | str,
    device: str = "cpu",
    step: int | None = None,
    *,
    family: type[WorldModel] | None = None,
    allow: Sequence[str] = (),
) -> tuple[WorldModel, Run]:
    """The model of a run at `step` (default: the last checkpoint), in eval mode, and where it came from.

    A family of your own is never imported because the run names it: give its class as `family`, or its
    `module:Class` in `allow`. Raises `UserError` for a folder that is no run, a missing, cut or changed file, a pickle
    under another name, a family that was not allowed, and a checkpoint made with another family or configuration than
    `run.json` says.
    """
    path = Path(run)
    registry.allow(*allow)
    record = RunRecord.load(path)
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
    """The untrained model that `run.json` describes. Raises `UserError` when nobody can make one like that.

    `family` is its class where that is known already.
    """
    try:
        made = FAMILIES[record.family] if family is None else FAMILIES.adopt(record.family, family)
        return rebuild(made, record.spec, record.config)
    except NotAllowed as error:  # of the family, or of a part of it such as an ensemble's members
        raise error.named_in(run / "run.json") from error
    except UserError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise damaged(run / "run.json", error) from error


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
    for name, ours in json.loads(json.dumps(record.spec.to_json())).items():
        if ours != checkpoint.spec.get(name):
            raise UserError(
                f"{path} was made for other data than {run}/run.json describes: {name!r} differs, and with it how "
                f"numbers are scaled. Put back the run.json that this run was started with"
            )


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors whose names, shapes or types are not those `wanted`."""
    for name, tensor in wanted.items():
        if name not in found:
            raise UserError(f"{path} has no tensor {name!r}: it belongs to another configuration")
        ours, theirs = (tuple(tensor.shape), tensor.dtype), (tuple(found[name].shape), found[name].dtype)
        if ours != theirs:
            raise UserError(f"{path}: tensor {name!r} is {theirs}, want {ours}: it belongs to another configuration")
    for name in found:
        if name not in wanted:
            raise UserError(f"{path} has an unknown tensor {name!r}: it belongs to another configuration")


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # A copy of each, because safetensors refuses tensors that share memory, as tied weights do.
    return tensors_to_bytes({k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()})


def _read_tensors(path: Path, expected_hash: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {_other_steps(path)}") from error
    try:
        tensors = tensors_from_bytes(data)
    except SafetensorError as error:
        # Asked only now: the first byte of a good file is the length of its header, which can be any, a pickle's too.
        for magic, what in PICKLES.items():
            if data.startswith(magic):
                raise UserError(
                    f"{path} is {what}, which can run code, and was not opened: {_other_steps(path)}"
                ) from error
        raise UserError(f"{path} is cut or damaged ({error}; {len(data)} bytes): {_other_steps(path)}") from error
    if _hash(data) != expected_hash:
        raise UserError(f"{path} is not the file its {STATE} was written with (sha256 differs): {_other_steps(path)}")
    return tensors


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _other_steps(path: Path) -> str:
    broken = path.parent
    others = [str(s) for s in steps_saved(broken.parent.parent) if folder(broken.parent.parent, s) != broken]
    if not others:
        return "there is no other checkpoint in this run, so train it again"
    return f"delete {broken}, and the run goes on from step {others[-1]}"
