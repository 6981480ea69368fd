"""Who plays while episodes are recorded: a random policy, your own `module:function`, or a saved agent.

A policy is called as `policy(obs, rng)`, where `obs` is the environment's dict of arrays for one moment and `rng`
belongs to the episode; it returns an action of the environment's action space. A class is made once per worker, as
`Policy(action_space)`; if it has a `reset()`, that is called before every episode. Take all randomness from `rng`: then
an episode depends on its seed alone, and not on which worker plays it.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from worldloom.envs.adapt import ActionSpace
from worldloom.errors import UserError, unknown
from worldloom.registry import Registry, load_reference

AGENTS = Registry("kind of saved agent", dict.fromkeys(("planning", "policy"), "worldloom.agents.saved:SavedPolicy"))
AGENT_FILE = "agent.json"


class Policy(Protocol):
    def __call__(self, obs: dict[str, np.ndarray], rng: np.random.Generator) -> Any: ...


class RandomPolicy:
    """Uniform actions, each held for a random 1 to `hold` steps, as Ha & Schmidhuber (2018) collected their data.

    Held actions go somewhere: with a new action at every step a car or a marine trembles on the spot. A dimension of a
    Box that has no bounds is drawn from a standard normal.
    """

    def __init__(self, action_space: ActionSpace, hold: int = 10):
        self.action_space, self.hold = action_space, hold
        self.reset()

    def reset(self) -> None:
        self._left = 0
        self._action: Any = None

    def __call__(self, obs: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        if self._left == 0:
            self._action, self._left = sample(self.action_space, rng), int(rng.integers(1, self.hold + 1))
        self._left -= 1
        return self._action


def sample(space: ActionSpace, rng: np.random.Generator) -> Any:
    """One uniform action from `rng` (a gymnasium space would draw from a generator of its own)."""
    if isinstance(space, spaces.Discrete):
        return int(rng.integers(space.n))
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(bounded, space.low, 0), np.where(bounded, space.high, 1)
    drawn = np.where(bounded, rng.uniform(low, high), rng.normal(size=space.shape))
    return np.clip(drawn, space.low, space.high).astype(np.float32)


def load_policy(name: str, action_space: ActionSpace, hold: int = 10) -> Policy:
    """`random`, `module:function` (or `module:Class`), or the folder of a saved agent. Raises `UserError`."""
    if name == "random":
        return RandomPolicy(action_space, hold)
    if Path(name).is_dir():
        return load_agent(Path(name), action_space)
    if ":" not in name:
        raise unknown("policy (nor is it the folder of a saved agent)", name, ["random", "module:function"])
    found = load_reference(name, "policy", ("random",))
    if not callable(found):
        raise UserError(f"policy {name!r} is a {type(found).__name__}; name a function policy(obs, rng) or a class")
    return found(action_space) if isinstance(found, type) else found


def load_agent(folder: Path, action_space: ActionSpace) -> Policy:
    """A saved agent, by the kind its agent.json names. Adding a kind of agent is one line in `AGENTS`."""
    path = folder / AGENT_FILE
    if not path.exists():
        raise UserError(f"policy {str(folder)!r} is a folder without {AGENT_FILE}: name the folder of a saved agent")
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a saved agent's description ({error!r}); save the agent again") from error
    return AGENTS[kind](folder, action_space)


def checked(action: Any, space: ActionSpace, name: str) -> Any:
    """The action as the environment takes it. Raises `UserError` when it lies outside the action space."""
    try:
        if isinstance(space, spaces.Discrete):
            number = np.asarray(action).item()
            if number == int(number) and 0 <= number < space.n:
                return int(number)
        else:
            vector = np.asarray(action, np.float32).reshape(space.shape)
            if np.all(vector >= space.low) and np.all(vector <= space.high):
                return vector
    except (TypeError, ValueError) as error:
        raise UserError(f"policy {name!r} returned {action!r}, which is no action in {space}: {error}") from error
    raise UserError(f"policy {name!r} returned {action!r}, which is outside the action space {space}")
