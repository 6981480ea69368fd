"""One learning as a value that can be stepped, saved and restored: environments, learner, and how far it has come."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldloom.agents.play import play_in
from worldloom.agents.reference import RandomAgent
from worldloom.agents.saved import save_policy
from worldloom.data.episode import Episode
from worldloom.data.episode_file import load_episode, save_episode
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.errors import UserError
from worldloom.evaluation.policies.score import mean
from worldloom.learning.budget import longest_episode, longest_evaluation
from worldloom.learning.collect import collect
from worldloom.learning.method import Learner
from worldloom.learning.methods import METHODS
from worldloom.learning.settings import LearnSettings
from worldloom.runs.checkpoint import Checkpoint, choose
from worldloom.runs.run import RunRecord, damaged

EVALUATION_SEED = 1_000_000
MOST_EVALUATION_ENVS = 10


@dataclass
class LearningProgress:
    """How far a run has come; travels in every checkpoint as JSON. `owed` are updates not yet made up for.

    `fitted`: whether the learner has been made for the scales of what was collected at random.
    """

    decisions: int = 0
    episodes: int = 0
    owed: float = 0.0
    evaluated: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    fitted: bool = False

    def check(self) -> None:
        """Raise `ValueError` or `TypeError` for numbers that no run can have come to."""
        for name, value in asdict(self).items():
            if isinstance(getattr(LearningProgress, name), int) and not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}")
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value!r}")


class LearningSession:
    """One learning as a value that can be stepped, saved and restored."""

    learner: Learner

    def __init__(
        self, settings: LearnSettings, envs: list[AdaptedEnv], evaluation_envs: list[AdaptedEnv], spec: DataSpec
    ):
        self.settings, self.envs, self.evaluation_envs = settings, envs, evaluation_envs
        self._make_learner(spec)
        self.progress = LearningProgress()
        self.losses: list[dict[str, Any]] = []
        self.began = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self.began[0]

    @property
    def cpu_seconds(self) -> float:
        return self.progress.cpu_seconds + time.process_time() - self.began[1]

    def collect(self) -> list[Episode]:
        """A wave of episodes, one in each environment, learning meanwhile as the replay ratio asks.

        They end with the budget at the latest (`longest_episode`).
        """
        settings, progress = self.settings, self.progress
        most = longest_episode(settings, progress.decisions)
        is_random = progress.decisions < settings.random_steps
        agent = RandomAgent(self.spec) if is_random else self.learner.collector(progress.decisions)
        seeds = [episode_seed(settings.seed, progress.episodes + i) for i in range(len(self.envs))]
        episodes = collect(agent, self.envs, seeds, most, self._on_decision)
        for episode in episodes:
            save_episode(self.replay_folder / f"{progress.episodes:06d}.safetensors", episode)
            self.learner.replay.add(episode)
            progress.episodes += 1
        return episodes

    @property
    def learned(self) -> bool:
        """Whether there has been any update yet."""
        return self.learner.trainer.step > 0

    def read_losses(self) -> dict[str, float]:
        """Means of the loss terms since the last reading."""
        losses, self.losses = self.losses, []
        names = losses[0] if losses else ()
        return {name: float(torch.stack([loss[name] for loss in losses]).mean()) for name in names}

    @property
    def replay_folder(self) -> Path:
        return self.settings.out / "replay"

    def _make_learner(self, spec: DataSpec) -> None:
        torch.manual_seed(self.settings.seed)
        make = METHODS[self.settings.method].learner
        if make is None:
            raise UserError(f"learning method {self.settings.method!r} has no learner that could collect")
        self.spec, self.learner = spec, make(self.settings, spec)

    def _fit(self) -> None:
        """Make the learner anew for the scales of what was collected at random, and let `run.json` say so."""
        self._make_learner(self.learner.replay.fit())
        self._fill_replay()
        self.progress.fitted = True
        self.describe()

    def _on_decision(self) -> None:
        self.progress.decisions += 1
        self.progress.owed += self.settings.updates
        if self.progress.decisions >= self.settings.random_steps and self.learner.replay.rows:
            if self.learner.fits and not self.progress.fitted:
                self._fit()
            while self.progress.owed >= 1:
                self.losses.append(self.learner.update())
                self.progress.owed -= 1

    def evaluate(self) -> dict[str, Any]:
        """Returns over a fixed list of seeds, each played to its end, with a 95 % interval of their mean.

        "truncated" are those that had no end within `longest_evaluation` decisions.
        """
        most = longest_evaluation(self.settings)
        seeds = [EVALUATION_SEED + i for i in range(self.settings.eval_episodes)]
        began = time.perf_counter()
        with self.learner.trainer.evaluation_mode():
            played = play_in(self.learner.evaluated, self.evaluation_envs, seeds, most)
        returns = [each.episode_return for each in played]
        figure = mean(returns)
        return {
            "mean": figure.value,
            "low": figure.low,
            "high": figure.high,
            "returns": returns,
            "lengths": [each.length for each in played],
            "truncated": sum(each.length == most and not each.terminated for each in played),
            "evaluation_seconds": time.perf_counter() - began,
        }

    def snapshot(self) -> Checkpoint:
        progress = replace(self.progress, seconds=self.seconds, cpu_seconds=self.cpu_seconds)
        checkpoint = self.learner.trainer.snapshot()
        return replace(
            checkpoint,
            progress={**checkpoint.progress, "learning": asdict(progress), "seconds": self.seconds},
        )

    def restore(self, run: Path) -> None:
        """Go on from the last checkpoint of `run`, with the episodes it had seen."""
        checkpoint = Checkpoint.read(run)
        path = choose(run)
        try:
            self.progress = LearningProgress(**checkpoint.progress["learning"])
            self.progress.check()
            self._make_learner(DataSpec.from_json(checkpoint.spec))
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path / "state.json", error) from error
        self.learner.trainer.restore(checkpoint, path)
        self._fill_replay()

    def _fill_replay(self) -> None:
        for index in range(self.progress.episodes):
            file = self.replay_folder / f"{index:06d}.safetensors"
            episode = load_episode(file)
            try:
                self.learner.replay.add(episode)
            except UserError as error:
                raise UserError(f"{file}: {error}") from error

    def describe(self) -> None:
        """Write `run.json`, as any trained model has it."""
        trainer, settings = self.learner.trainer, self.settings
        machine = {
            "device": str(trainer.device),
            "precision": trainer.precision,
            "threads": settings.threads,
            "processes": 1,
        }
        RunRecord(
            family=type(trainer.model).family,
            config=asdict(trainer.model.config),
            spec=self.spec,
            datasets=[],
            image_size=(settings.image_size, settings.image_size),
            settings=settings.to_json(),
            machine=machine,
        ).save(settings.out)
        if trainer.joint is not None:
            save_policy(settings.out)


def episode_seed(seed: int, index: int) -> int:
    """The environment's seed for training episode `index`: the same whatever was played before it."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0] >> 1)
