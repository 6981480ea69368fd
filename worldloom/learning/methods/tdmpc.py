"""TD-MPC2: the world model is all that is trained, and its planner is the agent."""

from worldloom.data.spec import DataSpec
from worldloom.learning.method import Learner, Method
from worldloom.learning.settings import TDMPCSettings


def run(settings: TDMPCSettings) -> None:
    from worldloom.learning.loop import run_learning

    run_learning(settings)


def learner(settings: TDMPCSettings, spec: DataSpec) -> Learner:
    from worldloom.learning.planning import PlanningLearner

    return PlanningLearner(settings, spec)


TDMPC = Method(TDMPCSettings, run, learner)
