"""`worldloom augment RUN DATA`: a dataset of real episodes and imagined branches, in the share that is asked for."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom.augment.actions import NEAR, ActionSource, chosen_actions
from worldloom.augment.branches import (
    SYNTHETIC,
    disagreement_limit,
    draw_moments,
    imagine_branches,
    imagined_keys,
    sure_steps,
    to_episodes,
)
from worldloom.data import durable
from worldloom.data.episode import Episode
from worldloom.data.lerobot.fold import INFO
from worldloom.data.lerobot.info import read_info
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.evaluation.evaluate import check_counts, say
from worldloom.evaluation.imagine import dream_spec
from worldloom.evaluation.windows import Source, open_sources
from worldloom.model import WorldModel
from worldloom.training import checkpoint
from worldloom.training.precision import choose_device

TOGETHER = 64  # branches imagined in one batch
FRUITLESS = 50  # batches without a branch, after which there will be none


@dataclass
class Count:
    """What came of it."""

    real_rows: int = 0
    imagined_rows: int = 0
    branches: int = 0
    cut: int = 0
    dropped: int = 0


def augment(
    run: tyro.conf.Positional[Path],
    data: tyro.conf.Positional[Path],
    out: Path,
    fraction: float = 0.3,
    policy: str = NEAR,
    noise: float = 0.3,
    horizon: int = 16,
    context: int = 8,
    keep: float = 0.9,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Write a dataset mixed from the real episodes of DATA and branches that the model of RUN imagines from them.

    Args:
        run: folder of a trained model; an ensemble also says where it is not to be trusted.
        data: the real episodes, those the model was trained on or others of the same kind.
        out: folder of the new dataset.
        fraction: share of the rows that are imagined.
        policy: what is done in a branch: near (what was done next, disturbed), random, or a learned policy's folder.
        noise: of near: in half ranges of an action, or the share of choices that are changed.
        horizon: length of a branch in steps.
        context: how many real rows the model watches before it.
        keep: a branch is cut where an ensemble disagrees more than in this share of dreams of what was really done.
        seed: of the moments, the actions and the dreams.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    check(fraction, noise, keep)
    check_counts({"horizon": horizon, "context": context, "threads": threads}, {"seed": seed})
    if out.exists():
        raise UserError(f"--out {out}: already exists, and nothing is mixed into it. Choose another folder.")
    torch.set_num_threads(threads)
    device = str(choose_device(device))
    model, found = checkpoint.load(run, device)
    require_shown(model)
    actions = chosen_actions(policy, found, noise, device)
    source = open_sources(found, data)[0]
    limits: dict[str, Any] = {"context": context, "horizon": horizon}
    limit = disagreement_limit(model, source, keep=keep, **limits, count=4 * TOGETHER, seed=seed)
    if limit is None:
        say(f"warning: {run} is no ensemble and cannot say where it is unsure: no branch is cut or dropped")
    mixture = Mixture(model, source, actions, limit, fraction, seed, limits)
    about = {
        "synthetic": fraction > 0,
        "license": source.dataset.about.get("license", "unknown"),
        "origin": f"{data.name}, with branches imagined by worldloom ({found.family}, step {found.step})",
        "checkpoint": found.checkpoint_hash,
        "branch_actions": policy if policy != NEAR else f"{NEAR} what was done, noise {noise:g}",
        "branch_horizon": horizon,
        "branch_seed": seed,
        "disagreement_limit": "not filtered" if limit is None else f"{limit:.4g}, {keep:g} of real dreams",
    }
    write(mixture, Path(data), out, about)
    count = mixture.count
    share = count.imagined_rows / (count.imagined_rows + count.real_rows)
    say(
        f"{out}: {count.real_rows:,} real rows and {count.imagined_rows:,} imagined ones ({share:.0%}) in "
        f"{count.branches:,} branches; {count.cut:,} were cut and {count.dropped:,} dropped"
    )


@dataclass
class Mixture:
    """Real episodes first, then branches until the share is reached."""

    model: WorldModel
    source: Source
    actions: ActionSource
    limit: float | None
    fraction: float
    seed: int
    limits: dict[str, int]

    def __post_init__(self) -> None:
        self.count = Count()

    @property
    def spec(self) -> DataSpec:
        return dream_spec(self.model)

    @property
    def robot_type(self) -> str:
        return str(self.source.dataset.about.get("robot_type", "unknown"))

    def real(self, data: Path) -> Iterator[Episode]:
        """Every real episode at the model's picture size, its rows marked as real."""
        opened = open_dataset(data)
        _, height, width = self.spec.obs[self.spec.image_keys[0]].shape if self.spec.image_keys else (0, 0, 0)
        for index in self.source.dataset.source_index:
            episode = opened.read(int(index), (height, width) if height else None)
            self.count.real_rows += len(episode)
            yield replace(episode, extra={SYNTHETIC: np.zeros(len(episode), bool)})

    def imagined(self) -> Iterator[Episode]:
        """Branches from anywhere in the data. Raises `UserError` when none is sure for a single step."""
        wanted, rng = self.fraction / (1 - self.fraction) * self.count.real_rows, np.random.default_rng(self.seed)
        episodes, fruitless = list(range(len(self.source.dataset))), 0
        while self.count.imagined_rows < wanted:
            made = self._batch(episodes, rng)
            fruitless = 0 if made else fruitless + 1
            if fruitless == FRUITLESS:
                raise UserError(
                    f"the ensemble was unsure of every first step of {FRUITLESS * TOGETHER} branches: raise --keep"
                )
            for episode in made:
                if self.count.imagined_rows >= wanted:
                    return
                self.count.imagined_rows += len(episode) - 1
                self.count.branches += 1
                yield episode

    def _batch(self, episodes: list[int], rng: np.random.Generator) -> list[Episode]:
        seed, horizon = int(rng.integers(2**31)), self.limits["horizon"]
        moments = draw_moments(self.model, self.source, episodes, count=TOGETHER, seed=seed, **self.limits)
        branches = imagine_branches(self.model, moments, self.actions.begin(moments, rng), horizon, seed)
        steps = sure_steps(branches, self.limit)
        self.count.dropped += int((steps == 0).sum())
        self.count.cut += int(((steps > 0) & (steps < horizon)).sum())
        return to_episodes(self.model, moments, branches, steps, self.spec)


def write(mixture: Mixture, data: Path, out: Path, about: dict[str, Any]) -> None:
    """The whole dataset or nothing: it is made beside its place and moved there. The card is told what came of it."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    durable.make_folder(partial.parent)
    try:
        with LeRobotWriter(partial, mixture.spec, robot_type=mixture.robot_type, about=about) as writer:
            for episode in chain(mixture.real(data), mixture.imagined()):
                writer.add(episode)
        info = read_info(partial)
        info["worldloom"]["about"] |= asdict(mixture.count)
        durable.write_json(partial / INFO, info)
        partial.rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}). Make room, try again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_shown(model: WorldModel) -> None:
    """Raise `UserError` unless the model shows all that the data hold, and takes actions."""
    keys = [key for key in model.spec.obs if model.spec.obs[key].kind != "category"]
    missing = [key for key in keys if key not in imagined_keys(model)]
    if missing:
        raise UserError(f"the model does not decode {', '.join(missing)}, which a branch would lack: train rssm, say")
    if not model.spec.action.size:
        raise UserError("the data have no actions: there is nothing else to do from any moment")


def check(fraction: float, noise: float, keep: float) -> None:
    """Raise `UserError` for numbers that cannot be meant."""
    if not 0 <= fraction < 1:
        raise UserError(f"--fraction is {fraction}, but must be from 0 to below 1: it is the share that is imagined")
    if not 0 <= noise < float("inf"):
        raise UserError(f"--noise is {noise}, but must not be negative")
    if not 0 < keep <= 1:
        raise UserError(f"--keep is {keep}, but must be above 0 and at most 1")
