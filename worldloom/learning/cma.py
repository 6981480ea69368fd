"""Many linear controllers acting in one model at once, and CMA-ES to choose among them (Hansen, 2016).

P candidates, D dreams of each, N = P D rows still dreaming, F features, A action size.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldloom.agents.actor import LinearController
from worldloom.model import State, WorldModel
from worldloom.noise import NOISE, Noise
from worldloom.registry import require

MOST_FOR_COVARIANCE = 1500  # weights; beyond, CMA-ES adapts a diagonal, whose cost does not grow with their square
LEAST_SURVIVAL = 1e-3


def make_strategy(weights: int, population: int, sigma: float, seed: int) -> Any:
    """A CMA-ES from zero whose every draw follows from `seed`, and which leaves numpy's own generator alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot plot
        cma = require("cma", "cma")
    generator = np.random.default_rng(seed)
    options = {
        "popsize": population,
        "seed": np.nan,  # not to be seeded by cma
        "randn": lambda *sizes: generator.standard_normal(sizes),
        "CMA_diagonal": weights > MOST_FOR_COVARIANCE,
        "verbose": -9,
    }
    return cma.CMAEvolutionStrategy(np.zeros(weights), sigma, options)


def dreamt_returns(
    model: WorldModel,
    controller: LinearController,
    candidates: Tensor,
    starts: State,
    horizon: int,
    noise: Noise = NOISE,
) -> np.ndarray:
    """The mean return of each of `candidates` `[P, weights]` over dreams from `starts` `[D]`, all at once: `[P]`.

    Dreams that have surely ended leave the batch.
    """
    count, device = len(candidates), starts.features.device
    belief = starts.repeat(count)
    owner = torch.arange(count, device=device).repeat(len(starts.features))
    survives, total = torch.ones(len(owner), device=device), torch.zeros(count, device=device)
    scores = Scores(controller, candidates.to(device), owner)
    for _ in range(horizon):
        belief = model.predict(belief, scores.actions(belief.features), noise)
        total.index_add_(0, owner, survives * model.decode(belief, "reward"))
        if "terminated" in model.decodes:
            survives = survives * (1 - model.decode(belief, "terminated"))
        going = survives > LEAST_SURVIVAL
        if going.sum() < 0.8 * len(going):  # often enough to save work, seldom enough not to make some
            belief, survives, owner = belief[going], survives[going], owner[going]
            scores = Scores(controller, candidates.to(device), owner)
        if not len(owner):
            break
    return (total / len(starts.features)).cpu().numpy().astype(np.float64)


class Scores:
    """The actions of many linear controllers, each for the rows `owner` `[N]` says are its own."""

    def __init__(self, controller: LinearController, candidates: Tensor, owner: Tensor):
        size, features = controller.output.weight.shape
        self.discrete = controller.discrete
        self.weight = candidates[:, : size * features].unflatten(-1, (size, features))[owner]
        self.bias = candidates[:, size * features :][owner]

    def actions(self, features: Tensor) -> Tensor:
        """`[N, F]` to `[N, A]` in model units."""
        scores = torch.baddbmm(self.bias[..., None], self.weight, features.float()[..., None])[..., 0]
        if self.discrete:
            return nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)
        return scores.tanh()
