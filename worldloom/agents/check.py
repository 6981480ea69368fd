"""The public conformance suite of agents: run it on your own before it acts in the world.

B environments, T decisions, A action size, C H W image channels, height, width, D vector size, N categories.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.model import Obs, State

BATCH, STEPS = 3, 4
Decisions = list[tuple[Tensor, State]]


def check_agent(agent: Agent, obs_at: Callable[[int], Obs] | None = None) -> None:
    """Check each requirement of `Agent` and fail with the first that is not met; takes a few decisions.

    `obs_at(t)` is what 3 environments show at step t, `{key: [3, ...]}`; by default noise in the data's own units. The
    requirements: actions `[B, A]` that are finite and within bounds, or one-hot; a memory that is a value, which no
    call changes and which can be reused; the same actions from the same seed, with torch's generators unchanged; and
    rows that are independent.
    """
    obs_at = obs_at or (lambda t: random_obs(agent.spec, BATCH, t, agent.device))
    decisions = play(agent, obs_at)
    check_actions(agent.spec, decisions)
    check_seed(agent, obs_at, decisions)
    check_memory(agent, obs_at, decisions)
    check_rows(agent, obs_at, decisions)


def check_actions(spec: DataSpec, decisions: Decisions) -> None:
    """Every action is `[B, A]`, float and finite; continuous ones lie in [-1, 1], discrete ones are one-hot."""
    for t, (action, memory) in enumerate(decisions):
        assert isinstance(memory, State), f"step {t}: the memory is a {type(memory).__name__}, not a State"
        assert action.shape == (BATCH, spec.action.size), f"step {t}: actions are {tuple(action.shape)}"
        assert action.is_floating_point(), f"step {t}: actions are {action.dtype}, not float"
        assert action.isfinite().all(), f"step {t}: the actions are {action.tolist()}"
        if spec.action.kind == "discrete":
            one_hot = bool(((action == 0) | (action == 1)).all() and (action.sum(-1) == 1).all())
            assert one_hot, f"step {t}: the actions are {action.tolist()}, not one-hot"
        elif spec.action.low is not None:
            assert action.abs().max() <= 1, f"step {t}: an action reaches {action.abs().max()}, beyond 1"


def check_seed(agent: Agent, obs_at: Callable[[int], Obs], decisions: Decisions) -> None:
    """The actions follow from the seed alone, and torch's generator is left unchanged."""
    torch.rand(1)
    before = torch.get_rng_state()
    again = play(agent, obs_at)
    assert torch.equal(before, torch.get_rng_state()), "acting moved torch's random generator"
    for t, ((one, _), (other, _)) in enumerate(zip(decisions, again, strict=True)):
        assert torch.equal(one, other), f"step {t}: two episodes of one seed act differently"


def check_memory(agent: Agent, obs_at: Callable[[int], Obs], decisions: Decisions) -> None:
    """Acting changes no memory, and acting again from an earlier one gives the same action."""
    memory = decisions[0][1]
    before = memory.clone()
    action, _ = agent.act(memory, obs_at(1))
    agent.start(obs_at(0), seed=7)  # another episode in between must not matter
    assert torch.equal(memory.features, before.features), "acting changed the memory it was given"
    assert torch.equal(action, agent.act(before, obs_at(1))[0]), "acting changed the memory it was given"
    assert torch.equal(action, agent.act(memory, obs_at(1))[0]), "acting twice from one memory gives two actions"
    assert torch.equal(action, decisions[1][0]), "going back to an earlier memory does not lead to the same action"
    copied = memory.repeat(1)[torch.arange(BATCH)]
    assert torch.equal(action, agent.act(copied, obs_at(1))[0]), "a repeated and indexed memory acts differently"


def check_rows(agent: Agent, obs_at: Callable[[int], Obs], decisions: Decisions) -> None:
    """The observation of the last environment changes its own action only."""
    others = [{key: torch.cat([value[:-1], value[:1]]) for key, value in obs_at(t).items()} for t in range(STEPS)]
    for t, ((one, _), (other, _)) in enumerate(zip(decisions, play(agent, others.__getitem__), strict=True)):
        close = torch.allclose(one[:-1], other[:-1], atol=1e-5)
        assert close, f"step {t}: the observation of one environment changes the action of another"


def play(agent: Agent, obs_at: Callable[[int], Obs]) -> Decisions:
    """The decisions of the episode of seed 0."""
    action, memory = agent.start(obs_at(0), seed=0)
    decisions = [(action, memory)]
    for t in range(1, STEPS):
        decisions.append(agent.act(decisions[-1][1], obs_at(t)))
    return decisions


def random_obs(spec: DataSpec, batch: int, seed: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Random observations as `spec` describes them, `{key: [B, ...]}`: the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return {key: random_key(each, batch, generator).to(device) for key, each in spec.obs.items()}


def random_key(spec: KeySpec, batch: int, generator: torch.Generator) -> Tensor:
    if spec.kind == "image":
        return torch.randint(256, (batch, *spec.shape), dtype=torch.uint8, generator=generator)
    if spec.kind == "category":
        return torch.eye(spec.shape[0])[torch.randint(spec.shape[0], (batch,), generator=generator)]
    noise = torch.randn(batch, *spec.shape, generator=generator)
    return noise * torch.tensor(spec.std or (1.0,)) + torch.tensor(spec.mean or (0.0,))
