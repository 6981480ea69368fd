"""Benchmarks are scripts; tests import them as modules, with no peer in sight."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A benchmark by name."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        for variable in [v for v in os.environ if v.startswith("WORLDLOOM_PEER_")]:
            monkeypatch.delenv(variable)
        return import_module(name)

    return load
