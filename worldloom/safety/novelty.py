"""Has the model seen anything like this? A score of each look, and the threshold that familiar episodes stay below.

B rows, T time, D observed numbers, F features, J directions. Two signs are read through the contract alone: how far the
observation is from what the model predicted one step before, and how far the belief is from the nearest belief of the
calibration episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class NoveltyInputs:
    """How rows looked to the model: surprise `[B, T, D]`, features `[B, T, F]`, and which rows are real `[B, T]`."""

    surprise: Tensor
    features: Tensor
    mask: Tensor

    def __getitem__(self, index: int | slice) -> "NoveltyInputs":
        return NoveltyInputs(self.surprise[index], self.features[index], self.mask[index])

    @classmethod
    def cat(cls, parts: Sequence["NoveltyInputs"]) -> "NoveltyInputs":
        names = ("surprise", "features", "mask")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def of(
        cls, model: WorldModel, keys: Sequence[str], beliefs: State, segment: Segment, noise: Noise
    ) -> "NoveltyInputs":
        """At every row of episodes `[B, T]` whose beliefs are known."""
        prior = model.predict(beliefs[:, :-1].flatten(), segment.action[:, :-1].flatten(0, 1), noise)
        first = prediction_error(model, keys, beliefs[:, 0], {key: value[:, 0] for key, value in segment.obs.items()})
        later = prediction_error(
            model, keys, prior, {key: value[:, 1:].flatten(0, 1) for key, value in segment.obs.items()}
        )
        rows = (segment.shape[0], segment.shape[1] - 1)
        return cls(torch.cat([first[:, None], later.unflatten(0, rows)], 1), beliefs.features, segment.mask)


def prediction_error(model: WorldModel, keys: Sequence[str], expected: State, obs: Obs) -> Tensor:
    """How far `obs` is from what a belief `[B]` decodes: `[B, D]`, one number a picture and one an entry of a vector.

    Of the keys that rules read where those are observed, and of everything observed where none is.
    """
    shown = [key for key in model.decodes if key in obs]
    read = [key for key in shown if key in keys] or shown
    found = []
    for key, seen in as_decoded({key: obs[key] for key in read}, model.spec).items():
        error = (model.decode(expected, key) - seen).abs()
        found.append(error.flatten(1).mean(1, keepdim=True) if key in model.spec.image_keys else error)
    return torch.cat(found, 1) if found else expected.features.new_zeros(len(expected.features), 1)


@dataclass(frozen=True)
class Novelty:
    """The usual surprise `[D]`, a bank of known beliefs `[n, J]` along random directions `[F, J]`, and the threshold.

    Scores are in multiples of what is usual. A whole episode like the calibration episodes stays at or below
    `threshold` with probability at least 1 - alpha.
    """

    alpha: float
    threshold: float
    usual: Tensor
    directions: Tensor
    bank: Tensor
    distance: float

    @classmethod
    def fit(cls, fitting: NoveltyInputs, rest: NoveltyInputs, alpha: float) -> Self:
        """What is usual comes from the episodes `fitting`, the threshold from the others, `rest`."""
        seen = fitting.mask
        usual = fitting.surprise[seen].nan_to_num(0.0).mean(0).clamp(min=1e-6)
        features = fitting.features[seen].nan_to_num(0.0)
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(features.shape[-1], DIRECTIONS, generator=generator)
        directions = directions / features.std(0).cpu().clamp(min=1e-3)[:, None] / features.shape[-1] ** 0.5
        places = features @ directions.to(features)
        bank = places[torch.linspace(0, len(places) - 1, min(BANK, len(places))).long()]
        # The distance between neighbours in the bank itself: a belief has no other like it nearer than that.
        apart = (torch.cdist(bank, bank) + torch.eye(len(bank)).to(bank) * 1e9).amin(1).median()
        distance = float(apart.clamp(1e-6, 1e6))
        made = cls(alpha, 0.0, usual.cpu(), directions, bank.cpu(), distance)
        scores = made.score(rest.surprise, rest.features).masked_fill(~rest.mask, -torch.inf).amax(1)
        return cls(alpha, float(conformal_quantile(scores, alpha)), *(made.usual, directions, made.bank), distance)

    def score(self, surprise: Tensor, features: Tensor) -> Tensor:
        """`[..., D]` and `[..., F]` to `[...]`; infinite where something is not a number."""
        strange = (surprise / self.usual.to(surprise)).amax(-1)
        places = (features @ self.directions.to(features)).flatten(0, -2)
        apart = torch.cdist(places, self.bank.to(features)).amin(-1).unflatten(0, features.shape[:-1]) / self.distance
        return torch.maximum(strange, apart).nan_to_num(torch.inf, torch.inf, torch.inf)

    def to_json(self) -> dict[str, Any]:
        tensors = {name: getattr(self, name).tolist() for name in ("usual", "directions", "bank")}
        return {"alpha": self.alpha, "threshold": self.threshold, "distance": self.distance, **tensors}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        tensors = {name: torch.tensor(data[name]) for name in ("usual", "directions", "bank")}
        return cls(data["alpha"], data["threshold"], **tensors, distance=data["distance"])
