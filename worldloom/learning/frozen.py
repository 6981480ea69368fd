"""A policy learned inside a trained world model that stays as it is: no environment is touched.

The run folder that comes of it holds the model beside the policy, so that a policy can never meet another model, and
everything that reads a run reads this one.
"""

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from worldloom.agents.saved import save_policy
from worldloom.data import durable
from worldloom.data.episode_file import load_episode
from worldloom.data.replay import Replay
from worldloom.errors import UserError
from worldloom.evaluation.card import useful_for_less
from worldloom.learning.actor_critic import ActorCritic
from worldloom.learning.loop import describe_learning, resume_or_refuse
from worldloom.learning.settings import DreamerSettings
from worldloom.noise import TorchNoise
from worldloom.runs import checkpoint, folders
from worldloom.runs.checkpoint import Checkpoint, choose, steps_saved
from worldloom.runs.precision import choose_device, choose_precision, slow_precision
from worldloom.runs.run import RunRecord
from worldloom.schedule import Reporting
from worldloom.training.dataset_split import DatasetSplit, read_datasets
from worldloom.training.joint_module import JointModule
from worldloom.training.loop import fit
from worldloom.training.memory import keep_freed_memory
from worldloom.training.progress import Display, Log
from worldloom.training.trainer import Batches, Trainer

CHECKPOINT_EVERY, LOG_EVERY = 1000, 50


def learn_inside(settings: DreamerSettings) -> None:
    """Learn, or continue, inside the run `settings.env`. Raises `UserError`, and `KeyboardInterrupt` after Ctrl-C."""
    settings.check()
    resume_or_refuse(settings)
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    source, run = Path(settings.env), settings.out
    device = choose_device(settings.device)
    record, (model, found) = RunRecord.load(source), checkpoint.load(source, str(device))
    torch.manual_seed(settings.seed)
    policy = ActorCritic.of(model, settings.policy, TorchNoise(settings.temperature)).to(device)
    precision = choose_precision(settings.precision, device)
    joint = JointModule(model, policy, frozen=True)
    windows = training_windows(record, source, settings.batch_size, settings.length, settings.seed)
    trainer = Trainer(model, windows, settings.budget, settings.optimizer, device, precision, joint=joint)
    if settings.resume and steps_saved(run):
        trainer.restore(Checkpoint.read(run), choose(run))
    reporting = Reporting(LOG_EVERY, min(CHECKPOINT_EVERY, settings.checkpoint_every), settings.keep)
    display = Display(settings.steps, Console())
    with folders.claimed(run):
        describe_learning(settings)
        durable.make_folder(run / "checkpoints")
        folders.remove_partial(run / "checkpoints")
        replace(record, settings=settings.to_json()).save(run)
        save_policy(run)
        parameters = sum(p.numel() for p in policy.actor.parameters())
        display.say(f"{run}: an actor of {parameters:,} parameters learns inside {source}, step {found.step}")
        for line in (*too_long(settings, found.checkpoint_hash), *slow_precision(precision, device)):
            display.say(line)
        log = Log(run, trainer.step)
        try:
            finished = fit(trainer, run, None, reporting, log, display)
        finally:
            log.close()
    if not finished:
        print(f"stopped after {trainer.step} updates, which are saved. Continue with:\n{settings.command()} --resume")
        raise KeyboardInterrupt


def too_long(settings: DreamerSettings, checkpoint_hash: str) -> list[str]:
    """A line of warning where dreams last longer than the model's own card found it useful; none without a card."""
    source, horizon = Path(settings.env), settings.policy.horizon
    short = useful_for_less(source, checkpoint_hash, horizon)
    if not short:
        return []
    return [
        f"warning: dreams last {horizon} steps, but {source / 'card.json'} found the model useful for fewer "
        f"({', '.join(short)}): shorten them with --policy.horizon, and see whether the policy works outside with "
        f"`worldloom evaluate {settings.env} --policy {settings.out}`"
    ]


def training_windows(record: RunRecord, source: Path, batch_size: int, length: int, seed: int) -> Batches:
    """Windows of what the model was trained on: datasets, or the episodes it collected itself."""
    if record.datasets:
        # What was broken when the model was trained was left out; it stays so.
        datasets = read_datasets([Path(use.path) for use in record.datasets], record.image_size, skip_broken=True)
        return DatasetSplit.again(datasets, record.datasets, record.spec).loader(batch_size, length, seed)
    replay = Replay(record.spec, batch_size=batch_size, length=length, seed=seed)
    for file in sorted((source / "replay").glob("*.safetensors")):
        replay.add(load_episode(file))
    if not replay.rows:
        raise UserError(f"{source} holds no data for dreams to begin in: there is nothing in {source / 'replay'}")
    return replay
