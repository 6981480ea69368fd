"""DreamerV3: an actor and a critic learn in what a world model imagines, while acting or inside a trained model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worldloom.data.spec import DataSpec
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.method import Learner, Method
from worldloom.learning.settings import DreamerSettings

if TYPE_CHECKING:
    from torch import nn

    from worldloom.model import WorldModel


def run(settings: DreamerSettings) -> None:
    if settings.collects:
        from worldloom.learning.loop import run_learning

        return run_learning(settings)
    from worldloom.learning.frozen import learn_inside

    return learn_inside(settings)


def learner(settings: DreamerSettings, spec: DataSpec) -> Learner:
    from worldloom.learning.dreaming import DreamingLearner

    return DreamingLearner(settings, spec)


def policy(model: "WorldModel", settings: Mapping[str, Any]) -> "nn.Module":
    from worldloom.learning.exploration import policy_for

    return policy_for(model, ActorCriticConfig(**settings["policy"]), settings.get("explore"))


DREAMER = Method(DreamerSettings, run, learner, policy)
