"""Metric 12, policy evaluation: would the model have ranked several policies as reality does?

P policies, N episodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldloom.evaluation.policies.dream_to_real import DreamToRealGap, Where, measure_gap, policy_of, world_of
from worldloom.evaluation.policies.score import mean
from worldloom.evaluation.wording import Table
from worldloom.runs.named import Named, parse_all
from worldloom.runs.run import Run
from worldloom.stats import agreement
from worldloom.stats.bootstrap import Figure, figure

FEWEST = 8  # with fewer, a chance order decides
NOT_FINITE = "its dreams lead to numbers that are not finite"
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pearson": agreement.pearson,
    "spearman": agreement.spearman,
    "mmrv": agreement.mmrv,
    "regret": agreement.regret,
}


def measure_policies(names: Sequence[Path], run: Run, played: Where | None, episodes: int, device: str) -> Table:
    """What the card says of the policies called `names`: of one its gap, of several how well the dream ranks them.

    `played` is the environment, its options and the limit of an episode; by default where the first one learned.
    Raises `UserError` for a policy of another model, for one given twice, and for an environment that fits none.
    """
    if len(names) == 1:
        return measure_gap(names[0], run, played, episodes, device)
    named = parse_all(names, run)
    real, dream = play_all(named, run, played, episodes, device)
    return {
        "policy_reality": {str(each): mean(returns.tolist()) for each, returns in zip(named, real, strict=True)},
        "policy_dream": {str(each): dream_score(returns) for each, returns in zip(named, dream, strict=True)},
        "policy_ranking": rank(dream, real),
    }


def check_policies(names: Sequence[Path], run: Run, played: Where | None) -> None:
    """Raise `UserError` for what `measure_policies` would refuse, as far as that is known before anything is played."""
    named = parse_all(names, run)
    if named:
        world_of(named[0], run, played)


def play_all(
    named: Sequence[Named], run: Run, played: Where | None, episodes: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns in reality and in the dream, `[P, N]` each, of the same seeds.

    All dreams are as long as the longest real episode of any policy: one's own would whisper to the dream how long
    that policy lives.
    """
    world = world_of(named[0], run, played)
    agents = [policy_of(each, device) for each in named]
    agents = [replace(agent, model=agents[0].model) for agent in agents]  # the models are equal: one is kept
    world.dry_run(agents[0])
    gaps = [DreamToRealGap(agent, world, episodes) for agent in agents]
    real = [gap.play() for gap in gaps]
    longest = max(each.longest for each in real)
    dreamed = [gap.dream(each.first, longest) for gap, each in zip(gaps, real, strict=True)]
    return np.array([each.returns for each in real]), np.array(dreamed)


def dream_score(returns: np.ndarray) -> Figure:
    return mean(returns.tolist()) if np.isfinite(returns).all() else Figure.missing(NOT_FINITE)


def rank(dream: np.ndarray, real: np.ndarray) -> dict[str, Figure]:
    """How well mean returns in the dream `[P, N]` predict those in reality, with intervals over the N episodes.

    A resample draws episodes for all policies and for dream and reality alike, as these share their first observations.
    """
    return {name: agree(score, dream, real, why_not(name, dream, real)) for name, score in SCORES.items()}


def agree(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], dream: np.ndarray, real: np.ndarray, why: str | None
) -> Figure:
    if why is not None:
        return Figure.missing(why)

    def statistic(weights: np.ndarray) -> np.ndarray:
        shares = weights / weights.sum(1, keepdims=True)
        return score(shares @ dream.T, shares @ real.T)

    return figure(statistic, np.arange(dream.shape[1]))


def why_not(name: str, dream: np.ndarray, real: np.ndarray) -> str | None:
    """Why a figure does not exist, None when it does."""
    if len(real) < FEWEST:
        return f"only {len(real)} policies: fewer than {FEWEST} decide nothing"
    if not np.isfinite(dream).all():
        return "a policy's dreams lead to numbers that are not finite"
    if agreement.is_constant(real.mean(1)):
        return "all policies score the same in reality: there is no order to find"
    correlates = name in ("pearson", "spearman")
    if correlates and agreement.is_constant(dream.mean(1)):
        return "the dream scores all policies the same"
    return None
