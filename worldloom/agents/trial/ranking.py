"""Does a dream rank policies as reality does? Then it can choose among them, and none but the best need be tried.

N episodes, P policies, W weightings of episodes (resamples), S and R mean returns in the dream and in reality.
MMRV, the mean maximum rank violation, is of Li et al. (2024), "Evaluating real-world robot policies in simulation".
"""

from collections.abc import Mapping

import numpy as np

from worldloom.agents.trial.gap import Scores
from worldloom.evaluation.bootstrap import Figure, as_figure, bootstrap

FEWEST = 8  # with fewer policies, orders agree too easily by chance
FIGURES = ("pearson", "spearman", "mmrv", "regret")


def rank_policies(found: Mapping[str, Scores], seed: int = 0) -> dict[str, dict[str, Figure]]:
    """What the card says of several policies: their returns, and how far the dream's order is that of reality.

    All have played the same seeds, and the intervals are those of drawing other seeds.
    """
    returns = {name: each.figures() for name, each in found.items()}
    tables = {
        f"policy_{where}": {name: each[where] for name, each in returns.items()} for where in ("reality", "dream")
    }
    return tables | {"policy_ranking": ranking([*found.values()], seed)}


def ranking(found: list[Scores], seed: int = 0) -> dict[str, Figure]:
    """The `FIGURES`, each with its interval."""
    if len(found) < FEWEST:
        why = f"{len(found)} policies are too few to be ranked: it takes {FEWEST}"
        return dict.fromkeys(FIGURES, Figure.missing(why))
    dream, reality = (np.array([getattr(each, where) for each in found], float) for where in ("dream", "reality"))

    def statistic(weights: np.ndarray) -> np.ndarray:
        s, r = (weights @ returns.T / weights.sum(-1, keepdims=True) for returns in (dream, reality))
        return np.stack([correlation(s, r), correlation(ranks(s), ranks(r)), mmrv(s, r), regret(s, r)], -1)

    values, lows, highs = bootstrap(statistic, np.arange(dream.shape[1]), seed=seed)
    why = "every policy is paid the same, in the dream or in reality"
    return {name: as_figure(float(values[i]), float(lows[i]), float(highs[i]), why) for i, name in enumerate(FIGURES)}


def correlation(s: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Pearson's, over the last axis; NaN where one side is constant."""
    s, r = (x - x.mean(-1, keepdims=True) for x in (s, r))
    spread = np.sqrt((s**2).sum(-1) * (r**2).sum(-1))
    return np.divide((s * r).sum(-1), spread, out=np.full_like(spread, np.nan), where=spread > 0)


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks over the last axis; equals share the mean of theirs."""
    below = (x[..., None, :] < x[..., :, None]).sum(-1)
    equal = (x[..., None, :] == x[..., :, None]).sum(-1)
    return below + (equal - 1) / 2


def mmrv(s: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The mean over policies of the largest real difference that the dream has the wrong way round. 0 is best."""
    difference = r[..., :, None] - r[..., None, :]
    wrong = (s[..., :, None] > s[..., None, :]) != (difference > 0)
    return (np.abs(difference) * wrong).max(-1).mean(-1)


def regret(s: np.ndarray, r: np.ndarray) -> np.ndarray:
    """What it costs in reality to take the policy that is best in the dream; of several one by lot."""
    best = s == s.max(-1, keepdims=True)
    return r.max(-1) - (r * best).sum(-1) / best.sum(-1)
