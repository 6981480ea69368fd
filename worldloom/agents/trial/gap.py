"""Does a policy learned in a dream work outside it? Its score in reality, in the dream, and that of chance.

N episodes, H steps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worldloom.agents.agent import Agent
from worldloom.agents.environment import to_obs
from worldloom.agents.floors import RandomChoice
from worldloom.agents.play import Decision, play
from worldloom.agents.policy import PolicyAgent
from worldloom.agents.saved import load_agent
from worldloom.agents.trial.score import mean
from worldloom.agents.trial.world import World
from worldloom.data.record import parse_options
from worldloom.envs.dream import seeded
from worldloom.errors import UserError
from worldloom.evaluation.bootstrap import Figure
from worldloom.model import Obs
from worldloom.training.checkpoint import Checkpoint
from worldloom.training.run import Run, read_json

MOST_ENVS = 10  # played side by side
FIRST_SEED = 2_000_000  # apart from those of recordings, of learning and of its evaluations
Played = tuple[str, tuple[str, ...], int | None]


@dataclass(frozen=True)
class Scores:
    """One policy's returns `[N]` of real episodes, and of dreams that begin with what each of them showed first."""

    reality: list[float]
    dream: list[float]

    def figures(self) -> dict[str, Figure]:
        """Mean returns of "reality" and "dream", and "dream minus reality", as the card holds them."""
        differences = [more - less for more, less in zip(self.dream, self.reality, strict=True)]
        return {
            "reality": mean(self.reality),
            "dream": mean(self.dream),
            "dream minus reality": mean(differences),
        }


@dataclass(frozen=True)
class Gap:
    """Who is asked, where, and on how many fixed seeds."""

    agent: PolicyAgent
    world: World
    episodes: int

    @property
    def seeds(self) -> range:
        return range(FIRST_SEED, FIRST_SEED + self.episodes)

    def scores(self) -> Scores:
        """Play and dream. Each dream lasts as long as the longest real episode, so that the two can be compared; what
        it pays counts by the probability that it has come so far.
        """
        looks: list[dict[str, np.ndarray]] = []

        def watch(decision: Decision) -> None:
            if decision.step == 0 and decision.action is not None:
                looks.append(decision.obs)

        real = play(self.agent, self.world.make, self.seeds, MOST_ENVS, self.world.max_steps, watch)
        first = to_obs(looks, self.agent.spec, self.agent.device)
        dreamt = dreamt_returns(self.agent, first, max(each.length for each in real))
        return Scores([each.episode_return for each in real], dreamt)

    def measure(self) -> dict[str, Figure]:
        """The figures of `scores`, and "random", the mean return of chance on the same seeds."""
        figures = self.scores().figures()
        chance = play(RandomChoice(self.agent.spec), self.world.make, self.seeds, MOST_ENVS, self.world.max_steps)
        return figures | {"random": mean([each.episode_return for each in chance])}


@torch.no_grad()
def dreamt_returns(agent: PolicyAgent, first: Obs, steps: int) -> list[float]:
    """The return of one dream of `steps` from each of the first looks `[N]`."""
    with seeded(FIRST_SEED, agent.device):
        belief = agent.model.start(first)
        alive = torch.ones(len(belief.features), device=agent.device)
        total = torch.zeros_like(alive)
        for _ in range(steps):
            chosen = agent.actor(belief.features)
            belief = agent.model.predict(belief, chosen.carried_out(chosen.mode))
            total = total + alive * agent.model.decode(belief, "reward")
            if "terminated" in agent.model.decodes:
                alive = alive * (1 - agent.model.decode(belief, "terminated"))
        return total.tolist()


def policy_of(folder: Path, device: str) -> PolicyAgent:
    """The learned policy saved in `folder`. Raises `UserError` for anything else."""
    agent: Agent = load_agent(folder, device)
    if not isinstance(agent, PolicyAgent):
        raise UserError(f"{folder} holds a planner: its score is on the card that `worldloom plan` wrote beside it")
    return agent


def gap_of(folder: Path, run: Run, played: Played | None, episodes: int, device: str) -> Gap:
    """The policy in `folder`, learned with the model of `run`. Raises `UserError` for another model's.

    `played` is the environment, its options and the limit of an episode; by default that in which the policy learned.
    """
    agent = agent_of(folder, run, device)
    name, options, limit = played or environment_of(folder)
    world = World(name, parse_options(options), run.image_size[0], limit)
    world.rehearse(agent)
    return Gap(agent, world, episodes)


def agent_of(folder: Path, run: Run, device: str) -> PolicyAgent:
    """The policy in `folder`, which learned with the model of `run`. Raises `UserError` for another model's."""
    saved = Checkpoint.read(folder, trainer=False)
    if saved.hash != run.checkpoint_hash:
        raise UserError(f"the policy in {folder} was learned with another model than step {run.step} of {run.path}")
    return policy_of(folder, device)


def environment_of(folder: Path) -> tuple[str, tuple[str, ...], int | None]:
    """Where the policy in `folder` learned while acting, and with which options. Raises `UserError` if nowhere."""
    settings = read_json(folder / "learn.json", f"{folder} holds no policy")["settings"]
    if (Path(settings["env"]) / "run.json").exists():
        raise UserError(f"the policy in {folder} learned inside {settings['env']}: say with --env where it shall play")
    return settings["env"], tuple(settings["options"]), settings["max_episode_steps"]
