from typing import Any

import pytest
import torch

from tests.models.conformance import FamilyConformance
from tests.models.segments import SPECS, random_segment
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.models import build
from worldloom.models.tdmpc import TDMPC, Windows
from worldloom.noise import NOISE


class TestTDMPC(FamilyConformance):
    def make(self, data: str) -> WorldModel:
        if not SPECS[data].has_reward:
            pytest.skip("family tdmpc needs rewards and actions")
        return build("tdmpc", SPECS[data], "debug")


def model(data: str = "vector", **overrides: Any) -> TDMPC:
    torch.manual_seed(0)
    return build("tdmpc", SPECS[data], "debug", **overrides)  # type: ignore[return-value]


def test_the_prior_learns_from_its_own_term_alone_and_that_term_trains_nothing_else() -> None:
    made = model()
    made.loss(random_segment(SPECS["vector"]))["policy"].sum().backward()
    trained = {name.split(".")[0] for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"prior"}


def test_the_slow_values_move_by_their_rate_and_only_after_an_update() -> None:
    made = model(slow_rate=0.25)
    with torch.no_grad():
        made.value.output.add_(1.0)
    made.loss(random_segment(SPECS["vector"]))
    assert not made.slow_value.output.any()
    made.after_update()
    torch.testing.assert_close(made.slow_value.output, torch.full_like(made.value.output, 0.25))


def test_nothing_is_expected_after_an_end() -> None:
    made = model("image", frames=1)
    with torch.no_grad():
        made.slow_value.output_bias[..., -20:] += 5.0
    windows = Windows.cut(random_segment(SPECS["image"], time=4), 3)
    targets = made._value_targets(made._latents(made.encoder(windows.obs_after)), windows, NOISE)
    assert torch.equal(targets[:, -1], windows.steps.reward[:, -1])  # the last row of these segments is an end
    assert (targets[:, 0] - windows.steps.reward[:, 0]).abs().min() > 1


def test_what_lies_past_the_end_of_an_episode_costs_nothing() -> None:
    segment = random_segment(SPECS["vector"], time=7)
    segment.mask[:, 4:] = False
    terms = model().loss(segment)
    assert all((term[:, 4:] == 0).all() and (term[:, 0] == 0).all() for term in terms.values())
    assert (terms["reward"][:, 1:4] > 0).all()


def test_a_long_segment_is_cut_into_windows_that_share_their_border() -> None:
    segment = random_segment(SPECS["vector"], batch=2, time=8)
    windows = Windows.cut(segment, 3)
    assert windows.steps.action.shape == (4, 3, 3)  # rows 0 to 3 and 3 to 6 of each; the last step is left over
    torch.testing.assert_close(windows.obs_first["state"][1, 0], segment.obs["state"][0, 3])
    torch.testing.assert_close(windows.steps.reward[1], segment.reward[0, 4:7])


def test_the_reward_that_arrives_depends_on_the_action_that_led_there() -> None:
    made = model()
    with torch.no_grad():
        made.reward[-1].weight.normal_()
    belief = made.start({"state": torch.randn(1, 5)})
    left, right = (made.decode(made.predict(belief, torch.full((1, 3), a)), "reward") for a in (-1.0, 1.0))
    assert left != right


@pytest.mark.parametrize("data", ["vector", "image"])
def test_the_prior_acts_within_the_action_space(data: str) -> None:
    made = model(data)
    action = made.decode(made.start({k: v[:, 0] for k, v in random_segment(SPECS[data]).obs.items()}), "action")
    if SPECS[data].action.kind == "discrete":
        assert action.sum(-1).eq(1).all()
    assert action.abs().max() <= 1


@pytest.mark.parametrize(
    ("data", "overrides", "words"),
    [
        ("cameras and task", {}, "the data have no reward"),
        ("vector", {"latent": 30}, "latent=30 does not divide"),
        ("vector", {"bins": 100}, "bins of family 'tdmpc' is 100, but must be odd"),
        ("vector", {"discount": 1.0}, "discount of family 'tdmpc' is 1.0, but must be below 1"),
        ("vector", {"horizon": 0}, "horizon of family 'tdmpc' is 0, but must be at least 1"),
    ],
)
def test_what_cannot_be_a_model_is_refused(data: str, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        model(data, **overrides)


def test_a_segment_shorter_than_the_unrolled_window_says_how_long_it_must_be() -> None:
    with pytest.raises(UserError, match="--length 4"):
        model().loss(random_segment(SPECS["vector"], time=3))


def test_pictures_alone_are_encoded_three_at_a_time_so_that_speed_shows() -> None:
    made = model("image")
    assert made.config.frames == 3
    obs = random_segment(SPECS["image"]).obs["image"]
    belief = made.start({"image": obs[:, 0]})
    action = torch.zeros(len(obs), 4)
    one, other = (
        made.observe(made.observe(belief, action, {"image": obs[:, t]}), action, {"image": obs[:, 3]}) for t in (1, 2)
    )
    assert not torch.allclose(one.latent, other.latent)


def test_a_window_of_frames_trains_on_the_rewards_after_its_frames() -> None:
    segment = random_segment(SPECS["vector"], batch=2, time=8)
    windows = Windows.cut(segment, horizon=3, frames=3)
    assert windows.obs_first["state"].shape == (2, 3, 5)
    assert windows.obs_after["state"].shape == (2, 5, 5)
    torch.testing.assert_close(windows.steps.reward[0], segment.reward[0, 3:6])
    torch.testing.assert_close(windows.steps.action[0], segment.action[0, 2:5])
    assert model(frames=3).loss(segment)["reward"][:, :3].eq(0).all()
