"""What docs/results.md shows: for each file of results/, the function that makes its section."""

from collections.abc import Callable, Mapping

from .acting import (
    augment_fractions,
    cartpole_pixels,
    dreamer_dmc,
    dyna_learned,
    dyna_maze,
    explore,
    simulator_ceiling,
    tdmpc_dmc,
)
from .dreams import carracing_world_models, doom_dream, doom_policies
from .page import Result, Section
from .prediction import doom_demo, franka, precision, robot_vectors
from .safety import shield_arm, shield_cost, shield_point, trust
from .speed import (
    belief_memory,
    checkpoint,
    data_loading,
    imagination,
    planning_curve,
    planning_precision,
    planning_speed,
    play,
    rssm_update,
    side_by_side,
    startup,
)

# heading: {name of the file in results/: what makes its section}
CHAPTERS: Mapping[str, Mapping[str, Callable[[Result], Section]]] = {
    "Prediction on held-out episodes": {
        "doom_demo": doom_demo,
        "franka": franka,
        "robot_vectors": robot_vectors,
        "precision": precision,
    },
    "Acting": {
        "tdmpc_dmc": tdmpc_dmc,
        "simulator_ceiling": simulator_ceiling,
        "dreamer_dmc": dreamer_dmc,
        "cartpole_pixels": cartpole_pixels,
        "explore": explore,
        "dyna_maze": dyna_maze,
        "dyna_learned": dyna_learned,
    },
    "Policies learned inside the model alone": {
        "doom_dream": doom_dream,
        "doom_policies": doom_policies,
        "carracing_world_models": carracing_world_models,
        "augment_fractions": augment_fractions,
    },
    "Safety and trust": {
        "shield_point": shield_point,
        "shield_arm": shield_arm,
        "shield_cost": shield_cost,
        "trust": trust,
    },
    "Planning": {
        "planning_speed": planning_speed,
        "planning_curve_cartpole-swingup": planning_curve,
        "planning_curve_reacher-easy": planning_curve,
        "planning_precision": planning_precision,
    },
    "Speed": {
        "rssm_update": rssm_update,
        "imagination": imagination,
        "data_loading": data_loading,
        "play": play,
        "checkpoint": checkpoint,
        "startup": startup,
        "belief_memory": belief_memory,
        "side_by_side": side_by_side,
    },
}
