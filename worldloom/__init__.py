"""worldloom: world models behind one interface. Names load on first use, so that importing the package is cheap."""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Segment": "worldloom.data.segment",
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
