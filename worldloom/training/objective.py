"""From a family's named loss terms to one number: masked, weighted and summed, the same on one process and on many.

B batch, T time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.errors import UserError
from worldloom.model import WorldModel


@dataclass(frozen=True)
class WeightedLoss:
    """`total` is what is differentiated; `terms` are the unweighted means it is made of, detached."""

    total: Tensor
    terms: dict[str, Tensor]


def weigh(
    terms: dict[str, Tensor], mask: Tensor, weights: dict[str, float], rows: Tensor | None = None
) -> WeightedLoss:
    """The weighed sum of the masked means of `terms`, each `[B, T]` or a scalar; `mask` is bool `[B, T]`.

    `rows` is the number of unmasked rows to divide by, by default those of `mask`; a process of a group passes the
    group's rows per process, so that the mean over processes is the masked mean of the global batch.
    """
    rows = mask.sum() if rows is None else rows
    means = {name: _mean(name, term.float(), mask, rows) for name, term in terms.items()}
    total = torch.stack([weights[name] * mean for name, mean in means.items()]).sum()
    return WeightedLoss(total, {name: mean.detach() for name, mean in means.items()})


def weigh_windows(terms: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """The masked mean of each `[B, T]` term per window, `[B]`; scalar terms belong to no window and are left out."""
    rows = mask.sum(1).clamp(min=1)
    kept = {name: term.float() for name, term in terms.items() if term.ndim == 2}
    return {name: torch.where(mask, term, 0.0).sum(1) / rows for name, term in kept.items()}


def check_terms(
    model: WorldModel, terms: dict[str, Tensor], weights: dict[str, float] | None = None, objective: str = "loss"
) -> None:
    """Raise `UserError` unless every term has a weight and every weight its term, save for signals the data lacks.

    `weights` are by default the model's own. An objective other than "loss" may return only some of the terms.
    """
    family, weights = type(model).family, model.loss_weights if weights is None else weights
    exists = {"reward": model.spec.has_reward, "terminated": model.spec.has_end}
    absent = {name for name, there in exists.items() if not there}
    for name in terms.keys() - weights.keys():
        raise UserError(f"family {family!r} returned the loss term {name!r}: give it a weight in loss_weights")
    for name in weights.keys() - terms.keys() - absent if objective == "loss" else ():
        raise UserError(f"family {family!r} weighs the loss term {name!r}, but loss() did not return it")


def _mean(name: str, term: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    if term.ndim == 0:
        return term
    if term.shape != mask.shape:
        raise UserError(f"loss term {name!r} has shape {tuple(term.shape)}, want a scalar or {tuple(mask.shape)}")
    return torch.where(mask, term, 0.0).sum() / rows
