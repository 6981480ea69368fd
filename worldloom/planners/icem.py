"""The sample-efficient cross-entropy method (iCEM, Pinneri et al., 2020): noise with a colour, and elites that stay.

B beliefs, N candidates, K elites, R kept elites, H horizon, A action size, F frequencies.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from worldloom.limits import at_least, between
from worldloom.noise import Noise
from worldloom.planners.elites import choose, settle
from worldloom.planners.planner import Plan, Planner, Problem, check_pool, check_widths


@dataclass(frozen=True)
class ICEM(Planner):
    """CEM whose candidates move smoothly in time, with fewer of them in every iteration, and some elites kept.

    `colour` is the exponent of the noise's power spectrum, `1 / f ** colour`: 0 is white, 2 is a random walk. Iteration
    i draws `samples / decay ** i` candidates, never fewer than twice the elites. A fraction `keep` of the elites, at
    least the best one, are candidates of the next iteration, and so is the mean, in every iteration. Elites are not
    kept from one decision to the next; the warm start is. `momentum` is the share of the old mean and width that stays.
    """

    horizon: Annotated[int, at_least(1)] = 12
    samples: Annotated[int, at_least(1)] = 256
    elites: Annotated[int, at_least(1)] = 24
    iterations: Annotated[int, at_least(1)] = 4
    colour: Annotated[float, between(0, 10)] = 2.0
    decay: Annotated[float, at_least(1)] = 1.25
    keep: Annotated[float, between(0, 1)] = 0.3
    momentum: Annotated[float, between(0, 1)] = 0.1
    min_std: Annotated[float, at_least(0)] = 0.02
    max_std: Annotated[float, at_least(0)] = 0.8
    low: tuple[float, ...] | float | None = None
    high: tuple[float, ...] | float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool(self, "elites", given=2)
        check_widths(self.min_std, self.max_std)

    def plan(self, problem: Problem) -> Plan:
        bounds = problem.bounds(self.low, self.high)
        with problem.search(self.horizon) as problem:
            mean = bounds.clip(problem.warm_start(self.horizon))
            kept, std = torch.zeros_like(mean)[:, None], torch.full_like(mean, self.max_std)
            for number in problem.rounds(self.iterations):
                with problem.clock.section("sample"):
                    drawn = coloured(problem.noise, (len(mean), self.drawn(number), *mean.shape[1:]), self.colour, mean)
                    around = torch.addcmul(mean[:, None], drawn, std[:, None])
                    actions = bounds.clip(torch.cat([mean[:, None], kept, around], 1))
                elites = choose(problem, actions, self.elites, self.iterations - number)
                with problem.clock.section("refit"):
                    spread, centre = torch.std_mean(elites.actions, 1, correction=0)
                    mean = torch.lerp(centre, mean, self.momentum)
                    std = torch.lerp(spread, std, self.momentum).clamp(self.min_std, self.max_std)
                    kept = elites.actions[:, : max(1, round(self.keep * self.elites))]
            return settle(problem, elites, std, number + 1, bounds.fallback(self.horizon))

    def drawn(self, number: int) -> int:
        """How many candidates iteration `number` draws."""
        return max(1, min(self.samples - 2, max(round(self.samples * self.decay**-number), 2 * self.elites)))


def coloured(noise: Noise, shape: tuple[int, ...], colour: float, like: Tensor) -> Tensor:
    """Numbers `[B, N, H, A]` of variance 1 whose power falls with `1 / f ** colour` along H (Timmer & Koenig, 1995)."""
    *leading, horizon, size = shape
    if colour == 0 or horizon < 2:
        return noise.normal(shape, like)
    scale = torch.fft.rfftfreq(horizon, device=like.device)
    scale[0] = scale[1]  # the constant part gets the power of the lowest frequency
    scale = scale ** (-colour / 2)
    waves = noise.normal((*leading, size, len(scale), 2), like) * scale[:, None]
    # The first coefficient and, of an even horizon, the last are real: all their power is in one number.
    real = torch.zeros(len(scale), dtype=torch.bool, device=like.device)
    real[0], real[-1] = True, horizon % 2 == 0
    waves = torch.where(real[:, None], waves * torch.tensor([2**0.5, 0.0], device=like.device), waves)
    sigma = (torch.where(real, 2.0, 4.0) * scale.square()).sum().sqrt() / horizon
    return (torch.fft.irfft(torch.view_as_complex(waves), n=horizon) / sigma).transpose(-1, -2)
