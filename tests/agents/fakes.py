"""Worlds and agents for the tests of agents: the toy world as an environment, a coin, and an agent that counts.

B environments, A action size.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from tests.toy import ToyConfig, ToyModel, toy_spec
from worldloom.agents.agent import Agent
from worldloom.data.spec import DataSpec, signal_keys
from worldloom.envs.adapt import AdaptedEnv, adapt
from worldloom.envs.describe import describe
from worldloom.model import Obs, State, state
from worldloom.runs.checkpoint import Checkpoint
from worldloom.runs.run import RunRecord
from worldloom.runs.train_settings import TrainSettings

TOY = "tests.agents.fakes:make_toy"


class ToyEnv(gymnasium.Env[Any, Any]):
    """The world of `tests.toy`: a point that is pushed, rewarded near the middle and terminated at the border."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]

    def __init__(self, discrete: bool, pixels: bool, reach: float, fps: float, steps: int):
        self.discrete, self.pixels, self.steps = discrete, pixels, steps
        self.metadata = {"render_fps": fps}  # type: ignore[misc]
        self.action_space = spaces.Discrete(4) if discrete else spaces.Box(-reach, reach, (2,), np.float32)
        shown: dict[str, spaces.Space] = {"state": spaces.Box(-np.inf, np.inf, (2,), np.float32)}
        if pixels:
            shown["image"] = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        self.observation_space = spaces.Dict(shown)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.count = self.np_random.uniform(-0.5, 0.5, 2), 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        push = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])[action] if self.discrete else action
        self.place, self.count = self.place + 0.1 * push, self.count + 1
        far = float(np.abs(self.place).max())
        return self.look(), 1 - far, far > 0.95, self.count >= self.steps, {"cost": far}

    def look(self) -> dict[str, np.ndarray]:
        obs = {"state": (self.place * [50, 1] + [100, -3]).astype(np.float32)}
        return obs | ({"image": np.full((16, 16, 3), 90, np.uint8)} if self.pixels else {})


def make_toy(
    discrete: bool = False, pixels: bool = True, reach: float = 2.0, fps: float = 10.0, steps: int = 12
) -> gymnasium.Env:
    return ToyEnv(discrete, pixels, reach, fps, steps)


class Coin(gymnasium.Env[Any, Any]):
    """Succeeds for half of all seeds, whatever is done; a success takes `long` steps and a failure `short` ones."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]

    def __init__(self, success: int, failure: int):
        self.lengths = {True: success, False: failure}
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Dict({"state": spaces.Box(-1, 1000, (1,), np.float32)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.wins, self.count = bool(self.np_random.random() < 0.5), 0
        return {"state": np.zeros(1, np.float32)}, {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.count += 1
        done = self.count >= self.lengths[self.wins]
        obs = {"state": np.array([self.count], np.float32)}
        return obs, float(action), done, False, {"success": True} if done and self.wins else {}


def make_coin(success: int = 50, failure: int = 5) -> AdaptedEnv:
    return adapt(Coin(success, failure), "coin")


@state
class Count(State):
    """Steps since the start, and the agent's seed, `[B]`."""

    steps: Tensor
    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.steps[:, None].float()


@dataclass(frozen=True)
class CountingAgent(Agent):
    """Takes the choice that is the number of its own steps, modulo the number of choices."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, Count]:
        rows = len(next(iter(obs.values())))
        return self._choose(Count(torch.zeros(rows, dtype=torch.long), torch.full((rows,), seed)))

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, Count]:
        assert isinstance(memory, Count)
        # The environment counts too: an agent that mixes up rows is found out here.
        assert torch.equal(obs["state"][:, 0].long(), memory.steps + 1)
        return self._choose(Count(memory.steps + 1, memory.seed))

    def _choose(self, memory: Count) -> tuple[Tensor, Count]:
        size = self.spec.action.size
        return torch.nn.functional.one_hot(memory.steps % size, size).float(), memory


def coin_agent() -> CountingAgent:
    env = make_coin()
    return CountingAgent(describe(env))


def toy_model(discrete: bool = False, pixels: bool = True, noise: float = 0.0, reward: bool = True) -> ToyModel:
    """A toy model with random weights: enough to be planned with."""
    spec = toy_spec(discrete=discrete)
    if not pixels:
        spec = spec.with_obs({"state": spec.obs["state"]})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ToyModel(
            spec.with_targets(signal_keys(reward=reward, terminated=spec.has_end)), ToyConfig(hidden=16, noise=noise)
        ).eval()


def write_run(path: Path, model: ToyModel) -> Path:
    """A run folder as training leaves it."""
    config, spec = asdict(model.config), model.spec
    settings = TrainSettings("toy", (path / "data",), path, size="debug", steps=1)
    path.mkdir(parents=True)
    RunRecord("toy", config, spec, [], (16, 16), settings.to_json(), {}).save(path)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    Checkpoint(1, "toy", config, weights, {}, {}, spec.to_json()).save(path)
    return path
