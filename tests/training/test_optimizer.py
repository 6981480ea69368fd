"""The schedule and the clipping."""

import pytest
import torch
from torch import nn

from worldloom.training.optimizer import clip_gradients, learning_rate, make_optimizer


def rate(step: int, progress: float, final: float = 0.1) -> float:
    return learning_rate(step, progress, lr=1.0, warmup=10, final=final)


def test_the_rate_rises_in_a_straight_line_and_never_starts_at_zero() -> None:
    assert [rate(step, 0.0) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])


def test_the_rate_stays_until_the_last_third_and_ends_at_its_final_share() -> None:
    assert [rate(99, progress) for progress in (0.0, 2 / 3, 1.0)] == pytest.approx([1.0, 1.0, 0.1])
    falling = [rate(99, 2 / 3 + i / 30) for i in range(10)]
    assert falling == sorted(falling, reverse=True)


def test_a_final_share_of_one_keeps_the_rate() -> None:
    assert rate(99, 1.0, final=1.0) == 1.0


def test_a_gradient_is_held_below_its_share_of_the_parameter_and_keeps_its_direction() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.tensor([60.0, 80.0])
    norm = clip_gradients([weight], clip=0.2)
    assert norm.item() == pytest.approx(100)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_small_gradients_and_no_clipping_change_nothing(clip: float) -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.tensor([0.3, 0.4])
    clip_gradients([weight], clip)
    torch.testing.assert_close(weight.grad, torch.tensor([0.3, 0.4]))


def test_a_parameter_that_is_zero_can_still_move() -> None:
    weight = nn.Parameter(torch.zeros(4))
    weight.grad = torch.ones(4)
    clip_gradients([weight], clip=0.3)
    assert weight.grad.abs().min() > 0


def test_one_spoiled_gradient_shows_in_the_norm() -> None:
    weights = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    for weight in weights:
        weight.grad = torch.ones(2)
    weights[1].grad = torch.tensor([1.0, float("nan")])
    assert not torch.isfinite(clip_gradients(weights, clip=0.3))


def test_vectors_are_never_decayed() -> None:
    optimizer = make_optimizer(nn.Linear(3, 3), lr=1.0, weight_decay=0.5)
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {2: 0.5, 1: 0.0}
