"""Metric 12: what policies that learned in the model score in it and outside. `evaluate --policy` plays them."""

from collections.abc import Iterator

from worldloom.evaluation.metric import Evidence, Metric
from worldloom.evaluation.wording import Findings, Sentence, interval
from worldloom.stats.bootstrap import Figure

GOOD_RANKS = 0.7


def played_apart(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    """Nothing from held-out episodes: these figures come from playing (`measure_policies`)."""
    return {}


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    yield from works_outside(findings)
    yield from ranks_policies(findings)


def works_outside(findings: Findings) -> Iterator[Sentence]:
    """Whether a policy learned in the dream is any good outside it, and whether the dream flatters it."""
    found = findings.of("policy")
    if not found:
        return
    real, random, more = found["reality"], found["random"], found["dream minus reality"]
    better = real.low is not None and random.high is not None and real.low > random.high
    words = (
        f"policy: {interval(real)} in reality, {interval(found['dream'])} in the dream, {interval(random)} by chance"
    )
    if more.low is not None and more.low > 0:
        why = unforeseen_ends(findings)
        yield Sentence("no", f"{words}: it exploits the dream, whose return is {interval(more)} above reality{why}.")
    else:
        yield Sentence(
            "yes" if better else "partly",
            f"{words}: the dream does not overestimate it beyond the interval of the difference, {interval(more)}.",
        )


def unforeseen_ends(findings: Findings) -> str:
    """From how many steps ahead on the model overestimates survival, empty if it does not."""
    found = findings.of("policy_survival")
    for step, more in findings.at_steps("policy_survival", "dream minus reality").items():
        if more.low is not None and more.low > 0:
            dream, real = interval(found[f"dream@{step}"]), interval(found[f"reality@{step}"])
            return f"; in the dream {dream} of its rows go on for {step} steps, in reality {real}"
    return ""


def ranks_policies(findings: Findings) -> Iterator[Sentence]:
    """Whether several policies can be compared in the dream instead of in reality."""
    found = findings.of("policy_ranking")
    if not found:
        return
    ranks, lost = found["spearman"], found["regret"]
    if ranks.value is None:
        yield Sentence("open", f"policies: whether the dream ranks them was not measured: {ranks.why}.")
        return
    dream, real = findings.of("policy_dream"), findings.of("policy_reality")
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


POLICY = Metric(
    "A policy's return",
    "Mean return of its episodes, and of dreams that begin alike.",
    played_apart,
    sentence=sentence,
)
POLICY_SURVIVAL = Metric(
    "A policy's survival",
    "Share of its rows after which the episode goes on for k steps.",
    played_apart,
)
