"""Open-loop rollouts of held-out episodes with the recorded actions: which steps were good, with which inputs.

N windows, B windows at a time, H horizon, K kinds of observation (pictures, vectors), M samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.evaluation.windows import HeldOut, WindowBatch, batches, choose_windows
from worldloom.model import WorldModel
from worldloom.play.engine import Arrays, Engine, Query, Result

WIDTH, SMOOTH = 16, 3
TOLERANCE = {"image": 1e-4, "vector": 1e-2}  # 40 dB, and a tenth of a standard deviation


@dataclass(frozen=True)
class CalibrationSamples:
    """Imagined steps, the inputs of the meter at them, and how long they stayed good. Each field is `[M]`.

    depth: steps since the last observation. spread: of the particles. left: how many more steps were good, 0 where the
    step itself was not. ahead: how many more were recorded. With `left` equal to `ahead` the sample is censored by the
    end of its episode. episode: whose.
    """

    depth: np.ndarray
    spread: np.ndarray
    left: np.ndarray
    ahead: np.ndarray
    episode: np.ndarray

    @classmethod
    def of_rollouts(cls, spread: np.ndarray, good: np.ndarray, steps: np.ndarray, episode: np.ndarray) -> Self:
        """Samples of rollouts with `spread` and `good` `[N, H + 1]`: at the last observation and after each step.

        steps `[N]`: recorded rows after the last observation; steps without a further one are left out. episode `[N]`.
        """
        horizon = good.shape[1] - 1
        left, ahead = np.zeros(good.shape, int), np.minimum(steps, horizon)[:, None] - np.arange(horizon)
        for depth in range(horizon - 1, -1, -1):
            left[:, depth] = np.where(good[:, depth] & good[:, depth + 1], left[:, depth + 1] + 1, 0)
        at = np.nonzero(ahead > 0)
        return cls(at[1], spread[at], np.minimum(left[at], ahead[at]), ahead[at], episode[at[0]])

    def of_episodes(self, episodes: np.ndarray) -> Self:
        chosen = np.isin(self.episode, episodes)
        return replace(self, **{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    def by_episode(self, values: np.ndarray) -> np.ndarray:
        """The mean of `values` `[M]` over the samples of each episode: `[episodes]`, in order of their numbers."""
        count = np.bincount(self.episode)
        return np.bincount(self.episode, values)[count > 0] / count[count > 0]

    def check(self, promised: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the promises `[M]` end within their episode, and which were broken within it: both bool `[M]`.

        The length of an episode does not depend on the rollout, so promises that end within it are an unbiased
        selection. Adding the others where they broke early would bias it to broken ones.
        """
        return (promised >= 1) & (promised <= self.ahead), self.left < np.minimum(promised, self.ahead)


def collect_samples(
    model: WorldModel, held: Sequence[HeldOut], *, particles: int, horizon: int, context: int, windows: int, seed: int
) -> CalibrationSamples:
    """Roll out about `windows` windows of held-out episodes with the queries of a session.

    A step is good while the prediction is nearer to the recorded row than the mean row of the same episode: a baseline
    that knows the episode but not the time. The mean of the whole dataset would be too weak where episodes differ, and
    the last observation too strong wherever nothing moves. Pictures (squared error of pixels in [0, 1]) and vectors (in
    units of the training std) must both be good, summed over the last `SMOOTH` steps, because a single row may equal
    the mean. Errors below `TOLERANCE` are good. Raises `UserError` for a model that decodes no observation.
    """
    keys = [key for key in (*model.spec.image_keys, *model.spec.vector_keys) if key in model.decodes]
    if not keys:
        raise UserError(
            f"the family {model.family!r} decodes no observation, so its error cannot be measured: play with --no-trust"
        )
    engine, chosen = Engine(model, particles, WIDTH), choose_windows(held, context, windows, seed)
    means: dict[int, Arrays] = {}
    for each in held:
        obs = each.dataset.segment(each.episode).obs
        means[each.index] = {key: obs[key][0].float().mean(0).numpy() for key in keys}
    parts = []
    for number, batch in enumerate(batches(chosen, WIDTH, context, horizon)):
        noise_seeds = [(seed + number * WIDTH + i) * 1_000_033 for i in range(WIDTH)]
        spread, error, allowed = roll_out(engine, batch, noise_seeds, [means[i] for i in batch.episode.tolist()])
        parts.append((spread, is_good(error, allowed), batch.steps, batch.episode))
    return CalibrationSamples.of_rollouts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def roll_out(
    engine: Engine, batch: WindowBatch, noise_seeds: Sequence[int], means: Sequence[Arrays]
) -> tuple[np.ndarray, ...]:
    """Spread `[B, H + 1]`, prediction error and allowed error `[B, H + 1, K]`, as far as rows are recorded."""
    segment, spec = batch.segment, engine.model.spec
    (size, rows), first = segment.shape, batch.context - 1
    spread, error, allowed = (np.zeros((size, rows - first, *shape)) for shape in ((), (2,), (2,)))
    results: dict[int, Result] = {}
    for row in range(rows):
        going, queries = [i for i in range(size) if row < batch.context + batch.steps[i]], []
        for i in going:
            obs = {key: value[i : i + 1, row] for key, value in segment.obs.items()} if row <= first else None
            before, action = (results[i].belief, segment.action[i, row - 1].numpy()) if row else (None, None)
            queries.append(Query(noise_seeds[i] + row, before, action, obs))
        results = dict(zip(going, engine.run(queries), strict=True))
        for i in going if row >= first else []:
            real = {key: segment.obs[key][i, row].float().numpy() for key in means[i]}
            decoded = results[i].vectors | {key: p.transpose(2, 0, 1) for key, p in results[i].pictures.items()}
            at = i, row - first
            spread[at], error[at] = results[i].spread, distance(spec, decoded, real)
            allowed[at] = np.maximum(distance(spec, means[i], real), list(TOLERANCE.values()))
    return spread, error, allowed


def distance(spec: DataSpec, predicted: Arrays, real: Arrays) -> np.ndarray:
    """Mean squared errors `[K]` of pictures and of vectors; 0 where there are none."""
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in TOLERANCE}
    for key, value in real.items():
        unit = 255 if key in spec.image_keys else np.maximum(spec.obs[key].std or 1.0, 1e-6)
        found[spec.obs[key].kind].append(np.square((predicted[key] - value) / unit).ravel())
    return np.array([np.concatenate(each).mean() if each else 0.0 for each in found.values()])


def is_good(error: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Whether no kind's `error` is above the `allowed` one `[B, H + 1, K]`: `[B, H + 1]`. Step 0 is not smoothed."""
    good = np.all(error <= allowed, axis=-1)
    for step in range(1, error.shape[1]):
        recent = slice(max(1, step - SMOOTH + 1), step + 1)
        good[:, step] = (error[:, recent].sum(1) <= allowed[:, recent].sum(1)).all(-1)
    return good
