"""The online loop: collect an episode, learn while it is played, evaluate now and then, save. Resumable exactly.

The run folder is one of `worldloom train` (`run.json`, `checkpoints/`, `log.jsonl`), so that everything that reads a
trained model reads a learned one, and besides that holds `learn.json`, the settings, and `replay/`, the episodes.
"""

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from rich.console import Console

from worldloom.console import say
from worldloom.data import durable
from worldloom.data.episode import Episode
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.envs import make_env
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.describe import describe
from worldloom.envs.options import parse_options
from worldloom.errors import UserError
from worldloom.interrupts import Interrupt
from worldloom.learning.session import MOST_EVALUATION_ENVS, LearningSession
from worldloom.learning.settings import Learning, LearnSettings
from worldloom.runs import folders
from worldloom.runs.checkpoint import last_good, prune, steps_saved
from worldloom.runs.precision import slow_precision
from worldloom.runs.run import FORMAT, check_format, damaged, read_json
from worldloom.training.memory import keep_freed_memory
from worldloom.training.progress import Log, clock
from worldloom.training.trainer import NotFinite

RESETS = 64  # episodes that are begun to see which tasks an environment sets


def run_learning(settings: LearnSettings) -> None:
    """Learn, or continue, as `settings` say. Raises `UserError`, and `KeyboardInterrupt` after Ctrl-C."""
    settings.check()
    resume_or_refuse(settings)
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    with ExitStack() as stack:
        envs, evaluation_envs = (
            [make(settings, stack) for _ in range(count)]
            for count in (settings.num_envs, min(settings.eval_episodes, MOST_EVALUATION_ENVS))
        )
        session = LearningSession(settings, envs, evaluation_envs, with_tasks(describe(envs[0]), envs[0]))
        stack.enter_context(folders.claimed(settings.out))
        if settings.resume and steps_saved(settings.out):
            session.restore(settings.out)
        prepare_folder(settings, session)
        for line in slow_precision(session.learner.trainer.precision, session.learner.trainer.device):
            print(line)
        done = session.progress.decisions
        if done >= settings.steps:
            print(f"{settings.out} already took {done} decisions of --steps {settings.steps}: give more to go on")
        log = Log(settings.out, done, counter="decisions")
        stack.callback(log.close)
        finished = loop(session, log, Console())
    if not finished:
        print(f"stopped after {session.progress.decisions} decisions, which are saved. Continue with:")
        print(f"{settings.command()} --resume")
        raise KeyboardInterrupt


def loop(session: LearningSession, log: Log, console: Console) -> bool:
    """Collect, learn, evaluate and save until the budget is spent (True) or somebody asks to stop (False)."""
    settings, progress = session.settings, session.progress
    saved = progress.decisions
    with Interrupt() as interrupt:
        while progress.decisions < settings.steps and not interrupt.asked:
            try:
                episodes = session.collect()
            except NotFinite as error:
                raise UserError(f"{error}. {last_good(settings.out)} Start another --out with a lower --lr") from error
            except UserError as error:
                raise UserError(f"{error}. {last_good(settings.out)} Fix that and continue with --resume") from error
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


def save(session: LearningSession) -> None:
    session.snapshot().save(session.settings.out)
    prune(session.settings.out, session.settings.keep)


def report(session: LearningSession, episodes: list[Episode], log: Log, console: Console) -> None:
    """One line and one log record for each wave of episodes."""
    progress = session.progress
    returns = [float(episode.reward.sum(dtype=np.float64)) for episode in episodes]
    record: dict[str, Any] = {
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


def report_evaluation(session: LearningSession, score: dict[str, Any], log: Log, console: Console) -> None:
    """The evaluation in a line and in the log."""
    progress = session.progress
    record = {"decisions": progress.decisions, "seconds": session.seconds, "cpu_seconds": session.cpu_seconds, **score}
    log.write({"step": session.learner.trainer.step, "decisions": progress.decisions, "evaluation": record})
    interval = f" [{score['low']:.4g}, {score['high']:.4g}]" if score["low"] is not None else ""
    cut = ""
    if score["truncated"] and session.settings.max_episode_steps is None:
        # Perhaps an environment that never ends: what its return means depends on where it is truncated.
        cut = f", {score['truncated']} of them truncated at {max(score['lengths'])} decisions (--max-episode-steps)"
    console.print(
        f"{progress.decisions}: evaluation {score['mean']:.4g}{interval} over {len(score['returns'])} episodes{cut}",
        highlight=False,
        soft_wrap=True,
    )


def make(settings: LearnSettings, stack: ExitStack) -> AdaptedEnv:
    env = make_env(settings.env, image_size=settings.image_size, **parse_options(settings.options))
    stack.callback(env.close)
    return env


def with_tasks(spec: DataSpec, env: AdaptedEnv) -> DataSpec:
    """With the language tasks that an environment is found to set as what a policy is given, where it sets any."""
    if not env.has_text:
        return spec
    tasks = {str(env.reset(seed=seed)[1].get("task", "")) for seed in range(RESETS)} - {""}
    say(f"{env.name}: {len(tasks)} language tasks in {RESETS} episodes; one that is not among them counts as unknown")
    task = KeySpec("category", (len(tasks),), names=tuple(sorted(tasks)), role="given")
    return spec.with_obs({**spec.obs, "task": task})


def resume_or_refuse(settings: Learning) -> None:
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
            check_format(run / "learn.json", content)
            if content["method"] != settings.method:
                raise UserError(f"{run} was started with {content['method']}, not {settings.method}: repeat that")
            settings.changes(type(settings).from_json(content["settings"]))
        except (KeyError, TypeError) as error:
            raise damaged(run / "learn.json", error) from error


def prepare_folder(settings: LearnSettings, session: LearningSession) -> None:
    """Write what describes the run: `learn.json`, and `run.json` as any trained model has it."""
    describe_learning(settings)  # first of all, so that a run can be resumed wherever it stops
    durable.make_folder(settings.out / "checkpoints")
    durable.make_folder(settings.out / "replay")
    folders.remove_partial(settings.out / "checkpoints")
    session.describe()


def describe_learning(settings: Learning) -> None:
    """Write `learn.json`."""
    described = {"format": FORMAT, "method": settings.method, "settings": settings.to_json()}
    durable.write_json(settings.out / "learn.json", described)
