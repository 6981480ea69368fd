"""Search for actions inside a world model. One file per planner; none of them knows a family.

Adding a planner, or an objective, is its file and one line here, or your own `module:attribute`.
"""

from worldloom.registry import Registry

PLANNERS = Registry(
    "planner",
    {
        "cem": "worldloom.planners.cem:CEM",
        "icem": "worldloom.planners.icem:ICEM",
        "mppi": "worldloom.planners.mppi:MPPI",
        "gradient": "worldloom.planners.gradient:Gradient",
        "categorical": "worldloom.planners.categorical:CategoricalCEM",
        "adversarial": "worldloom.planners.adversarial:Adversarial",
    },
    group="worldloom.planners",
    kind="worldloom.planners.planner:Planner",
)
# What comes from outside: the return is built from a discount, and a goal from a row of a dataset.
OBJECTIVES = Registry(
    "objective",
    {},
    group="worldloom.objectives",
    kind="worldloom.planners.objectives:Objective",
    instances=True,
)
