"""Episodes of an agent in real environments as rows that can be learned from."""

from collections.abc import Callable, Sequence

from worldloom.agents.agent import Agent
from worldloom.agents.play import Decision, play_in
from worldloom.data.episode import Episode
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.rollout import RecordedRows, to_episode


def collect(
    agent: Agent,
    envs: Sequence[AdaptedEnv],
    seeds: Sequence[int],
    max_steps: int | None = None,
    on_decision: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Play one episode in each of `envs`, from `seeds`, to its end: all that were begun, in the order of `seeds`.

    `on_decision` is called once for every decision of every environment.
    """
    rows = {seed: RecordedRows() for seed in seeds}

    def watch(decision: Decision) -> None:
        taken = rows[decision.seed]
        taken.obs.append(decision.obs)
        taken.task = decision.task
        if decision.step:
            taken.rewards.append(decision.reward)
            taken.infos.append({})
        if decision.action is not None:
            taken.actions.append(decision.action)
            on_decision()

    played = play_in(agent, envs, seeds, max_steps, watch)
    return [to_episode(env, rows[p.seed], p.terminated, not p.terminated) for env, p in zip(envs, played, strict=True)]
