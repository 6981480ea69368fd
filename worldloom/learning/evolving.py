"""A linear controller evolved inside a trained model by CMA-ES (Hansen, 2016), as World Models has it (2018).

P candidates, G generations, D dreams of each candidate.

A candidate is worth the mean return of its dreams. Where a dream may have ended, what follows counts by the probability
that it has not: the paper draws the end, which is the same on average and noisier.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from worldloom.agents.actor import LinearController
from worldloom.agents.saved import save_policy
from worldloom.data import durable
from worldloom.errors import UserError
from worldloom.interrupts import Interrupt
from worldloom.learning.actor_critic import feature_size
from worldloom.learning.cma import dreamt_returns, make_strategy
from worldloom.learning.frozen import training_windows
from worldloom.learning.loop import describe_learning, resume_or_refuse
from worldloom.learning.settings import CMASettings
from worldloom.model import State, WorldModel
from worldloom.noise import TorchNoise
from worldloom.runs import checkpoint, folders
from worldloom.runs.checkpoint import Checkpoint, choose, prune, steps_saved
from worldloom.runs.precision import choose_device
from worldloom.runs.run import RunRecord, damaged
from worldloom.training.memory import keep_freed_memory
from worldloom.training.progress import Log, clock
from worldloom.training.trainer import Batches

CHECKPOINT_EVERY = 10
WINDOWS = 16


class Evolution:
    """CMA-ES, the controller that is the mean of its distribution, and all that is needed to go on exactly.

    What was found so far is kept as the fitness of every candidate `[G, P]`: asked again from the same seed and told
    the same, CMA-ES arrives where it was, and nothing of its inside need be written.
    """

    def __init__(self, model: WorldModel, starts: Batches, settings: CMASettings):
        if "reward" not in model.decodes:
            raise UserError(f"{settings.env} decodes no reward: a controller can only be evolved for one")
        self.model, self.starts, self.settings = model.requires_grad_(False), starts, settings
        self.controller = LinearController(feature_size(model), model.spec.action)
        self.controller.to(next(model.parameters()).device)
        self.fitness: list[np.ndarray] = []
        self.seconds = 0.0
        weights = sum(p.numel() for p in self.controller.parameters())
        self.strategy = make_strategy(weights, settings.population, settings.sigma, settings.seed)

    @property
    def generation(self) -> int:
        return len(self.fitness)

    @torch.no_grad()
    def step(self) -> np.ndarray:
        """One generation; the fitness of its candidates `[P]`."""
        candidates = self.strategy.ask()
        weights = torch.as_tensor(np.stack(candidates), dtype=torch.float32)
        noise, starts = TorchNoise(self.settings.temperature), self._starts()
        fitness = dreamt_returns(self.model, self.controller, weights, starts, self.settings.horizon, noise)
        if not np.isfinite(fitness).all():
            raise UserError(f"generation {self.generation + 1}: dreams returned {fitness.min()} to {fitness.max()}")
        self._tell(candidates, fitness)
        return fitness

    def _tell(self, candidates: list[np.ndarray], fitness: np.ndarray) -> None:
        self.strategy.tell(candidates, (-fitness).tolist())
        self.fitness.append(fitness)
        mean = torch.as_tensor(self.strategy.mean, dtype=torch.float32)
        nn.utils.vector_to_parameters(mean, self.controller.parameters())

    def _starts(self) -> State:
        """Real beliefs `[D]` for dreams to begin in."""
        segment = next(self.starts).to(next(self.model.parameters()).device)
        belief = self.model.track(segment.obs, segment.action)
        going = segment.mask & ~segment.terminated
        found = belief[going]
        index = torch.randint(len(found.features), (self.settings.dreams,))
        return found[index.to(found.features.device)]

    def snapshot(self) -> Checkpoint:
        return Checkpoint(
            step=self.generation,
            family=type(self.model).family,
            spec=self.model.spec.to_json(),
            config=asdict(self.model.config),
            model=self.model.own_state(),
            auxiliary=self.controller.state_dict(),
            trainer={"fitness": torch.from_numpy(np.stack(self.fitness)), "random": torch.get_rng_state()},
            progress={"seconds": self.seconds, "loader": self.starts.state_dict()},
        )

    def restore(self, saved: Checkpoint, path: Path) -> None:
        """Go on from `saved`, read from the folder `path`, in its model: the source may have been trained since."""
        saved.fill(self.model, path)
        try:
            for fitness in saved.trainer["fitness"].numpy():
                self._tell(self.strategy.ask(), fitness)
            torch.set_rng_state(saved.trainer["random"])
            self.starts.load_state_dict(saved.progress["loader"])
            self.seconds = float(saved.progress["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path / "state.json", error) from error


def evolve_inside(settings: CMASettings) -> None:
    """Evolve, or continue, inside the run `settings.env`. Raises `UserError`, and `KeyboardInterrupt` after Ctrl-C."""
    settings.check()
    resume_or_refuse(settings)
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    source, run = Path(settings.env), settings.out
    device = choose_device(settings.device)
    record, (model, found) = RunRecord.load(source), checkpoint.load(source, str(device))
    torch.manual_seed(settings.seed)
    windows = training_windows(record, source, WINDOWS, settings.length, settings.seed)
    evolution = Evolution(model, windows, settings)
    if settings.resume and steps_saved(run):
        evolution.restore(Checkpoint.read(run), choose(run))
    console = Console()
    with folders.claimed(run):
        describe_learning(settings)
        durable.make_folder(run / "checkpoints")
        folders.remove_partial(run / "checkpoints")
        replace(record, settings=settings.to_json()).save(run)
        save_policy(run)
        weights = sum(p.numel() for p in evolution.controller.parameters())
        console.print(f"{run}: {weights:,} weights evolve inside {source}, step {found.step}", highlight=False)
        log = Log(run, evolution.generation)
        try:
            finished = evolve(evolution, log, console)
        finally:
            log.close()
    if not finished:
        print(f"stopped after {evolution.generation} generations, which are saved. Continue with:")
        print(f"{settings.command()} --resume")
        raise KeyboardInterrupt


def evolve(evolution: Evolution, log: Log, console: Console) -> bool:
    """Generations until the budget is spent (True) or somebody asks to stop (False)."""
    settings, run = evolution.settings, evolution.settings.out
    earlier, began, saved = evolution.seconds, time.perf_counter(), evolution.generation
    with Interrupt() as interrupt:
        while not spent(evolution) and not interrupt.asked:
            fitness = evolution.step()
            evolution.seconds = earlier + time.perf_counter() - began
            record = {
                "step": evolution.generation,
                "best": float(fitness.max()),
                "mean": float(fitness.mean()),
                "median": float(np.median(fitness)),
                "sigma": float(evolution.strategy.sigma),
                "seconds": evolution.seconds,
            }
            log.write(record)
            console.print(
                f"generation {record['step']}/{settings.steps}  return in dreams: best {record['best']:.4g}  "
                f"mean {record['mean']:.4g}  median {record['median']:.4g}  {clock(evolution.seconds)}",
                highlight=False,
                soft_wrap=True,
            )
            if evolution.generation % CHECKPOINT_EVERY == 0:
                saved = save(evolution, run)
    if evolution.generation != saved:
        save(evolution, run)
    return spent(evolution)


def spent(evolution: Evolution) -> bool:
    settings = evolution.settings
    out_of_time = settings.minutes is not None and evolution.seconds >= 60 * settings.minutes
    return evolution.generation >= settings.steps or out_of_time


def save(evolution: Evolution, run: Path) -> int:
    evolution.snapshot().save(run)
    prune(run)
    return evolution.generation
