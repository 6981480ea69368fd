"""The toy family, registered for every test of this folder."""

import pytest
import torch

from tests.toy import register_toy


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    torch.set_num_threads(1)
