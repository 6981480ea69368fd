"""The suite that holds families to the contract finds those that break it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.toy import ToyConfig, ToyModel, ToyState, register_toy, toy_segment, toy_spec
from worldloom.conformance import check_world_model
from worldloom.model import State, state
from worldloom.noise import NOISE, Noise


class Patched(ToyModel):
    """Draws from torch's generator, whatever noise it is given."""

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> ToyState:
        hidden = super().predict(state, action, noise).hidden
        return ToyState(hidden + 0.1 * torch.randn_like(hidden))


class Tied(ToyModel):
    """Every row draws what the row before it did, and the first one what the last did."""

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> ToyState:
        hidden = super().predict(state, action, noise).hidden
        return ToyState(hidden + 0.1 * noise.normal(hidden.shape, hidden).roll(1, 0))


class Remembering(ToyModel):
    """Changes the belief it is given."""

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> ToyState:
        state.features.mul_(0.9)
        return super().predict(state, action, noise)


class Jointly(ToyModel):
    """Imagines the frames together: not what `predict` says one by one."""

    def imagine(self, state: State, actions: Tensor, noise: Noise = NOISE) -> ToyState:
        scanned = super().imagine(state, actions, noise).features
        return ToyState(scanned.mean(1, keepdim=True).expand_as(scanned))


@state
class Backwards(ToyState):
    """Repeats particles in turns, not side by side."""

    def repeat(self, n: int) -> "Backwards":
        return Backwards(self.hidden.repeat(n, 1))


class Careless(ToyModel):
    def start(self, obs: Any, noise: Noise = NOISE) -> Backwards:
        return Backwards(super().start(obs, noise).hidden)


def check(kind: type[ToyModel]) -> None:
    torch.manual_seed(0)
    check_world_model(kind(toy_spec(), ToyConfig(hidden=16)), toy_segment(batch=3, length=5), overfit_steps=0)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Patched, "predict draws from torch's generator|observe draws from torch's generator"),
        (Tied, "draws something else for a row that is alone|another belief"),
        (Remembering, "a verb changed the belief"),
        (Jointly, "imagine, against the scan of predict"),
        (Careless, r"repeat\(2\) gives another belief"),
    ],
)
def test_a_family_that_breaks_a_promise_is_told_which(kind: type[ToyModel], fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check(kind)


def test_a_family_may_imagine_frames_jointly_if_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jointly, "imagines_jointly", True)
    check(Jointly)


def test_the_fake_that_other_tests_lean_on_keeps_the_contract() -> None:
    check(ToyModel)
