"""What a way of learning is: the flags it takes, what runs it, and how its policy is made again from a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from worldloom.learning.settings import Learning

if TYPE_CHECKING:  # so that `worldloom learn --help` need not wait for torch
    from torch import Tensor, nn

    from worldloom.agents.agent import Agent
    from worldloom.data.replay import Replay
    from worldloom.data.spec import DataSpec
    from worldloom.model import WorldModel
    from worldloom.training.trainer import Trainer


class Learner(Protocol):
    """What learns while it acts (`learning/session.py`): a trainer fed from a replay, and the agents it makes.

    `collector` explores while it collects, `evaluated` does not. `fits`: whether the learner is made anew for the
    scales of what was collected at random.
    """

    fits: bool
    replay: "Replay"
    trainer: "Trainer"

    @property
    def evaluated(self) -> "Agent": ...

    def collector(self, decisions: int) -> "Agent": ...

    def update(self) -> "dict[str, Tensor]": ...


@dataclass(frozen=True)
class Method:
    """One way of learning, as `METHODS` holds it.

    settings: its flags. run: learns as they say, or continues. learner: what `run_learning` steps, for a method that
    collects. policy: what learned beside the model, without its weights, from the settings in `learn.json`, for a
    method that keeps a policy: a `LinearController`, or a module whose `actor` acts.
    """

    settings: type[Learning]
    run: Callable[[Any], None]
    learner: "Callable[[Any, DataSpec], Learner] | None" = None
    policy: "Callable[[WorldModel, Mapping[str, Any]], nn.Module] | None" = None
