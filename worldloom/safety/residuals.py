"""The errors of a model's forecasts on held-out episodes.

B episodes, T rows, H horizon, R rules. All forecasts start from the belief after the episode's own rows and follow the
recorded actions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.noise import Noise, TorchNoise
from worldloom.safety.forecast import Forecaster
from worldloom.safety.novelty import NoveltyInputs
from worldloom.safety.rules import as_decoded, margins, own_units, shortfalls

BATCH = 32


@dataclass(frozen=True)
class Residuals:
    """Of B episodes, at each row and step ahead: error (shortfall of the true margin) and spread `[B, T - 1, H, R]`.

    margin `[B, T - 1, H, R]` is the true one. valid `[B, T - 1, H]` is false where the episode ends before that step.
    novelty_inputs: what the novelty score of each row is computed from.
    """

    error: Tensor
    spread: Tensor
    margin: Tensor
    valid: Tensor
    novelty_inputs: NoveltyInputs

    def __getitem__(self, index: int | slice) -> "Residuals":
        rest = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "novelty_inputs"}
        return Residuals(**rest, novelty_inputs=self.novelty_inputs[index])


@torch.no_grad()
def residuals(forecaster: Forecaster, episodes: Sequence[Segment], horizon: int, seed: int = 0) -> Residuals:
    """Of all `episodes` `[1, T]`, padded to the longest of them; what the model samples follows from `seed`."""
    longest = max(episode.shape[1] for episode in episodes)
    padded = [pad(episode, longest) for episode in episodes]
    noise = TorchNoise.seeded(seed, episodes[0].action.device)
    parts = [_residuals(forecaster, join(padded[i : i + BATCH]), horizon, noise) for i in range(0, len(padded), BATCH)]
    rest = {
        f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Residuals) if f.name != "novelty_inputs"
    }
    return Residuals(**rest, novelty_inputs=NoveltyInputs.cat([part.novelty_inputs for part in parts]))


def _residuals(forecaster: Forecaster, segment: Segment, horizon: int, noise: Noise) -> Residuals:
    model, steps = forecaster.model, segment.shape[1] - 1
    beliefs = model.track(segment.obs, segment.action, noise)
    known = true_values(segment, forecaster.keys, model.spec)
    true = margins(forecaster.rules, known, own_units(segment.action[:, :-1], model.spec.action))
    index = torch.arange(steps)[:, None] + torch.arange(horizon)
    inside = index.clamp(max=steps - 1)
    valid = segment.mask[:, 1:][:, inside] & (index < steps)
    actions = segment.action[:, inside].flatten(0, 1)
    predicted = forecaster.predict(beliefs[:, :-1].flatten(), actions, noise=noise)
    shape = (segment.shape[0], steps)
    error = shortfalls(forecaster.rules, predicted.margin.unflatten(0, shape), true[:, inside])
    novelty_inputs = NoveltyInputs.of(model, beliefs, segment, noise)
    return Residuals(error, predicted.spread.unflatten(0, shape), true[:, inside], valid, novelty_inputs)


def episode_scores(
    found: Residuals, width: Callable[[Tensor], Tensor], every: bool, generator: torch.Generator
) -> Tensor:
    """The largest normalised residual of each episode `[B, H]`, over rules and rows, or at one random row.

    Rules of width 0 are known exactly and do not count; minus infinity where an episode is shorter than the step. A
    residual that is not finite counts as infinite, as the model has failed.
    """
    unit = width(found.spread)
    scores = torch.where(unit > 0, found.error / unit, -torch.inf)
    scores = torch.where(scores.isnan(), torch.inf, scores).amax(-1).masked_fill(~found.valid, -torch.inf)
    if every:
        return scores.amax(1)
    # Rows with a whole horizon ahead of them where there are any, or else the first.
    draws = torch.rand(scores.shape[:2], generator=generator) * found.valid[..., -1]
    return scores[torch.arange(len(scores)), draws.argmax(1)]


def true_values(segment: Segment, keys: Sequence[str], spec: DataSpec) -> Mapping[str, Tensor]:
    """The recorded values of `keys` at the rows 1 to T - 1, in the units in which a model decodes them.

    Raises `UserError` for a key that the data do not hold.
    """
    known = {key: value.float() if value.dtype == torch.bool else value for key, value in segment.targets.items()}
    for key in keys:
        if key not in known:
            raise UserError(
                f"the episodes hold no {key!r}, only {', '.join(known)}: a rule on it cannot be compared with recorded "
                "values. Record the key, or change the rule"
            )
    observed = as_decoded({key: segment.obs[key] for key in keys if key in segment.obs}, spec)
    return {key: observed.get(key, known[key])[:, 1:] for key in keys}


def pad(episode: Segment, length: int) -> Segment:
    """The last row again, masked, up to `length` rows."""
    rows = episode.shape[1]
    cut = episode[:, torch.arange(length).clamp(max=rows - 1)]
    outside = torch.arange(length)[None] >= rows
    signals = {name: cut.signals[name].masked_fill(outside, 0) for name in ("reward", "terminated", "truncated")}
    action = cut.action.masked_fill(outside[..., None], 0)
    return Segment(cut.obs, action, {**cut.signals, **signals}, cut.mask & ~outside)


def join(episodes: Sequence[Segment]) -> Segment:
    """B episodes `[1, T]` of one length: `[B, T]`."""
    return Segment.cat(episodes)
