import pytest

from tests.models.conformance import FamilyConformance
from tests.models.segments import SPECS
from worldloom.model import WorldModel
from worldloom.models import build


class TestTDMPC(FamilyConformance):
    def make(self, data: str) -> WorldModel:
        if not SPECS[data].has_reward:
            pytest.skip("family tdmpc needs rewards and actions")
        return build("tdmpc", SPECS[data], "debug")
