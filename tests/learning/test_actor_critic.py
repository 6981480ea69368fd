"""Learning in dreams: returns by hand, a world whose best policy is known, and every family unchanged."""

import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.toy import toy_segment, toy_spec
from worldloom.agents.actor import Actor, BoundedNormal, CategoricalAction
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.learning.actor_critic import ActorCritic, lambda_return, make_critic
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.model import State, WorldModel, dream
from worldloom.models import build
from worldloom.nets.heads import ClippedDoubleHead
from worldloom.planners.check import Plane, Position
from worldloom.training.optimizer import make_optimizer

Gradient = Literal["reinforce", "dynamics"]
SMALL = ActorCriticConfig(units=32, layers=1, horizon=8, discount=0.95)


def by_definition(reward: Tensor, discount: Tensor, value: Tensor, lam: float, t: int) -> Tensor:
    """G_t = r + c ((1 - lam) v + lam G), down to the last state, whose return is its value."""
    if t == reward.shape[1] - 1:
        return value[:, t]
    later = by_definition(reward, discount, value, lam, t + 1)
    return reward[:, t + 1] + discount[:, t + 1] * ((1 - lam) * value[:, t + 1] + lam * later)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_lambda_returns_are_what_their_definition_says(lam: float) -> None:
    reward, discount, value = torch.randn(3, 6), torch.rand(3, 6), torch.randn(3, 6)
    expected = torch.stack([by_definition(reward, discount, value, lam, t) for t in range(5)], 1)
    torch.testing.assert_close(lambda_return(reward, discount, value, lam), expected)


def test_padding_changes_no_return_of_what_came_before_it() -> None:
    reward, discount, value = torch.randn(2, 8), torch.rand(2, 8), torch.randn(2, 8)
    real = torch.arange(8).expand(2, 8) < 5
    padded = lambda_return(reward, discount, value, 0.9, real)
    short = lambda_return(reward[:, :5], discount[:, :5], value[:, :5], 0.9)
    torch.testing.assert_close(padded[:, :4], short)
    torch.testing.assert_close(padded[:, 4:], value[:, 4:7])


@pytest.mark.parametrize("kind", ["normal", "choice"])
def test_log_probability_and_entropy_are_those_of_torch(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "normal":
        mine = BoundedNormal(torch.randn(4, 3).tanh(), torch.rand(4, 3) + 0.1)
        theirs = torch.distributions.Independent(torch.distributions.Normal(mine.mean, mine.std), 1)
        given = mine.sample()
    else:
        mine = CategoricalAction(torch.randn(4, 3).softmax(-1))  # type: ignore[assignment]
        theirs = torch.distributions.OneHotCategorical(probs=mine.probs)  # type: ignore[attr-defined, assignment]
        given = mine.sample()
    torch.testing.assert_close(mine.log_prob(given), theirs.log_prob(given))
    torch.testing.assert_close(mine.entropy, theirs.entropy())


class Dying(Plane):
    """The plane, but going right ends the episode, and each step gives a reward of 1."""

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("state", "reward", "terminated")

    def decode(self, state: State, key: str) -> Tensor:
        if key == "terminated":
            return (state.features[..., 0] > 0.2).float()
        return torch.ones_like(state.features[..., 0]) if key == "reward" else super().decode(state, key)


def trained(world: WorldModel, updates: int = 150, config: ActorCriticConfig = SMALL) -> ActorCritic:
    """A policy learned in dreams that begin anywhere on the plane."""
    torch.manual_seed(0)
    policy = ActorCritic(2, world.spec, config)
    optimizer = make_optimizer(policy, 3e-3)
    for _ in range(updates):
        terms = policy.dream_terms(world, Position(torch.rand(128, 2) * 2 - 1))
        (terms["actor"] + terms["critic"]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        policy.after_update()
    return policy.eval()


@torch.no_grad()
def dream_reward(policy: ActorCritic, world: Plane) -> float:
    """The mean reward of the likeliest actions, from starts that are given."""
    starts = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 5)] * 2, indexing="ij"), -1).view(-1, 2)
    states, _ = dream(world, Position(starts), lambda s, _: policy.actor(s.features).mode.clamp(-1, 1), 8)
    return float(world.decode(states[:, 1:], "reward").mean())


@pytest.mark.parametrize(("discrete", "gradient"), [(False, "reinforce"), (True, "reinforce"), (False, "dynamics")])
def test_a_policy_learned_in_dreams_does_what_is_rewarded(
    discrete: bool, gradient: Literal["reinforce", "dynamics"]
) -> None:
    world = Plane(discrete)
    before = ActorCritic(2, world.spec, SMALL).eval()
    after = trained(world, config=replace(SMALL, gradient=gradient))
    # Rewards are negative: at least half of the way to the best.
    assert dream_reward(after, world) > 0.5 * dream_reward(before, world)


def test_what_ends_the_dream_is_avoided_because_of_what_it_costs_later() -> None:
    world = Dying(discrete=True)
    policy = trained(world, 200)
    edge = policy.actor(torch.tensor([[0.1, 0.0]]))
    assert isinstance(edge, CategoricalAction)
    assert edge.probs[0, 1] < 0.05, f"right, into death, has probability {edge.probs[0, 1]:.2f}"


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("family", ["rssm", "tdmpc", "ensemble", "vae_rnn"])
def test_every_family_that_decodes_reward_and_end_is_dreamed_in_unchanged(family: str, discrete: bool) -> None:
    torch.manual_seed(0)
    model, segment = build(family, toy_spec(discrete=discrete), "debug"), toy_segment(discrete=discrete)
    policy = ActorCritic.of(model, SMALL)
    before = copy.deepcopy(model.state_dict())
    terms = policy(model, model.track(segment.obs, segment.action), segment)
    assert set(terms) == set(policy.loss_weights)
    assert terms["replay_critic"].shape == segment.mask.shape
    torch.stack([term.mean() for term in terms.values()]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.actor.parameters())
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


@pytest.mark.parametrize("family", ["rssm", "tdmpc", "mlp", "ensemble", "vae_rnn"])
def test_a_gradient_through_the_model_moves_the_policy_and_not_the_model(family: str) -> None:
    torch.manual_seed(0)
    segment = toy_segment()
    spec = toy_spec()
    if family == "mlp":
        spec = spec.with_obs({"state": spec.obs["state"]})
    model = build(family, spec, "debug")
    policy = ActorCritic.of(model, replace(SMALL, gradient="dynamics"))
    torch.nn.init.normal_(policy.critic.output.weight)  # a new critic expects nothing of anything
    terms = policy.dream_terms(model, policy.starts(model.track(segment.obs, segment.action), segment))
    terms["actor"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.actor.parameters())
    assert all(p.grad is None for p in [*model.parameters(), *policy.critic.parameters()])
    assert any(p.requires_grad for p in model.parameters())


def test_of_two_critics_the_lower_is_believed_and_both_learn() -> None:
    torch.manual_seed(0)
    critic, features = make_critic(3, replace(SMALL, critics=2)), torch.randn(50, 3)
    assert isinstance(critic, ClippedDoubleHead)
    both = torch.stack([head(features).mean for head in critic.heads])
    assert (both[0] - both[1]).abs().min() > 0, "they began apart"
    assert torch.equal(critic(features).mean, both.amin(0))
    critic(features).nll(torch.ones(50)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())
    assert dream_reward(trained(Plane(False), config=replace(SMALL, critics=2)), Plane(False)) > -0.5


def test_choices_are_not_learned_by_a_gradient_they_do_not_have() -> None:
    with pytest.raises(UserError, match="continuous actions"):
        ActorCritic(2, Plane(discrete=True).spec, replace(SMALL, gradient="dynamics"))


def test_dreams_never_begin_in_padding_or_at_an_end() -> None:
    model, segment = build("rssm", toy_spec(), "debug"), toy_segment(length=40)
    assert segment.terminated.any()
    assert not segment.mask.all()
    policy, seen = ActorCritic.of(model, SMALL), []

    def watch(_: WorldModel, start: State) -> dict[str, Tensor]:
        seen.append(len(start.features))
        return {}

    policy.dream_terms = watch  # type: ignore[method-assign]
    policy(model, model.track(segment.obs, segment.action), segment)
    assert seen == [int((segment.mask & ~segment.terminated).sum())]


def test_the_critic_of_real_rows_learns_nothing_from_padding() -> None:
    model, segment = build("rssm", toy_spec(), "debug"), toy_segment(length=40)
    policy = ActorCritic.of(model, SMALL)
    belief = model.track(segment.obs, segment.action).detach()
    loud = replace(segment, signals={**segment.signals, "reward": torch.where(segment.mask, segment.reward, 1e6)})
    quiet, shouted = (policy.replay_terms(belief, each)[segment.mask] for each in (segment, loud))
    torch.testing.assert_close(quiet, shouted)


def test_a_model_without_reward_and_actions_nobody_can_take_are_refused() -> None:
    spec, obs = toy_spec(), {"state": KeySpec("vector", (2,))}
    without_reward = build("rssm", DataSpec(obs, spec.action, 10.0), "debug")
    with pytest.raises(UserError, match="no reward"):
        ActorCritic.of(without_reward, SMALL)
    with pytest.raises(UserError, match="no actions"):
        Actor(4, ActionSpec("continuous", 0), units=8, layers=1)
    with pytest.raises(UserError, match="no action range"):
        Actor(4, ActionSpec("continuous", 2), units=8, layers=1)


@pytest.mark.parametrize(
    ("name", "value"), [("horizon", 0), ("lam", 1.5), ("discount", -0.1), ("entropy", np.inf), ("units", 0)]
)
def test_hyperparameters_nothing_can_be_learned_with_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} of the actor-critic is"):
        ActorCriticConfig(**{name: value})  # type: ignore[arg-type]
