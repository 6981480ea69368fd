"""A tiny world and a tiny family that learns it in seconds: the fakes every other test leans on.

The world is a point on a square. It moves by its action, is seen as a bright dot and as coordinates in odd units, is
rewarded near the middle and ends when it touches the border. The family is a recurrent network without sampling
unless `noise` is set, so that two trainings can be compared number by number.

B batch, T time, A action size, C H W image channels, height, width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldloom.data.episode import Episode
from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import unknown
from worldloom.model import State, WorldModel, state
from worldloom.noise import NOISE, Noise

ENTRY = "tests.toy:ToyModel"
NAMES = ("left", "right", "up", "down")


def register_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `build("toy", ...)` and `worldloom train toy` work for one test."""
    from worldloom.models import FAMILIES

    monkeypatch.setitem(FAMILIES.entries, "toy", ENTRY)


def toy_spec(image_size: int = 16, discrete: bool = False, fitted: bool = True) -> DataSpec:
    """The description of the toy world; `fitted` fills in mean and std as a training run would."""
    mean, std = ((100.0, -3.0), (25.0, 0.5)) if fitted else (None, None)
    moves = ActionSpec("discrete", 4, names=NAMES)
    pushes = ActionSpec("continuous", 2, names=("x", "y"), low=(-2.0, -2.0), high=(2.0, 2.0))
    obs = {
        "image": KeySpec("image", (3, image_size, image_size)),
        "state": KeySpec("vector", (2,), names=("x", "y"), mean=mean, std=std),
    }
    return DataSpec({**obs, **signal_keys(reward=True, terminated=True)}, moves if discrete else pushes, 10.0)


def toy_episode(seed: int, length: int = 40, image_size: int = 16, discrete: bool = False) -> Episode:
    """One episode of at most `length` rows; it terminates early when the point touches the border."""
    rng = np.random.default_rng(seed)
    place, places, actions = rng.uniform(-0.5, 0.5, 2), [], []
    drift = rng.uniform(-0.5, 0.5, 2)
    for _ in range(length):
        push = np.clip(drift + rng.normal(0, 1, 2), -2, 2)
        choice = rng.integers(4)
        places.append(place)
        actions.append(np.eye(4)[choice] if discrete else push)
        if np.abs(place).max() > 0.95:
            break
        move = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])[choice] if discrete else push
        place = place + 0.1 * move
    return _episode(np.array(places), np.array(actions, np.float32), length, image_size)


def _episode(places: np.ndarray, actions: np.ndarray, length: int, image_size: int) -> Episode:
    rows = len(places)
    ended = np.abs(places[-1]).max() > 0.95
    reward = (1 - np.abs(places).max(1)).astype(np.float32)
    reward[0] = 0
    actions[-1] = 0
    last = np.arange(rows) == rows - 1
    vector = (places * [50, 1] + [100, -3]).astype(np.float32)
    obs = {"image": _dots(places, image_size), "state": vector}
    return Episode(obs, actions, reward, last & ended, last & ~ended)


def _dots(places: np.ndarray, image_size: int) -> np.ndarray:
    """A soft dot at each place, `[T, 3, H, W]`."""
    grid = np.linspace(-1, 1, image_size)
    distance = (grid[None, :, None] - places[:, 1, None, None]) ** 2 + (
        grid[None, None] - places[:, 0, None, None]
    ) ** 2
    dot = np.exp(-distance / 0.08)
    return (np.stack([dot, 0.5 * dot, 1 - dot], 1) * 255).astype(np.uint8)


def write_toy_dataset(
    path: Path, episodes: int = 12, length: int = 40, image_size: int = 16, discrete: bool = False, seed: int = 0
) -> Path:
    """The toy world as a LeRobot dataset on disk."""
    from worldloom.data.lerobot.writer import LeRobotWriter

    with LeRobotWriter(path, toy_spec(image_size, discrete, fitted=False)) as writer:
        for index in range(episodes):
            writer.add(toy_episode(seed * 10_000 + index, length, image_size, discrete))
    return path


def toy_segment(
    batch: int = 4, length: int = 16, seed: int = 0, image_size: int = 16, discrete: bool = False
) -> Segment:
    """Windows of the toy world `[B, T]`, padded and masked where an episode was shorter."""
    spec = toy_spec(image_size, discrete)
    episodes = [toy_episode(seed * 10_000 + i, length, image_size, discrete) for i in range(batch)]

    def rows(arrays: list[np.ndarray]) -> Tensor:
        padded = [np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)]) for x in arrays]
        return torch.from_numpy(np.stack(padded))

    return Segment(
        obs={k: rows([e.obs[k] for e in episodes]) for k in spec.obs},
        action=rows([spec.action.scale(e.action) for e in episodes]),
        signals={name: rows([getattr(e, name) for e in episodes]) for name in ("reward", "terminated", "truncated")},
        mask=rows([np.ones(len(e), bool) for e in episodes]),
    )


@dataclass(frozen=True)
class ToyConfig:
    """`noise` is the standard deviation of what `predict` and `observe` add to the belief: 0 is deterministic."""

    hidden: int = 32
    noise: float = 0.0
    ignore_actions: bool = False


@state
class ToyState(State):
    hidden: Tensor

    @property
    def features(self) -> Tensor:
        return self.hidden


class ToyModel(WorldModel):
    """A GRU whose prior is corrected by what is seen; every head is linear and every loss is read out of the prior."""

    family: ClassVar[str] = "toy"
    config_class = ToyConfig
    sizes: ClassVar[dict[str, ToyConfig]] = {
        "debug": ToyConfig(hidden=16),
        "nano": ToyConfig(hidden=32),
        "small": ToyConfig(hidden=64),
    }

    def __init__(self, spec: DataSpec, config: ToyConfig):
        super().__init__()
        self.spec, self.config = spec, config
        sizes = {k: int(np.prod(s.shape)) for k, s in spec.obs.items()}
        self.encoders = nn.ModuleDict({k: nn.Linear(n, config.hidden) for k, n in sizes.items()})
        self.transition = nn.GRUCell(max(spec.action.size, 1), config.hidden)
        self.correction = nn.Linear(2 * config.hidden, config.hidden)
        self.heads = nn.ModuleDict({k: nn.Linear(config.hidden, sizes.get(k, 1)) for k in self.decodes})
        self.loss_weights = dict.fromkeys(self.decodes, 1.0)

    @property
    def decodes(self) -> tuple[str, ...]:
        signals = ("reward",) * self.spec.has_reward + ("terminated",) * self.spec.has_end
        return (*self.spec.image_keys, *self.spec.vector_keys, *signals)

    def start(self, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> ToyState:
        seen = self._embed(obs)
        return ToyState(torch.tanh(self.correction(torch.cat([seen, torch.zeros_like(seen)], -1))))

    def observe(self, state: State, action: Tensor, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> ToyState:
        return self._correct(self.predict(state, action, noise), obs)

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> ToyState:
        action = action if action.shape[-1] else action.new_zeros(len(action), 1)
        action = action * (not self.config.ignore_actions)
        hidden = self.transition(action, state.features)
        return ToyState(
            hidden + self.config.noise * noise.normal(hidden.shape, hidden) if self.config.noise else hidden
        )

    def decode(self, state: State, key: str) -> Tensor:
        if key not in self.decodes:
            raise unknown("key", key, self.decodes)
        out = self.heads[key](state.features)
        if key not in self.spec.obs:
            return out[..., 0].sigmoid() if key == "terminated" else out[..., 0]
        shape = self.spec.obs[key].shape
        if key in self.spec.image_keys:
            return out.sigmoid().unflatten(-1, shape)
        return out * self._moments(key, out)[1] + self._moments(key, out)[0]

    def loss(self, segment: Segment, belief: State | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        obs, action = segment.obs, segment.action
        belief = self.start({k: v[:, 0] for k, v in obs.items()})
        priors = [belief]
        for t in range(1, segment.shape[1]):
            priors.append(self.predict(belief, action[:, t - 1], noise))
            belief = self._correct(priors[-1], {k: v[:, t] for k, v in obs.items()})
        prior = ToyState.stack(priors)
        terms = {k: self._obs_loss(prior, k, obs[k]) for k in self.decodes if k in obs}
        if self.spec.has_reward:
            terms["reward"] = (self.decode(prior, "reward") - segment.reward).square()
        if self.spec.has_end:
            logits = self.heads["terminated"](prior.features)[..., 0]
            terms["terminated"] = nn.functional.binary_cross_entropy_with_logits(
                logits, segment.terminated.to(logits.dtype), reduction="none"
            )
        return terms

    def _obs_loss(self, prior: State, key: str, target: Tensor) -> Tensor:
        if key in self.spec.image_keys:
            return (self.decode(prior, key) - target / 255).square().flatten(2).mean(-1) * 50
        return ((self.decode(prior, key) - target) / self._moments(key, target)[1]).square().sum(-1)

    def _correct(self, prior: State, obs: Mapping[str, Tensor]) -> ToyState:
        return ToyState(torch.tanh(self.correction(torch.cat([self._embed(obs), prior.features], -1))))

    def _embed(self, obs: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros((), device=next(self.parameters()).device)
        for key, spec in self.spec.obs.items():
            value = obs[key]
            if spec.kind == "image":
                value = value.flatten(1) / 255 - 0.5
            elif spec.kind == "vector":
                mean, std = self._moments(key, value)
                value = (value - mean) / std
            total = total + self.encoders[key](value)
        return torch.tanh(total)

    def _moments(self, key: str, like: Tensor) -> tuple[Tensor, Tensor]:
        spec = self.spec.obs[key]
        mean = torch.tensor(spec.mean or (0.0,) * spec.shape[0], device=like.device)
        std = torch.tensor(spec.std or (1.0,) * spec.shape[0], device=like.device)
        return mean, std
