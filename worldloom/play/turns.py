"""Many players, one engine: they take turns, in the order in which they asked."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from worldloom.play.engine import Answer, Ask, Engine
from worldloom.training.memory import return_freed_memory

R = TypeVar("R")
TIDY_EVERY = 256  # calls


class Threads(ThreadPoolExecutor):
    """Threads that the end of the server does not wait for: what they are at may take a minute."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


@dataclass
class Turns:
    """`ask` from any coroutine. The engine runs in one thread of its own, and only there."""

    engine: Engine
    calls: int = 0
    thread: Threads = field(default_factory=lambda: Threads(1, "worldloom-engine"))

    async def ask(self, asks: Sequence[Ask]) -> list[Answer]:
        """The engine's answers, or whatever it raises."""
        answers = await self.run(lambda: self.engine.answer(asks))
        self.calls += 1
        if self.calls % TIDY_EVERY == 0:
            await self.run(return_freed_memory)
        return answers

    async def run(self, function: Callable[[], R]) -> R:
        """Anything else that needs the model, in the engine's thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function)

    def close(self) -> None:
        self.thread.shutdown()
