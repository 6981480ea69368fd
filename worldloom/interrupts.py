"""Ctrl-C: the first one ends a command in order, a second one at once, and neither with a traceback."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

EXIT_CODE = 130  # of a process that Ctrl-C ended, as shells have it
Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


def end_at_once(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End this process and its worker processes without waiting for anything, threads included."""
    processes = sys.modules.get("multiprocessing")
    for child in processes.active_children() if processes else ():
        child.kill()
    os.write(2, b"worldloom: stopped by Ctrl-C\n")
    os._exit(EXIT_CODE)


def raise_once(number: int, frame: FrameType | None) -> None:
    """`KeyboardInterrupt`, as Python does. While that unwinds, a further Ctrl-C ends the process."""
    signal.signal(signal.SIGINT, end_at_once)
    raise KeyboardInterrupt


@contextmanager
def second_one_ends() -> Iterator[None]:
    """Around a whole command. After a Ctrl-C it stays in force until the process has ended."""
    ours = threading.current_thread() is threading.main_thread()
    # A parent process that starts this one in the background may have set Ctrl-C to be ignored.
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, raise_once)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is raise_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a question that a loop answers after its step; the second one kills."""

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self.earlier: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Self:
        # Python allows handlers in the main thread only; elsewhere Ctrl-C acts as it does without us.
        if threading.current_thread() is threading.main_thread():
            self.earlier = {number: signal.signal(number, self._ask) for number in self.signals}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.earlier.items():
            # `raise_once` has had its turn: what was asked here was the command's first Ctrl-C.
            signal.signal(number, end_at_once if self.asked and handler is raise_once else handler)
