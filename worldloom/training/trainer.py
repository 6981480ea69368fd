"""One training as a value that can be stepped, saved and restored: model, optimiser, data order, random state."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.runs.checkpoint import Checkpoint
from worldloom.runs.precision import autocast
from worldloom.runs.run import damaged
from worldloom.schedule import Budget, OptimizerSettings, Phase, phase_budget
from worldloom.training.distributed import ProcessGroup
from worldloom.training.ema import ema_copy, move_ema
from worldloom.training.joint_module import JointModule
from worldloom.training.objective import WeightedLoss, check_terms, weigh
from worldloom.training.optimizer import clip_gradients, learning_rate, make_optimizer, set_learning_rate

OPTIMIZER, RANDOM, TRAINED = "optimizer/", "random/", "trained/"
OLD_AUXILIARY = "companion."  # how checkpoints once named the parameters of an auxiliary module


class NotFinite(UserError):
    """A loss or a gradient is infinite or not a number."""


class Batches(Protocol):
    """Where training segments come from, and where in their order it is, as JSON."""

    def __next__(self) -> Segment: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Trainer:
    """`module` is what is called: the model, or `joint`, the model and its auxiliary; wrapped when a group trains it.

    `ema_model` is the model to be evaluated, saved and used: the trained one, or if `settings.ema_decay` is not 0 a
    copy that follows it. `seconds` is the loop's wall time. The `phases` follow each other: the next one begins, with
    the update after the budget of the last is spent, at `phase_start`, the updates and seconds until then.
    """

    model: WorldModel
    loader: Batches
    budget: Budget
    settings: OptimizerSettings
    device: torch.device
    precision: str = "fp32"
    group: ProcessGroup = field(default_factory=ProcessGroup)
    phases: tuple[Phase, ...] = (Phase(),)
    joint: JointModule | None = None
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.trainable = {name for name, parameter in self.trained.named_parameters() if parameter.requires_grad}
        self.ema_model = ema_copy(self.model) if self.settings.ema_decay else self.model
        self._begin_phase(0, (self.step, self.seconds))

    @property
    def trained(self) -> WorldModel | JointModule:
        return self.model if self.joint is None else self.joint

    @property
    def phase(self) -> Phase:
        return self.phases[self.phase_index]

    @property
    def progress(self) -> float:
        """The share of the whole budget that is spent, in [0, 1]."""
        return self.budget.progress(self.step, self.seconds)

    @property
    def phase_progress(self) -> float:
        """The share of the phase's budget that is spent, in [0, 1]."""
        steps, seconds = self.phase_start
        budget = phase_budget(self.phases[self.phase_index :], self.budget, steps, seconds)
        return budget.progress(self.step - steps, self.seconds - seconds)

    @property
    def finished(self) -> bool:
        """Whether the budgets of this phase and of all that follow are spent."""
        later = (self.phases[index:] for index in range(self.phase_index + 1, len(self.phases)))
        budgets = (phase_budget(phases, self.budget, self.step, self.seconds) for phases in later)
        return self.phase_progress >= 1 and all(budget.progress(0, 0.0) >= 1 for budget in budgets)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        settings = self.phase.schedule(self.settings)
        step = self.step - self.phase_start[0]
        return learning_rate(step, self.phase_progress, settings.lr, settings.warmup, settings.final_lr)

    def update(self, segment: Segment) -> tuple[WeightedLoss, Tensor]:
        """One step of gradient descent on `segment` `[B, T]`: the loss and the gradient's norm before clipping.

        Raises `NotFinite` when either is not; the weights are then still those before the step.
        """
        self._enter_phase()
        rows = self.group.sum(segment.mask.sum()) / self.group.size
        with autocast(self.precision, self.device):
            terms = self.module(self.phase.objective, segment)
        check_terms(self.model, terms, self.trained.loss_weights, self.phase.objective)
        loss = weigh(terms, segment.mask, self.trained.loss_weights, rows)
        if not loss.total.requires_grad:
            raise UserError(f"phase {self.phase.name!r}: {self.phase.objective}() reaches no parameter that trains")
        loss.total.backward()
        norm = clip_gradients(self.trained.parameters(), self.settings.clip)
        # The only wait for the device in a step. Weights that a NaN has reached cannot be brought back.
        if not torch.isfinite(loss.total.detach() + norm):
            raise self._not_finite(loss)
        set_learning_rate(self.optimizer, self.lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.trained.after_update()
        self._move_ema()
        self.step += 1
        return loss, norm

    @contextmanager
    def evaluation_mode(self, seed: int = 0) -> Iterator[WorldModel]:
        """The model to evaluate: eval mode, no gradients, and training's random state left as it is."""
        devices = [self.device] if self.device.type == "cuda" else []
        training = self.ema_model.training
        with torch.random.fork_rng(devices), torch.no_grad(), autocast(self.precision, self.device):
            torch.manual_seed(seed)
            self.ema_model.eval()
            try:
                yield self.ema_model
            finally:
                self.ema_model.train(training)

    def snapshot(self, **losses: float | None) -> Checkpoint:
        """Everything needed to go on exactly from here. The whole group takes part."""
        steps, seconds = self.phase_start
        progress: dict[str, Any] = {"seconds": self.seconds, **losses, "loader": self.loader.state_dict()}
        progress["phase"] = {"name": self.phase.name, "step": steps, "seconds": seconds}
        return Checkpoint(
            step=self.step,
            family=type(self.model).family,
            spec=json.loads(json.dumps(self.model.spec.to_json())),
            config=asdict(self.model.config),
            model=self.ema_model.own_state(),
            auxiliary={} if self.joint is None else self.joint.auxiliary.state_dict(),
            trainer={**self._optimizer_tensors(), **self._random_states(), **self._trained_weights()},
            progress={**progress, "processes": self.group.size},
        )

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go on from `checkpoint`, read from the folder `path`."""
        checkpoint.fill(self.ema_model, path)
        if self.ema_model is not self.model:
            weights = {k.removeprefix(TRAINED): v for k, v in checkpoint.trainer.items() if k.startswith(TRAINED)}
            replace(checkpoint, model=weights).fill(self.model, path)
        if self.joint is not None:
            checkpoint.fill_auxiliary(self.joint.auxiliary, path)
        try:
            self._begin_phase(*self._phase_of(checkpoint.progress))
            self.loader.load_state_dict(checkpoint.progress["loader"])
            self.seconds = float(checkpoint.progress["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path / "state.json", error) from error
        self._restore_optimizer(checkpoint.trainer, path)
        self._restore_random(checkpoint.trainer)
        self.step = checkpoint.step

    def _enter_phase(self) -> None:
        """Begin the next phase where the budget of this one is spent."""
        while self.phase_progress >= 1 and self.phase is not self.phases[-1]:
            if self.ema_model is not self.model:
                # What comes is learned on the weights that are kept.
                self.model.load_state_dict(self.ema_model.state_dict())
            self._begin_phase(self.phase_index + 1, (self.step, self.seconds))

    def _begin_phase(self, index: int, start: tuple[int, float]) -> None:
        self.phase_index, self.phase_start = index, start
        for name, parameter in self.trained.named_parameters():
            parameter.requires_grad_(name in self.trainable and self.phase.trains(name))
        self.optimizer = make_optimizer(self.trained, self.settings.lr, self.settings.weight_decay)
        self.module = self.group.wrap(self.trained)

    def _phase_of(self, progress: dict[str, Any]) -> tuple[int, tuple[int, float]]:
        """The number and the start of a checkpoint's phase; one that was written before there were any is in the first.

        Raises `KeyError`, `TypeError` or `ValueError` for a phase that this training does not have.
        """
        saved = progress.get("phase", {"name": self.phases[0].name, "step": 0, "seconds": 0.0})
        names = [phase.name for phase in self.phases]
        return names.index(saved["name"]), (int(saved["step"]), float(saved["seconds"]))

    def _not_finite(self, loss: WeightedLoss) -> NotFinite:
        values = {name: value.item() for name, value in loss.terms.items()}
        wrong = [f"loss term {name!r} is {value}" for name, value in values.items() if not isfinite(value)]
        what = " and ".join(wrong) or "every loss term is finite, but the gradient is not"
        return NotFinite(f"stopped at step {self.step + 1}: {what}")

    def _move_ema(self) -> None:
        """Move the averaged weights, at first as fast as a plain mean of all so far."""
        if self.ema_model is not self.model:
            step = self.step - self.phase_start[0]
            move_ema(self.ema_model, self.model, min(self.settings.ema_decay, (1 + step) / (10 + step)))

    def _trained_weights(self) -> dict[str, Tensor]:
        """The weights that training goes on from, where they are not those that are used."""
        if self.ema_model is self.model:
            return {}
        return {TRAINED + name: weight for name, weight in self.model.own_state().items()}

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.trained.named_parameters()}
        return {
            f"{OPTIMIZER}{names[parameter]}/{key}": value
            for parameter, values in self.optimizer.state.items()
            for key, value in values.items()
        }

    def _restore_optimizer(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        parameters = dict(self.trained.named_parameters())
        for full_name, value in tensors.items():
            if not full_name.startswith(OPTIMIZER):
                continue
            saved, key = _current_name(full_name.removeprefix(OPTIMIZER)).rsplit("/", 1)
            name = self.model.current_name(saved)
            parameter = parameters.get(name)
            if parameter is None or (key != "step" and value.shape != parameter.shape):
                raise UserError(f"{path}: {full_name!r} fits no parameter: it belongs to another configuration")
            self.optimizer.state[parameter][key] = value.to(self.device)

    def _random_states(self) -> dict[str, Tensor]:
        """Every process's random states; each process samples on its own."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        gathered = {kind: self.group.gather(state.to(self.device)) for kind, state in states.items()}
        return {f"{RANDOM}{kind}/{rank}": state for kind, all_ in gathered.items() for rank, state in enumerate(all_)}

    def _restore_random(self, tensors: Mapping[str, Tensor]) -> None:
        """A process that was not there before keeps the state it was seeded with."""
        cpu, cuda = (tensors.get(f"{RANDOM}{kind}/{self.group.rank}") for kind in ("cpu", "cuda"))
        if cpu is not None:
            torch.set_rng_state(cpu)
        if cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(cuda, self.device)


def _current_name(parameter: str) -> str:
    """The name today of a parameter that an earlier version saved."""
    old = parameter.startswith(OLD_AUXILIARY)
    return f"auxiliary.{parameter.removeprefix(OLD_AUXILIARY)}" if old else parameter
