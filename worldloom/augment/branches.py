"""Branches: imagined rollouts from real rows, with actions that were not taken there.

B branches, H horizon (steps of a branch), A action size, C H W image channels, height, width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.saved import load_agent
from worldloom.augment.start_states import StartStates, draw_rows, recorded_actions
from worldloom.data.spec import ActionSpec, one_hot
from worldloom.envs.policy import AGENT_FILE
from worldloom.errors import UserError, unknown
from worldloom.evaluation.actions import random_actions
from worldloom.model import Obs, State, WorldModel
from worldloom.noise import TorchNoise


@dataclass(frozen=True)
class Branches:
    """Imagined rollouts. states: the beliefs after each step `[B, H]`; actions `[B, H, A]` in model units.

    Only the first `steps` `[B]` of a branch count.
    """

    states: State
    actions: np.ndarray
    steps: np.ndarray


BranchPolicy = Callable[[WorldModel, StartStates, int, np.random.Generator], Branches]
"""`policy(model, starts, horizon, rng)`"""


def choose_policy(name: str, noise: float, model: WorldModel) -> BranchPolicy:
    """What acts in the branches, by its name or its folder. Raises `UserError` for none, or one that does not fit."""
    named: dict[str, BranchPolicy] = {
        "recorded": lambda model, starts, horizon, rng: recorded(model, starts, horizon, rng, noise),
        "other": lambda model, starts, horizon, rng: other(model, starts, horizon, rng, noise),
        "random": random,
    }
    if name in named:
        return named[name]
    if not Path(name).exists():
        raise unknown("policy (or folder of a saved agent)", name, named)
    if not (Path(name) / AGENT_FILE).exists():
        raise UserError(
            f"--policy {name}: holds no saved agent ({AGENT_FILE}). Name its folder, or {', '.join(named)}."
        )
    agent = load_agent(Path(name), str(next(model.parameters()).device))
    check_agent(agent, model, name)
    return lambda model, starts, horizon, rng: with_agent(agent, model, starts, horizon, rng)


def recorded(
    model: WorldModel, starts: StartStates, horizon: int, rng: np.random.Generator, noise: float = 0.0
) -> Branches:
    """The recorded actions of the same rows, changed by `noise`."""
    actions, steps = recorded_actions(starts.dataset, starts.episode, starts.frame, horizon)
    return imagined(model, starts, with_noise(actions, model.spec.action, noise, rng), steps, rng)


def other(
    model: WorldModel, starts: StartStates, horizon: int, rng: np.random.Generator, noise: float = 0.0
) -> Branches:
    """Recorded actions of other rows, changed by `noise`."""
    everywhere = range(len(starts.dataset))
    rows = draw_rows(starts.dataset, everywhere, len(starts), rng)
    actions, steps = recorded_actions(starts.dataset, *rows, horizon)
    return imagined(model, starts, with_noise(actions, model.spec.action, noise, rng), steps, rng)


def random(model: WorldModel, starts: StartStates, horizon: int, rng: np.random.Generator) -> Branches:
    """Uniform actions."""
    actions = np.stack([random_actions(model.spec.action, horizon, rng) for _ in range(len(starts))])
    return imagined(model, starts, actions, np.full(len(starts), horizon), rng)


def imagined(
    model: WorldModel, starts: StartStates, actions: np.ndarray, steps: np.ndarray, rng: np.random.Generator
) -> Branches:
    """Branches with given actions `[B, H, A]`."""
    device = next(model.parameters()).device
    noise = TorchNoise.seeded(int(rng.integers(2**31)), device)
    return Branches(model.imagine(starts.belief, torch.from_numpy(actions).to(device), noise), actions, steps)


def with_agent(
    agent: Agent, model: WorldModel, starts: StartStates, horizon: int, rng: np.random.Generator
) -> Branches:
    """An agent observes what the model decodes; its first observation is the real row of the branch."""
    belief, obs, memory = starts.belief, dict(starts.obs), None
    states: list[State] = []
    actions: list[Tensor] = []
    noise = TorchNoise.seeded(int(rng.integers(2**31)), next(model.parameters()).device)
    for _ in range(horizon):
        if memory is None:
            chosen, memory = agent.start(obs, int(rng.integers(2**31)))
        else:
            chosen, memory = agent.act(memory, obs)
        actions.append(translate(chosen, agent.spec.action, model.spec.action).to(chosen.device))
        belief = model.predict(belief, actions[-1], noise)
        states.append(belief)
        obs = decoded_obs(model, belief, starts.obs)
    return Branches(State.stack(states), torch.stack(actions, 1).cpu().numpy(), np.full(len(starts), horizon))


def decoded_obs(model: WorldModel, belief: State, given: Obs) -> dict[str, Tensor]:
    """The observation of an agent in a belief `[B]`: decoded, images as uint8, and the task as `given`."""
    obs = {}
    for key, spec in model.spec.obs.items():
        decoded = given[key] if spec.kind == "category" else model.decode(belief, key).float()
        obs[key] = (255 * decoded).round().clamp(0, 255).to(torch.uint8) if spec.kind == "image" else decoded
    return obs


def translate(action: Tensor, theirs: ActionSpec, ours: ActionSpec) -> Tensor:
    """An action `[B, A]` from one model's units to another's: both mean the same in the data's own units."""
    if ours.kind == "discrete":
        return action.float()
    own = ours.scale(theirs.unscale(action.detach().float().cpu().numpy()))
    return torch.from_numpy(own).clamp(-1, 1)


def with_noise(actions: np.ndarray, spec: ActionSpec, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Actions `[B, H, A]` plus normal noise of this deviation, or with this share replaced by a uniform choice.

    Of a mixed action the noise decides between choices that are as near as 1 is to 0.
    """
    if spec.kind != "discrete":
        drawn = rng.normal(size=actions.shape).astype(np.float32)
        return spec.chosen(np.clip(actions + np.float32(noise) * drawn, -1, 1))
    replaced = rng.random(actions.shape[:-1]) < noise
    any_choice = one_hot(rng.integers(spec.size, size=actions.shape[:-1]), spec.size)
    return np.where(replaced[..., None], any_choice, actions)


def check_agent(agent: Agent, model: WorldModel, name: str) -> None:
    """Raise `UserError` unless the model decodes what the agent observes, and takes the agent's actions."""
    for key, wanted in agent.spec.obs.items():
        found = model.spec.obs.get(key)
        if found is None or (found.kind, found.shape) != (wanted.kind, wanted.shape):
            decoded = "nothing" if found is None else f"{found.kind} {found.shape}"
            raise UserError(
                f"--policy {name}: observes {key!r} as {wanted.kind} {wanted.shape}, but the model decodes {decoded}. "
                "Give an agent that learned on the same data."
            )
    theirs, ours = agent.spec.action, model.spec.action
    if (theirs.kind, theirs.size) != (ours.kind, ours.size):
        raise UserError(
            f"--policy {name}: takes {theirs.size} {theirs.kind} actions, but the model {ours.size} {ours.kind} ones. "
            "Give an agent that learned on the same data."
        )
