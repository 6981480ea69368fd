"""One model for many players.

A call always has the same number of rows, padded where there are fewer queries: a matrix product of another height may
round differently, and on some processors so does the same row at another position. With `width` 1 each query is a call
of its own, so a node is the same, bit for bit, at any server load.

B rows, N queries, P particles, A action size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from worldloom.model import State, WorldModel
from worldloom.noise import Noise, RowNoise
from worldloom.render.filmstrip import as_frames

Arrays = dict[str, np.ndarray]
SIGNALS = ("reward", "terminated", "cost", "disagreement")


@dataclass(frozen=True)
class Query:
    """One request to the model: the belief after `action` `[A]` in `belief` `[P]`, or after an observation.

    Without `obs` it is a prediction. With `obs` (one row, `[1, ...]`) the belief is updated by it: after the action, or
    with `belief` None at the start. noise_seed: seeds the draws of all particles.
    """

    noise_seed: int
    belief: State | None = None
    action: np.ndarray | None = None
    obs: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Result:
    """The belief `[P]` of all particles, and the observation and signals decoded from the first one.

    pictures: uint8 `[H, W, 3]`. vectors: in their own units `[D]`. signals: reward, probability of termination, cost
    and disagreement, where the model has them. spread: root mean square standard deviation of the particles' features.
    """

    belief: State
    pictures: Arrays
    vectors: Arrays
    signals: dict[str, float]
    spread: float


@dataclass
class Engine:
    """Runs `width` queries in one call of the model, with `particles` rows each.

    A `width` above 1 is for throughput where results need not be the same bit for bit: eight queries in one call cost
    half of eight calls.
    """

    model: WorldModel
    particles: int = 4
    width: int = 1
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        assert self.particles > 0, self.particles
        assert self.width > 0, self.width
        self.device = next(self.model.parameters()).device

    def run(self, queries: Sequence[Query]) -> list[Result]:
        """One `Result` for each query, in order. Not thread-safe."""
        found: dict[int, Result] = {}
        kinds: dict[str, list[int]] = {}
        for i, query in enumerate(queries):
            kinds.setdefault(kind(query), []).append(i)
        for name, numbers in kinds.items():
            for first in range(0, len(numbers), self.width):
                group = numbers[first : first + self.width]
                found |= dict(zip(group, self._call(name, [queries[i] for i in group]), strict=True))
        return [found[i] for i in range(len(queries))]

    @torch.inference_mode()
    def _call(self, name: str, queries: Sequence[Query]) -> list[Result]:
        filled = [*queries, *[queries[-1]] * (self.width - len(queries))]
        noise = RowNoise([particle_seed(query.noise_seed, p) for query in filled for p in range(self.particles)])
        return self._read(OPERATIONS[name](self, filled, noise), len(queries))

    def start(self, queries: Sequence[Query], noise: Noise) -> State:
        """Beliefs `[B]` after the first observation."""
        return self.model.start(self._obs(queries), noise)

    def predict(self, queries: Sequence[Query], noise: Noise) -> State:
        """Predicted beliefs `[B]`."""
        return self.model.predict(beliefs(queries), self._actions(queries), noise)

    def observe(self, queries: Sequence[Query], noise: Noise) -> State:
        """Beliefs `[B]` after an action and the observation that followed it."""
        return self.model.observe(beliefs(queries), self._actions(queries), self._obs(queries), noise)

    def _obs(self, queries: Sequence[Query]) -> dict[str, Tensor]:
        obs = [query.obs for query in queries if query.obs is not None]
        joined = {key: torch.cat([each[key] for each in obs]) for key in obs[0]}
        return {key: value.to(self.device).repeat_interleave(self.particles, 0) for key, value in joined.items()}

    def _actions(self, queries: Sequence[Query]) -> Tensor:
        actions = np.stack([query.action for query in queries if query.action is not None])
        return torch.from_numpy(actions).float().to(self.device).repeat_interleave(self.particles, 0)

    def _read(self, belief: State, count: int) -> list[Result]:
        """The results of the first `count` queries, from the beliefs `[B]`."""
        model, first = self.model, belief[:: self.particles]
        keys = [key for key in (*model.spec.obs, *SIGNALS) if key in model.decodes]
        read = {key: model.decode(first, key).float().cpu().numpy() for key in keys}
        pictures = {key: to_pictures(read[key]) for key in model.spec.image_keys if key in read}
        vectors = {key: read[key] for key in model.spec.vector_keys if key in read}
        signals = {key: read[key].tolist() for key in SIGNALS if key in read}
        spread = self._spread(belief)
        return [
            Result(
                # Copies: a view would keep the whole batch in memory as long as any of its results.
                belief[i * self.particles : (i + 1) * self.particles].clone(),
                {key: value[i].copy() for key, value in pictures.items()},
                {key: value[i].copy() for key, value in vectors.items()},
                {key: value[i] for key, value in signals.items()},
                spread[i],
            )
            for i in range(count)
        ]

    def _spread(self, belief: State) -> list[float]:
        """Root mean square, over features, of the particles' standard deviation: one number per query."""
        features = belief.features.float().flatten(1).unflatten(0, (-1, self.particles))
        return features.var(1, correction=0).mean(-1).sqrt().cpu().tolist()

    @torch.inference_mode()
    def uncertain_pixels(self, belief: State) -> Arrays:
        """The particles' standard deviation of each pixel, by picture: `[H, W]` in [0, 1]."""
        found = {}
        for key in self.model.spec.image_keys:
            if key in self.model.decodes:
                found[key] = self.model.decode(belief, key).float().std(0, correction=0).mean(0).cpu().numpy()
        return found


OPERATIONS: dict[str, Callable[[Engine, Sequence[Query], Noise], State]] = {
    "start": Engine.start,
    "predict": Engine.predict,
    "observe": Engine.observe,
}


def kind(query: Query) -> str:
    """The operation of the model that a query needs."""
    if query.belief is None:
        return "start"
    return "predict" if query.obs is None else "observe"


def beliefs(queries: Sequence[Query]) -> State:
    """All particles of all queries `[B]`."""
    return State.cat([query.belief for query in queries if query.belief is not None])


def particle_seed(noise_seed: int, particle: int) -> int:
    """A separate stream of draws for each particle of a query."""
    return (noise_seed * 1_000_003 + particle * 7_919) % 2**63


def to_pictures(decoded: np.ndarray) -> np.ndarray:
    """Float `[N, C, H, W]` in [0, 1] to uint8 `[N, H, W, 3]`; one channel is repeated to three."""
    frames = as_frames(decoded).transpose(0, 2, 3, 1)
    return np.broadcast_to(frames, (*frames.shape[:3], 3))
