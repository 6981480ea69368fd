"""`worldloom play ENV --record OUT`: play a real environment in the same page, save every episode, train on them.

T rows, A action size.
"""

import asyncio
import secrets
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldloom import __version__
from worldloom.agents.environment import to_env
from worldloom.data.lerobot.info import read_info
from worldloom.data.lerobot.writer import LeRobotWriter, require_writable
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.describe import describe
from worldloom.envs.options import parse_options
from worldloom.envs.rollout import RecordedRows, to_episode
from worldloom.errors import UserError, origin
from worldloom.evaluation.policies.world import World
from worldloom.play import messages, starts
from worldloom.play.exporting import Exports
from worldloom.play.messages import VERSION
from worldloom.play.player import Outgoing, pack_pictures
from worldloom.play.session import check_action
from worldloom.runs.folders import unused

MIN_EPISODES = 2
MINUTES = 3.0


@dataclass
class Recorder:
    """Saves episodes of `world` in `out`; each is complete on disk when `add` returns."""

    world: World
    out: Path
    spec: DataSpec
    episodes: int = 0
    steps: int = 0
    model: Path = field(init=False)
    """Folder of the model that is trained on them."""
    training: "subprocess.Popen[bytes] | None" = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.model = self.unused()

    def open(self) -> None:
        """Count the episodes in `out`. Raises `UserError` where none can be added."""
        with self._writing() as writer:
            self.episodes = writer.num_episodes
        if self.episodes:
            self.steps = read_info(self.out)["total_frames"] - self.episodes

    def add(self, env: AdaptedEnv, rows: RecordedRows, terminated: bool) -> None:
        """Save an episode; one that did not terminate is truncated. Raises `UserError` if it cannot be written."""
        with self._writing() as writer:
            writer.add(to_episode(env, rows, terminated, not terminated))
            self.episodes, self.steps = self.episodes + 1, self.steps + len(rows.actions)

    @contextmanager
    def _writing(self) -> Iterator[LeRobotWriter]:
        who = f"played by a person in {self.world.name} with worldloom {__version__}"
        about = {"license": "unknown", "origin": who, "env": self.world.name, "synthetic": False}
        try:
            with self.lock, LeRobotWriter(self.out, self.spec, robot_type=self.world.name, about=about) as writer:
                yield writer
        except OSError as error:
            raise UserError(f"{self.out}: cannot be written ({error}): make room or choose another folder") from error

    @property
    def log(self) -> Path:
        """Output of the training of `model`."""
        return self.model.with_name(self.model.name + ".log")

    def unused(self) -> Path:
        """An unused folder for the next model: OUT-model, OUT-model-2 and so on."""
        return unused(self.out.with_name(f"{self.out.name}-model"))

    def train(self) -> dict[str, str]:
        """Start training unless it is running; its progress."""
        if self.training is None or self.training.poll() is not None:
            if self.episodes < MIN_EPISODES:
                raise UserError(f"{self.episodes} episodes are too few to train on: record {MIN_EPISODES} or more")
            self.model = self.unused()
            command = ["train", "rssm", str(self.out), "--out", str(self.model), "--minutes", str(MINUTES)]
            held_out = ["--held-out", str(max(0.1, 1 / self.episodes))]
            whole = [sys.executable, "-m", "worldloom", *command, *held_out]
            with self.log.open("wb") as log:
                self.training = subprocess.Popen(whole, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self.progress()

    def progress(self) -> dict[str, str]:
        """State and text of the training. Starts nothing."""
        if self.training is None:
            return {"state": "none", "text": ""}
        done = self.training.poll()
        if done is None:
            return {"state": "running", "text": f"training a first model for {MINUTES:g} minutes: {self.model}"}
        if done:
            last = self.log.read_text(errors="replace").strip().splitlines()
            return {"state": "failed", "text": (last or ["no output"])[-1][-300:]}
        return {"state": "done", "text": f"open it: worldloom play {self.model}"}

    def close(self) -> None:
        if self.training is not None:
            self.training.terminate()


class RealPlayer:
    """One player in a real environment."""

    def __init__(self, name: str, recorder: Recorder):
        self.name, self.recorder = name, recorder
        self.env = recorder.world.make()
        self.rows = RecordedRows()
        self.finished, self.saved = True, False

    @property
    def unsaved(self) -> bool:
        """Whether the episode has steps that are not saved."""
        return bool(self.rows.actions) and not self.saved

    async def begin(self, name: str | None = None, seed: int = 0) -> None:
        """Begin the next episode. The current one is saved first."""
        await asyncio.to_thread(self._save)
        obs, info = await asyncio.to_thread(lambda: self.env.reset(seed=seed or secrets.randbits(31)))
        self.rows = RecordedRows(obs=[obs], task=str(info.get("task", "")))
        self.finished, self.saved = False, False

    def _save(self, terminated: bool = False) -> None:
        """Save the episode once, if it has steps."""
        if self.unsaved:
            self.recorder.add(self.env, self.rows, terminated)
            self.saved = True

    def close(self) -> None:
        """Save an unfinished episode and close the environment."""
        try:
            self._save()
        finally:
            self.env.close()

    async def greet(self, request: messages.Request) -> list[Outgoing]:
        facts = {
            "mode": "real",
            "env": self.recorder.world.name,
            "model": None,
            **starts.describe(self.recorder.spec, self.recorder.spec.obs),
            "signals": ["reward"],
            "starts": [],
            "agent": False,
            "recording": False,
            "reality": None,
            "trust": None,
            "trains": True,
            "limits": {"moments": 0, "plans": 0, "plan_steps": 0},
        }
        welcome = {"type": "welcome", "id": request.id, "version": VERSION, "session": self.name, **facts}
        return [welcome, self._show(request)]

    async def answer(self, request: messages.Request) -> AsyncIterator[Outgoing]:
        for outgoing in await self._answer(request):
            yield outgoing

    @singledispatchmethod
    async def _answer(self, request: Any) -> list[Outgoing]:
        raise UserError(f"{type(request).__name__.lower()} is not available in a real environment: open a model for it")

    @_answer.register
    async def _ping(self, request: messages.Ping) -> list[Outgoing]:
        return [{"type": "pong", "id": request.id}]

    @_answer.register
    async def _new(self, request: messages.New) -> list[Outgoing]:
        await self.begin(seed=request.seed)
        return await self.greet(request)

    @_answer.register
    async def _options(self, request: messages.Options) -> list[Outgoing]:
        return [self._show(request)]

    @_answer.register
    async def _train(self, request: messages.Train) -> list[Outgoing]:
        return [{"type": "training", "id": request.id, **await asyncio.to_thread(self.recorder.train)}]

    @_answer.register
    async def _training(self, request: messages.Training) -> list[Outgoing]:
        return [{"type": "training", "id": request.id, **await asyncio.to_thread(self.recorder.progress)}]

    @_answer.register
    async def _step(self, request: messages.Step) -> list[Outgoing]:
        if self.finished:
            raise UserError("the episode has ended: begin a new one")
        if request.action is None or request.by != "player":
            raise UserError("a step needs an action of the player")
        row = check_action(request.action, self.recorder.spec)
        action = to_env(torch.from_numpy(row)[None], self.recorder.spec)[0]
        try:
            obs, reward, terminated, truncated, info = await asyncio.to_thread(self.env.step, action)
        except Exception as error:
            self.finished = True
            raise UserError(f"the environment failed ({origin(error)}): begin a new episode") from error
        self.rows.obs.append(obs)
        self.rows.actions.append(action)
        self.rows.rewards.append(reward)
        self.rows.infos.append(info)
        self.finished = terminated or truncated
        if self.finished:
            await asyncio.to_thread(self._save, terminated)
        return [self._show(request, terminated)]

    def _show(self, request: messages.Request, terminated: bool = False) -> bytes:
        """The message of the current observation, with the keys of a node of a model."""
        obs, spec, steps = self.rows.obs[-1], self.recorder.spec, len(self.rows.actions)
        node = {
            "number": steps,
            "parent": steps - 1 if steps else None,
            "kind": "step" if steps else "start",
            "action": None,
            "steps": steps,
            "blind": 0,
            "signals": {"reward": self.rows.rewards[-1] if steps else 0.0, "terminated": float(terminated)},
            "vectors": {key: np.asarray(obs[key], float).tolist() for key in spec.vector_keys},
            "residual": {},
            "persistence": {},
            "trust": None,
            "over": self.finished,
            "recorded": {"episodes": self.recorder.episodes, "steps": self.recorder.steps},
        }
        header = {"type": "moment", "id": request.id, "here": True, "plan": None, "moment": node}
        return pack_pictures(header, [(key, "real", obs[key]) for key in spec.image_keys])


def make_recorder(env: str, options: tuple[str, ...], out: Path) -> Recorder:
    """A recorder, checked before the server starts. Raises `UserError`."""
    world = World(env, parse_options(options))
    require_writable(out)
    made = world.make()
    try:
        spec = describe(made)
    finally:
        made.close()
    if not spec.image_keys and not spec.vector_keys:
        raise UserError(
            f"{env} has no observation that can be recorded: choose an environment with pictures or vectors"
        )
    recorder = Recorder(world, out, spec)
    recorder.open()
    return recorder


def real_server(env: str, options: tuple[str, ...], out: Path, sessions: int, token: str | None) -> Any:
    from worldloom.play.access import Access
    from worldloom.play.server import Server, ServerLimits

    recorder = make_recorder(env, options, out)

    def make(name: str, exports: Exports) -> RealPlayer:
        return RealPlayer(name, recorder)

    return Server(make, Access(token), ServerLimits(sessions=sessions), recorder.close)
