"""Metric 2: for how many steps the forecast is better than assuming that nothing changes."""

from collections.abc import Iterator

import numpy as np

from worldloom.evaluation.metric import Evidence, Metric
from worldloom.evaluation.wording import Findings, Sentence, interval, list_steps
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    errors, figures = evidence.errors, {}
    for key in evidence.keys(predictor):
        mse = evidence.mse(predictor, key)
        exists = [i for i in range(len(errors.grid)) if np.isfinite(mse[:, i]).any()]
        if not exists:
            figures[key] = evidence.too_short(errors.grid[0])
            continue
        steps = np.array(errors.grid)[exists]
        error, unchanged = (np.nan_to_num(each[:, exists]) for each in (mse, evidence.mse("persistence", key)))

        def horizon(
            w: np.ndarray, error: np.ndarray = error, unchanged: np.ndarray = unchanged, steps: np.ndarray = steps
        ) -> np.ndarray:
            return scores.useful_horizon(scores.skill(error, unchanged, w), steps)

        figures[key] = whole(figure(horizon, errors.episode, evidence.seed))
    return figures


def whole(useful: Figure) -> Figure:
    """Quantiles fall between steps; an interval of steps ends on whole ones."""
    if useful.low is None or useful.high is None:
        return useful
    return Figure(useful.value, float(np.floor(useful.low)), float(np.ceil(useful.high)))


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    useful = findings.of("useful_horizon").get(key)
    if useful is None or useful.value is None:
        why = useful.why if useful else "the model does not decode it"
        yield Sentence("open", f"{key}: not measured: {why}.")
    elif int(useful.value) == 0:
        yield not_at_first(findings, key)
    else:
        yield up_to(findings, key, useful, int(useful.value))


def up_to(findings: Findings, key: str, useful: Figure, steps: int) -> Sentence:
    known = [k for k, f in findings.at_steps("skill", key).items() if f.value is not None]
    furthest = max([*known, steps])
    more = "at least " if steps == furthest else ""
    worst = f", with 95 % confidence {useful.low:.0f}" if useful.low is not None and useful.low < steps else ""
    words = f"{key}: useful up to {more}{steps} steps ahead ({steps / findings.fps:.2g} s{worst})"
    nearest = min(findings.horizons, key=lambda k: abs(k - min(steps, 5)))
    skill = findings.of("skill").get(f"{key}@{nearest}")
    detail = f"; at {nearest} its skill against nothing-changes is {interval(skill)}" if skill and skill.value else ""
    sure = useful.low is not None and useful.low >= min(5, furthest)
    rivals = {k: name for k, name in findings.no_better_than(key).items() if k <= steps}
    if rivals:
        by_name = {name: list_steps([k for k in rivals if rivals[k] == name]) for name in rivals.values()}
        close = " and ".join(f"{name} at {at}" for name, at in by_name.items())
        return Sentence("no" if set(rivals) >= set(known) else "partly", f"{words}{detail}; but as close is {close}.")
    return Sentence("yes" if sure else "partly", f"{words}{detail}.")


def not_at_first(findings: Findings, key: str) -> Sentence:
    """Pictures hardly change in one step, so that a model may lose at first and still be the better forecast later."""
    words = f"{key}: one step ahead, assuming that nothing changes is closer"
    later = [k for k, f in findings.at_steps("skill", key).items() if f.low is not None and f.low > 0]
    if not later:
        return Sentence("no", f"{words}, and at no later step is the interval above zero.")
    skills = ", ".join(interval(findings.of("skill")[f"{key}@{k}"]) for k in later)
    return Sentence("partly", f"{words}, but the model is better at {list_steps(later)} (skill {skills}).")


USEFUL_HORIZON = Metric(
    "Useful horizon", "Steps until the skill first falls to 0 or below.", compute, 0, sentence, each_key=True
)
