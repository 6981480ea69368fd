"""Split-conformal bounds of a model's forecasts of the rules, learned from held-out episodes.

n episodes, T rows, H horizon, R rules, A action size. The normalised residual of a forecast made at row t for row t + k
is (predicted margin - true margin) / width, where the width grows with the model's own spread. The largest one over
rules and, with scope "episode", over all rows t is the score of an episode at horizon k. Its conformal quantile q[k]
gives the guarantee:

    in a new episode like the held-out ones, with probability at least 1 - alpha, no true margin k steps ahead is ever
    below the bound: predicted margin - q[k] * width.

"Like the held-out ones" means the same environment and the same way to act. `Shield` says what it does in others.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from worldloom.data import durable
from worldloom.data.segment import Segment
from worldloom.errors import UserError, unknown
from worldloom.model import WorldModel
from worldloom.safety.conformal import check_alpha, conformal_quantile, episodes_needed
from worldloom.safety.forecast import Forecast, Forecaster
from worldloom.safety.novelty import Novelty
from worldloom.safety.residuals import Residuals, episode_scores, residuals
from worldloom.safety.rules import Rule, check_rules

FORMAT = 1
Scope = Literal["episode", "decision"]
SCOPES = ("episode", "decision")
Numbers = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` learned. quantile `[H]`; scale and typical `[H, R]`: usual residual and usual spread.

    With scope "episode" the guarantee holds for all decisions of an episode at once; with "decision" for one decision
    at random. `checkpoint` is the sha256 of the model's weights, `rules` the identities of the rules, `episodes` the
    number of scores behind the quantiles.
    """

    alpha: float
    scope: Scope
    particles: int
    episodes: int
    checkpoint: str
    rules: tuple[str, ...]
    quantile: tuple[float, ...]
    scale: Numbers
    typical: Numbers
    novelty: Novelty

    @property
    def horizon(self) -> int:
        return len(self.quantile)

    def width(self, spread: Tensor) -> Tensor:
        """The unit of a residual `[..., H, R]`, from spreads of the same shape: half the usual residual at least."""
        steps = spread.shape[-2]
        return widths(spread, spread.new_tensor(self.scale)[:steps], spread.new_tensor(self.typical)[:steps])

    def lower(self, forecast: Forecast, inflation: Tensor | None = None) -> Tensor:
        """The bounds `[N, H, R]` below which a true margin lies with probability at most alpha.

        `inflation` `[N]`, at least 1, moves them further down. A margin that is not finite has the bound minus
        infinity. A rule that reads the action alone is known exactly, as its residuals are 0.
        """
        slack = self.slack(forecast.spread)
        if inflation is not None:
            slack = torch.where(slack > 0, slack * inflation[:, None, None], slack)
        return (forecast.margin - slack).nan_to_num(-torch.inf, torch.inf, -torch.inf)

    def slack(self, spread: Tensor) -> Tensor:
        """How far below the forecast the bound lies: `[..., H, R]`."""
        return spread.new_tensor(self.quantile)[: spread.shape[-2], None] * self.width(spread)

    def check(self, model: WorldModel, rules: Sequence[Rule]) -> None:
        """Raise `UserError` when this was learned for other weights or other rules."""
        found = weights_hash(model)
        if found != self.checkpoint:
            raise UserError(
                f"the calibration was made for the checkpoint {self.checkpoint[:12]}, but the model is {found[:12]}: "
                "calibrate again with this model"
            )
        if identities(rules) != self.rules:
            raise UserError(f"the calibration was made for other rules ({'; '.join(self.rules)}): calibrate again")

    def save(self, path: Path | str) -> None:
        """Write it whole or not at all, with a hash by which `load` notices that a number was changed."""
        numbers = {field.name: getattr(self, field.name) for field in fields(self)}
        content = {"format": FORMAT, **numbers, "novelty": self.novelty.to_json()}
        durable.write_json(Path(path), {**content, "hash": content_hash(content)})

    @classmethod
    def load(cls, path: Path | str, model: WorldModel, rules: Sequence[Rule]) -> Self:
        """Raises `UserError` for a damaged file and for one that belongs to another checkpoint or to other rules."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise UserError(f"{path} was written by another worldloom: calibrate again")
            if content.pop("hash") != content_hash(content):
                raise UserError(f"{path} was changed after it was written, so it guarantees nothing: calibrate again")
            content.pop("format")
            novelty = Novelty.from_json(content.pop("novelty"))
            found = cls(**{name: frozen(value) for name, value in content.items()}, novelty=novelty)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): save a calibration there first") from error
        except UserError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path} is no calibration ({error!r}): calibrate again") from error
        found.check(model, rules)
        return found


@torch.no_grad()
def calibrate(
    model: WorldModel,
    rules: Sequence[Rule],
    episodes: Sequence[Segment],
    *,
    horizon: int,
    alpha: float = 0.05,
    alpha_ood: float = 0.01,
    particles: int = 1,
    scope: Scope = "episode",
    seed: int = 0,
) -> Calibration:
    """Learn the bounds of `rules` up to `horizon` steps ahead from whole held-out `episodes` `[1, T]`.

    A fifth of them, drawn by `seed`, gives the usual residuals, the rest the quantiles. What a model samples follows
    from `seed` too, and the caller's generators are left unchanged. `alpha_ood` is the probability of refusing an
    episode like these as novel. Raises `UserError` for probabilities outside (0, 1), for too few or too short episodes,
    and for rules on keys that the model cannot decode.
    """
    check_rules(rules, model.spec, model.decodes)
    if scope not in SCOPES:
        raise unknown("scope of a calibration", scope, SCOPES)
    fit = check_episodes(episodes, horizon, alpha, alpha_ood)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(episodes), generator=generator).tolist()
    forecaster = Forecaster(model, tuple(rules), particles)
    found = residuals(forecaster, [episodes[i] for i in order], horizon, seed)
    scale, typical = usual(found[:fit], rules)
    scores = episode_scores(found[fit:], lambda s: widths(s, scale, typical), scope == "episode", generator)
    quantile = conformal_quantile(scores, alpha)
    for step, value in enumerate(quantile.tolist(), 1):
        if not isfinite(value):
            why = "most episodes end before it" if value < 0 else "the model's forecasts are not finite there"
            raise UserError(f"nothing can be guaranteed {step} steps ahead, {why}: choose a horizon below {step}")
    novelty = Novelty.fit(found.novelty_inputs[:fit], found.novelty_inputs[fit:], alpha_ood)
    if not isfinite(novelty.threshold):
        raise UserError(
            f"more than {alpha_ood:.1%} of the held-out episodes hold an observation that is not finite, so no "
            "observation would ever be refused: leave those episodes out"
        )
    return Calibration(
        alpha=alpha,
        scope=scope,
        particles=particles,
        episodes=len(scores),
        checkpoint=weights_hash(model),
        rules=identities(rules),
        quantile=tuple(quantile.tolist()),
        scale=frozen(scale.tolist()),
        typical=frozen(typical.tolist()),
        novelty=novelty,
    )


@torch.no_grad()
def miscovered(
    calibration: Calibration, model: WorldModel, rules: Sequence[Rule], episodes: Sequence[Segment], seed: int = 1
) -> Tensor:
    """Whether a true margin was below its bound in each of other `episodes` at each step ahead: bool `[n, H]`.

    Its mean over episodes is the measured miscoverage, to be compared with `calibration.alpha`. `seed` should differ
    from the calibration's, so that a stochastic model samples anew.
    """
    calibration.check(model, rules)
    forecaster = Forecaster(model, tuple(rules), calibration.particles)
    found = residuals(forecaster, episodes, calibration.horizon, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = episode_scores(found, calibration.width, calibration.scope == "episode", generator)
    return scores > scores.new_tensor(calibration.quantile)


def usual(fitted: Residuals, rules: Sequence[Rule]) -> tuple[Tensor, Tensor]:
    """Median size of the residuals, and mean spread, for each step and rule: `[H, R]` twice.

    A rule that reads nothing but the action is known exactly: its scale is 0. Others have at least their resolution.
    """
    valid = fitted.valid[..., None] & fitted.error.isfinite() & fitted.spread.isfinite()
    size = fitted.error.abs().where(valid, torch.nan).flatten(0, 1).nanmedian(0).values.nan_to_num(0.0)
    typical = fitted.spread.where(valid, torch.nan).flatten(0, 1).nanmean(0).nan_to_num(0.0)
    uncertain = torch.tensor([bool(rule.keys) for rule in rules]).to(size.device)
    resolution = size.new_tensor([rule.resolution for rule in rules])
    return torch.where(uncertain, size.maximum(resolution), 0.0), typical


def widths(spread: Tensor, scale: Tensor, typical: Tensor) -> Tensor:
    """The unit of a residual `[..., H, R]`: half of the usual residual is fixed, half grows with the spread."""
    relative = torch.where(typical > 0, spread / typical.clamp(min=1e-12), 1.0)
    return scale * (1 + relative) / 2


def check_episodes(episodes: Sequence[Segment], horizon: int, alpha: float, alpha_ood: float) -> int:
    """Raise `UserError` when there are too few for the guarantee; else how many of them give the usual residuals."""
    check_alpha("alpha", alpha)
    check_alpha("alpha_ood", alpha_ood)
    if horizon < 1:
        raise UserError(f"the horizon of the calibration is {horizon}, but it must be 1 or more")
    if not episodes:
        raise UserError("the calibration set is empty: give whole episodes that the model was not trained on")
    strictest = min(("alpha", alpha), ("alpha_ood", alpha_ood), key=lambda pair: pair[1])
    need = episodes_needed(strictest[1])
    if len(episodes) <= need:
        raise UserError(
            f"{strictest[0]} = {strictest[1]} needs at least {need + 1} held-out episodes ({need} for the quantile and "
            f"1 for the scale), but there are {len(episodes)}: record more, or raise {strictest[0]}"
        )
    longest = max(episode.shape[1] for episode in episodes) - 1
    if longest < horizon:
        raise UserError(f"the horizon is {horizon} steps, but the longest held-out episode has {longest}")
    return len(episodes) - max(len(episodes) * 4 // 5, need)


def weights_hash(model: WorldModel) -> str:
    """The sha256 of a checkpoint with these weights."""
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(tensors_to_bytes(tensors)).hexdigest()


def content_hash(content: dict[str, Any]) -> str:
    """The sha256 of what a calibration file holds besides it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def identities(rules: Sequence[Rule]) -> tuple[str, ...]:
    return tuple(rule.identity for rule in rules)


def frozen(value: Any) -> Any:
    """Lists, also nested ones, as tuples."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value
