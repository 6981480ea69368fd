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


@dataclass(frozen=True)
class Gap:
    """Who is asked, where, and on how many fixed seeds."""

    agent: PolicyAgent
    world: World
    episodes: int

    def measure(self) -> dict[str, Figure]:
        """Mean returns of "reality", "dream" and "random", and "dream minus reality", as the card holds them.

        Each dream begins with what a real episode showed first and lasts as long as the longest real one, so that the
        two can be compared; what a dream pays counts by the probability that it has come so far.
        """
        looks: list[dict[str, np.ndarray]] = []

        def watch(decision: Decision) -> None:
            if decision.step == 0 and decision.action is not None:
                looks.append(decision.obs)

        seeds, limit = range(FIRST_SEED, FIRST_SEED + self.episodes), self.world.max_steps
        real = play(self.agent, self.world.make, seeds, MOST_ENVS, limit, watch)
        random = play(RandomChoice(self.agent.spec), self.world.make, seeds, MOST_ENVS, limit)
        paid = [episode.episode_return for episode in real]
        dreamed = self._dream(to_obs(looks, self.agent.spec, self.agent.device), max(each.length for each in real))
        return {
            "reality": mean(paid),
            "dream": mean(dreamed),
            "dream minus reality": mean([more - less for more, less in zip(dreamed, paid, strict=True)]),
            "random": mean([episode.episode_return for episode in random]),
        }

    @torch.no_grad()
    def _dream(self, first: Obs, steps: int) -> list[float]:
        """The return of one dream from each of the first looks `[N]`."""
        model, actor = self.agent.model, self.agent.actor
        with seeded(FIRST_SEED, self.agent.device):
            belief = model.start(first)
            alive = torch.ones(len(belief.features), device=self.agent.device)
            total = torch.zeros_like(alive)
            for _ in range(steps):
                action = actor(belief.features).mode
                belief = model.predict(belief, action if actor.discrete else action.clamp(-1, 1))
                total = total + alive * model.decode(belief, "reward")
                if "terminated" in model.decodes:
                    alive = alive * (1 - model.decode(belief, "terminated"))
            return total.tolist()


def policy_of(folder: Path, device: str) -> PolicyAgent:
    """The learned policy saved in `folder`. Raises `UserError` for anything else."""
    agent: Agent = load_agent(folder, device)
    if not isinstance(agent, PolicyAgent):
        raise UserError(f"{folder} holds a planner: its score is on the card that `worldloom plan` wrote beside it")
    return agent


def measure_gap(
    folder: Path, run: Run, played: tuple[str, tuple[str, ...], int | None] | None, episodes: int, device: str
) -> dict[str, Figure]:
    """The gap of the policy in `folder`, learned with the model of `run`. Raises `UserError` for another model's.

    `played` is the environment, its options and the limit of an episode; by default that in which the policy learned.
    """
    saved = Checkpoint.read(folder, trainer=False)
    if saved.hash != run.checkpoint_hash:
        raise UserError(f"the policy in {folder} was learned with another model than step {run.step} of {run.path}")
    name, options, limit = played or environment_of(folder)
    agent, world = policy_of(folder, device), World(name, parse_options(options), run.image_size[0], limit)
    world.rehearse(agent)
    return Gap(agent, world, episodes).measure()


def environment_of(folder: Path) -> tuple[str, tuple[str, ...], int | None]:
    """Where the policy in `folder` learned while acting, and with which options. Raises `UserError` if nowhere."""
    settings = read_json(folder / "learn.json", f"{folder} holds no policy")["settings"]
    if (Path(settings["env"]) / "run.json").exists():
        raise UserError(f"the policy in {folder} learned inside {settings['env']}: say with --env where it shall play")
    return settings["env"], tuple(settings["options"]), settings["max_episode_steps"]
