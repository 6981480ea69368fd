"""worldloom: world models behind one interface. Names load on first use, so that importing the package is cheap."""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Segment": "worldloom.data.segment",
    "allow": "worldloom.registry",
    "check_agent": "worldloom.agents.check",
    "check_env": "worldloom.envs.check",
    "check_format": "worldloom.data.check",
    "check_planner": "worldloom.planners.check",
    "State": "worldloom.model",
    "WorldModel": "worldloom.model",
    "check_world_model": "worldloom.conformance",
    "dream": "worldloom.model",
    "load": "worldloom.runs.checkpoint",
    "open_dataset": "worldloom.data.source",
    "state": "worldloom.model",
}
__version__ = "0.1.0"
__all__ = [
    "Segment",
    "State",
    "WorldModel",
    "__version__",
    "allow",
    "check_agent",
    "check_env",
    "check_format",
    "check_planner",
    "check_world_model",
    "dream",
    "load",
    "open_dataset",
    "state",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'worldloom' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
