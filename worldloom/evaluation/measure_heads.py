"""What metric 11 is computed from: rewards, ends and returns, read from tracked beliefs and from open-loop ones.

N windows, H open-loop steps, n samples of one figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worldloom.evaluation.rollout import Errors
from worldloom.evaluation.windows import HeldOut
from worldloom.model import WorldModel

FEW_ENDS = "no held-out episode shows an end there, or every row does"


@dataclass(frozen=True)
class EndSamples:
    """End probabilities beside what happened; `weight` corrects for how often a row was sampled. Each `[n]`."""

    probability: np.ndarray
    ended: np.ndarray
    episode: np.ndarray
    weight: np.ndarray


def ends_by_key(tracked: list[dict[str, np.ndarray]], ahead: Mapping[int, EndSamples]) -> dict[str, EndSamples]:
    """End probabilities as the card's figures are called: "tracked", and "open_loop@k" for k steps ahead."""
    return {"tracked": tracked_ends(tracked), **{f"open_loop@{k}": samples for k, samples in ahead.items()}}


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


def why_no_head(model: WorldModel, head: str, in_data: bool) -> str | None:
    """Why there is nothing to measure of a head, None where there is."""
    if head in model.decodes:
        return None
    if in_data:
        return f"the model has no {head} head"
    return "the data have no rewards" if head == "reward" else "no episode of the data shows a terminal observation"
