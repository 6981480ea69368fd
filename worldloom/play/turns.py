"""Many players, one engine: whoever asks while a call runs is in the next one."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from worldloom.play.engine import Answer, Ask, Engine
from worldloom.training.memory import return_freed_memory

R = TypeVar("R")
TIDY_EVERY = 256  # calls
Waiting = tuple[Sequence[Ask], "asyncio.Future[list[Answer]]"]


@dataclass
class Batcher:
    """`ask` from any coroutine. The engine runs in one thread of its own, and only there."""

    engine: Engine
    waiting: list[Waiting] = field(default_factory=list)
    running: "asyncio.Task[None] | None" = None
    calls: int = 0
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "worldloom-engine"))

    async def ask(self, asks: Sequence[Ask]) -> list[Answer]:
        """The engine's answers. Whatever it raises for this call, everybody in the call gets."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self.waiting.append((asks, future))
        if self.running is None:
            self.running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self.waiting:
                taken = self._take()
                asks = [ask for group, _ in taken for ask in group]
                try:
                    answers = await loop.run_in_executor(self.thread, self.engine.answer, asks)
                except Exception as error:
                    for _, future in taken:
                        if not future.done():
                            future.set_exception(error)
                    continue
                self.calls += 1
                for group, future in taken:
                    mine, answers = answers[: len(group)], answers[len(group) :]
                    if not future.done():
                        future.set_result(mine)
                if self.calls % TIDY_EVERY == 0:
                    await self.run(return_freed_memory)
        finally:
            self.running = None

    async def run(self, function: Callable[[], R]) -> R:
        """Anything else that needs the model, in the engine's thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function)

    def _take(self) -> list[Waiting]:
        """Those who waited longest, as many as fit into a call; who asks for more than that goes alone."""
        taken: list[Waiting] = []
        rows = 0
        while self.waiting and (not taken or rows + len(self.waiting[0][0]) <= self.engine.width):
            taken.append(self.waiting.pop(0))
            rows += len(taken[-1][0])
        return taken

    def close(self) -> None:
        self.thread.shutdown(wait=False, cancel_futures=True)
