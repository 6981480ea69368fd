"""The training loop. It reads top to bottom; everything it needs was made before."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch

from worldloom.data.segment import Segment
from worldloom.errors import UserError
from worldloom.interrupts import Interrupt
from worldloom.runs.checkpoint import last_good, prune
from worldloom.training.objective import weigh
from worldloom.training.preview import save_previews
from worldloom.training.progress import Display, Log, Meter
from worldloom.training.trainer import NotFinite, Trainer

ADVICE = "Continue with --resume and a lower --lr, and look for odd values with `worldloom inspect`."


@dataclass(frozen=True)
class HeldOut:
    """What the model is looked at with, never trained on: batches for the loss, one long window for film strips."""

    batches: Sequence[Segment]
    film: Segment


def fit(trainer: Trainer, run: Path, held_out: HeldOut | None, log: Log, display: Display) -> bool:
    """Train until the budget is spent (True) or somebody asks to stop (False); leaves a checkpoint in both cases.

    Without `held_out` nothing is looked at, as where a policy learns in a model that does not. Raises `UserError` when
    a loss is not finite or the disk refuses; the last checkpoint is then whole.
    """
    settings, team = trainer.settings, trainer.team
    earlier, began = trainer.seconds, time.perf_counter()
    meter = Meter(settings.batch_size * settings.length)
    trainer.trained.train()
    with Interrupt() as interrupt, display:
        stop, saved = False, trainer.step
        while trainer.progress < 1 and not stop:
            meter.start()
            segment = next(trainer.loader).to(trainer.device)
            try:
                objective, norm = trainer.update(segment)
            except NotFinite as error:
                raise UserError(f"{error}. {last_good(run)} {ADVICE}") from error
            meter.add(objective, norm)
            seconds = earlier + time.perf_counter() - began
            trainer.seconds, stop = team.agree(seconds, interrupt.asked, trainer.device)

            if trainer.step % settings.log_every == 0 or trainer.progress >= 1:
                record = {"step": trainer.step, **meter.read(team), "lr": trainer.lr, "seconds": trainer.seconds}
                log.write(record)
                display.show(record, trainer.progress)
            if held_out and team.leads and settings.preview_every and trainer.step % settings.preview_every == 0:
                with trainer.aside() as model:
                    save_previews(model, held_out.film, run / "previews", trainer.step)
            if trainer.step % settings.checkpoint_every == 0:
                saved = save(trainer, run, held_out, log)
        # Not asked of the disk, where one process could see what another has yet to write.
        if trainer.step != saved:
            save(trainer, run, held_out, log)
    return trainer.progress >= 1


def save(trainer: Trainer, run: Path, held_out: HeldOut | None, log: Log) -> int:
    """A checkpoint with its held-out loss: its step. The whole team gives its random state, rank 0 writes."""
    loss = held_out_loss(trainer, held_out.batches) if held_out and trainer.team.leads else None
    if loss is not None and not isfinite(loss):
        # The update before was the last with a finite loss: its weights must not become the checkpoint to go on from.
        raise UserError(f"stopped at step {trainer.step}: the held-out loss is {loss}. {last_good(run)} {ADVICE}")
    snapshot = trainer.snapshot(held_out_loss=loss)
    if trainer.team.leads:
        snapshot.save(run)
        prune(run, trainer.settings.keep)
        log.write({"step": trainer.step, "held_out_loss": loss, "seconds": trainer.seconds})
    return trainer.step


def held_out_loss(trainer: Trainer, batches: Sequence[Segment]) -> float:
    """The mean loss on held-out batches, drawn once, with the same samples each time, so that numbers compare."""
    with trainer.aside() as model:
        losses = [weigh(model(batch), batch.mask, model.loss_weights).total for batch in batches]
        return float(torch.stack(losses).mean())
