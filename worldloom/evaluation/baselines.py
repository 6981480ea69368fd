"""What a model must beat: nothing changes (persistence), the mean, and a linear forecast that knows the actions.

All three are fitted on training episodes only. N training rows, P pixels, Q principal components, K horizons, A action
size, B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldloom.data.spec import DataSpec
from worldloom.evaluation.windows import WindowBatch
from worldloom.runs.sources import Source

COMPONENTS = 64
WIDE = 1024  # a vector, or an action, of more numbers is seen through its principal components
FIT_ROWS = 4000
PCA_ROWS = 1500
ROUNDING = 1 / 255**2 / 12  # variance of what a picture of 256 steps rounds off
STRENGTHS = tuple(10.0**power for power in range(-3, 7))


@dataclass(frozen=True)
class TrainingRows:
    """Whole training episodes, up to about `FIT_ROWS` rows: coordinates, actions and where each episode begins.

    values: `{key: [N, Q]}`. actions: `[N, A]`. episode: `[N]`.
    """

    values: dict[str, np.ndarray]
    actions: np.ndarray
    episode: np.ndarray


@dataclass(frozen=True)
class Coordinates:
    """The linear coordinates of one key: principal components of pixels and wide vectors, or standardised variables.

    `to(x) = (x - mean) @ axes`, and a change of coordinates d is a change of d @ back in the key's own space `[Q, P]`.
    """

    mean: Tensor
    axes: Tensor
    back: Tensor

    def to(self, flat: Tensor) -> Tensor:
        return (flat - self.mean) @ self.axes


class Baselines:
    """Persistence, mean and linear forecasts of every image and vector key at the horizons of `grid`.

    Linear: the *change* of the key's coordinates from row t to t + k is a ridge regression, one per key and k, on the
    coordinates at t, their last change (t - 1 to t) and the recorded actions t .. t + k - 1. It is added to what is
    observed at t, so what principal components cannot express persists rather than blurs. The ridge strength is chosen
    per k on a fifth of the training episodes; the strongest one leaves persistence.
    """

    def __init__(self, sources: Sequence[Source], spec: DataSpec, grid: Sequence[int], seed: int = 0):
        self.spec, self.grid = spec, list(grid)
        self.keys = (*spec.image_keys, *spec.vector_keys)
        chosen = _choose_episodes(sources, seed)
        self.available = bool(chosen)
        self.reward_mean = 0.0
        self.means: dict[str, Tensor] = {}
        self.weights: dict[tuple[str, int], Tensor] = {}
        if chosen:
            self._fit(chosen, seed)

    def mean(self, key: str, batch: WindowBatch) -> Tensor:
        """The training mean, `[B, K, ...]`."""
        shape = self.spec.obs[key].shape
        return self.means[key].view(1, 1, *shape).expand(len(batch.steps), len(self.grid), *shape)

    def persistence(self, key: str, batch: WindowBatch) -> Tensor:
        """The observation at t, `[B, K, ...]`."""
        now = unit(self.spec, key, batch.segment.obs[key][:, batch.context - 1])
        return now[:, None].expand(-1, len(self.grid), *now.shape[1:])

    def linear(self, key: str, batch: WindowBatch) -> Tensor:
        """The observation at t plus the forecast change, images within [0, 1], `[B, K, ...]`."""
        rows = unit(self.spec, key, batch.segment.obs[key][:, max(batch.context - 2, 0) : batch.context])
        flat = rows.flatten(2)
        coordinates = self.coordinates[key]
        place = coordinates.to(flat)
        features = torch.cat([place[:, -1], place[:, -1] - place[:, 0]], -1)
        actions = batch.actions if self.acted is None else self.acted.to(batch.actions)
        steps = []
        for k in self.grid:
            inputs = torch.cat([features, actions[:, :k].flatten(1), torch.ones(len(features), 1)], -1)
            change = (inputs @ self.weights[key, k]) @ coordinates.back
            steps.append(flat[:, -1] + change)
        forecast = torch.stack(steps, 1).view(len(flat), len(self.grid), *self.spec.obs[key].shape)
        return forecast.clamp(0, 1) if key in self.spec.image_keys else forecast

    def _fit(self, chosen: list[tuple[Source, int]], seed: int) -> None:
        segments = [source.dataset.segment(episode) for source, episode in chosen]
        actions = torch.cat([s.action[0] for s in segments]).numpy()
        episode = np.repeat(np.arange(len(segments)), [s.shape[1] for s in segments])
        self.coordinates: dict[str, Coordinates] = {}
        self.acted: Coordinates | None = None
        values = {}
        for key in self.keys:
            flat = [unit(self.spec, key, s.obs[key][0]).flatten(1) for s in segments]
            self.coordinates[key] = self._coordinates(key, flat, seed)
            self.means[key] = torch.stack([f.sum(0) for f in flat]).sum(0) / len(actions)
            values[key] = torch.cat([self.coordinates[key].to(f) for f in flat]).numpy()
        rewards = [s.reward[0, 1:].numpy() for s in segments]
        self.reward_mean = float(np.concatenate(rewards).mean()) if sum(map(len, rewards)) else 0.0
        if actions.shape[1] > WIDE:
            self.acted = _principal([torch.from_numpy(actions)], seed)
            actions = self.acted.to(torch.from_numpy(actions)).numpy()
        rows = TrainingRows(values, actions, episode)
        for key in self.keys:
            for k in self.grid:
                self.weights[key, k] = _regress(rows, key, k).float()

    def _coordinates(self, key: str, flat: list[Tensor], seed: int) -> Coordinates:
        if key in self.spec.image_keys or flat[0].shape[1] > WIDE:
            return _principal(flat, seed)
        spec = self.spec.obs[key]
        std = torch.tensor(spec.std or [1.0] * spec.shape[0])
        mean = torch.tensor(spec.mean or [0.0] * spec.shape[0])
        return Coordinates(mean, torch.diag(1 / std), torch.diag(std))


def unit(spec: DataSpec, key: str, value: Tensor) -> Tensor:
    """A key as it is decoded: images float in [0, 1], vectors in their own units."""
    return value.float() / 255 if key in spec.image_keys else value.float()


def _choose_episodes(sources: Sequence[Source], seed: int) -> list[tuple[Source, int]]:
    """Random training episodes until `FIT_ROWS` rows are reached."""
    pairs = [(source, episode) for source in sources for episode in source.train]
    order = np.random.default_rng(seed).permutation(len(pairs))
    chosen: list[tuple[Source, int]] = []
    rows = 0
    for i in order:
        if rows >= FIT_ROWS:
            break
        chosen.append(pairs[i])
        rows += int(pairs[i][0].dataset.lengths[pairs[i][1]])
    return chosen


def _principal(flat: list[Tensor], seed: int) -> Coordinates:
    """The first principal components of frames, from the Gram matrix of at most `PCA_ROWS` of them."""
    count = sum(map(len, flat))
    picked = np.sort(np.random.default_rng(seed).permutation(count)[:PCA_ROWS])
    rows = torch.cat(flat)[picked]
    mean = rows.mean(0)
    rows = rows - mean
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    # Directions that rounding alone explains are noise, to which a regression would give as much room as to the rest:
    # no eigenvalue of pure noise lies beyond this edge (Marchenko & Pastur, 1967).
    noise = ROUNDING * (rows.shape[0] ** 0.5 + rows.shape[1] ** 0.5) ** 2
    keep = min(COMPONENTS, max(1, int((values > max(noise, 1e-6 * float(values[-1]))).sum())))
    axes = rows.T @ vectors[:, -keep:]
    axes = axes / axes.norm(dim=0).clamp(min=1e-12)
    return Coordinates(mean, axes, axes.T)


def _regress(rows: TrainingRows, key: str, k: int) -> Tensor:
    """Ridge weights `[inputs, Q]` of the change over k steps; zeros (persistence) where no episode is that long."""
    place, episode = rows.values[key], rows.episode
    starts = np.arange(1, len(place) - k)
    starts = starts[(episode[starts - 1] == episode[starts]) & (episode[starts] == episode[starts + k])]
    width = 2 * place.shape[1] + k * rows.actions.shape[1] + 1
    if len(starts) < 10:
        return torch.zeros(width, place.shape[1])
    actions = rows.actions[starts[:, None] + np.arange(k)].reshape(len(starts), -1)
    inputs = torch.from_numpy(np.concatenate([place[starts], place[starts] - place[starts - 1], actions], 1)).double()
    target = torch.from_numpy(place[starts + k] - place[starts]).double()
    inside = torch.from_numpy(_validation(episode[starts]))
    strength = _choose_strength(inputs, target, inside)
    return _ridge(inputs, target, [strength])[0]


def _validation(episode: np.ndarray) -> np.ndarray:
    """A fifth of the episodes, or with a single one its last fifth."""
    names = np.unique(episode)
    if len(names) > 1:
        return np.isin(episode, names[:: min(5, len(names))])
    return np.arange(len(episode)) >= 0.8 * len(episode)


def _choose_strength(inputs: Tensor, target: Tensor, inside: Tensor) -> float:
    if inside.all() or not inside.any():
        return STRENGTHS[-1]
    fits = _ridge(inputs[~inside], target[~inside], STRENGTHS)
    checked = torch.nn.functional.pad(inputs[inside], (0, 1), value=1.0)
    errors = [float((checked @ weights - target[inside]).square().mean()) for weights in fits]
    return STRENGTHS[int(np.argmin(errors))]


def _ridge(inputs: Tensor, target: Tensor, strengths: Sequence[float]) -> list[Tensor]:
    """Ridge on standardised inputs, one solution per strength; the last row is the offset.

    It is solved on the smaller side, rows or inputs, and by Cholesky's method: with a strength above 0 that exists for
    one-hot inputs too, on which eigenvalue solvers may not converge.
    """
    centre, scale = inputs.mean(0), inputs.std(0, correction=0)
    scale = torch.where(scale > 1e-8, scale, 1.0)
    x, offset = (inputs - centre) / scale, target.mean(0)
    wide = x.shape[1] > x.shape[0]
    gram, wanted = (x @ x.T, target - offset) if wide else (x.T @ x, x.T @ (target - offset))
    found = []
    for strength in strengths:
        ridge = torch.linalg.cholesky(gram / len(x) + strength * torch.eye(len(gram), dtype=gram.dtype))
        solved = torch.cholesky_solve(wanted / len(x), ridge)
        weights = (x.T @ solved if wide else solved) / scale[:, None]
        found.append(torch.cat([weights, (offset - centre @ weights)[None]]))
    return found
