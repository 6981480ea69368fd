"""The card in plain words: what this model can be trusted for, and what not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from worldloom.evaluation.measure import Table
from worldloom.stats.bootstrap import Figure

GOOD_AUROC, GOOD_RANKS = 0.8, 0.7
BAD_ECE = 0.05
MINUS, ABSENT = "\u2212", "\u2013"


@dataclass(frozen=True)
class Sentence:
    """`mark` is what the reader may do with it: trust it, mind it, not rely on it, or nothing was measured."""

    mark: Literal["yes", "partly", "no", "open"]
    words: str


def verdict(metrics: Table, keys: Sequence[str], horizons: Sequence[int], fps: float) -> list[Sentence]:
    """One sentence or two per question that a user of the model has, keys in the order given."""
    sentences = []
    for key in keys:
        sentences.append(_how_far(metrics, key, horizons, fps))
        sentences += _against_linear(metrics, key, horizons)
        sentences.append(_obeys(metrics, key, horizons))
    sentences.append(_sees_ends(metrics, horizons))
    sentences.append(_knows_rewards(metrics, horizons))
    sentences += _works_outside(metrics)
    sentences += _ranks_policies(metrics)
    return sentences


def number(value: float | None, digits: int = 2) -> str:
    """A number as people write it: a true minus, no minus zero, an exponent only for what is huge."""
    if value is None:
        return ABSENT
    if abs(value) >= 1e9:
        return f"{value:.{digits}e}".replace("-", MINUS)
    rounded = round(value, digits if abs(value) < 1000 else 0) + 0.0
    text = f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.{digits}f}"
    return text.replace(",", " ").replace("-", MINUS)


def interval(figure: Figure, digits: int = 2) -> str:
    """Value and interval: `0.31 [0.22, 0.40]`."""
    if figure.low is None or figure.high is None:
        return number(figure.value, digits)
    return f"{number(figure.value, digits)} [{number(figure.low, digits)}, {number(figure.high, digits)}]"


def split_key(key: str) -> tuple[str, int | None]:
    """`image@5` is `("image", 5)`; a figure without a horizon has None."""
    name, _, step = key.rpartition("@")
    return (name, int(step)) if name and step.isdigit() else (key, None)


def _how_far(metrics: Table, key: str, horizons: Sequence[int], fps: float) -> Sentence:
    figure = metrics.get("useful_horizon", {}).get(key)
    if figure is None or figure.value is None:
        return Sentence("open", f"{key}: not measured: {figure.why if figure else 'the model does not decode it'}.")
    steps = int(figure.value)
    if steps == 0:
        return _not_at_first(metrics, key)
    known = [k for k, f in at_steps(metrics, "skill", key).items() if f.value is not None]
    furthest = max([*known, steps])
    more = "at least " if steps == furthest else ""
    worst = f", with 95 % confidence {figure.low:.0f}" if figure.low is not None and figure.low < steps else ""
    words = f"{key}: useful up to {more}{steps} steps ahead ({steps / fps:.2g} s{worst})"
    nearest = min(horizons, key=lambda k: abs(k - min(steps, 5)))
    skill = metrics["skill"].get(f"{key}@{nearest}")
    detail = f"; at {nearest} its skill against nothing-changes is {interval(skill)}" if skill and skill.value else ""
    sure = figure.low is not None and figure.low >= min(5, furthest)
    return Sentence("yes" if sure else "partly", f"{words}{detail}.")


def _not_at_first(metrics: Table, key: str) -> Sentence:
    """Pictures hardly change in one step, so that a model may lose at first and still be the better forecast later."""
    words = f"{key}: one step ahead, assuming that nothing changes is closer"
    later = [k for k, f in at_steps(metrics, "skill", key).items() if f.low is not None and f.low > 0]
    if not later:
        return Sentence("no", f"{words}, and at no later step is the model certain to be better.")
    skills = ", ".join(interval(metrics["skill"][f"{key}@{k}"]) for k in later)
    return Sentence("partly", f"{words}, but the model is better at {_list(later)} (skill {skills}).")


def _against_linear(metrics: Table, key: str, horizons: Sequence[int]) -> Iterator[Sentence]:
    gains = {k: f for k, f in at_steps(metrics, "skill_minus_linear", key).items() if f.value is not None}
    if not gains:
        return
    if all(f.low is None for f in gains.values()):
        values = ", ".join(interval(f) for f in gains.values())
        words = f"{key} against a linear forecast, difference in skill at {_list(list(gains))}: {values}"
        behind = all((f.value or 0.0) < 0 for f in gains.values())
        yield Sentence("no" if behind else "partly", f"{words}, from one episode and so without an interval.")
        return
    better = [k for k, f in gains.items() if f.low is not None and f.low > 0]
    worse = [k for k, f in gains.items() if f.high is not None and f.high < 0]
    unsure = [k for k in gains if k not in better and k not in worse]
    parts = []
    for words, steps in (("better", better), ("no clear difference", unsure), ("worse", worse)):
        if steps:
            parts.append(f"{words} at {_list(steps)} ({', '.join(interval(gains[k]) for k in steps)})")
    mark: Literal["yes", "partly", "no"] = "yes" if better and not worse else "no" if worse and not better else "partly"
    yield Sentence(mark, f"{key} against a linear forecast, difference in skill: {'; '.join(parts)}.")


def _obeys(metrics: Table, key: str, horizons: Sequence[int]) -> Sentence:
    figures = metrics.get("controllability", {})
    known = {k: f for k, f in at_steps(metrics, "controllability", key).items() if f.value is not None}
    if not known:
        why = next((f.why for name, f in figures.items() if split_key(name)[0] == key and f.why), "no figure")
        return Sentence("open", f"{key}: whether it listens to actions was not measured: {why}.")
    sure = [k for k, f in known.items() if f.low is not None and f.low > 0]
    best = max(sure or known, key=lambda k: known[k].value or 0.0)
    words = f"the true actions forecast {interval(known[best])} dB better than another episode's at {_list([best])}"
    if known[best].low is None:
        return Sentence("partly", f"{key}: one episode cannot show whether it listens to its actions: {words}.")
    if sure:
        return Sentence("yes", f"{key}: it listens to its actions: {words}.")
    return Sentence("no", f"{key}: no evidence that it listens to its actions: {words}.")


def _sees_ends(metrics: Table, horizons: Sequence[int]) -> Sentence:
    figures = metrics.get("terminated_auroc", {})
    tracked = figures.get("tracked")
    if tracked is None or tracked.value is None:
        return Sentence("open", f"ends of episodes: not measured: {tracked.why if tracked else 'no head'}.")
    ahead = {k: f for k, f in at_steps(metrics, "terminated_auroc", "open_loop").items() if f.value is not None}
    foreseen = [k for k, f in ahead.items() if (f.value or 0) >= GOOD_AUROC]
    words = f"ends of episodes: recognised when seen with AUROC {interval(tracked)}"
    if ahead:
        words += "; foreseen " + ", ".join(f"{interval(f)} at {k}" for k, f in ahead.items()) + " steps ahead"
    good, off = tracked.value >= GOOD_AUROC, _miscalibrated_ends(metrics)
    mark: Literal["yes", "partly", "no"] = "yes" if good and foreseen else "partly" if good or foreseen else "no"
    if off:
        mark = "no" if mark == "no" else "partly"
        off = f", but their probability is off by {off}: dreams do not end when they should"
    return Sentence(mark, f"{words} (chance is 0.5){off}.")


def _miscalibrated_ends(metrics: Table) -> str:
    """Where. Who ranks moments well may still be sure of ends that do not come, and a policy learns from that."""
    figures = metrics.get("terminated_ece", {})
    places = {"when seen": figures.get("tracked")}
    places |= {f"at {k}": figure for k, figure in at_steps(metrics, "terminated_ece", "open_loop").items()}
    off = {where: each for where, each in places.items() if each and each.low is not None and each.low > BAD_ECE}
    return ", ".join(f"{interval(figure)} {where}" for where, figure in off.items())


def _knows_rewards(metrics: Table, horizons: Sequence[int]) -> Sentence:
    tracked = metrics.get("reward_r2", {}).get("tracked")
    if tracked is None or tracked.value is None:
        return Sentence("open", f"rewards: not measured: {tracked.why if tracked else 'no head'}.")
    ahead = {k: f for k, f in at_steps(metrics, "reward_r2", "open_loop").items() if f.value is not None}
    words = f"rewards: R² {interval(tracked)} when seen"
    if ahead:
        words += "; " + ", ".join(f"{interval(f)} at {k}" for k, f in ahead.items()) + " steps ahead"
    usable = [f for f in ahead.values() if f.low is not None and f.low > 0]
    mark: Literal["yes", "partly", "no"] = "yes" if tracked.value > 0.5 and usable else "partly"
    return Sentence(mark if tracked.value > 0 else "no", words + ".")


def _works_outside(metrics: Table) -> Iterator[Sentence]:
    """Whether a policy learned in the dream is any good outside it, and whether the dream flatters it."""
    found = metrics.get("policy")
    if found is None:
        return
    real, random, more = found["reality"], found["random"], found["dream minus reality"]
    better = real.low is not None and random.high is not None and real.low > random.high
    words = (
        f"policy: {interval(real)} in reality, {interval(found['dream'])} in the dream, {interval(random)} by chance"
    )
    if more.low is not None and more.low > 0:
        why = _unforeseen_ends(metrics)
        yield Sentence("no", f"{words}: it exploits the dream, which pays it {interval(more)} more than reality{why}.")
    else:
        yield Sentence(
            "yes" if better else "partly",
            f"{words}: the dream does not flatter it beyond the interval of the difference, {interval(more)}.",
        )


def _unforeseen_ends(metrics: Table) -> str:
    """From how many steps ahead on the dream lets a policy live where it dies, nothing if it does not."""
    found = metrics.get("policy_survival", {})
    ahead = at_steps(metrics, "policy_survival", "dream minus reality")
    for step, more in ahead.items():
        if more.low is not None and more.low > 0:
            dream, real = interval(found[f"dream@{step}"]), interval(found[f"reality@{step}"])
            return f"; in the dream {dream} of its moments go on for {step} steps, in reality {real}"
    return ""


def _ranks_policies(metrics: Table) -> Iterator[Sentence]:
    """Whether several policies can be compared in the dream instead of in reality."""
    found = metrics.get("policy_ranking")
    if found is None:
        return
    ranks, lost = found["spearman"], found["regret"]
    if ranks.value is None:
        yield Sentence("open", f"policies: whether the dream tells the better one was not measured: {ranks.why}.")
        return
    dream, real = metrics["policy_dream"], metrics["policy_reality"]
    best = max(dream, key=lambda name: dream[name].value or float("-inf"))
    words = (
        f"policies: the dream ranks {len(dream)} of them as reality does with a correlation of {interval(ranks)} "
        f"(Pearson {interval(found['pearson'])}, MMRV {interval(found['mmrv'])}); its favourite {best} gets "
        f"{interval(real[best])} in reality, {interval(lost)} less than the best."
    )
    if ranks.value >= GOOD_RANKS and ranks.low is not None and ranks.low > 0:
        yield Sentence("yes", words)
    else:
        yield Sentence("no" if ranks.value <= 0 else "partly", words)


def at_steps(metrics: Table, metric: str, key: str) -> dict[int, Figure]:
    """The figures of one key by horizon."""
    found = {}
    for name, figure in metrics.get(metric, {}).items():
        base, step = split_key(name)
        if base == key and step is not None:
            found[step] = figure
    return found


def _list(steps: Sequence[int]) -> str:
    """`1 step`, `5 steps`, `1, 5 and 15 steps`."""
    words = [str(step) for step in steps]
    if len(words) == 1:
        return f"{words[0]} step{'s' * (steps[0] != 1)}"
    return f"{', '.join(words[:-1])} and {words[-1]} steps"
