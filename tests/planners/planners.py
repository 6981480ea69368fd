"""The planners under test: small enough for a second, large enough to solve a linear world."""

from dataclasses import dataclass

from worldloom.planners.adversarial import Adversarial
from worldloom.planners.categorical import CategoricalCEM
from worldloom.planners.cem import CEM
from worldloom.planners.gradient import Gradient
from worldloom.planners.icem import ICEM
from worldloom.planners.mppi import MPPI
from worldloom.planners.planner import Planner

HORIZON = 4


@dataclass(frozen=True)
class Case:
    """A planner, the kind of action it searches, and the numbers of the action that it chooses for us."""

    planner: Planner
    discrete: bool = False
    ours: tuple[int, ...] = (0, 1)


CEM_ = CEM(HORIZON, samples=128, elites=16, iterations=5)
CASES = {
    "cem": Case(CEM_),
    "icem": Case(ICEM(HORIZON, samples=128, elites=12)),
    "mppi": Case(MPPI(HORIZON, samples=128, elites=16, iterations=5, temperature=5.0)),
    "gradient": Case(Gradient(HORIZON, samples=32, restarts=4, iterations=20)),
    "categorical": Case(CategoricalCEM(HORIZON, samples=128, elites=16), discrete=True),
    "adversarial": Case(Adversarial(CEM_, theirs=("y",), rounds=2), ours=(0,)),
}
