"""`worldloom evaluate RUN`: judge a trained model on the episodes it never saw, and write the card and the report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter

import torch

from worldloom.console import say
from worldloom.errors import UserError
from worldloom.evaluation import rollout
from worldloom.evaluation.baselines import Baselines
from worldloom.evaluation.card import FEW_EPISODES, Card, provenance
from worldloom.evaluation.cost import measure_cost
from worldloom.evaluation.measure import Measured, measure
from worldloom.evaluation.measure_heads import EndSamples, ends_ahead
from worldloom.evaluation.metric import Evidence, Metric
from worldloom.evaluation.metrics import chosen
from worldloom.evaluation.result import Evaluation
from worldloom.evaluation.rollout import Errors, RolloutSettings
from worldloom.evaluation.windows import HeldOut, choose_windows, horizon_grid, read_windows
from worldloom.model import WorldModel
from worldloom.runs.run import Run
from worldloom.runs.sources import Source
from worldloom.stats.bootstrap import Figure


def evaluate_model(
    model: WorldModel,
    run: Run,
    sources: Sequence[Source],
    held: Sequence[HeldOut],
    settings: RolloutSettings,
    num_windows: int = 256,
    started: float | None = None,
    metrics: Mapping[str, Metric] | None = None,
    fitted: Sequence[Source] = (),
) -> Evaluation:
    """Measure everything on the card: `metrics`, by default all of ours, and the cost.

    Baselines are fitted on the training episodes of `fitted`, by default of `sources`, which other data have none of.
    Raises `UserError` when no held-out episode is longer than the context.
    """
    metrics = chosen() if metrics is None else metrics
    started = perf_counter() if started is None else started
    with torch.inference_mode():
        settings = settings_for(model, held, settings)
        windows = choose_windows(held, settings.context, num_windows, settings.seed)
        say(f"judging {run.family} of {run.path} at step {run.step} on {len(held)} held-out episodes")
        fitted = fitted or sources
        baselines = Baselines(fitted, run.spec, settings.grid, settings.seed)
        errors = rollout.roll_out(model, baselines, windows, settings)
        say(f"{len(windows)} windows rolled out, {perf_counter() - started:.0f} s")
        tracked = rollout.track_episodes(model, held, settings)
        ends = _ends_ahead(model, held, errors, settings)
        measured = measure(Evidence(model, held, settings, errors, tracked, ends, baselines), metrics)
        measured.metrics["cost"] = _cost(model, run, fitted, held, settings)
    notes = [*_notes(sources, held, settings), *_action_notes(measured)]
    facts = provenance(run, sources, held, settings, len(windows), notes, perf_counter() - started)
    return Evaluation(Card(measured, facts), errors, tracked, ends, baselines, metrics)


def settings_for(model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings) -> RolloutSettings:
    """With the scored steps filled in, cut to the longest episode, and one sample if nothing is sampled."""
    longest = max((h.length for h in held), default=0)
    reach = longest - settings.context
    if reach < 1:
        raise UserError(
            f"the longest held-out episode has {longest} rows, too few for --context {settings.context} and one step. "
            f"Give --context {max(1, longest - 2)} or less, or record longer episodes."
        )
    grid = [k for k in horizon_grid(settings.horizons) if k <= reach or k in settings.horizons]
    samples = 1 if is_deterministic(model, held, settings) else settings.samples
    return replace(settings, grid=tuple(grid), samples=samples)


def is_deterministic(model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings) -> bool:
    """Whether the same belief and action lead to the same belief twice."""
    belief, action = first_belief(model, held, settings)
    noise = settings.noise
    with torch.inference_mode():
        once, again = (model.predict(belief, action, noise) for _ in range(2))
        decoded = all(torch.equal(model.decode(once, key), model.decode(again, key)) for key in model.decodes)
        return decoded and (not rollout.has_features(once) or torch.equal(once.features, again.features))


def first_belief(model: WorldModel, held: Sequence[HeldOut], settings: RolloutSettings) -> tuple:
    """The belief after the first rows of the first usable episode, and the action taken then."""
    usable = [h for h in held if h.length > settings.context]
    batch = read_windows(choose_windows(usable[:1], settings.context, 1, 0)[:1], settings.context, 1)
    with torch.inference_mode():
        belief = rollout.track_context(model, batch, replace(settings, samples=1))
    return belief, batch.actions[:, 0].to(settings.device)


def _ends_ahead(
    model: WorldModel, held: Sequence[HeldOut], errors: Errors, settings: RolloutSettings
) -> dict[int, EndSamples]:
    """End probabilities at each of the card's horizons; nothing of a model that knows no ends."""
    if "terminated" not in model.decodes:
        return {}
    last = {k: rollout.end_probabilities(model, held, k, settings) for k in settings.horizons}
    return {k: ends_ahead(errors, held, settings.context, k, last[k]) for k in settings.horizons}


def _cost(
    model: WorldModel, run: Run, sources: Sequence[Source], held: Sequence[HeldOut], settings: RolloutSettings
) -> dict[str, Figure]:
    rows = sum(int(source.dataset.lengths[source.train].sum()) for source in sources if source.train)
    known = Figure(rows) if rows else Figure.missing("the run's training episodes are not in this data")
    return {
        **measure_cost(model, first_belief(model, held, settings)[0], settings.device),
        "training_steps": Figure(run.step),
        "training_rows": known,
        "training_seconds": Figure(run.train_seconds),
    }


def _notes(sources: Sequence[Source], held: Sequence[HeldOut], settings: RolloutSettings) -> list[str]:
    notes = [source.note for source in sources if source.note]
    if len(held) < FEW_EPISODES:
        few = (
            "one held-out episode: there are no intervals" if len(held) == 1 else f"only {len(held)} held-out episodes"
        )
        notes.append(f"{few}: take every figure as a first impression; train with a larger --held-out for more")
    for k in settings.horizons:
        reach = sum(h.length >= settings.context + k for h in held)
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
