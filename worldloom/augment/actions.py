"""What is done in an imagined branch: something near to what was done, anything, or what a policy would do."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldloom.augment.branches import Act, Moments
from worldloom.data.spec import ActionSpec
from worldloom.envs.policy import AGENT_FILE
from worldloom.errors import UserError
from worldloom.evaluation.actions import random_actions
from worldloom.model import State
from worldloom.training.run import Run

NEAR, RANDOM = "near", "random"


def chosen_actions(policy: str, run: Run, noise: float, device: str) -> "ActionSource":
    """`policy` is "near", "random" or the folder of a policy learned with the model of `run`. Raises `UserError`."""
    if policy == NEAR:
        return Near(run.spec.action, noise)
    if policy == RANDOM:
        return Anything(run.spec.action)
    if not (Path(policy) / AGENT_FILE).exists():
        raise UserError(f"--policy {policy}: want {NEAR}, {RANDOM} or the folder of a learned policy; there is none")
    return Learned(Path(policy), run, device)


class ActionSource:
    """How the actions of branches are chosen."""

    def begin(self, moments: Moments, rng: np.random.Generator) -> Act:
        """What is done from these moments on."""
        raise NotImplementedError


class Near(ActionSource):
    """What was really done next, disturbed: normal noise of so many half ranges, or that share of other choices.

    Past the end of its episode a branch goes on at random.
    """

    def __init__(self, spec: ActionSpec, noise: float):
        self.spec, self.noise = spec, noise

    def begin(self, moments: Moments, rng: np.random.Generator) -> Act:
        followed = moments.followed
        other = drawn(self.spec, followed, rng)
        if self.spec.kind == "discrete":
            changed = torch.from_numpy(rng.random(followed.shape[:2]) < self.noise).to(followed.device)
            disturbed = torch.where(changed[..., None], other, followed)
        else:
            noise = torch.from_numpy(rng.standard_normal(followed.shape, np.float32)).to(followed.device)
            disturbed = (followed + self.noise * noise).clamp(-1, 1)
        actions = torch.where(moments.real[..., None], disturbed, other)
        return lambda belief, step: actions[:, step]


class Anything(ActionSource):
    """Uniform over the action space."""

    def __init__(self, spec: ActionSpec):
        self.spec = spec

    def begin(self, moments: Moments, rng: np.random.Generator) -> Act:
        actions = drawn(self.spec, moments.followed, rng)
        return lambda belief, step: actions[:, step]


class Learned(ActionSource):
    """What a learned policy does, exploring."""

    def __init__(self, folder: Path, run: Run, device: str):
        from worldloom.agents.trial.gap import policy_of
        from worldloom.agents.trial.named import Named

        named = Named.parse(folder)
        named.check(run)
        self.actor = policy_of(named, device).actor

    def begin(self, moments: Moments, rng: np.random.Generator) -> Act:
        def act(belief: State, step: int) -> Tensor:
            chosen = self.actor(belief.features)
            return chosen.carried_out(chosen.sample())

        return act


def drawn(spec: ActionSpec, like: Tensor, rng: np.random.Generator) -> Tensor:
    """Random actions of the shape `[B, H, A]` of `like`."""
    count = like.shape[0] * like.shape[1]
    return torch.from_numpy(random_actions(spec, count, rng)).view(like.shape).to(like)
