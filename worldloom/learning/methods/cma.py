"""World Models: a linear controller evolved by CMA-ES inside a trained model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worldloom.learning.method import Method
from worldloom.learning.settings import CMASettings

if TYPE_CHECKING:
    from torch import nn

    from worldloom.model import WorldModel


def run(settings: CMASettings) -> None:
    from worldloom.learning.evolving import evolve_inside

    evolve_inside(settings)


def policy(model: "WorldModel", settings: Mapping[str, Any]) -> "nn.Module":
    from worldloom.agents.actor import LinearController
    from worldloom.learning.actor_critic import feature_size

    return LinearController(feature_size(model), model.spec.action)


CMA = Method(CMASettings, run, policy=policy)
