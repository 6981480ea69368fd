"""What every family's test class inherits: the public conformance suite over every kind of data."""

import pytest
import torch

from tests.models.segments import SPECS, random_segment
from worldloom.conformance import check_world_model
from worldloom.model import WorldModel


class FamilyConformance:
    """Subclass it, implement `make`, and the family is held to the contract."""

    overfit_steps = 40

    def make(self, data: str) -> WorldModel:
        raise NotImplementedError

    @pytest.mark.parametrize("data", SPECS)
    def test_keeps_the_contract(self, data: str) -> None:
        torch.manual_seed(0)
        check_world_model(self.make(data), random_segment(SPECS[data]), overfit_steps=self.overfit_steps)

    def test_loss_of_a_row_does_not_depend_on_the_rest_of_the_batch(self) -> None:
        segment = random_segment(SPECS["vector"], batch=2)
        model = self.make("vector").eval()
        model.loss(segment)
        key = model.decodes[0]
        decoded = [model.decode(model.start({k: v[:n, 0] for k, v in segment.obs.items()}), key) for n in (1, 2)]
        assert decoded[0].shape[0] == 1
        assert decoded[1].shape == (2, *decoded[0].shape[1:])
