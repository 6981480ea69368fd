"""The decision of a shield: what is sent, and why.

B environments, H horizon, R rules, F following steps, A action size.
"""

from torch import Tensor

from worldloom.model import State, state


@state
class ShieldDecision(State):
    """action `[B, A]`, as sent; verdict `[B]`, a `Verdict`; lower `[B, H, R]`, the bounds of what is sent.

    plan `[B, F, A]`: the steps that follow the action in its plan, and left `[B]`: how many of them come before the
    fallback.
    """

    action: Tensor
    plan: Tensor
    left: Tensor
    verdict: Tensor
    lower: Tensor

    @property
    def features(self) -> Tensor:
        return self.action
