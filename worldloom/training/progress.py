"""What a training says while it runs: a live line on a terminal, plain lines elsewhere, a JSONL log, TensorBoard."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text
from torch import Tensor

from worldloom.data import durable
from worldloom.errors import UserError
from worldloom.registry import require
from worldloom.training.distributed import Team
from worldloom.training.objective import Objective


class Meter:
    """Means over the updates since the last reading, kept on the device so that a step need not wait for them.

    `frames` is the number of rows in a global batch. Rates count the time of updates alone, without checkpoints.
    """

    def __init__(self, frames: int):
        self.frames = frames
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.updates, self.seconds = 0, 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def add(self, objective: Objective, norm: Tensor) -> None:
        self.names = ["loss", "gradient_norm", *objective.terms]
        values = torch.stack([objective.total.detach(), norm, *objective.terms.values()])
        self.sums = values if self.sums is None else self.sums + values
        self.updates += 1
        self.seconds += time.perf_counter() - self.began

    def read(self, team: Team) -> dict[str, Any]:
        """The team's means and rates, and a fresh start. The whole team takes part."""
        assert self.sums is not None, "read before any update"
        means = (team.sum(self.sums) / (team.size * self.updates)).tolist()
        loss, norm, *terms = means
        rate = self.updates / max(self.seconds, 1e-9)
        record = {
            "loss": loss,
            "terms": dict(zip(self.names[2:], terms, strict=True)),
            "gradient_norm": norm,
            "steps_per_second": rate,
            "frames_per_second": rate * self.frames,
        }
        self.sums, self.updates, self.seconds = None, 0, 0.0
        return record


class Log:
    """`RUN/log.jsonl`, one object per reading, and TensorBoard files if asked for. Only rank 0 writes (`leads`).

    Of what an earlier process logged the records up to `step` stay, or those that `keep` says yes to.
    """

    def __init__(
        self,
        run: Path,
        step: int = 0,
        tensorboard: bool = False,
        leads: bool = True,
        keep: Callable[[dict[str, Any]], bool] | None = None,
    ):
        self.path = run / "log.jsonl" if leads else Path(os.devnull)
        self.writer: Any = None
        if tensorboard and leads:
            module = require("torch.utils.tensorboard", "tensorboard")
            self.writer = module.SummaryWriter(run / "tensorboard", purge_step=step + 1)
        self._forget_unless(keep or (lambda record: record["step"] <= step))
        # Unbuffered: a record is one write, and nothing is left that could fail when the file is closed.
        self.file = self.path.open("ab", buffering=0)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, in one piece. Raises `UserError` when the disk refuses."""
        try:
            self.file.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise UserError(f"{self.path} could not be written ({error.strerror}): free some space") from error
        if self.writer is not None:
            flat = {**record, **{f"terms/{k}": v for k, v in record.get("terms", {}).items()}}
            for name, value in flat.items():
                if name != "step" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.file.close()
        if self.writer is not None:
            self.writer.close()

    def _forget_unless(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Drop what a stopped run logged after its last checkpoint, and a line it did not finish."""
        if not self.path.is_file():
            return
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _is(keep, line)]
        with durable.replacing(self.path) as partial:
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _is(keep: Callable[[dict[str, Any]], bool], line: str) -> bool:
    try:
        return keep(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


class Display:
    """A bar and the losses, changing in place under what was said; plain lines where nobody watches."""

    def __init__(self, steps: int | None, console: Console):
        self.steps, self.console = steps, console
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[rates]}"))
        self.bar = Progress(*columns, console=console)
        self.task = self.bar.add_task("step 0", total=1.0, rates="")
        self.losses = Text()
        self.live = Live(Group(self.bar, self.losses), console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def say(self, words: str) -> None:
        self.console.print(words, highlight=False, soft_wrap=True, markup=False)

    def show(self, record: dict[str, Any], progress: float) -> None:
        """One reading: on a terminal in place of the last one, elsewhere a line of its own."""
        step = f"step {record['step']}" + (f"/{self.steps}" if self.steps else "")
        losses, rates = reading(record, progress)
        if self.console.is_terminal:
            self.bar.update(self.task, description=step, completed=progress, rates=rates)
            self.losses.plain = losses
        else:
            self.say(f"{step}  {losses}  {rates}")


def reading(record: dict[str, Any], progress: float) -> tuple[str, str]:
    """A log record in words: the loss with its terms, and the rates with the time left."""
    terms = "  ".join(f"{name} {value:.4g}" for name, value in record["terms"].items())
    left = record["seconds"] * (1 - progress) / progress if progress > 0 else float("nan")
    rate = f"{record['steps_per_second']:.3g} steps/s  {record['frames_per_second']:,.0f} frames/s"
    return f"loss {record['loss']:.4g}  ({terms})", f"{rate}  {clock(left)} left"


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
