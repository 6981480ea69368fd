"""The command `worldloom evaluate`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
from tyro.conf import Positional, UseAppendAction, arg

from worldloom.console import say
from worldloom.errors import UserError
from worldloom.evaluation.evaluate import evaluate_model, settings_for
from worldloom.evaluation.metrics import METRICS, chosen
from worldloom.evaluation.rollout import RolloutSettings
from worldloom.evaluation.windows import held_out_episodes
from worldloom.flags import Allow, named
from worldloom.limits import at_least, between, check_limits
from worldloom.registry import allow
from worldloom.runs import checkpoint
from worldloom.runs.parts import parse_parts
from worldloom.runs.precision import choose_device
from worldloom.runs.run import Run
from worldloom.runs.sources import Source, open_sources

METRIC_HELP = "Compute this one beside those of every card"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Evaluate a trained model on its held-out episodes: RUN/card.json and RUN/report.html.

    Those of other data, given with --data, are in RUN/evaluations/NAME instead.
    """

    run: Positional[Path]
    """Folder of a `worldloom train` run."""
    data: Path | None = None
    """Where the dataset is now, when it moved; or another dataset of the same kind."""
    episodes: Annotated[int, at_least(0)] = 32
    """Evaluate at most this many held-out episodes, spread evenly; 0 for all."""
    context: Annotated[int, between(1, 100_000)] = 8
    """Real rows a belief is tracked on before it is left alone."""
    horizons: Annotated[tuple[int, ...], between(1, 10_000)] = (1, 5, 15, 50)
    """Open-loop steps at which the card's figures are taken."""
    samples: Annotated[int, between(1, 10_000)] = 8
    """Dreams averaged per window, for families that sample; a deterministic one needs one."""
    windows: Annotated[int, at_least(1)] = 256
    """Start rows result, spread evenly over all held-out rows."""
    batch_size: Annotated[int, at_least(1)] = 32
    """Windows in memory at once."""
    step: int | None = None
    """The checkpoint of this step instead of the last one."""
    metric: Annotated[UseAppendAction[tuple[str, ...]], named(METRICS, METRIC_HELP)] = ()
    part: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=RUN")] = ()
    """Where a frozen part of the model is now, when its run moved."""
    policy: tuple[Path, ...] = ()
    """Folder of a policy that was learned with this model: its score in the dream and in reality. Of eight or more
    also whether the dream ranks them as reality does. FOLDER@STEP is the policy of an earlier checkpoint."""
    env: str | None = None
    """Where these policies play; by default where the first learned while acting."""
    options: tuple[str, ...] = ()
    """Options of that environment, such as action_repeat=2."""
    policy_episodes: Annotated[int, at_least(1)] = 20
    """How many real episodes each plays, and as many dreams."""
    max_episode_steps: int | None = None
    """Truncate those episodes at this length."""
    seed: Annotated[int, at_least(0)] = 0
    """Of the choice of windows, the dreams and the intervals."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, between(1, 1024)] = 1
    """CPU threads. Two are faster on a free machine and slower on a busy one."""
    allow: Allow = ()


def evaluate(settings: Annotated[EvaluateSettings, arg(name="")]) -> None:
    """Evaluate a trained model on its held-out episodes: RUN/card.json and RUN/report.html."""
    from worldloom.evaluation.policies.ranking import check_policies, measure_policies
    from worldloom.evaluation.report import write_report

    started = perf_counter()
    check_limits(settings)
    allow(*settings.allow)
    metrics = chosen(settings.metric)  # imported now, and not after minutes of measuring
    run, horizons = settings.run, tuple(sorted(set(settings.horizons)))
    if not horizons:
        raise UserError("--horizons names no step: give some, such as 1 5 15 50")
    torch.set_num_threads(settings.threads)
    device = str(choose_device(settings.device))
    model, found = checkpoint.load(run, device, settings.step, parts=parse_parts(settings.part))
    if not os.access(run, os.W_OK):  # said now and not after minutes of measuring
        raise UserError(f"{run} cannot be written, so its card could not be kept. Copy the run to another folder.")
    sources = open_sources(found, settings.data)
    held = held_out_episodes(sources, settings.episodes)
    rollout = RolloutSettings(
        settings.context, horizons, (), settings.samples, settings.batch_size, settings.seed, device
    )
    played = (settings.env, settings.options, settings.max_episode_steps) if settings.env else None
    check_policies(settings.policy, found, played)  # likewise
    fitted = training_sources(found, sources)
    result = evaluate_model(model, found, sources, held, rollout, settings.windows, started, metrics, fitted)
    if settings.policy:
        result.card.measured.metrics |= measure_policies(
            settings.policy, found, played, settings.policy_episodes, device
        )
    folder = place(run, sources)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        result.card.save(folder / "card.json")
        say(f"{folder / 'card.json'} written")
        write_report(model, held, settings_for(model, held, rollout), result, folder / "report.html")
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}). Make room and run it again."
        ) from error
    say(f"{folder / 'report.html'} written, {perf_counter() - started:.0f} s in all")


def place(run: Path, sources: Sequence[Source]) -> Path:
    """Where the card goes: a run's own is that on its own data, and what learns from it must not find another."""
    other = next((source.dataset for source in sources if source.other), None)
    return run if other is None else run / "evaluations" / f"{other.path.name}-{other.fingerprint[:8]}"


def training_sources(run: Run, sources: Sequence[Source]) -> Sequence[Source]:
    """The run's own data, on which baselines are fitted whatever is evaluated; `sources` where they are gone."""
    if not any(source.other for source in sources) or not run.datasets:
        return sources
    try:
        return open_sources(run, None)
    except UserError as error:
        say(f"WARNING: there are no fitted baselines, as they need the training data: {error}")
        return sources
