"""A linear world, models that know it exactly or are wrong on purpose, and held-out episodes in memory.

T rows, B batch, C H W image channels, height, width. The world: s' = TURN s + PUSH a, seen as a vector and as a picture
that is linear in it; the reward is s[0] and an episode ends when s leaves the unit circle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.evaluation.evaluate import evaluate_model
from worldloom.evaluation.rollout import RolloutSettings
from worldloom.evaluation.windows import HeldOut, held_out_episodes
from worldloom.model import State, WorldModel, state
from worldloom.noise import NOISE, Noise
from worldloom.runs.run import DatasetUse, Run
from worldloom.runs.sources import Source

TURN = 0.97 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
PUSH = np.array([[0.25, 0.0], [0.0, 0.25]])
SIZE = 16
PATTERN = np.stack([np.linspace(-1, 1, SIZE)[None].repeat(SIZE, 0), np.linspace(-1, 1, SIZE)[:, None].repeat(SIZE, 1)])


def linear_spec(image: bool = True, actions: int = 2, ends: bool = True) -> DataSpec:
    obs = {"image": KeySpec("image", (3, SIZE, SIZE))} if image else {}
    obs["state"] = KeySpec("vector", (2,), names=("x", "y"), mean=(0.0, 0.0), std=(0.5, 0.5))
    bounds = (-1.0,) * actions
    action = ActionSpec("continuous", actions, low=bounds, high=tuple(-b for b in bounds))
    return DataSpec({**obs, **signal_keys(reward=True, terminated=ends)}, action, 10.0)


def pictures(place: np.ndarray) -> np.ndarray:
    """`[..., 2]` to float images in [0, 1] `[..., 3, H, W]`."""
    light = 0.5 + 0.25 * np.einsum("...i,ihw->...hw", np.clip(place, -1, 1), PATTERN)
    return np.stack([light, 1 - light, light], -3)


def linear_segment(spec: DataSpec, seed: int, length: int) -> Segment:
    """One episode `[1, T]` of random pushes."""
    rng = np.random.default_rng(seed)
    place, places, actions = rng.uniform(-0.5, 0.5, 2), [], []
    for _ in range(length):
        action = rng.uniform(-1, 1, 2)
        places.append(place)
        actions.append(action)
        if spec.has_end and np.linalg.norm(place) > 1:
            break
        place = TURN @ place + (PUSH @ action if spec.action.size else 0)
    rows, line = len(places), np.array(places)
    ended = np.linalg.norm(line, axis=1) > 1 if spec.has_end else np.zeros(rows, bool)
    used = np.array(actions)[:, : spec.action.size]
    used[-1:] = 0
    obs = {"state": line.astype(np.float32), "image": np.round(255 * pictures(line)).astype(np.uint8)}
    reward = np.r_[0, line[1:, 0]].astype(np.float32)
    last = np.arange(rows) == rows - 1
    arrays = {"reward": reward, "terminated": ended, "truncated": last & ~ended}
    return Segment(
        obs={k: torch.from_numpy(obs[k])[None] for k in spec.obs},
        action=torch.from_numpy(used.astype(np.float32))[None],
        signals={k: torch.from_numpy(v)[None] for k, v in arrays.items()},
        mask=torch.ones(1, rows, dtype=torch.bool),
    )


@dataclass
class MemoryDataset:
    """The part of `CachedDataset` that judging needs."""

    spec: DataSpec
    episodes: list[Segment]
    path: Path = Path("memory")
    fingerprint: str = "f" * 64
    skipped: list[tuple[int, str]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([episode.shape[1] for episode in self.episodes])

    def __len__(self) -> int:
        return len(self.episodes)

    def segment(self, episode: int, start: int = 0, length: int | None = None) -> Segment:
        """Padded past the end as the cache does: the last row again, masked, without action."""
        rows = int(self.lengths[episode]) - start
        length = length or rows
        cut = self.episodes[episode][:, start + torch.arange(length).clamp(max=rows - 1)]
        outside = torch.arange(length)[None] >= rows
        signals = {k: v.masked_fill(outside, 0) for k, v in cut.signals.items()}
        return Segment(cut.obs, cut.action.masked_fill(outside[..., None], 0), signals, cut.mask & ~outside)


def linear_dataset(spec: DataSpec, episodes: int = 16, length: int = 40, seed: int = 0) -> MemoryDataset:
    return MemoryDataset(spec, [linear_segment(spec, seed * 1000 + i, length) for i in range(episodes)])


@state
class PlaceState(State):
    place: Tensor

    @property
    def features(self) -> Tensor:
        return self.place


@state
class BareState(State):
    """A belief that does not say what can be read out of it."""

    place: Tensor


class LinearModel(WorldModel):
    """Knows the world. `deaf` ignores actions, `frozen` thinks that nothing moves, `noise` makes it sample."""

    family: ClassVar[str] = "linear"

    def __init__(
        self,
        spec: DataSpec,
        deaf: bool = False,
        frozen: bool = False,
        noise: float = 0.0,
        heads: tuple[str, ...] = ("reward", "terminated"),
    ):
        super().__init__()
        self.spec, self.deaf, self.frozen, self.noise, self.heads = spec, deaf, frozen, noise, heads
        self.loss_weights = {"state": 1.0}
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def decodes(self) -> tuple[str, ...]:
        return (*self.spec.obs, *self.heads)

    def start(self, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> PlaceState:
        return PlaceState(obs["state"])

    def observe(self, state: State, action: Tensor, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> PlaceState:
        return PlaceState(obs["state"])

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> PlaceState:
        if self.frozen:
            return PlaceState(state.features)
        place = state.features @ torch.from_numpy(TURN.T).float()
        if not self.deaf and action.shape[-1]:
            place = place + action @ torch.from_numpy(PUSH.T).float()
        return PlaceState(place + self.noise * noise.normal(place.shape, place) if self.noise else place)

    def decode(self, state: State, key: str) -> Tensor:
        place = state.features
        if key == "state":
            return place
        if key == "reward":
            return place[..., 0]
        if key == "terminated":
            return (place.norm(dim=-1) > 1).float()
        return torch.from_numpy(pictures(place.numpy())).float()

    def loss(self, segment: Segment, belief: State | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        place = segment.obs["state"]
        ahead = self.predict(PlaceState(place[:, :-1]), segment.action[:, :-1], noise).place
        error = (ahead - place[:, 1:]).square().sum(-1)
        return {"state": nn.functional.pad(error, (1, 0))}


def run_of(dataset: MemoryDataset, train: list[int], held_out: list[int], path: Path) -> Run:
    use = DatasetUse(str(dataset.path), dataset.fingerprint, 1.0, train, held_out)
    return Run(path, 100, "linear", dataset.spec, [use], (SIZE, SIZE), {}, "c" * 64, 12.0)


def judge_linear(
    model: WorldModel, dataset: MemoryDataset, num_train: int = 8, num_windows: int = 96, **plan: Any
) -> Any:
    """The card of a model on the episodes after the first `num_train`."""
    train, held_out = list(range(num_train)), list(range(num_train, len(dataset)))
    settings = {"context": 4, "horizons": (1, 5, 15), "samples": 4, "batch_size": 16, "seed": 0, "device": "cpu"}
    made = RolloutSettings(**{**settings, "grid": (), **plan})
    held: list[HeldOut] = held_out_episodes([Source(dataset, train, held_out)])
    run = run_of(dataset, train, held_out, Path("nowhere"))
    return evaluate_model(model, run, [Source(dataset, train, held_out)], held, made, num_windows)
