"""A server context with a small untrained model, and a player: shared by the tests of play."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.toy import toy_episode, toy_spec
from worldloom.agents.actor import Actor
from worldloom.models import build
from worldloom.play import messages
from worldloom.play.context import ServerContext
from worldloom.play.engine import Engine
from worldloom.play.exporting import Exports
from worldloom.play.player import ModelPlayer
from worldloom.play.starts import Start
from worldloom.play.turns import Turns

HASH = "a" * 64


def frame(row: int = 0) -> dict[str, np.ndarray]:
    """One row of the toy environment, pictures `[H, W, 3]`."""
    episode = toy_episode(3)
    return {"image": episode.obs["image"][row].transpose(1, 2, 0), "state": episode.obs["state"][row]}


def start(name: str = "a") -> Start:
    """Two context rows and eight that follow."""
    episode, spec = toy_episode(3), toy_spec()
    rows = tuple((spec.action.scale(episode.action[t]), frame(t + 1)) for t in range(10))
    return Start(name, f"start {name}", frame(), rows[:2], rows[2:])


def small_context(**options: Any) -> ServerContext:
    torch.manual_seed(0)
    model = build("rssm", toy_spec(), "debug").eval()
    actor = Actor(model.start(to_obs()).features.shape[-1], model.spec.action, units=8, layers=1).eval()
    starts = {"a": start("a"), "b": start("b")}
    return ServerContext(Engine(model, 2), Path("toy"), 7, HASH, starts, actor=actor, **options)


def to_obs() -> dict[str, torch.Tensor]:
    return {"image": torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "state": torch.zeros(1, 2)}


@asynccontextmanager
async def player(context: ServerContext | None = None) -> AsyncIterator[ModelPlayer]:
    context, exports = context or small_context(), Exports()
    turns = Turns(context.engine)
    made = ModelPlayer("me", context, turns, exports)
    await made.begin()
    try:
        yield made
    finally:
        turns.close()
        exports.close()


async def said(made: ModelPlayer, asked: str, **fields: Any) -> list[Any]:
    """The answers to a request, decoded as by the page."""
    request = messages.read(json.dumps({"type": asked, "id": 5, **fields}))
    return [understood(outgoing) async for outgoing in made.answer(request) if outgoing is not None]


def understood(outgoing: dict[str, Any] | bytes) -> dict[str, Any]:
    """A JSON answer, or the header of a binary one with its pictures in "shown" as arrays."""
    if isinstance(outgoing, dict):
        return json.loads(json.dumps(outgoing))
    size = int.from_bytes(outgoing[:4], "big")
    header, at = json.loads(outgoing[4 : 4 + size]), 4 + size
    header["shown"] = {}
    for listed in header["pictures"]:
        shape = (listed["height"], listed["width"], listed["channels"])
        pixels = np.frombuffer(outgoing, np.uint8, int(np.prod(shape)), at).reshape(shape)
        header["shown"][listed["role"], listed["key"]] = pixels
        at += pixels.size
    assert at == len(outgoing), "nothing is left over"
    return header


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())
