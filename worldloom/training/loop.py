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
from worldloom.schedule import Reporting
from worldloom.training.objective import weigh
from worldloom.training.preview import film_strips, save_previews
from worldloom.training.progress import Display, Log, Meter
from worldloom.training.trainer import NotFinite, Trainer

ADVICE = "Continue with --resume and a lower --lr, and look for odd values with `worldloom inspect`."


@dataclass(frozen=True)
class HeldOutData:
    """What the model is evaluated on, never trained on: batches for the loss, one long window for film strips."""

    batches: Sequence[Segment]
    film: Segment


def fit(
    trainer: Trainer, run: Path, held_out: HeldOutData | None, reporting: Reporting, log: Log, display: Display
) -> bool:
    """Train until the budget is spent (True) or somebody asks to stop (False); leaves a checkpoint in both cases.

    Without `held_out` nothing is evaluated, as where a policy learns in a model that does not. Every process of a group
    takes part in everything but writing, so that a model whose weights are spread over them can be evaluated too.
    Raises `UserError` when a loss is not finite or the disk refuses; the last checkpoint is then whole.
    """
    earlier, began = trainer.seconds, time.perf_counter()
    meter = Meter()
    trainer.trained.train()
    with Interrupt() as interrupt, display:
        stop, saved = False, trainer.step
        while not trainer.finished and not stop:
            meter.start()
            segment = next(trainer.loader).to(trainer.device)
            try:
                loss, norm = trainer.update(segment)
            except NotFinite as error:
                raise UserError(f"{error}. {last_good(run)} {ADVICE}") from error
            meter.add(loss, norm, segment.mask.numel())
            seconds = earlier + time.perf_counter() - began
            trainer.seconds, stop = trainer.group.agree(seconds, interrupt.asked, trainer.device)

            # A reading never spans two phases, whose loss terms may be different ones.
            if trainer.step % reporting.log_every == 0 or trainer.phase_progress >= 1:
                rates = {"lr": trainer.lr, "seconds": trainer.seconds}
                record = {"step": trainer.step, "phase": trainer.phase.name, **meter.read(trainer.group), **rates}
                log.write(record)
                display.show(record, trainer.progress)
            if held_out and reporting.preview_every and trainer.step % reporting.preview_every == 0:
                preview(trainer, run, held_out)
            if trainer.step % reporting.checkpoint_every == 0:
                saved = save(trainer, run, held_out, reporting.keep, log)
        # Not asked of the disk, where one process could see what another has yet to write.
        if trainer.step != saved:
            save(trainer, run, held_out, reporting.keep, log)
    return trainer.finished


def preview(trainer: Trainer, run: Path, held_out: HeldOutData) -> None:
    """Film strips of a held-out episode. The whole group draws them, rank 0 writes."""
    with trainer.evaluation_mode() as model:
        strips = film_strips(model, held_out.film)
    if trainer.group.is_main:
        save_previews(strips, run / "previews", trainer.step)


def save(trainer: Trainer, run: Path, held_out: HeldOutData | None, keep: int, log: Log) -> int:
    """A checkpoint with its held-out loss: its step. The whole group takes part, rank 0 writes."""
    loss = held_out_loss(trainer, held_out.batches) if held_out else None
    if loss is not None and not isfinite(loss):
        # The update before was the last with a finite loss: its weights must not become the checkpoint to go on from.
        raise UserError(f"stopped at step {trainer.step}: the held-out loss is {loss}. {last_good(run)} {ADVICE}")
    snapshot = trainer.snapshot(held_out_loss=loss)
    if trainer.group.is_main:
        snapshot.save(run)
        prune(run, keep)
    log.write({"step": trainer.step, "held_out_loss": loss, "seconds": trainer.seconds})
    return trainer.step


def held_out_loss(trainer: Trainer, batches: Sequence[Segment]) -> float:
    """The mean loss on held-out batches, drawn once, with the same samples each time, so that numbers compare.

    It is the model's whole `loss` in every phase, so that checkpoints of all phases compare. The whole group computes
    it, and all get the number of rank 0, so that none goes on where another stops.
    """
    with trainer.evaluation_mode() as model:
        losses = [weigh(model.loss(batch), batch.mask, model.loss_weights).total for batch in batches]
        return float(trainer.group.share(torch.stack(losses).mean()))
