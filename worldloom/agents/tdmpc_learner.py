"""Learning by planning: the world model is all that is trained, and its planner is the agent (TD-MPC2, PlaNet)."""

from dataclasses import replace
from typing import Any

from worldloom.agents.learn import LearnSettings
from worldloom.agents.planning import PlanningAgent
from worldloom.data.replay import Replay
from worldloom.data.spec import DataSpec
from worldloom.planners.mppi import MPPI
from worldloom.planners.objectives import Return
from worldloom.training.precision import choose_device, choose_precision
from worldloom.training.session import build_model
from worldloom.training.settings import TrainSettings
from worldloom.training.trainer import Trainer


class PlanningLearner:
    """A trainer of the model, fed from a replay, and the agents that act with the model as it is.

    `trainer` saves and restores everything; `agent` explores while it collects, `evaluation_agent` does not.
    """

    def __init__(self, settings: LearnSettings, spec: DataSpec):
        device = choose_device(settings.device)
        training = train_settings(settings)
        model = build_model(training, spec).to(device)
        length = training.length if not hasattr(model.config, "horizon") else model.config.horizon + 1
        replay = Replay(
            spec, batch_size=settings.batch_size, length=length, capacity=settings.capacity, seed=settings.seed
        )
        precision = choose_precision(settings.precision, device)
        self.replay = replay
        self.trainer = Trainer(model, replay, training, device, precision)
        self.evaluation_agent = PlanningAgent(
            model,
            MPPI(
                horizon=getattr(model.config, "horizon", 12),
                samples=settings.samples,
                elites=settings.elites,
                iterations=settings.iterations,
                policy_samples=settings.prior_samples,
            ),
            Return(getattr(model.config, "discount", 0.99)),
        )
        self.agent = replace(self.evaluation_agent, explore=True)

    def update(self) -> dict[str, Any]:
        """One gradient step on a batch from the replay: the loss terms as tensors, read only when they are logged."""
        objective, norm = self.trainer.update(next(self.replay).to(self.trainer.device))
        return {"loss": objective.total.detach(), "gradient_norm": norm, **objective.terms}


def train_settings(settings: LearnSettings) -> TrainSettings:
    """The same wishes in the words of `worldloom train`, which describes every run."""
    return TrainSettings(
        family=settings.method,
        data=(),
        out=settings.out,
        size=settings.size,
        batch_size=settings.batch_size,
        lr=settings.lr,
        final_lr=1.0,
        clip=settings.clip,
        seed=settings.seed,
        image_size=settings.image_size,
        overrides=settings.overrides,
        device=settings.device,
        threads=settings.threads,
    )
