"""The toy family, registered for every test of this folder."""

from pathlib import Path

import pytest
import torch

from tests.toy import register_toy


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register_toy(monkeypatch)
    monkeypatch.setenv("WORLDLOOM_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
