"""`worldloom record ENV OUT`: play an environment in parallel and save every finished episode at once."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from worldloom import __version__
from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import LeRobotWriter, require_writable
from worldloom.envs.pool import Job, WorkerPool
from worldloom.errors import UserError
from worldloom.interrupts import Interrupt


@dataclass(frozen=True)
class RecordingTarget:
    """How much to record: a number of episodes, or at least a number of steps."""

    episodes: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.steps is None):
            raise UserError("say how much to record: either --episodes N or --steps N")
        if self.amount < 1:
            raise UserError(f"nothing to record: --episodes or --steps is {self.amount}, but it must be 1 or more")

    @property
    def amount(self) -> int:
        return (self.steps if self.episodes is None else self.episodes) or 0

    def wants(self, begun: int, steps_played: int) -> bool:
        """Whether another episode should be begun."""
        return begun < self.episodes if self.episodes is not None else steps_played < self.amount


@dataclass
class Summary:
    """What a recording came to."""

    episodes: int = 0
    rows: int = 0
    held: int = 0
    interrupted: bool = False
    began: float = field(default_factory=time.monotonic)

    def add(self, episode: Episode) -> None:
        self.episodes += 1
        self.rows += len(episode)

    def line(self, out: Path) -> str:
        if not (self.episodes or self.interrupted):
            return f"{out} already holds {self.held:,} episodes, as many as asked for: ask for more to add to them"
        seconds = time.monotonic() - self.began
        speed = f"{seconds:.1f} s, {self.rows / seconds:,.0f} rows/s"
        done = f"recorded {self.episodes:,} episodes, {self.rows:,} rows ({speed})"
        return f"{done}; {out} holds {self.held:,} episodes"


def collect(job: Job, out: Path, goal: RecordingTarget, num_envs: int, license: str = "unknown") -> Summary:
    """Record until the goal is reached or Ctrl-C is pressed. Raises `UserError` and keeps every finished episode."""
    origin = f"recorded from {job.env} by worldloom {__version__} with policy {job.policy}, seed {job.seed}"
    about = {"license": license, "origin": origin, "env": job.env, "synthetic": False}
    require_writable(out)  # before environments are started, which takes a while
    with WorkerPool(job, num_envs) as pool, Interrupt() as interrupt:
        try:
            with LeRobotWriter(out, pool.spec, robot_type=job.env, about=about) as writer:
                return _run(pool, writer, goal, interrupt)
        except OSError as error:
            kept = "Episodes that were finished are kept. " if out.is_dir() else ""
            raise UserError(
                f"{out}: cannot be written: {error}. {kept}Choose another folder or fix this one."
            ) from error


def _run(pool: WorkerPool, writer: LeRobotWriter, goal: RecordingTarget, interrupt: Interrupt) -> Summary:
    summary, had = Summary(), Held.of(writer)

    def wanted(begun: int) -> bool:
        return goal.wants(had.episodes + begun, had.steps + pool.steps_played)

    with progress_bar(goal) as show:

        def on_wait() -> bool:
            show(had.episodes + summary.episodes, had.steps + pool.steps_played)
            return not interrupt.asked

        for index, episode in pool.episodes(wanted, on_wait, session=had.episodes):
            writer.add(episode, place=index)
            summary.add(episode)
    summary.held, summary.interrupted = had.episodes + summary.episodes, interrupt.asked
    return summary


@dataclass(frozen=True)
class Held:
    """What the folder already holds when a recording is continued."""

    episodes: int
    steps: int

    @classmethod
    def of(cls, writer: LeRobotWriter) -> Self:
        """Read from a writer that has just been opened, when everything it holds is folded into meta/info.json."""
        info = writer.path / "meta/info.json"
        rows = json.loads(info.read_text(encoding="utf-8"))["total_frames"] if info.exists() else 0
        return cls(writer.num_episodes, rows - writer.num_episodes)


@contextmanager
def progress_bar(goal: RecordingTarget) -> Iterator[Callable[[int, int], None]]:
    """A live line with the part done, episodes, steps per second and time left; yields `show(episodes, steps)`."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    unit = "episodes" if goal.episodes is not None else "steps"
    began = time.monotonic()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line: TaskID = progress.add_task(unit, total=goal.amount)

        def show(episodes: int, steps: int) -> None:
            rate = steps / max(time.monotonic() - began, 1e-6)
            other = f"{steps:,} steps" if goal.episodes is not None else f"{episodes:,} episodes"
            done = episodes if goal.episodes is not None else min(steps, goal.amount)
            progress.update(line, completed=done, description=f"{unit}, {other}, {rate:,.0f} steps/s")

        yield show
