"""The hyperparameters of `ActorCritic`, apart from it: a command line that shows them need not wait for torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from worldloom.limits import at_least, between, check_limits


@dataclass(frozen=True)
class ActorCriticConfig:
    """How a policy learns in dreams, DreamerV3's values where it has them."""

    units: Annotated[int, at_least(1)] = 128
    """Width of the hidden layers of actor and critic."""
    layers: Annotated[int, at_least(1)] = 2
    """How many hidden layers they have."""
    horizon: Annotated[int, at_least(1)] = 15
    """Length of a dream in steps."""
    starts: Annotated[int, at_least(0)] = 0
    """In how many beliefs of a batch a dream begins; 0 is in all of them."""
    discount: Annotated[float, between(0, 1)] = 0.997
    """The discount of a reward one step later."""
    lam: Annotated[float, between(0, 1)] = 0.95
    """How far the lambda return looks beyond the next step: 0 not at all, 1 to the end of the dream."""
    gradient: Literal["reinforce", "dynamics"] = "reinforce"
    """What the actor learns by: which of its actions turned out better than expected (reinforce), or how returns change
    with its actions, back through the model (dynamics), which suits smooth worlds with continuous actions."""
    entropy: Annotated[float, at_least(0)] = 3e-4
    """Weight of the policy's entropy, in nats."""
    slow_rate: Annotated[float, between(0, 1)] = 0.02
    """How far the critic's slow copy moves towards it in an update."""
    critics: Annotated[int, at_least(1)] = 1
    """How many critics there are, of which the lowest is believed: 2 where the policy finds what one overrates."""
    decay: Annotated[float, between(0, 1)] = 0.99
    """How slowly the range of returns is followed, by which advantages are divided."""
    replay_weight: Annotated[float, at_least(0)] = 0.3
    """Weight of the critic's error on real rows."""

    def __post_init__(self) -> None:
        """Raise `UserError` for a value nothing can be learned with."""
        check_limits(self, "{} of the actor-critic".format)
