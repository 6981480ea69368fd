"""Exploring by disagreement: the reward is high where nothing was seen, it goes there, all families alike."""

import copy

import pytest
import torch
from torch import Tensor

from tests.toy import toy_segment, toy_spec
from worldloom.data.segment import Segment, outcome
from worldloom.errors import UserError
from worldloom.learning.actor_critic import ActorCritic
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.exploration import DISAGREEMENT, Disagreement, Exploration, policy_for
from worldloom.model import State, WorldModel, dream
from worldloom.models import build
from worldloom.noise import Noise
from worldloom.planners.check import STEP, Plane, Position
from worldloom.training.optimizer import make_optimizer

SMALL = ActorCriticConfig(units=32, layers=1, horizon=8, discount=0.95)


class WithoutReward(Plane):
    """The plane, without any reward."""

    def decode(self, state: State, key: str) -> Tensor:
        return torch.zeros_like(state.features[..., 0]) if key == "reward" else super().decode(state, key)


def walked(places: Tensor, actions: Tensor) -> Segment:
    """Episodes `[B, T]` of the plane as they were."""
    signals = outcome(*(torch.zeros(places.shape[:2], dtype=kind) for kind in (torch.float32, torch.bool, torch.bool)))
    return Segment({"state": places}, actions, signals, mask=torch.ones(places.shape[:2], dtype=torch.bool))


def random_walks(world: Plane, starts: Tensor, steps: int) -> Segment:
    """Episodes of random choices from each of `starts` `[B, 2]`."""
    choices = torch.eye(world.spec.action.size)

    def choose(state: State, noise: Noise) -> Tensor:
        return choices[torch.randint(len(choices), (len(state.features),))]

    states, actions = dream(world, Position(starts), choose, steps)
    return walked(states.features, actions)


def learn(policy: Exploration, world: Plane, batches: list[Segment], updates: int, lr: float = 3e-3) -> None:
    optimizer = make_optimizer(policy, lr)
    for update in range(updates):
        segment = batches[update % len(batches)]
        terms = policy(world, Position(segment.obs["state"]), segment)
        torch.stack([term.mean() for term in terms.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        policy.after_update()


def reward_around(disagreement: Disagreement, world: Plane, middle: Tensor) -> float:
    """The mean reward of a random step from near `middle` `[2]`."""
    segment = random_walks(world, middle + 0.5 * torch.randn(256, 2), 2)
    with torch.no_grad():
        reward = disagreement.reward(world, Position(segment.obs["state"]), segment.action)
    assert reward[:, 0].eq(0).all()
    return float(reward[:, 1].mean())


def test_what_was_never_seen_is_rewarded_more_than_what_was() -> None:
    torch.manual_seed(0)
    world = WithoutReward(discrete=True)
    networks, here, there = Disagreement(2, world.spec, SMALL), torch.tensor([-1.5, 0.0]), torch.tensor([1.5, 0.0])
    optimizer = make_optimizer(networks, 3e-3)
    for _ in range(100):
        segment = random_walks(world, here + 0.5 * torch.randn(32, 2), 8)
        networks.loss(Position(segment.obs["state"]), segment).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seen, unseen = (reward_around(networks, world, middle) for middle in (here, there))
    assert seen == pytest.approx(1, abs=0.7)  # its unit is what is seen
    assert unseen > 3 * seen


def cells(segments: list[Segment]) -> int:
    """How many squares of the size of a step were entered."""
    places = torch.cat([segment.obs["state"].flatten(0, 1) for segment in segments])
    return len((places / STEP).round().unique(dim=0))


def explore(world: Plane, episodes: int, by: str) -> int:
    """Learn from episodes that begin in the middle and are walked at random or by one of the policies."""
    torch.manual_seed(0)
    policy, middle = Exploration(ActorCritic(2, world.spec, SMALL), world.spec), torch.zeros(4, 2)
    seen = [random_walks(world, middle, 16)]
    while len(seen) < episodes:
        learn(policy, world, seen[::-1], 10)
        if by == "chance":
            seen.append(random_walks(world, middle, 16))
            continue
        actor = policy.explorer.actor if by == "explorer" else policy.actor
        states, actions = dream(world, Position(middle), lambda s, noise, a=actor: a(s.features).sample(noise), 16)
        seen.append(walked(states.features, actions))
    return cells(seen)


def test_the_explorer_sees_more_of_a_world_that_pays_nothing_than_chance_or_the_task_in_as_many_steps() -> None:
    found = {by: explore(WithoutReward(discrete=True), 12, by) for by in ("chance", "task", "explorer")}
    assert found["explorer"] > 1.3 * max(found["chance"], found["task"]), found


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("family", ["rssm", "tdmpc", "ensemble"])
def test_every_family_is_explored_unchanged_and_the_task_learns_as_it_would_alone(family: str, discrete: bool) -> None:
    torch.manual_seed(0)
    model, segment = build(family, toy_spec(discrete=discrete), "debug"), toy_segment(discrete=discrete)
    policy = policy_for(model, SMALL, DISAGREEMENT)
    assert isinstance(policy, Exploration)
    before, belief = copy.deepcopy(model.state_dict()), model.track(segment.obs, segment.action)
    alone, together = (seeded(each, model, belief, segment) for each in (policy.task, policy))
    assert set(together) == set(policy.loss_weights)
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    own = [together[name].mean() for name in together if name not in alone]
    torch.stack(own).sum().backward()
    explorer = [*policy.explorer.actor.parameters(), *policy.disagreement.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in explorer)
    assert all(p.grad is None for p in (*policy.task.parameters(), *model.parameters()))
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def seeded(policy: ActorCritic | Exploration, model: WorldModel, belief: State, segment: Segment) -> dict[str, Tensor]:
    torch.manual_seed(0)
    terms: dict[str, Tensor] = policy(model, belief, segment)
    return terms


def test_padding_teaches_the_networks_nothing() -> None:
    model, segment = build("rssm", toy_spec(), "debug"), toy_segment(length=40)
    assert not segment.mask.all()
    belief = model.track(segment.obs, segment.action).detach()
    networks = Disagreement(belief.features.shape[-1], toy_spec(), SMALL)
    networks.loss(belief, segment)
    quiet = networks.scale.clone()
    loud = copy.copy(segment)
    object.__setattr__(loud, "action", torch.where(segment.mask[..., None], segment.action, 1e3))
    networks.loss(belief, loud)
    torch.testing.assert_close(networks.scale, quiet)


def test_a_way_to_explore_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match="unknown way to explore 'curiosity'"):
        policy_for(build("rssm", toy_spec(), "debug"), SMALL, "curiosity")
