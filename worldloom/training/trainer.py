"""One training as a value that can be stepped, saved and restored: model, optimiser, data order, random state."""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.runs.checkpoint import Checkpoint
from worldloom.runs.precision import autocast
from worldloom.runs.run import damaged
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.distributed import Team
from worldloom.training.joint import Joint
from worldloom.training.objective import Objective, check_terms, weigh
from worldloom.training.optimizer import clip_gradients, learning_rate, make_optimizer, set_learning_rate

OPTIMIZER, RANDOM, TRAINED = "optimizer/", "random/", "trained/"


class NotFinite(UserError):
    """A loss or a gradient is infinite or not a number."""


class Batches(Protocol):
    """Where training segments come from, and where in their order it is, as JSON."""

    def __next__(self) -> Segment: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Trainer:
    """`module` is what is called: the model, or `joint`, the model and its companion; wrapped when a team trains it.

    `averaged` is the model to be judged, saved and used: the trained one, or where `settings.average` is not 0 a copy
    that follows its weights that slowly, as the last few updates alone can spoil what the thousand before agreed on
    (Polyak & Juditsky, 1992). `seconds` is the loop's wall time.
    """

    model: WorldModel
    loader: Batches
    settings: TrainSettings
    device: torch.device
    precision: str = "fp32"
    team: Team = field(default_factory=Team)
    step: int = 0
    seconds: float = 0.0
    joint: Joint | None = None

    def __post_init__(self) -> None:
        self.module: nn.Module = self.team.wrap(self.trained)
        self.optimizer = make_optimizer(self.trained, self.settings.lr, self.settings.weight_decay)
        slow = bool(self.settings.average)
        self.averaged = copy.deepcopy(self.model).requires_grad_(False).eval() if slow else self.model

    @property
    def trained(self) -> WorldModel | Joint:
        return self.model if self.joint is None else self.joint

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, in [0, 1]."""
        settings = self.settings
        by_steps = self.step / settings.steps if settings.steps else 0.0
        by_time = self.seconds / (60 * settings.minutes) if settings.minutes else 0.0
        return min(max(by_steps, by_time), 1.0)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        settings = self.settings
        return learning_rate(self.step, self.progress, settings.lr, settings.warmup, settings.final_lr)

    def update(self, segment: Segment) -> tuple[Objective, Tensor]:
        """One step of gradient descent on `segment` `[B, T]`: the objective and the gradient's norm before clipping.

        Raises `NotFinite` when either is not; the weights are then still those before the step.
        """
        rows = self.team.sum(segment.mask.sum()) / self.team.size
        with autocast(self.precision, self.device):
            terms = self.module(segment)
        check_terms(self.model, terms, self.trained.loss_weights)
        objective = weigh(terms, segment.mask, self.trained.loss_weights, rows)
        objective.total.backward()
        norm = clip_gradients(self.trained.parameters(), self.settings.clip)
        # The only wait for the device in a step. Weights that a NaN has reached cannot be brought back.
        if not torch.isfinite(objective.total.detach() + norm):
            raise self._not_finite(objective)
        set_learning_rate(self.optimizer, self.lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.trained.after_update()
        self._average()
        self.step += 1
        return objective, norm

    @contextmanager
    def aside(self, seed: int = 0) -> Iterator[WorldModel]:
        """The model for looking, not learning: eval mode, no gradients, and training's random state left as it is."""
        devices = [self.device] if self.device.type == "cuda" else []
        training = self.averaged.training
        with torch.random.fork_rng(devices), torch.no_grad(), autocast(self.precision, self.device):
            torch.manual_seed(seed)
            self.averaged.eval()
            try:
                yield self.averaged
            finally:
                self.averaged.train(training)

    def snapshot(self, **losses: float | None) -> Checkpoint:
        """Everything needed to go on exactly from here. The whole team takes part."""
        progress: dict[str, Any] = {"seconds": self.seconds, **losses, "loader": self.loader.state_dict()}
        return Checkpoint(
            step=self.step,
            family=type(self.model).family,
            spec=json.loads(json.dumps(self.model.spec.to_json())),
            config=asdict(self.model.config),
            model=self.averaged.state_dict(),
            companion={} if self.joint is None else self.joint.companion.state_dict(),
            trainer={**self._optimizer_tensors(), **self._random_states(), **self._trained_weights()},
            progress={**progress, "processes": self.team.size},
        )

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go on from `checkpoint`, read from the folder `path`."""
        checkpoint.fill(self.averaged, path)
        if self.averaged is not self.model:
            weights = {k.removeprefix(TRAINED): v for k, v in checkpoint.trainer.items() if k.startswith(TRAINED)}
            replace(checkpoint, model=weights).fill(self.model, path)
        if self.joint is not None:
            checkpoint.fill_companion(self.joint.companion, path)
        self._restore_optimizer(checkpoint.trainer, path)
        self._restore_random(checkpoint.trainer)
        try:
            self.loader.load_state_dict(checkpoint.progress["loader"])
            self.seconds = float(checkpoint.progress["seconds"])
        except (KeyError, TypeError) as error:
            raise damaged(path / "state.json", error) from error
        self.step = checkpoint.step

    def _not_finite(self, objective: Objective) -> NotFinite:
        values = {name: value.item() for name, value in objective.terms.items()}
        wrong = [f"loss term {name!r} is {value}" for name, value in values.items() if not isfinite(value)]
        what = " and ".join(wrong) or "every loss term is finite, but the gradient is not"
        return NotFinite(f"stopped at step {self.step + 1}: {what}")

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights, at first as fast as a plain mean of all so far."""
        if self.averaged is self.model:
            return
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        slow: list[Tensor] = [*self.averaged.parameters()]
        fast: list[Tensor] = [*self.model.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - keep)

    def _trained_weights(self) -> dict[str, Tensor]:
        """The weights that training goes on from, where they are not those that are used."""
        if self.averaged is self.model:
            return {}
        return {TRAINED + name: weight for name, weight in self.model.state_dict().items()}

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
            name, key = full_name.removeprefix(OPTIMIZER).rsplit("/", 1)
            parameter = parameters.get(name)
            if parameter is None or (key != "step" and value.shape != parameter.shape):
                raise UserError(f"{path}: {full_name!r} fits no parameter: it belongs to another configuration")
            self.optimizer.state[parameter][key] = value.to(self.device)

    def _random_states(self) -> dict[str, Tensor]:
        """Every process's random states; each process samples on its own."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        gathered = {kind: self.team.gather(state.to(self.device)) for kind, state in states.items()}
        return {f"{RANDOM}{kind}/{rank}": state for kind, all_ in gathered.items() for rank, state in enumerate(all_)}

    def _restore_random(self, tensors: Mapping[str, Tensor]) -> None:
        """A process that was not there before keeps the state it was seeded with."""
        cpu, cuda = (tensors.get(f"{RANDOM}{kind}/{self.team.rank}") for kind in ("cpu", "cuda"))
        if cpu is not None:
            torch.set_rng_state(cpu)
        if cuda is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(cuda, self.device)
