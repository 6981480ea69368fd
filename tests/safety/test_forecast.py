"""What is predicted, and how sure: particles of a model that samples, disagreement of one that has members."""

import pytest
import torch

from tests.safety.worlds import RULES, SPEC, Cart, brake, look, step
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.safety.forecast import Fallback, Forecaster

START = torch.tensor([[0.0, 1.0], [0.5, 2.0]])
PUSH = torch.full((2, 1, 1), 0.5)


def test_a_plan_ends_in_the_fallback_in_closed_loop() -> None:
    model = Cart()
    found = Forecaster(model, RULES).predict(model.start(look(START)), PUSH, Fallback(brake), 6)
    place, places = step(START, PUSH[:, 0]), []
    for _ in range(6):
        places.append(place)
        place = step(place, brake({"state": place}))
    torch.testing.assert_close(found.values["state"], torch.stack(places, 1))
    torch.testing.assert_close(found.margin[..., 0], 1 - torch.stack(places, 1)[..., 0])
    assert found.actions.shape == (2, 6, 1)
    assert not found.spread.any()


def test_particles_spread_as_the_model_samples() -> None:
    torch.manual_seed(0)
    model = Cart(noise=0.1)
    found = Forecaster(model, RULES, particles=400).predict(model.start(look(START)), PUSH)
    assert found.spread.shape == (2, 1, 1)
    assert torch.allclose(found.spread, torch.tensor(0.1), atol=0.02)


def test_members_spread_as_they_disagree() -> None:
    torch.manual_seed(0)
    model = build("ensemble", SPEC, "debug", member="mlp", members=3)
    with torch.no_grad():
        state = model.start(look(START))
        found = Forecaster(model, RULES).predict(state, PUSH)
        expected = model.decode(model.imagine(state, PUSH), "disagreement")
    torch.testing.assert_close(found.spread[..., 0], expected)
    assert (found.spread > 0).all()


def test_no_particles_are_refused() -> None:
    with pytest.raises(UserError, match="particles is 0"):
        Forecaster(Cart(), RULES, particles=0)
