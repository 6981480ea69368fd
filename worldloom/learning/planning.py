"""Learning by planning: the world model is all that is trained, and its planner is the agent (PlaNet, TD-MPC2)."""

from dataclasses import replace

from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.planning import PlanningAgent
from worldloom.data.replay import Replay
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.learning.settings import TDMPCSettings
from worldloom.planners.categorical import CategoricalCEM
from worldloom.planners.mppi import MPPI
from worldloom.planners.objectives import Return
from worldloom.runs.precision import choose_device, choose_precision
from worldloom.training.new_model import build_model
from worldloom.training.trainer import Trainer


class PlanningLearner:
    """A trainer of the model, fed from a replay, and the agents that act with the model as it is.

    `trainer` saves and restores everything; `collector` explores while it collects, `evaluated` does not. The model
    sees vectors in their own units: scaled to what was collected at random, reacher-easy reached 209 and 436 after
    10,000 decisions in place of 270, 589 and 710, and cup-catch 99 in place of 920.
    """

    fits = False

    def __init__(self, settings: TDMPCSettings, spec: DataSpec):
        device = choose_device(settings.device)
        if spec.action.kind == "continuous" and spec.action.low is None:
            raise UserError(
                f"{settings.env} declares no range of its actions, so nothing can be searched in: "
                "give its action_space a finite low and high"
            )
        model = build_model(settings.family, spec, settings.size, settings.overrides).to(device)
        horizon: int = model.config.horizon
        discount: float = model.config.discount
        frames: int = model.config.frames
        length = horizon + frames
        self.replay = Replay(
            spec, batch_size=settings.batch_size, length=length, capacity=settings.capacity, seed=settings.seed
        )
        precision = choose_precision(settings.precision, device)
        self.trainer = Trainer(model, self.replay, settings.budget, settings.optimizer, device, precision)
        make = CategoricalCEM if spec.action.kind == "discrete" else MPPI
        planner = make(horizon, settings.samples, settings.elites, settings.iterations, settings.prior_samples)
        self.evaluated = PlanningAgent(self.trainer.ema_model, planner, Return(discount), precision=precision)
        self.agent = replace(self.evaluated, model=model, explore=True)

    def collector(self, decisions: int) -> Agent:
        """Who collects after so many decisions."""
        return self.agent

    def update(self) -> dict[str, Tensor]:
        """One gradient step on a batch from the replay: the loss terms, as tensors until somebody reads them."""
        loss, norm = self.trainer.update(next(self.replay).to(self.trainer.device))
        return {"loss": loss.total.detach(), "gradient_norm": norm, **loss.terms}
