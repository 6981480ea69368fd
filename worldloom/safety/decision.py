"""What a shield sends, and why.

B environments, H horizon, R rules, F next_seed steps, A action size."""

from torch import Tensor

from worldloom.model import State, state


@state
class ShieldDecision(State):
    """What is sent and why. action `[B, A]`; verdict `[B]`, a `Verdict`; lower `[B, H, R]`, the bounds of what is sent.

    plan `[B, F, A]`: the steps that follow the action in the plan it belongs to, and left `[B]`: how many they are
    before the fallback begins.
    """

    action: Tensor
    plan: Tensor
    left: Tensor
    verdict: Tensor
    lower: Tensor

    @property
    def features(self) -> Tensor:
        return self.action
