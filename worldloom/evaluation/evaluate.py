"""`worldloom evaluate RUN`: judge a trained model on the episodes it never saw, and write the card and the report."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
import tyro
from torch.utils._pytree import tree_leaves

from worldloom.errors import UserError
from worldloom.evaluation import measure_heads, rollout
from worldloom.evaluation.baselines import Baselines
from worldloom.evaluation.bootstrap import Figure
from worldloom.evaluation.card import FEW_EPISODES, Card, provenance
from worldloom.evaluation.cost import measure_cost
from worldloom.evaluation.measure import Measured, measure_forecasts
from worldloom.evaluation.rollout import Errors, Plan
from worldloom.evaluation.windows import (
    HeldOut,
    Source,
    choose_windows,
    held_out_episodes,
    horizon_grid,
    open_sources,
    read_windows,
)
from worldloom.model import WorldModel
from worldloom.training import checkpoint
from worldloom.training.precision import choose_device

if TYPE_CHECKING:
    from worldloom.training.checkpoint import Run

# What is above has never been meant, and would end in a number that overflows or memory that does not exist.
MOST = {"threads": 1024, "horizons": 10_000, "steps": 100_000, "context": 100_000, "samples": 10_000}
MOST_OF_OTHERS = 2**32 - 1


@dataclass(frozen=True)
class Judged:
    """A judged model and what the report shows beside the card."""

    card: Card
    errors: Errors
    tracked: list[dict]
    ends: dict[int, measure_heads.EndSamples]
    baselines: Baselines


def evaluate(
    run: tyro.conf.Positional[Path],
    data: Path | None = None,
    episodes: int = 32,
    context: int = 8,
    horizons: tuple[int, ...] = (1, 5, 15, 50),
    samples: int = 8,
    windows: int = 256,
    batch_size: int = 32,
    step: int | None = None,
    policy: tuple[Path, ...] = (),
    env: str | None = None,
    options: tuple[str, ...] = (),
    policy_episodes: int = 20,
    max_episode_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Judge a trained model on its held-out episodes: RUN/card.json and RUN/report.html.

    Args:
        run: folder of a `worldloom train` run.
        data: where the dataset is now, when it moved; or another dataset of the same kind.
        episodes: judge at most this many held-out episodes, spread evenly; 0 for all.
        context: real rows a belief is tracked on before it is left alone.
        horizons: open-loop steps at which the card's figures are taken.
        samples: dreams averaged per window, for families that sample; a deterministic one needs one.
        windows: start rows judged, spread evenly over all held-out rows.
        batch_size: windows in memory at once.
        step: the checkpoint of this step instead of the last one.
        policy: folder of a policy that was learned with this model: its score in the dream and in reality. Of eight or
            more also whether the dream ranks them as reality does. FOLDER@STEP is the policy of an earlier checkpoint.
        env: where these policies play; by default where the first learned while acting.
        options: options of that environment, such as action_repeat=2.
        policy_episodes: how many real episodes each plays, and as many dreams.
        max_episode_steps: truncate those episodes at this length.
        seed: of the choice of windows, the dreams and the intervals.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads. Two pay on a free machine and starve each other on a busy one.
    """
    from worldloom.agents.trial.ranking import check_policies, measure_policies
    from worldloom.evaluation.report import write_report

    started = perf_counter()
    counts = {"context": context, "samples": samples, "windows": windows, "batch-size": batch_size, "threads": threads}
    counts |= {"policy-episodes": policy_episodes}
    check_horizons(horizons)
    check_counts(counts, {"episodes": episodes, "seed": seed})
    torch.set_num_threads(threads)
    device = str(choose_device(device))
    model, found = checkpoint.load(run, device, step)
    if not os.access(run, os.W_OK):  # said now and not after minutes of measuring
        raise UserError(f"{run} cannot be written, so its card could not be kept. Copy the run to another folder.")
    sources = open_sources(found, data)
    held = held_out_episodes(sources, episodes)
    plan = Plan(context, tuple(sorted(set(horizons))), (), samples, batch_size, seed, device)
    played = (env, options, max_episode_steps) if env else None
    check_policies(policy, found, played)  # likewise
    judged = judge(model, found, sources, held, plan, windows, started)
    if policy:
        judged.card.measured.metrics |= measure_policies(policy, found, played, policy_episodes, device)
    try:
        judged.card.save(run / "card.json")
        say(f"{run / 'card.json'} written")
        write_report(model, held, plan_for(model, held, plan), judged, run / "report.html")
    except OSError as error:
        raise UserError(f"{run}: cannot be written ({error.strerror or error}). Make room and run it again.") from error
    say(f"{run / 'report.html'} written, {perf_counter() - started:.0f} s in all")


def judge(
    model: WorldModel,
    run: "Run",
    sources: Sequence[Source],
    held: Sequence[HeldOut],
    plan: Plan,
    num_windows: int = 256,
    started: float | None = None,
) -> Judged:
    """Measure everything on the card. Raises `UserError` when no held-out episode is longer than the context."""
    started = perf_counter() if started is None else started
    with torch.inference_mode(), torch.random.fork_rng():
        plan = plan_for(model, held, plan)
        chosen = choose_windows(held, plan.context, num_windows, plan.seed)
        say(f"judging {run.family} of {run.path} at step {run.step} on {len(held)} held-out episodes")
        baselines = Baselines(sources, run.spec, plan.grid, plan.seed)
        errors = rollout.roll_out(model, baselines, chosen, plan)
        say(f"{len(chosen)} windows rolled out, {perf_counter() - started:.0f} s")
        tracked = rollout.track_episodes(model, held, plan)
        measured = measure_forecasts(errors, run.spec, plan.seed)
        ends = _measure_heads(measured, model, held, errors, tracked, baselines, plan)
        measured.metrics["cost"] = _cost(model, run, sources, held, plan)
    notes = [*_notes(sources, held, plan), *_action_notes(measured)]
    facts = provenance(run, sources, held, plan, len(chosen), notes, perf_counter() - started)
    return Judged(Card(measured, facts), errors, tracked, ends, baselines)


def plan_for(model: WorldModel, held: Sequence[HeldOut], plan: Plan) -> Plan:
    """The plan with its scored steps filled in, shortened to the longest episode, one sample if nothing is sampled."""
    longest = max((h.length for h in held), default=0)
    reach = longest - plan.context
    if reach < 1:
        raise UserError(
            f"the longest held-out episode has {longest} rows, too few for --context {plan.context} and one step. "
            f"Give --context {max(1, longest - 2)} or less, or record longer episodes."
        )
    grid = [k for k in horizon_grid(plan.horizons) if k <= reach or k in plan.horizons]
    samples = 1 if is_deterministic(model, held, plan) else plan.samples
    return replace(plan, grid=tuple(grid), samples=samples)


def is_deterministic(model: WorldModel, held: Sequence[HeldOut], plan: Plan) -> bool:
    """Whether the same belief and action lead to the same belief twice."""
    belief, action = first_belief(model, held, plan)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        once, again = (tree_leaves(model.predict(belief, action)) for _ in range(2))
        return all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def first_belief(model: WorldModel, held: Sequence[HeldOut], plan: Plan) -> tuple:
    """The belief after the first rows of the first usable episode, and the action taken then."""
    usable = [h for h in held if h.length > plan.context]
    batch = read_windows(choose_windows(usable[:1], plan.context, 1, 0)[:1], plan.context, 1)
    with torch.inference_mode(), torch.random.fork_rng():
        belief = rollout.track_context(model, batch, replace(plan, samples=1))
    return belief, batch.actions[:, 0].to(plan.device)


def _measure_heads(
    measured: Measured,
    model: WorldModel,
    held: Sequence[HeldOut],
    errors: Errors,
    tracked: list[dict],
    baselines: Baselines,
    plan: Plan,
) -> dict[int, measure_heads.EndSamples]:
    ends = {}
    if "terminated" in model.decodes:
        for k in plan.horizons:
            last = rollout.end_probabilities(model, held, k, plan)
            ends[k] = measure_heads.ends_ahead(errors, held, plan.context, k, last)
    measure_heads.measure_rewards(measured, model, errors, tracked, baselines.reward_mean, plan.seed)
    measure_heads.measure_ends(measured, model, tracked, ends, plan.seed)
    measure_heads.measure_returns(measured, model, errors, plan.seed)
    return ends


def _cost(
    model: WorldModel, run: "Run", sources: Sequence[Source], held: Sequence[HeldOut], plan: Plan
) -> dict[str, Figure]:
    rows = sum(int(source.dataset.lengths[source.train].sum()) for source in sources if source.train)
    known = Figure(rows) if rows else Figure.missing("the run's training episodes are not in this data")
    return {
        **measure_cost(model, first_belief(model, held, plan)[0], plan.device),
        "training_steps": Figure(run.step),
        "training_rows": known,
        "training_seconds": Figure(run.train_seconds),
    }


def _notes(sources: Sequence[Source], held: Sequence[HeldOut], plan: Plan) -> list[str]:
    notes = [source.note for source in sources if source.note]
    if len(held) < FEW_EPISODES:
        few = (
            "one held-out episode: there are no intervals" if len(held) == 1 else f"only {len(held)} held-out episodes"
        )
        notes.append(f"{few}: take every figure as a first impression; train with a larger --held-out for more")
    for k in plan.horizons:
        reach = sum(h.length >= plan.context + k for h in held)
        if reach < len(held):
            notes.append(f"held-out episodes long enough for {k} steps: {reach} of {len(held)}")
    if not sources[0].dataset.spec.action.size:
        notes.append("the data have no actions: controllability cannot be measured")
    notes.append("simulator ceiling: not available from logged data")
    return notes


def _action_notes(measured: Measured) -> list[str]:
    """A warning for each key on which the recorded actions forecast no better than shuffled ones."""
    keys = {key.rsplit("@", 1)[0] for key in measured.metrics.get("controllability", {})}
    deaf = []
    for key in sorted(keys):
        figures = [f for k, f in measured.metrics["controllability"].items() if k.rsplit("@", 1)[0] == key]
        lows = [f.low for f in figures if f.low is not None]
        if lows and max(lows) <= 0:
            deaf.append(f"{key}: true actions forecast no better than shuffled ones, this model may ignore its actions")
    return deaf


def check_counts(at_least_1: Mapping[str, int | None], at_least_0: Mapping[str, int | None]) -> None:
    """Raise `UserError` for the first flag whose number is too small, or too large to be meant; None was not given."""
    for low, flags in ((1, at_least_1), (0, at_least_0)):
        for flag, value in flags.items():
            if value is not None and value < low:
                raise UserError(f"--{flag} {value}: must be at least {low}.")
            most = MOST.get(flag, MOST_OF_OTHERS)
            if value is not None and value > most:
                raise UserError(f"--{flag} {value}: must be at most {most}.")


def check_horizons(horizons: tuple[int, ...]) -> None:
    """Raise `UserError` unless every horizon is a step ahead."""
    if not horizons or min(horizons) < 1 or max(horizons) > MOST["horizons"]:
        most = MOST["horizons"]
        raise UserError(f"--horizons {' '.join(map(str, horizons))}: give steps from 1 to {most}, such as 1 5 15 50.")


def say(message: str) -> None:
    """Progress goes to stderr."""
    print(f"worldloom: {message}", file=sys.stderr, flush=True)
