"""Environments in worker processes: each plays whole episodes and sends them back when they are done."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

import numpy as np

from worldloom.data.episode import Episode
from worldloom.data.spec import DataSpec
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.envs.policy import load_policy
from worldloom.envs.rollout import play_episode
from worldloom.errors import UserError, origin
from worldloom.registry import allow

POLL_SECONDS = 0.1
GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """What every worker does: which environment, who plays, and the seed from which episode i gets its own.

    `allow`: what may be imported although only the folder of the policy names it.
    """

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    policy: str = "random"
    hold: int = 10
    seed: int = 0
    image_size: int = 64
    max_steps: int | None = None
    allow: tuple[str, ...] = ()

    def episode_seed(self, session: int, index: int) -> np.random.SeedSequence:
        """The seed of episode `index` of a recording that began when the dataset held `session` episodes."""
        return np.random.SeedSequence((self.seed, session), spawn_key=(index,))


class Stopped(Exception):
    """The episode in play is not wanted any more."""


@dataclass
class Worker:
    process: BaseProcess
    connection: Connection
    episode: int | None = None


class WorkerPool:
    """`num_envs` workers; a context manager. Episode i is the same whichever worker plays it, of however many.

    spec: what the environment records, known once the pool is entered.
    """

    spec: DataSpec

    def __init__(self, job: Job, num_envs: int):
        self.job = job
        # Spawned, not forked: a fork of a process with threads (torch, a progress bar) can hang.
        context = multiprocessing.get_context("spawn")
        self._stop = context.RawValue("b", 0)
        self._steps = context.RawArray("q", num_envs)
        with ignoring_interrupts():
            self._workers = [self._start(context, number) for number in range(num_envs)]

    def _start(self, context: Any, number: int) -> Worker:
        ours, theirs = context.Pipe()
        arguments = (self.job, number, theirs, self._stop, self._steps)
        process = context.Process(target=work, args=arguments, daemon=True, name=f"worldloom-env-{number}")
        process.start()
        theirs.close()
        return Worker(process, ours)

    def __enter__(self) -> Self:
        try:
            self.spec, *_ = [self._receive(worker) for worker in self._workers]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps_played(self) -> int:
        """Steps of finished and of running episodes, of all workers."""
        return sum(self._steps)

    def episodes(
        self, wanted: Callable[[int], bool], on_wait: Callable[[], bool] = lambda: True, session: int = 0
    ) -> Iterator[tuple[int, Episode]]:
        """Finished episodes with their index, as they finish. A new one, number i, is begun while `wanted(i)`.

        `session` tells several recordings with one seed apart (see `Job.episode_seed`).

        `on_wait` is called several times a second; when it returns false, the running episodes are given up. Raises
        `UserError` when an environment fails or its process exits.
        """
        begun = 0
        idle = list(self._workers)
        while True:
            while idle and wanted(begun):
                self._begin(idle.pop(), session, begun)
                begun += 1
            busy = {worker.connection: worker for worker in self._workers if worker.episode is not None}
            if not busy or not on_wait():
                return
            for connection in wait(list(busy), POLL_SECONDS):
                worker = busy[connection]  # type: ignore[index]
                index, episode = worker.episode, self._receive(worker)
                worker.episode = None
                # The worker gets its next episode before this one is written, so that it never waits for the disk.
                if wanted(begun):
                    self._begin(worker, session, begun)
                    begun += 1
                else:
                    idle.append(worker)
                assert index is not None
                yield index, episode

    def _begin(self, worker: Worker, session: int, index: int) -> None:
        worker.episode = index
        # A worker that has exited is noticed when its answer is read: the message then says more than a broken pipe.
        with contextlib.suppress(BrokenPipeError):
            worker.connection.send((session, index))

    def _receive(self, worker: Worker) -> Any:
        """The worker's next answer; a failure it reports, or its death, is raised here."""
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            worker.process.join(GRACE_SECONDS)
            how = _death(worker.process.exitcode)
            doing = "starting" if worker.episode is None else f"playing episode {worker.episode}"
            raise UserError(f"environment {self.job.env!r}: its process {how} while {doing}") from error
        if kind == "failed":
            raise UserError(value)
        return value

    def close(self) -> None:
        """End every worker: asked first, after a grace period made to."""
        self._stop.value = 1
        for worker in self._workers:
            worker.connection.close()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            worker.process.join(max(deadline - time.monotonic(), 0.1))
            if worker.process.is_alive():
                end_group(worker.process.pid or 0)
                worker.process.kill()  # it may not have come to have a group of its own
                worker.process.join()


def end_group(worker: int) -> None:
    """Kill a worker and the processes that its environment has started: they share its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Processes started inside ignore Ctrl-C from their first instruction on: only the parent answers to it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def work(job: Job, number: int, connection: Connection, stop: Any, steps: Any) -> None:
    """The body of one worker process: make the environment, then play each episode whose index arrives."""
    # Its own session, as some engines (ViZDoom) catch the terminal's Ctrl-C themselves; the parent ends us in order.
    os.setsid()
    # Python forbids the children of a daemon to have children, as vectorised simulators do.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    orphaned = threading.Event()
    threading.Thread(target=_watch_parent, args=(orphaned,), daemon=True).start()

    def on_step() -> None:
        steps[number] += 1
        if stop.value or orphaned.is_set():
            raise Stopped

    try:
        _serve(job, connection, on_step)
    except (Stopped, EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is done with us, or dead


def _watch_parent(orphaned: threading.Event) -> None:
    """Notice the parent's death even by kill -9; an environment that hangs is not waited for."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    orphaned.set()
    time.sleep(GRACE_SECONDS)
    end_group(os.getpid())


def _serve(job: Job, connection: Connection, on_step: Callable[[], None]) -> None:
    env, doing = None, "being made"
    try:
        allow(*job.allow)
        env = make_env(job.env, image_size=job.image_size, **job.options)
        policy = load_policy(job.policy, env.action_space, job.hold)
        connection.send(("ready", describe(env)))
        while True:
            session, index = connection.recv()
            doing = f"playing episode {index} of seed {job.seed}"
            seed = job.episode_seed(session, index)
            episode = play_episode(env, policy, seed, policy_name=job.policy, max_steps=job.max_steps, on_step=on_step)
            connection.send(("episode", episode))
    except (Stopped, EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except UserError as error:
        connection.send(("failed", f"{error} (while {doing})" if env is not None else str(error)))
    except Exception as error:
        # A foreign environment or policy may raise anything; the parent reports it and ends in order.
        connection.send(("failed", f"environment {job.env!r} crashed while {doing}: {origin(error)}"))
    finally:
        if env is not None:
            env.close()
