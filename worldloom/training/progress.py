"""What a training says while it runs: a live line on a terminal, plain lines elsewhere, a JSONL log, TensorBoard."""

import json
import os
import time
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
from worldloom.schedule import Phase
from worldloom.training.distributed import ProcessGroup
from worldloom.training.objective import WeightedLoss


class Meter:
    """Means over the updates since the last reading, kept on the device so that a step need not wait for them.

    Rates count the time of updates alone, without checkpoints.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.updates, self.rows, self.seconds = 0, 0, 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def add(self, loss: WeightedLoss, norm: Tensor, rows: int) -> None:
        """One update on as many `rows` in this process."""
        self.names = ["loss", "gradient_norm", *loss.terms]
        values = torch.stack([loss.total.detach(), norm, *loss.terms.values()])
        self.sums = values if self.sums is None else self.sums + values
        self.updates += 1
        self.rows += rows
        self.seconds += time.perf_counter() - self.began

    def read(self, group: ProcessGroup) -> dict[str, Any]:
        """The group's means and rates, and a fresh start. The whole group takes part."""
        assert self.sums is not None, "read before any update"
        means = (group.sum(self.sums) / (group.size * self.updates)).tolist()
        total, norm, *terms = means
        seconds = max(self.seconds, 1e-9)
        record = {
            "loss": total,
            "terms": dict(zip(self.names[2:], terms, strict=True)),
            "gradient_norm": norm,
            "steps_per_second": self.updates / seconds,
            "frames_per_second": self.rows * group.size / seconds,
        }
        self.sums, self.updates, self.rows, self.seconds = None, 0, 0, 0.0
        return record


class Log:
    """`RUN/log.jsonl`, one object per reading, and TensorBoard files if asked for. Only rank 0 writes (`is_main`).

    What an earlier process logged beyond `step` is forgotten, as it will be logged again; `counter` is the name under
    which records count.
    """

    def __init__(
        self, run: Path, step: int = 0, tensorboard: bool = False, is_main: bool = True, counter: str = "step"
    ):
        self.counter = counter
        self.path = run / "log.jsonl" if is_main else Path(os.devnull)
        self.writer: Any = None
        if tensorboard and is_main:
            module = require("torch.utils.tensorboard", "tensorboard")
            self.writer = module.SummaryWriter(run / "tensorboard", purge_step=step + 1)
        self._forget_after(step)
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

    def _forget_after(self, step: int) -> None:
        """Drop what a stopped run logged after its last checkpoint, and a line it did not finish."""
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _count_of(line, self.counter) <= step]
        with durable.replacing(self.path) as partial:
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _count_of(line: str, counter: str) -> float:
    try:
        return float(json.loads(line)[counter])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Display:
    """A bar and the losses, changing in place under the lines printed so far; plain lines without a terminal."""

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

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def show(self, record: dict[str, Any], progress: float) -> None:
        """One reading: on a terminal in place of the last one, elsewhere a line of its own."""
        phase = "" if record.get("phase", Phase.name) == Phase.name else f"{record['phase']}: "
        step = f"{phase}step {record['step']}" + (f"/{self.steps}" if self.steps else "")
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
