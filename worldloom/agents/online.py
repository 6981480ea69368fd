"""The online loop: collect an episode, learn while it is played, judge now and then, save. Resumable exactly.

The run folder is one of `worldloom train` (`run.json`, `checkpoints/`, `log.jsonl`), so that everything that reads a
trained model reads a learned one, and besides that holds `learn.json`, the settings, and `replay/`, the episodes.
"""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from worldloom.agents.collect import RandomAgent, collect
from worldloom.agents.learn import LEARNERS, LearnSettings
from worldloom.agents.play import play_in
from worldloom.agents.replay_files import load_episode, save_episode
from worldloom.data import durable
from worldloom.data.episode import Episode
from worldloom.data.record import parse_options
from worldloom.data.spec import DataSpec
from worldloom.envs import make_env
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.describe import describe
from worldloom.errors import UserError
from worldloom.evaluation.bootstrap import bootstrap
from worldloom.training import folders
from worldloom.training.checkpoint import Checkpoint, choose, prune, steps_saved
from worldloom.training.loop import Interrupt
from worldloom.training.memory import keep_freed_memory
from worldloom.training.progress import Log, clock
from worldloom.training.run import RunRecord, damaged, read_json
from worldloom.training.trainer import NotFinite

EVALUATION_SEED = 1_000_000
MOST_EVALUATION_ENVS = 10


@dataclass
class Progress:
    """How far a run has come; travels in every checkpoint as JSON. `owed` are updates not yet made up for."""

    decisions: int = 0
    episodes: int = 0
    owed: float = 0.0
    evaluated: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Session:
    """One learning as a value that can be stepped, saved and restored."""

    def __init__(self, settings: LearnSettings, envs: list[AdaptedEnv], judged: list[AdaptedEnv], spec: DataSpec):
        torch.manual_seed(settings.seed)
        self.settings, self.envs, self.evaluation_envs, self.spec = settings, envs, judged, spec
        self.learner = LEARNERS[settings.method](settings, spec)
        self.progress = Progress()
        self.losses: list[dict[str, Any]] = []
        self.began = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self.began[0]

    @property
    def cpu_seconds(self) -> float:
        return self.progress.cpu_seconds + time.process_time() - self.began[1]

    def collect(self) -> list[Episode]:
        """A wave of episodes, one in each environment, learning meanwhile as the replay ratio asks."""
        settings, progress = self.settings, self.progress
        is_random = progress.decisions < settings.random_steps
        agent = RandomAgent(self.spec) if is_random else self.learner.agent
        seeds = [episode_seed(settings.seed, progress.episodes + i) for i in range(len(self.envs))]
        episodes = collect(agent, self.envs, seeds, settings.max_episode_steps, self._on_decision)
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

    def _on_decision(self) -> None:
        self.progress.decisions += 1
        self.progress.owed += self.settings.updates
        if self.progress.decisions >= self.settings.random_steps and self.learner.replay.rows:
            while self.progress.owed >= 1:
                self.losses.append(self.learner.update())
                self.progress.owed -= 1

    def evaluate(self) -> dict[str, Any]:
        """Returns over a fixed list of seeds, each played to its end, with a 95 % interval of their mean."""
        seeds = [EVALUATION_SEED + i for i in range(self.settings.eval_episodes)]
        began = time.perf_counter()
        with self.learner.trainer.aside():
            played = play_in(self.learner.judged, self.evaluation_envs, seeds, self.settings.max_episode_steps)
        returns = [each.episode_return for each in played]
        mean, low, high = bootstrap(
            lambda weights: weights @ np.array(returns) / weights.sum(1), np.arange(len(returns))
        )
        return {
            "mean": float(mean),
            "low": float(low) if np.isfinite(low) else None,
            "high": float(high) if np.isfinite(high) else None,
            "returns": returns,
            "lengths": [each.length for each in played],
            "seconds": time.perf_counter() - began,
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
        self.learner.trainer.restore(checkpoint, path)
        try:
            self.progress = Progress(**checkpoint.progress["learning"])
        except (KeyError, TypeError) as error:
            raise damaged(path / "state.json", error) from error
        for index in range(self.progress.episodes):
            self.learner.replay.add(load_episode(self.replay_folder / f"{index:06d}.safetensors"))


def episode_seed(seed: int, index: int) -> int:
    """The environment's seed for training episode `index`: the same whatever was played before it."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0] >> 1)


def run_learning(settings: LearnSettings) -> None:
    """Learn, or continue, as `settings` say. Raises `UserError`, and `KeyboardInterrupt` after Ctrl-C."""
    settings.check()
    resume_or_refuse(settings)
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    with ExitStack() as stack:
        envs, judged = (
            [make(settings, stack) for _ in range(count)]
            for count in (settings.num_envs, min(settings.eval_episodes, MOST_EVALUATION_ENVS))
        )
        session = Session(settings, envs, judged, describe(envs[0]))
        stack.enter_context(folders.claimed(settings.out))
        prepare_folder(settings, session)
        if settings.resume and steps_saved(settings.out):
            session.restore(settings.out)
        log = Log(settings.out, session.learner.trainer.step)
        stack.callback(log.close)
        finished = loop(session, log, Console())
    if not finished:
        raise KeyboardInterrupt


def loop(session: Session, log: Log, console: Console) -> bool:
    """Collect, learn, judge and save until the budget is spent (True) or somebody asks to stop (False)."""
    settings, progress = session.settings, session.progress
    saved = progress.decisions
    with Interrupt() as interrupt:
        while progress.decisions < settings.steps and not interrupt.asked:
            try:
                episodes = session.collect()
            except NotFinite as error:
                raise UserError(f"{error}. Continue with --resume and a lower --lr") from error
            report(session, episodes, log, console)
            due = progress.decisions // settings.eval_every > progress.evaluated // settings.eval_every
            if (due and session.learned) or progress.decisions >= settings.steps:
                progress.evaluated = progress.decisions
                report_evaluation(session, session.evaluate(), log, console)
            if progress.decisions - saved >= settings.checkpoint_every or progress.decisions >= settings.steps:
                save(session)
                saved = progress.decisions
        if saved != progress.decisions:
            save(session)
    return progress.decisions >= settings.steps


def save(session: Session) -> None:
    session.snapshot().save(session.settings.out)
    prune(session.settings.out)


def report(session: Session, episodes: list[Episode], log: Log, console: Console) -> None:
    """One line and one log record for each wave of episodes."""
    progress = session.progress
    returns = [float(episode.reward.sum(dtype=np.float64)) for episode in episodes]
    record = {
        "step": session.learner.trainer.step,
        "decisions": progress.decisions,
        "returns": returns,
        "seconds": session.seconds,
        "cpu_seconds": session.cpu_seconds,
        "terms": session.read_losses(),
    }
    log.write(record)
    terms = "  ".join(f"{name} {value:.3g}" for name, value in record["terms"].items())
    shown = ", ".join(f"{value:.4g}" for value in returns)
    console.print(
        f"{progress.decisions}/{session.settings.steps}  return {shown}  {terms}  {clock(session.seconds)}",
        highlight=False,
        soft_wrap=True,
    )


def report_evaluation(session: Session, score: dict[str, Any], log: Log, console: Console) -> None:
    """The evaluation in a line, in the log, and kept in `evaluations.json`."""
    progress = session.progress
    record = {"decisions": progress.decisions, "seconds": session.seconds, "cpu_seconds": session.cpu_seconds, **score}
    log.write({"step": session.learner.trainer.step, "evaluation": record})
    interval = f" [{score['low']:.4g}, {score['high']:.4g}]" if score["low"] is not None else ""
    console.print(
        f"{progress.decisions}: evaluation {score['mean']:.4g}{interval} over {len(score['returns'])} episodes",
        highlight=False,
        soft_wrap=True,
    )


def make(settings: LearnSettings, stack: ExitStack) -> AdaptedEnv:
    env = make_env(settings.env, image_size=settings.image_size, **parse_options(settings.options))
    stack.callback(env.close)
    return env


def resume_or_refuse(settings: LearnSettings) -> None:
    """Refuse a folder that holds something else, and settings that would not continue what it holds."""
    run = settings.out
    known = (run / "learn.json").exists()
    if settings.resume and not known:
        raise UserError(f"there is no learning to resume in {run}: leave --resume away to start one")
    if known and not settings.resume:
        raise UserError(f"{run} already holds a run: continue it with --resume, or choose another --out")
    if not known and run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UserError(f"{run} already holds something else: choose another --out")
    if known:
        content = read_json(run / "learn.json", f"{run} is not a run of `worldloom learn`")
        try:
            settings.changes(LearnSettings.from_json(content["settings"]))
        except (KeyError, TypeError) as error:
            raise damaged(run / "learn.json", error) from error


def prepare_folder(settings: LearnSettings, session: Session) -> None:
    """Write what describes the run: `learn.json`, and `run.json` as any trained model has it."""
    durable.make_folder(settings.out / "checkpoints")
    durable.make_folder(settings.out / "replay")
    folders.remove_partial(settings.out / "checkpoints")
    trainer = session.learner.trainer
    durable.write_json(settings.out / "learn.json", {"format": 1, "settings": settings.to_json()})
    machine = {
        "device": str(trainer.device),
        "precision": trainer.precision,
        "threads": settings.threads,
        "processes": 1,
    }
    RunRecord(
        family=type(trainer.model).family,
        config=asdict(trainer.model.config),
        spec=session.spec,
        datasets=[],
        image_size=(settings.image_size, settings.image_size),
        settings=trainer.settings,
        machine=machine,
    ).save(settings.out)
