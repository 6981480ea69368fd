"""Search for actions inside a world model. One file per planner; none of them knows a family.

Adding a planner is its file and one line here.
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
)
