"""Split-conformal prediction: a quantile for the scores of new episodes, learned from those of held-out ones.

n episodes. If the new episode's score and the n held-out ones are exchangeable, it exceeds the quantile returned here
with probability at most alpha, for any model and any number of episodes (Vovk et al., 2005; Angelopoulos and Bates,
2023, theorem 1). One score an episode, because the steps of one episode are not exchangeable.
"""

import math

from torch import Tensor

from worldloom.errors import UserError


def check_alpha(name: str, alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UserError(f"{name} is {alpha}, but it is a probability of being wrong: it must lie between 0 and 1")


def episodes_needed(alpha: float) -> int:
    """The smallest number of scores with which a guarantee of `alpha` is possible."""
    # The small slack keeps (n + 1)(1 - alpha) from exceeding n by rounding alone, such as at n = 9, alpha = 0.1.
    return math.ceil((1 - alpha) / alpha - 1e-9)


def conformal_quantile(scores: Tensor, alpha: float) -> Tensor:
    """The ceil((n + 1)(1 - alpha)) smallest of scores `[n, ...]`: `[...]`. Raises `UserError` for too few."""
    check_alpha("alpha", alpha)
    count = scores.shape[0]
    rank = math.ceil((count + 1) * (1 - alpha) - 1e-9)
    if rank > count:
        need = episodes_needed(alpha)
        raise UserError(
            f"alpha = {alpha} needs at least {need} held-out episodes to calibrate on, but there are {count}"
        )
    return scores.sort(0).values[rank - 1]
