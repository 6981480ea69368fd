"""How fast a dream is served to pages: frames a second, from key to picture, many players, and memory.

    python benchmarks/play.py [--json results/play.json] [--soak-minutes 30]

The server runs in a process of its own with an RSSM nano of 64 x 64 pictures (untrained: that changes no speed), the
pages are WebSocket clients here, so that both share the processor as a browser and its server do.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.evaluation.cost import hardware

ACTIONS = 3


def serve(particles: int, sessions: int) -> None:
    """The server's process. Its first line is the port."""
    import torch

    from worldloom.commands.play import serve_context
    from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
    from worldloom.models import build
    from worldloom.play.context import ServerContext
    from worldloom.play.engine import Engine
    from worldloom.play.serving import listen, run
    from worldloom.play.starts import Start

    torch.set_num_threads(1)
    torch.manual_seed(0)
    moves = ActionSpec("discrete", ACTIONS, names=("left", "stay", "right"))
    spec = DataSpec({"image": KeySpec("image", (3, 64, 64)), **signal_keys(reward=True, terminated=True)}, moves, 35.0)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    starts = {"noise": Start("noise", "a picture of noise", {"image": picture})}
    context = ServerContext(
        Engine(build("rssm", spec, "nano").eval(), particles), Path("benchmark"), 0, "0" * 64, starts
    )
    made = serve_context(context, sessions, None)
    made.limits = type(made.limits)(sessions=sessions, messages_per_second=1e9, burst=10**9)
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    run(made.app, listening)


@asynccontextmanager
async def page(port: int) -> AsyncIterator["Page"]:
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as socket:
        made = Page(socket)
        await socket.send('{"type": "hello", "version": 1}')
        await socket.recv()
        await socket.recv()
        yield made


class Page:
    def __init__(self, socket: Any):
        self.socket, self.rng = socket, random.Random(0)

    async def ask(self, **message: Any) -> Any:
        await self.socket.send(json.dumps(message))
        return await self.socket.recv()

    async def step(self) -> float:
        """From key to picture, in ms."""
        began = time.perf_counter()
        answer = await self.ask(type="step", action=self.rng.randrange(ACTIONS))
        assert isinstance(answer, bytes), f"refused: {answer}"
        return 1000 * (time.perf_counter() - began)

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await self.step()

    async def play(self, rate: float, seconds: float) -> list[float]:
        """Steps at `rate` a second (0: one after the other)."""
        taken, began, number = [], time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            if rate and (wait := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            taken.append(await self.step())
            number += 1
        return taken


async def measure(port: int, server: int, seconds: float, soak: float) -> dict[str, Any]:
    memory = await memory_of(port, server)
    async with page(port) as alone:
        await alone.play(0, 2)
        taken = await alone.play(0, seconds)
        one = {"frames_per_second": len(taken) / seconds, **quantiles(taken)}
        steady = quantiles(await alone.play(30, seconds))
    many = await crowd(port, 20, 10, seconds)
    found = {"one_page": one, "one_page_at_30": steady, "twenty_pages_at_10": many, **memory}
    if soak:
        found["soak"] = await soaked(port, server, soak)
    return found


async def crowd(port: int, pages: int, rate: float, seconds: float) -> dict[str, float]:
    async def one(number: int) -> list[float]:
        async with page(port) as made:
            made.rng.seed(number)
            await asyncio.sleep(number / pages / rate)
            return await made.play(rate, seconds)

    taken = [ms for each in await asyncio.gather(*map(one, range(pages))) for ms in each]
    return {"frames_per_second": len(taken) / seconds, **quantiles(taken)}


async def memory_of(port: int, server: int) -> dict[str, float]:
    """Of the server: KB per idle page, MB per thousand nodes.

    Both are differences between two moments in which the heap is alike: the server hands back what is free in it every
    256 calls, and what a call needs in passing comes anew after that.
    """
    async with page(port) as first:
        await first.steps(100)
        before = resident_bytes(server)
        idle = [page(port) for _ in range(40)]
        for each in idle:
            await each.__aenter__()
        session = (resident_bytes(server) - before) / len(idle)
        for each in idle:
            await each.__aexit__(None, None, None)
        await first.steps(512)
        before = resident_bytes(server)
        await first.steps(12 * 256)
        nodes = (resident_bytes(server) - before) / (12 * 256)
    return {"kilobytes_per_idle_session": session / 1e3, "megabytes_per_1000_moments": nodes / 1e3}


async def soaked(port: int, server: int, minutes: float) -> dict[str, Any]:
    """Four pages play on and on at 10 frames a second, a new tree every 1,000 steps: the server's memory each 10 s."""
    stop, seen = time.monotonic() + 60 * minutes, []

    async def one() -> None:
        async with page(port) as made:
            while time.monotonic() < stop:
                await made.play(10, min(100, stop - time.monotonic()))
                await made.socket.send('{"type": "new"}')
                await made.socket.recv()
                await made.socket.recv()

    async def watch() -> None:
        while time.monotonic() < stop:
            seen.append(resident_bytes(server) / 1e6)
            await asyncio.sleep(10)

    await asyncio.gather(one(), one(), one(), one(), watch())
    third = len(seen) // 3
    return {
        "minutes": minutes,
        "megabytes": {"second third": max(seen[third : 2 * third]), "last third": max(seen[2 * third :])},
    }


def resident_bytes(process: int) -> int:
    """What a process holds in memory (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def quantiles(taken: list[float]) -> dict[str, float]:
    return {"p50_ms": float(np.percentile(taken, 50)), "p95_ms": float(np.percentile(taken, 95))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--soak-minutes", type=float, default=0)
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.particles, 64)
        return
    command = [sys.executable, __file__, "--serve", "--particles", str(asked.particles)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        found = asyncio.run(measure(port, server.pid, asked.seconds, asked.soak_minutes))
    finally:
        server.terminate()
    found = {"command": "python " + " ".join(sys.argv), "hardware": hardware("cpu"), "seed": 0, **found}
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
