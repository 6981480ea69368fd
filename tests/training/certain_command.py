"""The command line with the toy families, whose evaluation needs every process, and latents that are not sampled.

Processes draw their samples independently, so only without samples can their losses be compared with those of one.
Outside training every verb of a family waits for the other processes, as one whose weights are spread over them does.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tests.latent import ENTRY as LATENT
from tests.latent import LatentModel
from tests.toy import ENTRY, ToyModel
from worldloom.cli import main
from worldloom.models import FAMILIES
from worldloom.nets.latent import Categorical
from worldloom.noise import Noise


def mean(latent: Categorical, params: Tensor, noise: Noise, temperature: float = 1.0) -> Tensor:
    return latent.probs(params).flatten(-2)


def together(verb: Callable[..., Any]) -> Callable[..., Any]:
    """`verb` as it is where no process has all the weights."""

    def call(model: Any, *args: Any) -> Any:
        if not model.training and dist.is_initialized():
            dist.all_reduce(torch.zeros(()))
        return verb(model, *args)

    return call


if __name__ == "__main__":
    FAMILIES.entries |= {"toy": ENTRY, "latent": LATENT}
    Categorical.sample = mean  # type: ignore[method-assign, assignment]
    for family in (ToyModel, LatentModel):
        for verb in ("loss", "start", "predict"):
            setattr(family, verb, together(getattr(family, verb)))
    main()
