"""The deadline of one decision, and the milliseconds of its sections."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from worldloom.errors import UserError


class Clock:
    """Runs from its construction on. `deadline` in milliseconds, None is none; `now()` is the time in seconds."""

    def __init__(self, deadline: float | None = None, now: Callable[[], float] = time.perf_counter):
        if deadline is not None and not 0 < deadline < math.inf:
            raise UserError(f"the deadline is {deadline} ms, but it must be more than 0 and finite; None is none")
        self.deadline, self.now = deadline, now
        self.began = now()
        self.sections: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Milliseconds since the decision began."""
        return 1000 * (self.now() - self.began)

    def allows(self, milliseconds: float) -> bool:
        """Whether work of that length would end before the deadline."""
        return self.deadline is None or self.elapsed + milliseconds <= self.deadline

    def share(self, parts: int) -> Self:
        """The clock of the next of `parts` equal parts of the time that is left. Sections are counted together."""
        part = type(self)(None, self.now)
        part.began, part.sections = self.began, self.sections
        if self.deadline is not None:
            part.deadline = self.elapsed + max(0.0, self.deadline - self.elapsed) / parts
        return part

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the time of a block under `name`."""
        began = self.now()
        try:
            yield
        finally:
            self.sections[name] = self.sections.get(name, 0.0) + 1000 * (self.now() - began)
