"""A training from its settings to its summary: data, split, model, loop, and the question whether actions matter."""

import json
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from worldloom.data import durable
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError, unknown
from worldloom.model import WorldModel
from worldloom.models import FAMILIES, build
from worldloom.registry import require
from worldloom.runs import folders
from worldloom.runs.checkpoint import Checkpoint, best_step, check_origin, choose, last_good, restore_model, steps_saved
from worldloom.runs.precision import choose_device, choose_precision, slow_precision
from worldloom.runs.run import RunRecord
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.distributed import Team, local_rank
from worldloom.training.loop import HeldOut, fit, held_out_loss
from worldloom.training.material import Material, read_datasets
from worldloom.training.memory import keep_freed_memory
from worldloom.training.progress import Display, Log, clock
from worldloom.training.shuffle import ShuffleTest, shuffle_test, warning
from worldloom.training.trainer import Trainer


def run_training(settings: TrainSettings) -> None:
    """Train, or continue training, as `settings` say. Raises `UserError`, and `KeyboardInterrupt` after Ctrl-C."""
    settings.check()
    hyperparameters(settings)
    device = choose_device(settings.device, local_rank())
    record = open_run(settings)
    if settings.tensorboard:
        require("torch.utils.tensorboard", "tensorboard")  # before anything is written
    team = Team.join(device.type)
    try:
        with folders.claimed(settings.out) if team.leads else nullcontext():
            if team.leads:
                open_run(settings)  # again, as another process may have begun a run there in the meantime
            train_in_team(settings, record, device, team)
    except MemoryError as error:
        what = f"{settings.batch_size} windows of {settings.length} rows do not fit into memory ({error})"
        raise UserError(f"{what}: lower --batch-size or --length") from error
    except OSError as error:
        what = f"{error.filename or settings.out}: {error.strerror or error}"
        again = "continue with --resume" if (settings.out / "run.json").exists() else "type it again"
        raise UserError(f"{what}: mend that and {again}. {last_good(settings.out)}") from error
    finally:
        team.leave()


def train_in_team(settings: TrainSettings, earlier: RunRecord | None, device: torch.device, team: Team) -> None:
    """One process's part of a training; `earlier` describes the run when it is continued."""
    console = Console(quiet=not team.leads)
    display = Display(settings.steps, console)
    torch.set_num_threads(choose_threads(settings, earlier, device))
    keep_freed_memory()
    datasets = read_datasets(settings, team)
    if earlier is None:
        material = Material.fitted(datasets, settings)
    else:
        material = Material.again(datasets, earlier.datasets, earlier.spec)
    loader = material.loader(settings, team)

    torch.manual_seed(settings.seed)
    model = build_model(settings, material.spec) if earlier is None else restore_model(earlier, settings.out)
    precision = earlier.machine["precision"] if earlier else choose_precision(settings.precision, device)
    trainer = Trainer(model.to(device), loader, settings, device, precision, team)
    # The weights are the same everywhere, the samples are not.
    torch.manual_seed(settings.seed + 1_000_003 * team.rank)

    run = settings.out
    record = describe(settings, material, trainer)
    if team.leads:
        durable.make_folder(run / "checkpoints")
        folders.remove_partial(run / "checkpoints")
        record.save(run)
    team.wait()
    if earlier is not None and steps_saved(run):
        checkpoint = Checkpoint.read(run)
        check_origin(record, checkpoint, run)
        trainer.restore(checkpoint, choose(run))
    changes = settings.changes(earlier.settings) if earlier else []
    for line in (*material.words(), introduction(trainer, run), *slow_precision(precision, device), *changes):
        display.say(line)

    held_out = material.held_out(settings, device)
    log = Log(run, trainer.step, settings.tensorboard, team.leads)
    try:
        finished = fit(trainer, run, held_out, log, display)
    finally:
        log.close()
    if not finished:
        display.say(f"stopped at step {trainer.step}, which is saved. Continue with:\n{settings.resume_line()}")
        raise KeyboardInterrupt
    if team.leads:
        conclude(trainer, run, held_out, display)
    team.wait()


def build_model(settings: TrainSettings, spec: DataSpec) -> WorldModel:
    """A new model. Raises `UserError` for overrides with which torch cannot make one."""
    try:
        return build(settings.family, spec, settings.size, **hyperparameters(settings))
    except (IndexError, RuntimeError, TypeError, ZeroDivisionError) as error:
        words = " ".join(f"--set {override}" for override in settings.overrides) or f"--size {settings.size}"
        raise UserError(
            f"{words}: no {settings.family} can be made like that ({error}): choose other values"
        ) from error


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
        record = RunRecord.load(run)
        settings.changes(record.settings)
        return record
    if known:
        raise UserError(f"{run} already holds a run: continue it with --resume, or choose another --out")
    if run.exists() and any(run.iterdir()):
        raise UserError(
            f"{run} already holds something else ({min(p.name for p in run.iterdir())}): choose another --out"
        )
    return None


def hyperparameters(settings: TrainSettings) -> dict[str, Any]:
    """The `--set` overrides with the types of the family's preset. Raises `UserError`, also for a wrong size."""
    made = FAMILIES[settings.family]
    if settings.size not in made.sizes:
        raise unknown(f"size of family {settings.family!r}", settings.size, made.sizes)
    preset = made.sizes[settings.size]
    names = [field.name for field in fields(preset)]
    values = {}
    for override in settings.overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise UserError(
                f"--set {override!r}: write it as KEY=VALUE, such as --set {names[0]}={getattr(preset, names[0])}"
            )
        if name not in names:
            raise unknown(f"hyperparameter of family {settings.family!r}", name, names)
        values[name] = typed(name, text, getattr(preset, name))
    return values


def typed(name: str, text: str, example: Any) -> Any:
    """`text` as a value of the type of `example`: a bool is true or false, a tuple a JSON list."""
    try:
        value = text if isinstance(example, str) else json.loads(text)
    except ValueError:
        value = text
    if isinstance(example, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(example, tuple) and isinstance(value, list):
        value = tuple(value)
    if example is not None and type(value) is not type(example):
        raise UserError(f"--set {name}={text}: {name} is of type {type(example).__name__}, such as {example!r}")
    return value


def describe(settings: TrainSettings, material: Material, trainer: Trainer) -> RunRecord:
    """What `run.json` will say."""
    machine = {
        "device": str(trainer.device),
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        "processes": trainer.team.size,
    }
    return RunRecord(
        family=settings.family,
        config=asdict(trainer.model.config),
        spec=material.spec,
        datasets=material.uses,
        image_size=(settings.image_size, settings.image_size),
        settings=replace(settings, resume=False),
        machine=machine,
    )


def introduction(trainer: Trainer, run: Path) -> str:
    """One line on what is about to happen."""
    settings, team = trainer.settings, trainer.team
    parameters = sum(p.numel() for p in trainer.model.parameters())
    threads = torch.get_num_threads()
    start = f"continues at step {trainer.step}" if trainer.step else "starts"
    return (
        f"{run}: {settings.family} {settings.size}, {parameters:,} parameters, {start} in {trainer.precision} on "
        f"{trainer.device}, {team.size} process{'es' * (team.size > 1)} with {threads} thread{'s' * (threads > 1)}"
    )


def conclude(trainer: Trainer, run: Path, held_out: HeldOut, display: Display) -> None:
    """Measure what the finished model makes of held-out data and its actions, write `summary.json`, warn loudly."""
    with trainer.aside() as model:
        test = shuffle_test(model, held_out.batches, trainer.settings.seed)
    loss = held_out_loss(trainer, held_out.batches)
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
    words = f"{run}: {trainer.step} steps in {clock(trainer.seconds)}, held-out loss {loss:.4g}. {verdict(test)}"
    display.say(words)
    if test.ignores_actions:
        display.console.print(warning(test, trainer.step))


def verdict(test: ShuffleTest) -> str:
    """The shuffled-action test in a sentence."""
    if test.total is None:
        return f"Actions were not tested: {test.note}."
    total = test.total
    return f"With shuffled actions the loss is {total.value:.3f} times as large [{total.low:.3f}, {total.high:.3f}]."
