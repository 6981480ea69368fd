"""`worldloom record ENV OUT`: play an environment in parallel and save every finished episode at once."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from worldloom import __version__
from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import LeRobotWriter, require_writable
from worldloom.envs.pool import Job, WorkerPool
from worldloom.errors import UserError


def record(
    env: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    *,
    episodes: int | None = None,
    steps: int | None = None,
    num_envs: int = 4,
    policy: str = "random",
    hold: int = 10,
    seed: int = 0,
    image_size: int = 64,
    max_episode_steps: int | None = None,
    options: tuple[str, ...] = (),
    license: str = "unknown",
) -> None:
    """Play an environment and save its episodes as a LeRobotDataset v3.0.

    Every finished episode is on the disk at once and survives Ctrl-C and kill -9: type the same command again to go on.
    An episode has one row more than steps: the last row shows the terminal observation. Episode i depends on the seed
    and on i alone and they lie in the order of i, so that `--episodes` gives the same dataset for any `--num-envs`.

    Args:
        env: doom, carracing, pusht, dmc:cheetah-run, atari:pong, minigrid:DoorKey-5x5-v0, gym:CartPole-v1, or your own
            function as module:function.
        out: the folder of the dataset, new or to be continued.
        episodes: record until the dataset holds this many episodes.
        steps: record until the dataset holds this many steps; episodes under way are finished, never cut or dropped,
            because dropping them would leave the long ones out.
        num_envs: environments that play at the same time, each in its own process.
        policy: random, your own module:function called as policy(obs, rng), or the folder of a saved agent.
        hold: the random policy holds each action for a random 1 to HOLD steps.
        seed: from which every episode's own seed is made.
        image_size: side of the recorded square pictures in pixels; 0 keeps their own size.
        max_episode_steps: truncate episodes at this length.
        options: options of the environment, such as pixels=true action_repeat=2.
        license: the licence of the recorded data, for its data card.
    """
    goal = Goal(episodes, steps)
    for name, value in (("num-envs", num_envs), ("hold", hold), ("max-episode-steps", max_episode_steps)):
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}, but it must be 1 or more")
    if image_size < 0 or seed < 0:
        raise UserError(f"--image-size ({image_size}) and --seed ({seed}) must be 0 or more")
    job = Job(env, parse_options(options), policy, hold, seed, image_size, max_episode_steps)
    summary = collect(job, out, goal, min(num_envs, episodes or num_envs), license)
    print(summary.line(out))
    if summary.interrupted:
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Goal:
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


def parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs; a value is JSON where it can be (true, 3, 0.5, null) and otherwise the text itself."""
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if name in ("name", "image_size", "seed"):
            raise UserError(f"--options {option}: {name} is no option of an environment")
        if not (name and equals):
            raise UserError(f"--options takes name=value, for instance pixels=true, but got {option!r}")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed


def collect(job: Job, out: Path, goal: Goal, num_envs: int, license: str = "unknown") -> Summary:
    """Record until the goal is reached or Ctrl-C is pressed. Raises `UserError` and keeps every finished episode."""
    origin = f"recorded from {job.env} by worldloom {__version__} with policy {job.policy}, seed {job.seed}"
    about = {"license": license, "origin": origin, "env": job.env, "synthetic": False}
    require_writable(out)  # before environments are started, which takes a while
    with WorkerPool(job, num_envs) as pool, interruptible() as interrupted:
        try:
            with LeRobotWriter(out, pool.spec, robot_type=job.env, about=about) as writer:
                return _run(pool, writer, goal, interrupted)
        except OSError as error:
            kept = "Episodes that were finished are kept. " if out.is_dir() else ""
            raise UserError(
                f"{out}: cannot be written: {error}. {kept}Choose another folder or mend this one."
            ) from error


def _run(pool: WorkerPool, writer: LeRobotWriter, goal: Goal, interrupted: threading.Event) -> Summary:
    summary, had = Summary(), Held.of(writer)

    def wanted(begun: int) -> bool:
        return goal.wants(had.episodes + begun, had.steps + pool.steps_played)

    with progress_bar(goal) as show:

        def on_wait() -> bool:
            show(had.episodes + summary.episodes, had.steps + pool.steps_played)
            return not interrupted.is_set()

        for index, episode in pool.episodes(wanted, on_wait, session=had.episodes):
            writer.add(episode, place=index)
            summary.add(episode)
    summary.held, summary.interrupted = had.episodes + summary.episodes, interrupted.is_set()
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
def progress_bar(goal: Goal) -> Iterator[Callable[[int, int], None]]:
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


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event, so that what is being written is written whole; a second one breaks off."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
