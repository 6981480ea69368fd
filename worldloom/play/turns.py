"""Many players share one engine: their queries run in order of arrival."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from worldloom.play.engine import Engine, Query, Result
from worldloom.training.memory import return_freed_memory

R = TypeVar("R")
RELEASE_EVERY = 256  # calls


class Threads(ThreadPoolExecutor):
    """Threads that a server shutdown does not wait for: their work may take a minute."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


@dataclass
class Turns:
    """Runs queries of any coroutine in the engine's only thread."""

    engine: Engine
    calls: int = 0
    thread: Threads = field(default_factory=lambda: Threads(1, "worldloom-engine"))

    async def query(self, queries: Sequence[Query]) -> list[Result]:
        """The engine's results. Raises what the engine raises."""
        results = await self.run(lambda: self.engine.run(queries))
        self.calls += 1
        if self.calls % RELEASE_EVERY == 0:
            await self.run(return_freed_memory)
        return results

    async def run(self, function: Callable[[], R]) -> R:
        """Run another function that needs the model in the engine's thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function)

    def close(self) -> None:
        self.thread.shutdown()
