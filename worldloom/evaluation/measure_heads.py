"""Metric 11: rewards, ends and returns, read from tracked beliefs and from open-loop ones.

N windows, H open-loop steps, n samples of one figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from worldloom.evaluation.measure import Measured
from worldloom.evaluation.rollout import Errors
from worldloom.evaluation.windows import HeldOut
from worldloom.model import WorldModel
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure, on

FEW_ENDS = "no held-out episode shows an end there, or every row does"


@dataclass(frozen=True)
class EndSamples:
    """End probabilities beside what happened; `weight` corrects for how often a row was sampled. Each `[n]`."""

    probability: np.ndarray
    ended: np.ndarray
    episode: np.ndarray
    weight: np.ndarray


def measure_rewards(
    measured: Measured, model: WorldModel, errors: Errors, tracked: list[dict[str, np.ndarray]], mean: float, seed: int
) -> None:
    """Reward R^2 from tracked beliefs (every row after the first) and k steps ahead; `mean` is the baseline's guess."""
    why = _why_no_head(model, "reward", model.spec.has_reward)
    if why:
        measured.put("model", "reward_r2", "tracked", Figure.missing(why))
        return
    rows = [(t["real_reward"][1:], t["reward"][1:], np.full(len(t["reward"]) - 1, i)) for i, t in enumerate(tracked)]
    target, predicted, episode = (np.concatenate(column) for column in zip(*rows, strict=True))
    _put_r2(measured, "model", "tracked", target, predicted, episode, seed)
    _put_r2(measured, "mean", "tracked", target, np.full_like(target, mean), episode, seed)
    for k in errors.horizons:
        exists = errors.steps >= k
        target = errors.heads["real_reward"][exists, k - 1]
        key, episode = f"open_loop@{k}", errors.episode[exists]
        _put_r2(measured, "model", key, target, errors.heads["reward"][exists, k - 1], episode, seed)
        _put_r2(measured, "mean", key, target, np.full_like(target, mean), episode, seed)


def _put_r2(
    measured: Measured,
    predictor: str,
    key: str,
    target: np.ndarray,
    predicted: np.ndarray,
    episode: np.ndarray,
    seed: int,
) -> None:
    constant = len(target) > 0 and float(np.ptp(target)) == 0
    why = f"the reward is {float(target[0]):g} in all these rows" if constant else "no held-out row reaches this"
    measured.put(predictor, "reward_r2", key, figure(on(scores.r2, target, predicted), episode, seed, why))


def measure_ends(
    measured: Measured, model: WorldModel, tracked: list[dict[str, np.ndarray]], ahead: dict[int, EndSamples], seed: int
) -> None:
    """Terminated AUROC and calibration error, tracked and k steps ahead."""
    why = _why_no_head(model, "terminated", model.spec.has_end)
    if why:
        for metric in ("terminated_auroc", "terminated_ece"):
            measured.put("model", metric, "tracked", Figure.missing(why))
        return
    for key, samples in {"tracked": tracked_ends(tracked), **{f"open_loop@{k}": s for k, s in ahead.items()}}.items():
        p, y, v = samples.probability, samples.ended, samples.weight
        exists = bool(y.any() and not y.all())
        episodes = samples.episode if exists else np.empty(0, int)
        auroc = figure(on(scores.auroc, p, y, v), episodes, seed, FEW_ENDS)
        error = figure(on(scores.ece, p, y, v), samples.episode, seed, "no row reaches this far")
        measured.put("model", "terminated_auroc", key, auroc)
        measured.put("model", "terminated_ece", key, error)


def tracked_ends(tracked: list[dict[str, np.ndarray]]) -> EndSamples:
    """Every row of every tracked episode."""
    probability = np.concatenate([t["terminated"] for t in tracked])
    ended = np.concatenate([t["real_terminated"] for t in tracked])
    episode = np.concatenate([np.full(len(t["terminated"]), i) for i, t in enumerate(tracked)])
    return EndSamples(probability, ended, episode, np.ones(len(ended)))


def ends_ahead(
    errors: Errors, held: Sequence[HeldOut], context: int, k: int, last: tuple[np.ndarray, ...]
) -> EndSamples:
    """Rows k steps after a belief: `last` are the last rows of episodes, all other rows come from the windows.

    Last rows, the only ones that can be ends, are all taken; the others are a sample, so each stands for several.
    """
    exists = errors.steps > k
    probability, episode = errors.heads["terminated"][exists, k - 1], errors.episode[exists]
    rows = np.array([max(0, h.length - context - k) for h in held])
    weight = (rows / np.maximum(np.bincount(episode, minlength=len(held)), 1))[episode]
    return EndSamples(
        np.concatenate([probability, last[0]]),
        np.concatenate([np.zeros(len(probability), bool), last[1].astype(bool)]),
        np.concatenate([episode, last[2].astype(int)]),
        np.concatenate([weight, np.ones(len(last[0]))]),
    )


def measure_returns(measured: Measured, model: WorldModel, errors: Errors, seed: int) -> None:
    """Imagined against real sum of rewards over k steps: bias (imagined minus real) and rank correlation."""
    why = _why_no_head(model, "reward", model.spec.has_reward)
    if why:
        for metric in ("return_bias", "return_spearman"):
            measured.put("model", metric, "open_loop", Figure.missing(why))
        return
    for k in errors.horizons:
        imagined, real, exists = returns(errors, k)
        x, y, episode = imagined[exists], real[exists], errors.episode[exists]
        key, none = f"open_loop@{k}", f"no window is known for {k} steps"
        measured.put("model", "return_bias", key, figure(partial(scores.mean, x - y), episode, seed, none))
        constant = len(y) > 0 and float(np.ptp(y)) == 0
        none = f"the return is {float(y[0]):g} in all windows" if constant else none
        rank = figure(on(scores.spearman, x, y), episode, seed, none)
        measured.put("model", "return_spearman", key, rank)


def returns(errors: Errors, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Imagined return, real return and whether the real one is known, each `[N]`.

    The imagined reward of a step counts as much as the model believes to be still alive before it. A real return is
    known when k rows follow or when the episode terminated before.
    """
    reward, real = errors.heads["reward"][:, :k], errors.heads["real_reward"][:, :k]
    alive = np.ones_like(reward)
    known = errors.steps >= k
    if "terminated" in errors.heads:
        survive = 1 - errors.heads["terminated"][:, : k - 1]
        alive[:, 1:] = np.cumprod(survive, 1)
        known = known | errors.heads["real_terminated"][:, :k].any(1)
    return (reward * alive).sum(1), real.sum(1), known


def _why_no_head(model: WorldModel, head: str, in_data: bool) -> str | None:
    if head in model.decodes:
        return None
    if in_data:
        return f"the model has no {head} head"
    return "the data have no rewards" if head == "reward" else "no episode of the data shows a terminal observation"
