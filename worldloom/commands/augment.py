"""`worldloom augment RUN DATA --out OUT`: recorded episodes and branches that a model imagines from them, in one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from tyro.conf import Positional, arg

from worldloom import __version__
from worldloom.augment.branches import choose_policy
from worldloom.augment.generate import SYNTHETIC, EpisodeGenerator, marked
from worldloom.augment.start_states import BranchWindow
from worldloom.augment.uncertainty_filter import DISAGREEMENT, UncertaintyFilter
from worldloom.console import say
from worldloom.data import durable
from worldloom.data.cache import CachedDataset
from worldloom.data.convert import describe, has_terminal_rows
from worldloom.data.episode import EpisodeSource
from worldloom.data.lerobot.fold import INFO
from worldloom.data.lerobot.info import read_info
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.evaluation.card import useful_for_less
from worldloom.flags import Allow
from worldloom.limits import Bound, at_least, between, check_limits
from worldloom.model import WorldModel
from worldloom.registry import allow
from worldloom.runs import checkpoint
from worldloom.runs.folders import HIDDEN
from worldloom.runs.precision import choose_device
from worldloom.runs.run import Run
from worldloom.runs.sources import Source, open_sources

KEEP = 0.9


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Mix real episodes with imagined ones that branch from them, as a new LeRobotDataset v3.0.

    Every real episode comes first, as it is. Each imagined one begins with a real row and goes on in the model with new
    actions, whose rewards and ends the model decodes; an end is drawn from its probability. Branches are cut where the
    members of an ensemble disagree too much. The column "synthetic" says which rows are imagined, "source_episode" from
    which episode they came, and the data card says how they were made.
    """

    run: Positional[Path]
    """Folder of a `worldloom train` run; of the family ensemble, if the branches shall be filtered."""
    data: Positional[Path]
    """The dataset to mix in, of any known format; the one that the model was trained on, or one of its kind."""
    out: Path
    """The folder of the mixed dataset, which must not exist. It is written whole or not at all."""
    fraction: Annotated[float, Bound(low=0, below=1)] = 0.3
    """The share of imagined rows in the mixed dataset, from 0 to below 1."""
    policy: str = "recorded"
    """What acts in the branches: recorded (the recorded actions of the same rows, changed by --noise), other (those of
    other rows, changed likewise), random, or the folder of a saved agent."""
    noise: Annotated[float, at_least(0)] = 0.3
    """The deviation of what is added to recorded actions, where 1 is half their range; of discrete ones the share
    that is replaced by any choice."""
    horizon: Annotated[int, between(1, 10_000)] = 10
    """Steps of a branch at most."""
    context: Annotated[int, between(1, 100_000)] = 8
    """How many real rows the model observes before it branches, the last one included."""
    keep: Annotated[float | None, Bound(above=0, high=1)] = None
    """The share of held-out real steps that the filter would let pass; 0.9 if the run is an ensemble."""
    step: int | None = None
    """The checkpoint of this step instead of the last one."""
    seed: Annotated[int, at_least(0)] = 0
    """Of where branches begin, what is done in them and what the model samples."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int | None, between(1, 1024)] = None
    """CPU threads; by default what torch chooses."""
    allow: Allow = ()


def augment(settings: Annotated[AugmentSettings, arg(name="")]) -> None:
    """Mix real episodes with imagined ones that branch from them, as a new LeRobotDataset v3.0."""
    check_limits(settings)
    allow(*settings.allow)
    out = settings.out
    refuse_existing(out, settings.data)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model, found = checkpoint.load(settings.run, str(choose_device(settings.device)), settings.step)
    source = open_dataset(settings.data)
    refuse_synthetic(source)
    seen, spec = open_sources(found, settings.data)[0], stored_spec(source.spec, found.image_size)
    check_decodes(model, spec, seen.dataset, settings.run)
    if short := useful_for_less(settings.run, found.checkpoint_hash, settings.horizon):
        less = f"its card found the model useful for fewer steps ({', '.join(short)})"
        say(f"WARNING: --horizon {settings.horizon}: {less}.")
    window, rng = BranchWindow(settings.context, settings.horizon), np.random.default_rng(settings.seed)
    with torch.inference_mode():
        policy = choose_policy(settings.policy, settings.noise, model)
        uncertainty_filter = choose_filter(model, seen, window, settings.keep, rng, settings.run)
        terminal_rows = has_terminal_rows(source.path)
        generator = EpisodeGenerator(model, seen.dataset, spec, policy, window, uncertainty_filter, terminal_rows)
        branches = {k: getattr(settings, k) for k in ("policy", "noise", "horizon", "context", "seed")}
        try:
            with whole(out) as partial:
                mixed = Mixed(source, seen, generator, origin(source, found) | {"branches": branches})
                mixed.write(partial, settings.fraction, rng)
        except OSError as error:
            what = error.strerror or error
            raise UserError(f"--out {out}: cannot be written ({what}). Make room or choose another place.") from error
    print(f"{out}: {mixed.summary()}")


@dataclass
class Mixed:
    """The dataset under way. `about` holds its facts except for those that are known only at the end."""

    source: EpisodeSource
    seen: Source
    generator: EpisodeGenerator
    about: dict[str, Any]

    @property
    def real_rows(self) -> int:
        return int(self.seen.dataset.lengths.sum())

    def write(self, folder: Path, fraction: float, rng: np.random.Generator) -> None:
        """Real episodes in their order, then imagined ones."""
        generator = self.generator
        sizes = {generator.spec.obs[key].shape[1:] for key in generator.spec.image_keys}
        size = sizes.pop() if len(sizes) == 1 else None
        robot = self.source.about.get("robot_type", "unknown")
        with LeRobotWriter(
            folder, generator.spec, robot_type=robot, about=self.about, terminal_rows=generator.terminal_rows
        ) as writer:
            for index in map(int, self.seen.dataset.source_index):
                episode = self.source.read(index, size)  # type: ignore[arg-type]
                writer.add(marked(episode, False, index))
            for episode in generator.episodes(imagined_rows(self.real_rows, fraction), rng):
                writer.add(episode)
        # How many branches there were is known only now.
        info = read_info(folder)
        info["worldloom"]["about"] = self.described()
        durable.write_json(folder / INFO, info)

    def described(self) -> dict[str, Any]:
        """The facts of the data card."""
        count, uncertainty_filter = self.generator.count, self.generator.uncertainty_filter
        synthetic = {"fraction": round(self.fraction, 4), "rows": count.rows, "episodes": count.kept}
        return self.about | {
            "synthetic": synthetic | {"column": SYNTHETIC},
            "branches": self.about["branches"]
            | {"begun": count.started, "dropped": count.dropped, "cut": count.cut, "ended": count.terminated},
            "filter": uncertainty_filter.describe()
            if uncertainty_filter
            else "none, as the model decodes no disagreement",
        }

    @property
    def fraction(self) -> float:
        return self.generator.count.rows / (self.real_rows + self.generator.count.rows)

    def summary(self) -> str:
        count, uncertainty_filter = self.generator.count, self.generator.uncertainty_filter
        real = f"{self.real_rows:,} real rows in {len(self.seen.dataset)} episodes"
        made = f"{count.rows:,} imagined ones ({self.fraction:.1%}) in {count.kept}"
        if uncertainty_filter is None:
            return f"{real}, {made}; nothing was filtered"
        beyond = f"where the disagreement exceeds {uncertainty_filter.threshold:.3g}"
        return f"{real}, {made}; of {count.started:,} branches {count.cut:,} cut and {count.dropped:,} dropped {beyond}"


def refuse_existing(out: Path, data: Path) -> None:
    """Nothing is ever written over, and nothing into what is being read."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {out}: exists already. Choose a new folder.")
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise UserError(f"--out {out}: lies inside {data}, which is being read. Choose a folder outside it.")


def refuse_synthetic(source: EpisodeSource) -> None:
    """Branches leave real rows, and a row that was imagined before would pass for one."""
    if source.about.get("synthetic"):
        raise UserError(f"{source.path}: is imagined already, wholly or in part. Give the recorded dataset.")


def check_decodes(model: WorldModel, spec: DataSpec, dataset: CachedDataset, run: Path) -> None:
    """Raise `UserError` unless the model imagines all that a row holds."""
    if not spec.action.size:
        raise UserError(f"{run}: its data have no actions, so there is nothing to branch with.")
    ends = bool(dataset.column("terminated").any())
    signals = ("reward",) * spec.has_reward + ("terminated",) * ends
    for key in (*spec.obs, *signals):
        if key not in model.decodes:
            what = f"the model of {run} decodes {', '.join(model.decodes) or 'nothing'}, but the data hold {key!r} too"
            raise UserError(f"{what}. Imagined rows would lack it: train a family that decodes it, such as rssm.")


def stored_spec(spec: DataSpec, image_size: tuple[int, int] | None) -> DataSpec:
    """What is written: pictures at the model's resolution, the real ones as well, so that all are alike."""
    return spec.with_image_size(*image_size) if spec.image_keys and image_size else spec


def choose_filter(
    model: WorldModel, seen: Source, window: BranchWindow, keep: float | None, rng: np.random.Generator, run: Path
) -> UncertaintyFilter | None:
    """The ensemble's filter. A single model gets none, and a warning; an error if --keep was asked for."""
    if DISAGREEMENT in model.decodes:
        return UncertaintyFilter.fit(model, seen.dataset, seen.held_out, window, keep or KEEP, rng)
    if keep is not None:
        raise UserError(
            f"--keep {keep}: {run} is a single model, which decodes no disagreement. Train family ensemble."
        )
    say(f"WARNING: {run} is a single model, which decodes no disagreement: nothing is filtered. Train an ensemble.")
    return None


def origin(source: EpisodeSource, run: Run) -> dict[str, Any]:
    """Where the mixed dataset comes from; signals that no model decodes are named as left out."""
    carried = {name: fact for name, fact in describe(source).items() if name not in ("imported_from", "synthetic")}
    whence = f"{Path(source.path).name} ({source.about.get('origin') or 'of unstated origin'})"
    signals = [f"the signal {signal!r}" for signal in source.read(0).extra]
    return carried | {
        "license": source.about.get("license", "unknown"),
        "origin": f"{whence}, augmented by worldloom {__version__}",
        "checkpoint": run.checkpoint_hash,
        "imagined_by": {"family": run.family, "step": run.step, "run": run.path.name},
        "not_represented": [*source.about.get("not_represented", ()), *signals],
    }


def imagined_rows(real: int, fraction: float) -> int:
    """So many that they are `fraction` of all."""
    return round(real * fraction / (1 - fraction))


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that becomes `out` when the block ends; on any error it is removed."""
    partial = out.with_name(HIDDEN + out.name)
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    durable.make_folder(out.parent)
    try:
        yield partial
        durable.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    durable.sync(out.parent)
