"""`worldloom imagine RUN`: imagine from a real row with a trained model, as a video or as a synthetic dataset.

T rows, N dreams, H open-loop steps, A action size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from tyro.conf import Positional, arg

from worldloom.console import say
from worldloom.errors import UserError
from worldloom.evaluation.actions import random_actions, read_actions
from worldloom.evaluation.imagined_dataset import describe, write_dataset
from worldloom.evaluation.open_loop import dream_from
from worldloom.flags import Allow
from worldloom.limits import at_least, between, check_limits
from worldloom.model import WorldModel
from worldloom.registry import allow
from worldloom.runs import checkpoint
from worldloom.runs.precision import choose_device
from worldloom.runs.sources import open_sources
from worldloom.runs.start_row import StartRow, find_start, parse_start

RANDOM_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class ImagineSettings:
    """Imagine from one row of a dataset: a video of real beside imagined, or a synthetic LeRobot dataset."""

    run: Positional[Path]
    """Folder of a `worldloom train` run."""
    start: Annotated[str, arg(name="from", metavar="EPISODE:FRAME")]
    """The last real row the model sees, such as 12:40."""
    out: Path
    """A video (dream.mp4) or a folder, which becomes a dataset marked as synthetic."""
    actions: str = "recorded"
    """Recorded, random, or a .npy, .csv, .json or .jsonl file of actions in the data's own units."""
    steps: Annotated[int | None, between(1, 100_000)] = None
    """How many steps to dream; by default as many as there are actions, 50 for random ones."""
    context: Annotated[int, between(1, 100_000)] = 8
    """How many real rows the model observes, the last one included."""
    samples: Annotated[int, between(1, 10_000)] = 1
    """How many imagined rollouts from the same row."""
    data: Path | None = None
    """Where the dataset is now, when it moved; or another one of the same kind."""
    step: int | None = None
    """The checkpoint of this step instead of the last one."""
    seed: Annotated[int, at_least(0)] = 0
    """Of the dreams and of random actions."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int | None, between(1, 1024)] = None
    """CPU threads; by default what torch chooses."""
    allow: Allow = ()


def imagine(settings: Annotated[ImagineSettings, arg(name="")]) -> None:
    """Imagine from one row of a dataset: a video of real beside imagined, or a synthetic LeRobot dataset."""
    episode, frame = parse_start(settings.start)
    check_limits(settings)
    allow(*settings.allow)
    out = settings.out
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = str(choose_device(settings.device))
    model, found = checkpoint.load(settings.run, device, settings.step)
    source = open_sources(found, settings.data)[0]
    start = find_start(source, episode, frame, settings.context)
    chosen = choose_actions(settings.actions, settings.steps, start, model, settings.samples, settings.seed)
    dreams = dream_from(model, start, chosen, settings.seed, device)
    origin = describe(found, start, settings.actions, chosen.shape[1], settings.seed)
    try:
        if out.suffix.lower() == ".mp4":
            from worldloom.evaluation.dream_video import write_video

            write_video(model, start, dreams, out, settings.actions == "recorded")
        else:
            write_dataset(model, start, dreams, out, origin)
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot be written ({error.strerror or error}). Make room or choose another place."
        ) from error
    trained = " (an episode it was trained on)" if episode in source.train else ""
    steps = f"{settings.samples} x {chosen.shape[1]} steps"
    say(f"{out}: {steps} imagined from episode {episode}, frame {frame}{trained}")


def choose_actions(
    kind: str, steps: int | None, start: StartRow, model: WorldModel, samples: int, seed: int
) -> np.ndarray:
    """The actions of every dream `[N, H, A]`, scaled as models see them."""
    spec, where = model.spec.action, f"--from {start.episode}:{start.frame}"
    if kind == "random":
        rng = np.random.default_rng(seed)
        return np.stack([random_actions(spec, steps or RANDOM_STEPS, rng) for _ in range(samples)])
    if kind == "recorded":
        known, whence = start.recorded_actions, f"{where}: the recording has"
        fix = "choose an earlier frame, fewer --steps or --actions random"
    else:
        known, whence = read_actions(Path(kind), spec), f"{kind} holds"
        fix = "give fewer --steps or a longer file"
    if steps is None and not len(known):
        raise UserError(f"{whence} no action to follow: {fix}.")
    if steps is not None and steps > len(known):
        raise UserError(f"--steps {steps}: {whence} only {len(known)} actions: {fix}.")
    return np.repeat(known[None, :steps], samples, 0)
