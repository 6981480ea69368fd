"""Learning in dreams: a world model from what was collected, and a policy in what the model imagines (Dreamer)."""

from dataclasses import replace

from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.policy import PolicyAgent
from worldloom.data.replay import Replay
from worldloom.data.spec import DataSpec
from worldloom.learning.exploration import Exploration, policy_for
from worldloom.learning.settings import DreamerSettings
from worldloom.runs.precision import choose_device, choose_precision
from worldloom.training.joint_module import JointModule
from worldloom.training.new_model import build_model
from worldloom.training.trainer import Trainer


class DreamingLearner:
    """A trainer of model and policy together, fed from a replay, and the agents that act as the policy now says.

    `trainer` saves and restores everything; `collector` explores while it collects, `evaluated` does not. What is
    reconstructed is scaled to what was collected at random, or a key in small units would not be worth learning.
    """

    fits = True

    def __init__(self, settings: DreamerSettings, spec: DataSpec):
        device = choose_device(settings.device)
        model = build_model(settings.family, spec, settings.size, settings.overrides).to(device)
        policy = policy_for(model, settings.policy, settings.explore).to(device)
        self.replay = Replay(
            spec,
            batch_size=settings.batch_size,
            length=settings.length,
            capacity=settings.capacity,
            seed=settings.seed,
        )
        precision = choose_precision(settings.precision, device)
        joint = JointModule(model, policy)
        self.trainer = Trainer(model, self.replay, settings.budget, settings.optimizer, device, precision, joint=joint)
        self.evaluated = PolicyAgent(model, policy.actor)
        self.agent = self.explorer = replace(self.evaluated, explore=True)
        if isinstance(policy, Exploration):
            self.explorer = replace(self.agent, actor=policy.explorer.actor)
        self.explore_steps = settings.explore_steps

    def collector(self, decisions: int) -> Agent:
        """Who collects after so many decisions."""
        explores = self.explore_steps is None or decisions < self.explore_steps
        return self.explorer if explores else self.agent

    def update(self) -> dict[str, Tensor]:
        """One gradient step on a batch from the replay: the loss terms, as tensors until somebody reads them."""
        loss, norm = self.trainer.update(next(self.replay).to(self.trainer.device))
        return {"loss": loss.total.detach(), "gradient_norm": norm, **loss.terms}
