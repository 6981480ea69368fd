"""Parts of a model that come from other runs: how the command line names them, and how `run.json` keeps them."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from worldloom.errors import UserError


@dataclass(frozen=True)
class PartUse:
    """Which weights of which run a part has, or began with. Those of a `frozen` one are in no checkpoint but there.

    `hash` is the sha256 of the weights in the checkpoint of `step`.
    """

    run: Path
    step: int
    hash: str
    frozen: bool = True

    def to_json(self, user: Path) -> dict[str, Any]:
        """As it stands in the `run.json` of `user`: relative where both runs lie side by side, and so move together."""
        here, there = user.resolve(), self.run.resolve()
        path = os.path.relpath(there, here) if there.is_relative_to(here.parent) else str(there)
        return {**asdict(self), "run": path}

    @classmethod
    def from_json(cls, data: dict[str, Any], user: Path) -> Self:
        """Raises `KeyError`, `TypeError` or `ValueError` for what `to_json` cannot have written."""
        return cls((user / data["run"]).resolve(), int(data["step"]), str(data["hash"]), bool(data["frozen"]))


def parse_parts(entries: Sequence[str], flag: str = "--part") -> dict[str, Path]:
    """Each NAME=RUN or NAME=RUN@STEP by its name. Raises `UserError` for anything else and a name given twice."""
    parts: dict[str, Path] = {}
    for entry in entries:
        name, equals, run = entry.partition("=")
        if not (name and equals and run):
            raise UserError(f"{flag} {entry!r}: write it as NAME=RUN or NAME=RUN@STEP, such as tokenizer=runs/first")
        if name in parts:
            raise UserError(f"{flag} {entry!r}: {name} is given twice, first as {parts[name]}: drop one")
        parts[name] = Path(run)
    return parts
