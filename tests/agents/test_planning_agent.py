from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.agents.fakes import toy_model
from tests.toy import toy_segment
from worldloom.agents.agent import Agent, next_seed
from worldloom.agents.planning import PlanningAgent, PlanningMemory, any_choice, shift
from worldloom.agents.repeat import Repeat, innermost
from worldloom.errors import UserError
from worldloom.model import Obs, State
from worldloom.noise import NOISE
from worldloom.planners.categorical import CategoricalCEM
from worldloom.planners.cem import CEM
from worldloom.planners.clock import Clock
from worldloom.planners.mppi import MPPI
from worldloom.planners.objectives import Constraint, Decoded
from worldloom.planners.planner import Plan, Planner, Problem

SEARCH = {"horizon": 4, "samples": 16, "elites": 4, "iterations": 2}


def observations(rows: int = 3, time: int = 8, discrete: bool = False) -> list[Obs]:
    segment = toy_segment(rows, time, discrete=discrete)
    return [{key: value[:, t] for key, value in segment.obs.items()} for t in range(time)]


def agent(noise: float = 0.0, **changes: object) -> PlanningAgent:
    return PlanningAgent(toy_model(noise=noise), MPPI(**SEARCH, policy_samples=2), **changes)  # type: ignore[arg-type]


def steps(player: Agent, seen: list[Obs], seed: int = 0) -> Iterator[tuple[Tensor, State]]:
    action, memory = player.start(seen[0], seed)
    yield action, memory
    for obs in seen[1:]:
        action, memory = player.act(memory, obs)
        yield action, memory


def planned(memory: State) -> PlanningMemory:
    assert isinstance(memory, PlanningMemory)
    return memory


def test_many_products_are_worth_bf16_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldloom.runs.precision.has_fast_bf16", lambda device: True)
    player = agent()
    enough = -(-int(7e7) // (16 * sum(p.numel() for p in player.model.parameters())))
    assert [player.precision_for(batch) for batch in (1, enough - 1, enough)] == ["fp32", "fp32", "bf16"]
    assert replace(player, precision="bf16").precision_for(1) == "bf16"


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("explore", [False, True])
def test_the_same_memory_and_observation_give_the_same_action(noise: float, explore: bool) -> None:
    player, seen = agent(noise, explore=explore), observations()
    _, memory = player.start(seen[0], 5)
    before = [leaf.clone() for leaf in tree_leaves(memory)]
    first, after = player.act(memory, seen[1])
    torch.rand(7)  # what others draw in between must not matter
    player.act(after, seen[2])
    again, after_again = player.act(memory, seen[1])
    assert torch.equal(first, again)
    assert torch.equal(planned(after).plan.actions, planned(after_again).plan.actions)
    assert all(torch.equal(a, b) for a, b in zip(before, tree_leaves(memory), strict=True))


def test_another_seed_is_another_episode_and_near_seeds_do_not_meet() -> None:
    seen = observations()
    runs = [[planned(memory).plan.spread for _, memory in steps(agent(), seen, seed)] for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    # Were the seed of a step the episode's plus the step, episode 1 would draw what episode 0 draws a step later.
    assert not any(torch.equal(a, b) for a in runs[0] for b in runs[2])


def test_nobody_elses_random_numbers_are_used_or_changed() -> None:
    seen = observations(time=3)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    list(steps(agent(0.5, explore=True), seen))
    assert torch.equal(torch.rand(4), expected)


@dataclass(frozen=True)
class Pointing(Planner):
    """A search without chance: every step of the plan is a function of the belief alone."""

    horizon: int = 4

    def plan(self, problem: Problem) -> Plan:
        batch, size = problem.batch, problem.action.size
        ramp = torch.linspace(1, 0.5, self.horizon)[:, None]
        actions = problem.state.features[:, None, :size] * ramp
        flat = torch.zeros(batch)
        return Plan(
            actions, problem.model.imagine(problem.state, actions), flat, flat, torch.zeros_like(actions),
            flat == 0, flat.long(), flat,
        )  # fmt: skip


def test_rows_of_a_memory_go_on_alone_as_they_would_have_together() -> None:
    player, seen = PlanningAgent(toy_model(), Pointing(), replan_every=2), observations(5)
    chosen = torch.tensor([4, 1])
    _, memory = player.start(seen[0])
    part = memory[chosen]
    for obs in seen[1:]:
        action, memory = player.act(memory, obs)
        alone, part = player.act(part, {key: value[chosen] for key, value in obs.items()})
        torch.testing.assert_close(alone, action[chosen], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_a_plan_is_followed_for_as_long_as_asked(every: int) -> None:
    memories = [planned(memory) for _, memory in steps(agent(replan_every=every), observations())]
    for t, memory in enumerate(memories):
        assert int(memory.age[0]) == t % every
        assert torch.equal(memory.action, memory.plan.actions[:, t % every])
        begun = memories[t - t % every]
        assert torch.equal(memory.plan.actions, begun.plan.actions)


def test_the_belief_is_tracked_while_a_plan_is_followed() -> None:
    model, seen = toy_model(), observations(time=4)
    belief, before = None, None
    for (action, memory), obs in zip(
        steps(PlanningAgent(model, MPPI(**SEARCH, policy_samples=2), replan_every=4), seen), seen, strict=True
    ):
        with torch.no_grad():
            belief = model.start(obs) if belief is None or before is None else model.observe(belief, before, obs)
        torch.testing.assert_close(planned(memory).belief.features, belief.features)
        before = action


@pytest.mark.parametrize("explore", [False, True])
def test_discrete_actions_stay_choices(explore: bool) -> None:
    player = PlanningAgent(
        toy_model(discrete=True), CategoricalCEM(horizon=4, samples=16, elites=4, iterations=2), explore=explore
    )
    for action, _ in steps(player, observations(discrete=True)):
        assert torch.equal(action.sum(-1), torch.ones(3))
        assert set(action.unique().tolist()) <= {0.0, 1.0}


def test_exploring_stays_within_the_planners_bounds_and_differs_from_not_exploring() -> None:
    seen = observations()
    planner = CEM(**SEARCH, min_std=0.5, low=-0.3, high=0.2)
    calm, curious = (
        torch.stack([a for a, _ in steps(PlanningAgent(toy_model(), planner, explore=explore), seen)])
        for explore in (False, True)
    )
    assert curious.min() >= -0.3
    assert curious.max() <= 0.2 + 1e-6
    assert not torch.equal(calm, curious)


def test_any_choice_replaces_as_many_choices_as_asked() -> None:
    torch.manual_seed(0)
    choices = torch.eye(4)[torch.zeros(4000, dtype=torch.long)]
    changed = (any_choice(choices, 0.2, NOISE)[:, 0] == 0).float().mean()
    assert 0.12 < changed < 0.18  # three in four of the replaced ones are other choices
    assert torch.equal(any_choice(choices, 0.0, NOISE), choices)


def test_bf16_searches_and_leaves_beliefs_and_scores_in_fp32() -> None:
    for _, memory in steps(agent(precision="bf16"), observations(time=3)):
        found = planned(memory)
        assert {found.belief.features.dtype, found.action.dtype, found.plan.score.dtype} == {torch.float32}


def test_a_deadline_leaves_iterations_out_but_never_the_first() -> None:
    def slow(deadline: float | None) -> Clock:
        ticks = count()
        return Clock(deadline, lambda: 0.005 * next(ticks))  # every look at it takes five milliseconds

    long = PlanningAgent(
        toy_model(),
        MPPI(horizon=4, samples=16, elites=4, iterations=50, policy_samples=2),
        deadline=300.0,
        make_clock=slow,
    )
    short = replace(long, deadline=1.0)
    obs = observations(time=1)[0]
    taken = [int(planned(player.start(obs)[1]).plan.iterations[0]) for player in (long, short)]
    assert taken[1] == 1
    assert 1 < taken[0] < 50


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"replan_every": 0}, "cannot be followed for 0"),
        ({"replan_every": 5}, "cannot be followed for 5.*or plan further"),
        ({"deadline": 0.0}, "deadline is 0.0 ms"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"model": toy_model(reward=False)}, "can't decode 'reward'.*plan for a goal"),
        ({"constraints": (Constraint(Decoded(lambda seen: seen["speed"], ("speed",))),)}, "can't decode 'speed'"),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_once(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        agent(**changes) if "model" not in changes else PlanningAgent(changes["model"], MPPI())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("discrete", "planner", "words"),
    [(True, MPPI(), "discrete.*use 'categorical'"), (False, CategoricalCEM(), "continuous.*use 'cem'")],
)
def test_a_planner_of_the_other_kind_of_action_says_which_to_use(discrete: bool, planner: Planner, words: str) -> None:
    with pytest.raises(UserError, match=words):
        PlanningAgent(toy_model(discrete=discrete), planner).start(observations(discrete=discrete)[0])


def test_a_shifted_plan_begins_later_and_ends_in_zeros() -> None:
    plans = torch.arange(1.0, 9.0).view(2, 4, 1)
    assert shift(plans, torch.tensor([1, 3]))[..., 0].tolist() == [[2, 3, 4, 0], [8, 0, 0, 0]]


def test_following_seeds_do_not_repeat_and_are_never_negative() -> None:
    seeds = torch.arange(100)
    seen = set(seeds.tolist())
    for _ in range(50):
        seeds = next_seed(seeds)
        assert int(seeds.min()) >= 0
        seen |= set(seeds.tolist())
    assert len(seen) == 51 * 100


def test_a_repeated_action_is_held_and_only_decisions_see_the_world() -> None:
    seen = observations(time=7)
    repeated = list(steps(Repeat(agent(), 3), seen))
    decided = list(steps(agent(), seen[::3]))
    assert [innermost(memory)[1] for _, memory in repeated] == [True, False, False, True, False, False, True]
    for t, (action, memory) in enumerate(repeated):
        assert torch.equal(action, decided[t // 3][0])
        inner, expected = planned(innermost(memory)[0]), planned(decided[t // 3][1])
        assert torch.equal(inner.belief.features, expected.belief.features)
