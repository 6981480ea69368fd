"""The hyperparameters of `ActorCritic`, apart from it: a command line that shows them need not wait for torch."""

from dataclasses import dataclass
from typing import Literal

from worldloom.errors import UserError


@dataclass(frozen=True)
class ActorCriticConfig:
    """How a policy learns in dreams, DreamerV3's values where it has them."""

    units: int = 128
    """Width of the hidden layers of actor and critic."""
    layers: int = 2
    """How many hidden layers they have."""
    horizon: int = 15
    """Length of a dream in steps."""
    starts: int = 0
    """In how many beliefs of a batch a dream begins; 0 is in all of them."""
    discount: float = 0.997
    """By how much what is paid a step later counts less."""
    lam: float = 0.95
    """How far the lambda return looks beyond the next step: 0 not at all, 1 to the end of the dream."""
    gradient: Literal["reinforce", "dynamics"] = "reinforce"
    """What the actor learns by: which of its actions turned out better than expected (reinforce), or how returns change
    with its actions, back through the model (dynamics), which suits smooth worlds with continuous actions."""
    entropy: float = 3e-4
    """Weight of the policy's entropy, in nats."""
    slow_rate: float = 0.02
    """How far the critic's slow copy moves towards it in an update."""
    critics: int = 1
    """How many critics there are, of which the lowest is believed: 2 where the policy finds what one overrates."""
    decay: float = 0.99
    """How slowly the range of returns is followed, by which advantages are divided."""
    replay_weight: float = 0.3
    """Weight of the critic's error on real rows."""

    def __post_init__(self) -> None:
        """Raise `UserError` for a value nothing can be learned with."""
        for name, least in (("units", 1), ("layers", 1), ("horizon", 1), ("starts", 0), ("critics", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} of the actor-critic is {getattr(self, name)}, but must be at least {least}")
        for name in ("discount", "lam", "decay", "slow_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} of the actor-critic is {getattr(self, name)}, but must be from 0 to 1")
        for name in ("entropy", "replay_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} of the actor-critic is {getattr(self, name)}, but must not be negative")
