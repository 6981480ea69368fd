"""A training from its settings to its summary: data, split, model, loop, and the question whether actions matter."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console

from worldloom.data import durable
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.registry import require
from worldloom.runs import folders
from worldloom.runs.checkpoint import Checkpoint, best_step, check_origin, choose, last_good, restore_model, steps_saved
from worldloom.runs.parts import PartUse, parse_parts
from worldloom.runs.precision import choose_device, choose_precision, slow_precision
from worldloom.runs.run import RunRecord, damaged
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.dataset_split import DatasetSplit, read_datasets
from worldloom.training.distributed import ProcessGroup, local_rank
from worldloom.training.loop import HeldOutData, fit, held_out_loss
from worldloom.training.memory import keep_freed_memory
from worldloom.training.new_model import build_model, hyperparameters
from worldloom.training.parts import Part, check_observations, initialise_parts, read_parts
from worldloom.training.phases import plan_phases
from worldloom.training.progress import Display, Log, clock
from worldloom.training.shuffle import ShuffleTest, shuffle_test, warning
from worldloom.training.trainer import Trainer


def run_training(settings: TrainSettings) -> None:
    """Train, or continue training, as `settings` say. Raises `UserError`, and `KeyboardInterrupt` after Ctrl-C."""
    settings.check()
    hyperparameters(settings.family, settings.size, settings.overrides)
    device = choose_device(settings.device, local_rank())
    record = open_run(settings)
    if settings.tensorboard:
        require("torch.utils.tensorboard", "tensorboard")  # before anything is written
    group = ProcessGroup.join(device.type)
    try:
        with folders.claimed(settings.out) if group.is_main else nullcontext():
            if group.is_main:
                open_run(settings)  # again, as another process may have begun a run there in the meantime
            train_in_group(settings, record, device, group)
    except MemoryError as error:
        what = f"{settings.batch_size} windows of {settings.length} rows do not fit into memory ({error})"
        raise UserError(f"{what}: lower --batch-size or --length") from error
    except OSError as error:
        what = f"{error.filename or settings.out}: {error.strerror or error}"
        again = "continue with --resume" if (settings.out / "run.json").exists() else "type it again"
        raise UserError(f"{what}: repair that and {again}. {last_good(settings.out)}") from error
    finally:
        group.destroy()


def train_in_group(
    settings: TrainSettings, earlier: RunRecord | None, device: torch.device, group: ProcessGroup
) -> None:
    """One process's part of a training; `earlier` describes the run when it is continued."""
    torch.set_num_threads(choose_threads(settings, earlier, device))
    keep_freed_memory()
    parts = read_parts(settings) if earlier is None else {}  # first, as datasets can take long
    split = split_datasets(settings, earlier, group)
    trainer = make_trainer(settings, earlier, parts, split, device, group)
    display = Display(trainer.budget.steps, Console(quiet=not group.is_main))

    run = settings.out
    uses = {name: part.use for name, part in parts.items()} if earlier is None else earlier.parts
    record = describe(settings, split, trainer, uses)
    if group.is_main:
        durable.make_folder(run / "checkpoints")
        folders.remove_partial(run / "checkpoints")
        record.save(run)
    group.barrier()
    if earlier is not None and steps_saved(run):
        checkpoint = Checkpoint.read(run)
        check_origin(record, checkpoint, run)
        trainer.restore(checkpoint, choose(run))
    changes = settings.changes(earlier_settings(earlier, run)) if earlier else []
    warnings = slow_precision(trainer.precision, device)
    for line in (*split.describe(), introduction(settings, trainer), *warnings, *changes):
        display.say(line)

    held_out = split.held_out(settings.batch_size, settings.length, settings.seed, device)
    log = Log(run, trainer.step, settings.tensorboard, group.is_main)
    try:
        finished = fit(trainer, run, held_out, settings.reporting, log, display)
    finally:
        log.close()
    if not finished:
        display.say(f"stopped at step {trainer.step}, which is saved. Continue with:\n{settings.resume_line()}")
        raise KeyboardInterrupt
    conclude(trainer, run, held_out, settings.seed, display)
    group.barrier()


def split_datasets(settings: TrainSettings, earlier: RunRecord | None, group: ProcessGroup) -> DatasetSplit:
    """The datasets, split anew, or as they were when the run began."""
    datasets = read_datasets(settings.data, settings.resolution, settings.skip_broken, group)
    if earlier is None:
        return DatasetSplit.fitted(datasets, settings.held_out, settings.seed, settings.weights, settings.roles)
    return DatasetSplit.again(datasets, earlier.datasets, earlier.spec)


def make_trainer(
    settings: TrainSettings,
    earlier: RunRecord | None,
    parts: Mapping[str, Part],
    split: DatasetSplit,
    device: torch.device,
    group: ProcessGroup,
) -> Trainer:
    """The trainer of a new model, or of the one that `earlier` describes, its weights not yet restored."""
    loader = split.loader(settings.batch_size, settings.length, settings.seed, group)
    torch.manual_seed(settings.seed)
    model = make_model(settings, parts, split) if earlier is None else restore_model(earlier, settings.out)
    precision = earlier.machine["precision"] if earlier else choose_precision(settings.precision, device)
    phases, budget = plan_phases(model, settings.budget, settings.phase_steps)
    trainer = Trainer(model.to(device), loader, budget, settings.optimizer, device, precision, group, phases)
    # The weights are the same everywhere, the samples are not.
    torch.manual_seed(settings.seed + 1_000_003 * group.rank)
    return trainer


def make_model(settings: TrainSettings, parts: Mapping[str, Part], split: DatasetSplit) -> WorldModel:
    """A new model with parts of other runs in it. Raises `UserError` where they do not fit."""
    check_observations(parts, split.spec)
    frozen = {name: part.module for name, part in parts.items() if part.use.frozen}
    model = build_model(settings.family, split.spec, settings.size, settings.overrides, frozen)
    initialise_parts(model, parts)
    return model


def choose_threads(settings: TrainSettings, earlier: RunRecord | None, device: torch.device) -> int:
    """CPU threads as asked, else as before, because another number rounds differently, else one on a CPU.

    Recurrent steps are too small to share: on two busy cores two threads were measured 50 times slower than one.
    """
    if settings.threads:
        return settings.threads
    if earlier is not None:
        return int(earlier.machine["threads"])
    return 1 if device.type == "cpu" else torch.get_num_threads()


def open_run(settings: TrainSettings) -> RunRecord | None:
    """The description of the run to continue, None for a new one. Raises `UserError` if --out is in the way."""
    run = settings.out
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file: give --out a folder of its own")
    known = (run / "run.json").exists()
    if settings.resume:
        if not known:
            raise UserError(f"there is no run to resume in {run}: leave --resume away to start one")
        if (run / "learn.json").exists():
            raise UserError(f"{run} was made by `worldloom learn`: continue it with that")
        record = RunRecord.load(run).moved(parse_parts(settings.part))
        settings.changes(earlier_settings(record, run))
        return record
    if known:
        raise UserError(f"{run} already holds a run: continue it with --resume, or choose another --out")
    if run.exists() and any(run.iterdir()):
        raise UserError(
            f"{run} already holds something else ({min(p.name for p in run.iterdir())}): choose another --out"
        )
    return None


def earlier_settings(record: RunRecord, run: Path) -> TrainSettings:
    """The settings a run was started with. Raises `UserError` where they are not those of a training."""
    try:
        return TrainSettings.from_json(record.settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(run / "run.json", error) from error


def describe(settings: TrainSettings, split: DatasetSplit, trainer: Trainer, parts: dict[str, PartUse]) -> RunRecord:
    """What `run.json` will say."""
    machine = {
        "device": str(trainer.device),
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "processes": trainer.group.size,
    }
    return RunRecord(
        family=settings.family,
        config=asdict(trainer.model.config),
        spec=split.spec,
        datasets=split.uses,
        image_size=settings.resolution,
        settings=replace(settings, resume=False).to_json(),
        machine=machine,
        parts=parts,
    )


def introduction(settings: TrainSettings, trainer: Trainer) -> str:
    """One line on what is about to happen."""
    parameters = sum(p.numel() for p in trainer.model.parameters())
    size, threads = trainer.group.size, torch.get_num_threads()
    start = f"continues at step {trainer.step}" if trainer.step else "starts"
    return (
        f"{settings.out}: {settings.family} {settings.size}, {parameters:,} parameters, {start} in {trainer.precision} "
        f"on {trainer.device}, {size} process{'es' * (size > 1)} with {threads} thread{'s' * (threads > 1)}"
    )


def conclude(trainer: Trainer, run: Path, held_out: HeldOutData, seed: int, display: Display) -> None:
    """Measure the finished model on held-out data and with shuffled actions, write `summary.json`, warn loudly.

    The whole group measures, rank 0 writes.
    """
    with trainer.evaluation_mode() as model:
        test = shuffle_test(model, held_out.batches, seed)
    loss = held_out_loss(trainer, held_out.batches)
    if trainer.group.is_main:
        summary = {
            "step": trainer.step,
            "seconds": trainer.seconds,
            "held_out_loss": loss,
            "best_step": best_step(run),
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "precision": trainer.precision,
            "shuffled_actions": test.to_json(),
        }
        durable.write_json(run / "summary.json", summary)
    display.say(f"{run}: {trainer.step} steps in {clock(trainer.seconds)}, held-out loss {loss:.4g}. {verdict(test)}")
    if test.ignores_actions:
        display.console.print(warning(test, trainer.step))


def verdict(test: ShuffleTest) -> str:
    """The shuffled-action test in a sentence."""
    if test.total is None:
        return f"Actions were not tested: {test.note}."
    total = test.total
    return f"With shuffled actions the loss is {total.value:.3f} times as large [{total.low:.3f}, {total.high:.3f}]."
