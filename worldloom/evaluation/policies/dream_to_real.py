"""The dream-to-real gap of a policy: its return in the environment, in the model, and that of random actions.

N episodes, H steps.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from worldloom.agents.agent import Agent
from worldloom.agents.environment import to_obs
from worldloom.agents.play import Decision, EpisodeResult, OnDecision, play
from worldloom.agents.policy import PolicyAgent
from worldloom.agents.reference import RandomAgent
from worldloom.agents.saved import load_agent
from worldloom.envs import require_known
from worldloom.envs.options import parse_options
from worldloom.errors import UserError
from worldloom.evaluation.policies.score import mean
from worldloom.evaluation.policies.survival import SurvivalSamples, survival
from worldloom.evaluation.policies.world import World
from worldloom.evaluation.wording import Table
from worldloom.model import Obs
from worldloom.noise import TorchNoise
from worldloom.runs.named import Named
from worldloom.runs.run import Run, read_json

MOST_ENVS = 10  # played side by side
FIRST_SEED = 2_000_000  # apart from those of recordings, of learning and of its evaluations
Where = tuple[str, tuple[str, ...], int | None]


@dataclass(frozen=True)
class Real:
    """Real episodes `[N]` and their first observations."""

    played: list[EpisodeResult]
    first: Obs

    @property
    def returns(self) -> list[float]:
        return [each.episode_return for each in self.played]

    @property
    def longest(self) -> int:
        return max(each.length for each in self.played)


@dataclass(frozen=True)
class DreamToRealGap:
    """One policy, one environment, the number of fixed seeds, and the temperature of the model's samples."""

    agent: PolicyAgent
    world: World
    episodes: int
    temperature: float = 1.0

    @property
    def noise(self) -> TorchNoise:
        """What dreams draw from."""
        return TorchNoise.seeded(FIRST_SEED, self.agent.device, self.temperature)

    @property
    def seeds(self) -> range:
        return range(FIRST_SEED, FIRST_SEED + self.episodes)

    def measure(self) -> Table:
        """As the card holds them: under "policy" mean returns of "reality", "dream" and "random", and "dream minus
        reality"; under "policy_survival" how probably its episodes have not terminated (`survival`).

        Each dream begins with the first observation of a real episode and lasts as long as the longest real one, so
        that the two can be compared; each imagined reward is weighted by the probability that the episode has not
        terminated.
        """
        samples = SurvivalSamples()
        real = self.play(samples.watch)
        random = play(RandomAgent(self.agent.spec), self.world.make, self.seeds, MOST_ENVS, self.world.max_steps)
        dreamed = self.dream(real.first, real.longest)
        returns = {
            "reality": mean(real.returns),
            "dream": mean(dreamed),
            "dream minus reality": mean([more - less for more, less in zip(dreamed, real.returns, strict=True)]),
            "random": mean([episode.episode_return for episode in random]),
        }
        survived = survival(self.agent, samples, real.played, self.noise)
        return {"policy": returns} | ({"policy_survival": survived} if survived else {})

    def play(self, watcher: OnDecision | None = None) -> Real:
        """One real episode for each seed."""
        at_reset: list[dict[str, np.ndarray]] = []

        def watch(decision: Decision) -> None:
            if watcher is not None:
                watcher(decision)
            if decision.step == 0 and decision.action is not None:
                at_reset.append(decision.obs)

        played = play(self.agent, self.world.make, self.seeds, MOST_ENVS, self.world.max_steps, watch)
        return Real(played, to_obs(at_reset, self.agent.spec, self.agent.device))

    @torch.no_grad()
    def dream(self, first: Obs, steps: int) -> list[float]:
        """The return of one dream from each of the first observations `[N]`."""
        model, actor, noise = self.agent.model, self.agent.actor, self.noise
        belief = model.start(first, noise)
        survives = torch.ones(len(belief.features), device=self.agent.device)
        total = torch.zeros_like(survives)
        for _ in range(steps):
            chosen = actor(belief.features)
            belief = model.predict(belief, chosen.carried_out(chosen.mode), noise)
            total = total + survives * model.decode(belief, "reward")
            if "terminated" in model.decodes:
                survives = survives * (1 - model.decode(belief, "terminated"))
        return total.tolist()


def policy_of(named: Named, device: str) -> PolicyAgent:
    """The learned policy of that name. Raises `UserError` for anything else."""
    agent: Agent = load_agent(named.folder, device, named.step)
    if not isinstance(agent, PolicyAgent):
        raise UserError(
            f"{named.folder} holds a planner: its score is on the card that `worldloom plan` wrote beside it"
        )
    return agent


def measure_gap(name: Path, run: Run, played: Where | None, episodes: int, device: str) -> Table:
    """The gap of the policy called `name`, learned with the model of `run`. Raises `UserError` for another model's.

    `played` is the environment, its options and the limit of an episode; by default that in which the policy learned.
    """
    named = Named.parse(name)
    named.check(run)
    agent, world = policy_of(named, device), world_of(named, run, played)
    world.dry_run(agent)
    return DreamToRealGap(agent, world, episodes).measure()


def world_of(named: Named, run: Run, played: Where | None) -> World:
    """Where a policy is played, drawn at the image size of the model of `run`."""
    name, options, limit = played or environment_of(named.folder)
    return World(name, parse_options(options), run.side, limit)


def environment_of(folder: Path) -> Where:
    """Where the policy in `folder` learned while acting, and with which options.

    Raises `UserError` if nowhere, and `NotAllowed` if that is an environment that nobody here has named.
    """
    settings = read_json(folder / "learn.json", f"{folder} holds no policy")["settings"]
    if (Path(settings["env"]) / "run.json").exists():
        raise UserError(f"the policy in {folder} learned inside {settings['env']}: say with --env where it shall play")
    require_known(settings["env"], settings["options"], folder / "learn.json")
    return settings["env"], tuple(settings["options"]), settings["max_episode_steps"]
