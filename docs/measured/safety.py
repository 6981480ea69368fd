"""The shield, and the trust meter of `worldloom play`."""

from collections.abc import Mapping
from typing import Any

from .page import Result, Section, Table, estimate, number, percent, span

AGENTS = ("shielded", "tolerant", "tolerant_not_adaptive")


def shield_point(result: Result) -> Section:
    tuning = result["tuning_seeds"]
    lost = " and ".join(percent(share, 1) for share in tuning["return_lost"])
    return shield(
        result,
        "Shield: a point robot among obstacles",
        f"Target: at most {percent(result['target']['return_lost'])} of the return lost. On the {tuning['drives']} "
        f"seeds on which the settings were chosen, {lost}.",
    )


def shield_arm(result: Result) -> Section:
    return shield(result, "Shield: a MuJoCo arm with a joint limit")


def shield_cost(result: Result) -> Section:
    """The recipe whose rule is a learned signal."""
    promise, card = result["promise"], result["card"]
    auroc = [(key, estimate(figure, 3)) for key, figure in card["signal_auroc"].items()]
    rows = [
        (name, number(agent["violations"]), number(agent["violated_episodes"]), percent(agent["return_lost"], 1))
        for name, agent in result["drives"].items()
    ]
    missed = span((100 * share for share in result["missed_by_horizon"]), 1)
    return Section(
        "Shield: a learned cost as the rule",
        f"The agent is {result['agent']}. Rule: {result['rule']}. {result['options']['drives']} episodes; a "
        "violation is a step to which the environment gives a cost.",
        (
            Table(("agent", "violations", "episodes with one", "return lost"), rows),
            Table(("`signal_auroc`", "estimate"), auroc, "The learned cost on the card:"),
        ),
        (
            f"The true margin fell below its bound in {missed} % of held-out {promise['scope']}s, by horizon; "
            f"{percent(promise['alpha'])} is promised.",
        ),
    )


def shield(result: Result, title: str, *remarks: str) -> Section:
    promise, options = result["promise"], result["options"]
    missed = span((100 * share for share in promise["missed_by_horizon"]), 1)
    rows = [
        (world, number(agents["bare"]["violations"]), *(violations(agents[name]) for name in AGENTS))
        for world, agents in result["worlds"].items()
    ]
    columns = ("world", "without shield", "shielded", "`tolerance=inf`", "`tolerance=inf`, `adapt=False`")
    return Section(
        title,
        f"The agent is {result['agent']}. {options['drives']} episodes a world, alpha {promise['alpha']}, horizon "
        f"{options['horizon']} steps. Decisions that violate a rule, and the share of the return lost to the shield.",
        (Table(columns, rows, "Violations (return lost):"),),
        (
            f"The true margin fell below its bound in {missed} % of {number(options['held_out'])} held-out episodes, "
            f"by horizon; {percent(promise['alpha'])} is promised.",
            *remarks,
        ),
    )


def violations(agent: Mapping[str, Any]) -> str:
    """`6 (89.5 %)`; a return that the shield raised is a negative loss."""
    return f"{number(agent['violations'])} ({percent(agent['return_lost'], 1)})"


def trust(result: Result) -> Section:
    levels = list(result["runs"][0]["promises"])
    kept = [
        (f"{run['run']}, step {number(run['step'])}", *(promised(run["promises"][level]) for level in levels))
        for run in result["runs"]
    ]
    return Section(
        "The trust meter of `worldloom play`",
        f"Share of promises kept, pooled over {result['splits']} half splits of "
        f"{result['runs'][0]['held_out_episodes']} held-out episodes of Doom; in brackets the share of splits in which "
        "the meter promises nothing at that level.",
        (Table(("model", *(f"promise {level}" for level in levels)), kept),),
    )


def promised(promise: Mapping[str, float]) -> str:
    silent = promise["splits without a promise"]
    return f"{number(promise['kept'], 2) if silent < 1 else '-'} ({percent(silent)})"
