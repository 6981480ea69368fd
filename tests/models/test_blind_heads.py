"""Heads that also learn with eyes closed, in the families that draw what they foresee."""

import pytest
import torch

from tests.models.segments import SPECS, random_segment
from worldloom.models import build


@pytest.mark.parametrize(("family", "unforeseen"), [("rssm", 0), ("vae_rnn", 1)])
def test_blind_heads_learn_from_what_is_foreseen_and_leave_the_rest_as_it_is(family: str, unforeseen: int) -> None:
    def terms(weight: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = build(family, SPECS["image"], "debug", blind_heads=weight)
        torch.manual_seed(1)
        return model.loss(random_segment(SPECS["image"]))

    without, half, whole = (terms(weight) for weight in (0.0, 0.5, 1.0))
    assert set(without) == set(whole)
    for key in without:
        if key in ("reward", "terminated"):
            torch.testing.assert_close(whole[key] - without[key], 2 * (half[key] - without[key]))
            assert (whole[key] > without[key])[:, unforeseen:].all(), key
            torch.testing.assert_close(whole[key][:, :unforeseen], without[key][:, :unforeseen])
        else:
            torch.testing.assert_close(whole[key], without[key])
