"""How learned policies are called on the command line: FOLDER for the last of a run, FOLDER@STEP for an earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from worldloom.errors import UserError
from worldloom.runs import checkpoint, folders
from worldloom.runs.run import Run


@dataclass(frozen=True)
class Named:
    """One policy: a folder of `worldloom learn dreamer` and the step of a checkpoint, None for the last."""

    folder: Path
    step: int | None = None

    @classmethod
    def parse(cls, name: Path) -> Self:
        """`FOLDER` or `FOLDER@STEP`; a folder that is really called so is meant as a whole."""
        return cls(*folders.split_step(name))

    def __str__(self) -> str:
        return str(self.folder) if self.step is None else f"{self.folder}@{self.step}"

    def check(self, run: Run) -> str:
        """The fingerprint of its weights. Raises `UserError` unless it learned with the very model of `run`."""
        if not (self.folder / "learn.json").exists():
            raise UserError(f"{self} is no learned policy: name a folder that `worldloom learn dreamer` wrote")
        path = checkpoint.choose(self.folder, self.step)
        state = checkpoint.read_state(path)
        if state.get("hash") != run.checkpoint_hash:
            raise UserError(f"the policy in {self} was learned with another model than step {run.step} of {run.path}")
        fingerprint = checkpoint.auxiliary_hash(state)
        if fingerprint is None:
            raise UserError(f"{path} holds a model and no policy: learn one with `worldloom learn dreamer {run.path}`")
        return fingerprint


def parse_all(names: Sequence[Path], run: Run) -> list[Named]:
    """Every policy, checked. Raises `UserError` as `check` does, and where two are one and the same."""
    found: dict[str, Named] = {}
    for name in names:
        named = Named.parse(name)
        earlier = found.setdefault(named.check(run), named)
        if earlier is not named:
            raise UserError(f"--policy {earlier} and {named} are the same policy, which would count as two: drop one")
    return list(found.values())
