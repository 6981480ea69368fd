"""A function is an agent as long as it answers every environment."""

import pytest
import torch

from tests.evaluation.worlds import linear_spec
from worldloom.agents.scripted import Scripted
from worldloom.errors import UserError

SPEC = linear_spec(image=False)


def test_a_function_of_the_observation_acts_within_the_range() -> None:
    agent = Scripted(SPEC, lambda obs: -3 * obs["state"])
    action, memory = agent.start({"state": torch.tensor([[0.1, 1.0], [0.0, -1.0]])})
    torch.testing.assert_close(action, torch.tensor([[-0.3, -1.0], [0.0, 1.0]]))
    again, _ = agent.act(memory[:1], {"state": torch.tensor([[0.1, 1.0]])})
    assert torch.equal(again, action[:1])


def test_an_answer_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(UserError, match=r"returned \(2, 1\), but it must return \(2, 2\)"):
        Scripted(SPEC, lambda obs: obs["state"][:, :1]).start({"state": torch.zeros(2, 2)})
