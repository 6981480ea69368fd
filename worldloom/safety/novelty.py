"""A novelty score of each observation, and the threshold that episodes like the calibration's stay below.

B rows, T time, D observed numbers, F features, J directions. Two distances are measured through the contract of a world
model alone: of the observation from the model's prediction one step before, and of the belief from the nearest belief
of the calibration episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.model import Obs, State, WorldModel
from worldloom.noise import Noise
from worldloom.safety.conformal import conformal_quantile
from worldloom.safety.rules import as_decoded

BANK = 512
DIRECTIONS = 8
FLOOR = 0.1


@dataclass(frozen=True)
class NoveltyInputs:
    """Prediction errors `error` `[B, T, D]`, belief features `[B, T, F]`, and which rows are not padding `[B, T]`."""

    error: Tensor
    features: Tensor
    mask: Tensor

    def __getitem__(self, index: int | slice) -> "NoveltyInputs":
        return NoveltyInputs(self.error[index], self.features[index], self.mask[index])

    @classmethod
    def cat(cls, parts: Sequence["NoveltyInputs"]) -> "NoveltyInputs":
        names = ("error", "features", "mask")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def of(cls, model: WorldModel, beliefs: State, segment: Segment, noise: Noise) -> "NoveltyInputs":
        """At every row of episodes `[B, T]` whose beliefs are known."""
        prior = model.predict(beliefs[:, :-1].flatten(), segment.action[:, :-1].flatten(0, 1), noise)
        first = prediction_error(model, beliefs[:, 0], {key: value[:, 0] for key, value in segment.obs.items()})
        later = prediction_error(model, prior, {key: value[:, 1:].flatten(0, 1) for key, value in segment.obs.items()})
        rows = (segment.shape[0], segment.shape[1] - 1)
        return cls(torch.cat([first[:, None], later.unflatten(0, rows)], 1), beliefs.features, segment.mask)


def spread(features: Tensor) -> Tensor:
    """The standard deviation of each feature `[F]` over rows, at least a tenth of the usual one.

    A latent class that came once in the calibration hardly varies there; alone it must not decide what is novel.
    """
    std = features.std(0, correction=0)
    return std.clamp(min=float(FLOOR * std.square().mean().sqrt().clamp(min=1e-6)))


def prediction_error(model: WorldModel, expected: State, obs: Obs) -> Tensor:
    """Absolute error of what a belief `[B]` decodes: `[B, D]`, one number an image and one an entry of a vector.

    Of everything observed, whether a rule reads it or not: a recoloured world moves as before, and is another world.
    """
    errors = []
    seen = {key: obs[key] for key in model.decodes if key in obs}
    for key, observed in as_decoded(seen, model.spec).items():
        error = (model.decode(expected, key) - observed).abs()
        errors.append(error.flatten(1).mean(1, keepdim=True) if key in model.spec.image_keys else error)
    return torch.cat(errors, 1) if errors else expected.features.new_zeros(len(expected.features), 1)


@dataclass(frozen=True)
class Novelty:
    """The usual error `[D]`, a bank of known beliefs `[n, J]` along random directions `[F, J]`, and the threshold.

    Scores are in multiples of the usual error or distance. A whole episode like the calibration episodes stays at or
    below `threshold` with probability at least 1 - alpha.
    """

    alpha: float
    threshold: float
    usual: Tensor
    directions: Tensor
    bank: Tensor
    distance: float

    @classmethod
    def fit(cls, fitting: NoveltyInputs, rest: NoveltyInputs, alpha: float) -> Self:
        """The usual error and distance come from the episodes `fitting`, the threshold from the others, `rest`."""
        real = fitting.mask
        usual = fitting.error[real].nan_to_num(0.0).mean(0).clamp(min=1e-6)
        features = fitting.features[real].nan_to_num(0.0)
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(features.shape[-1], DIRECTIONS, generator=generator)
        directions = directions / spread(features).cpu()[:, None] / features.shape[-1] ** 0.5
        projected = features @ directions.to(features)
        bank = projected[torch.linspace(0, len(projected) - 1, min(BANK, len(projected))).long()]
        # The usual distance is that between neighbours in the bank itself.
        nearest = (torch.cdist(bank, bank) + torch.eye(len(bank)).to(bank) * 1e9).amin(1).median()
        distance = float(nearest.clamp(1e-6, 1e6))
        unbounded = cls(alpha, 0.0, usual.cpu(), directions, bank.cpu(), distance)
        scores = unbounded.score(rest.error, rest.features).masked_fill(~rest.mask, -torch.inf).amax(1)
        return replace(unbounded, threshold=float(conformal_quantile(scores, alpha)))

    def score(self, error: Tensor, features: Tensor) -> Tensor:
        """`[..., D]` and `[..., F]` to `[...]`; infinite where an input is not finite."""
        relative_error = (error / self.usual.to(error)).amax(-1)
        projected = (features @ self.directions.to(features)).flatten(0, -2)
        nearest = torch.cdist(projected, self.bank.to(features)).amin(-1).unflatten(0, features.shape[:-1])
        return torch.maximum(relative_error, nearest / self.distance).nan_to_num(torch.inf, torch.inf, torch.inf)

    def to_json(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name).tolist() for name in ("usual", "directions", "bank")}
        return {"alpha": self.alpha, "threshold": self.threshold, "distance": self.distance, **tensors}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        tensors = {name: torch.tensor(data[name]) for name in ("usual", "directions", "bank")}
        return cls(data["alpha"], data["threshold"], **tensors, distance=data["distance"])
