"""Agents in the real environment: learned while acting, by planning or by a policy that learns in the model."""

import re
from collections.abc import Mapping
from typing import Any

from .page import Result, Section, Table, estimate, measured, number, spread, yes


def tdmpc_dmc(result: Result) -> Section:
    peers = result["reference"]
    planet = peers["cem_simulator"]["returns"]
    rows = [
        (
            run["task"],
            str(run["seed"]),
            estimate(run["final"]),
            spread((run["tdmpc2"], run["tdmpc2_std"])),
            number(planet[run["task"]]),
            yes(run["reached"]),
            str(failures(run)),
            number(run["final"]["cpu_seconds"] / 60),
        )
        for run in result["runs"]
    ]
    columns = ("task", "seed", "return", "TD-MPC2", "CEM, simulator", "reached", "failed episodes", "CPU-min")
    stuck = result["reacher_easy"]
    return Section(
        "DeepMind Control from vectors, by planning",
        f"`worldloom learn tdmpc`, nano ({number(result['parameters'])} parameters), "
        f"{number(result['env_steps'])} environment steps, action repeat {result['action_repeat']}. Mean return of "
        f"{len(result['runs'][0]['final']['returns'])} fixed evaluation episodes at the end.",
        (Table(columns, rows), *(tried(result, name) for name in result if name.startswith("tried"))),
        (
            f"{peers['tdmpc2']['source']}; {peers['tdmpc2']['hours_per_run']} h a run "
            f"with {peers['tdmpc2']['hardware']}.",
            f"{peers['cem_simulator']['source']}.",
            "Reached: at least TD-MPC2's mean less one standard deviation. "
            "Failed: an episode with less than half of the mean return.",
            f"Reacher-easy: {stuck['what']} (predicted {stuck['predicted_value']}, true {stuck['true_value']}; "
            f"{stuck['targets_in_the_data']} targets in the data).",
        ),
    )  # fmt: skip


def failures(run: Mapping[str, Any]) -> int:
    return sum(episode < run["final"]["mean"] / 2 for episode in run["final"]["returns"])


def tried(result: Result, name: str) -> Table:
    """Settings that were tried, with the return at every evaluation until the run was stopped."""
    curves = {settings: curve for settings, curve in result[name].items() if settings}
    steps = [number(point["env_steps"]) for point in result["runs"][0]["curve"]]
    rows = [
        (settings, *(number(value) for value in curve), *("-" for _ in steps[len(curve) :]))
        for settings, curve in curves.items()
    ]
    caption = f"{name.replace('_', ' ').capitalize()}, mean return at environment steps:"
    return Table(("settings", *steps), rows, caption)


def simulator_ceiling(result: Result) -> Section:
    values = {row["name"]: row for row in result["rows"]}
    tasks, figures = (list(dict.fromkeys(name.split(", ", 1)[part] for name in values)) for part in (0, 1))
    rows = []
    for figure in figures:
        found = [values[f"{task}, {figure}"] for task in tasks]
        rows.append((figure, found[0]["unit"], *(measured(row["value"]) for row in found)))
    return Section(
        "CEM with the true simulator",
        "How much an exact model is worth to a planner.",
        (Table(("measured", "unit", *tasks), rows),),
    )


def dreamer_dmc(result: Result) -> Section:
    rows = [
        (
            run["task"],
            estimate(run["final"]),
            number(run["dreamerv3"]),
            estimate(run["curve"][-1]),
            option(run, "policy.horizon"),
            number(run["replayed rows per env step"]),
            number(run["imagined steps per env step"]),
            number(run["curve"][-1]["cpu_seconds"] / 60),
        )
        for run in result["runs"]
    ]
    columns = ("task", "return", "DreamerV3", "last evaluation in training", "dream steps", "replayed rows a step",
               "imagined steps a step", "CPU-min")  # fmt: skip
    return Section(
        "DeepMind Control from vectors, by a policy learned in dreams",
        f"`worldloom learn dreamer --family mlp --policy.gradient dynamics`, {number(result['env_steps'])} environment "
        f"steps. Mean return of the final policy over {len(result['runs'][0]['final']['returns'])} episodes; the last "
        f"evaluation in training is of {len(result['tried'][0]['returns'])} others.",
        (Table(columns, rows), stopped(result), overestimate(result)),
        (f"{result['reference']['source']}.",),
    )


def option(run: Mapping[str, Any], name: str) -> str:
    """The value of a flag in a run's command; `default` where it was not typed."""
    typed = re.search(rf"--{re.escape(name)} (\S+)", run["command"])
    return typed[1] if typed else "default"


def stopped(result: Result) -> Table:
    """The runs that were stopped early, with the settings in which they differ."""
    rows = []
    for run in result["tried"]:
        settings = re.findall(r"--(?:policy\.|lr|updates|family|set)\S* \S+", run["command"])
        best = max(point["mean"] for point in run["curve"])
        at, last = run["stopped at env steps"], run["curve"][-1]["mean"]
        rows.append((run["task"], f"`{' '.join(settings)}`", number(best), number(last), number(at)))
    columns = ("task", "settings", "best return", "last return", "stopped at step")
    return Table(columns, rows, "Runs that were stopped early:")


def overestimate(result: Result) -> Table:
    """Why long dreams misled the walker: what critic and model predicted, beside what came."""
    found = result["walker_walk_horizon_5"]
    rows = [(name, *(measured(value) for value in values)) for name, values in found["three episodes"].items()]
    episodes = range(1, len(rows[0]))
    caption = f"Overestimation of the model and the critic ({found['checkpoint']}):"
    return Table(("in three episodes", *map(str, episodes)), rows, caption)


def cartpole_pixels(result: Result) -> Section:
    points = [*result["curve"], {"decisions": result["decisions"], "episodes": len(result["policy"]["returns"])}]
    scores = [*result["curve"], result["policy"]]
    learned = [
        (number(point["decisions"]), number(point["episodes"]), estimate(score))
        for point, score in zip(points, scores, strict=True)
    ]
    random, earlier = result["random"], result["earlier"]
    return Section(
        "CartPole-v1 from pixels",
        f"Neither position nor velocity is observed. The largest return is {result['reference']['maximum_return']}; "
        f"{number(result['updates'])} updates.",
        (Table(("decisions", "episodes", "return"), learned),),
        (
            f"Random play: {estimate(random)} over {len(random['returns'])} episodes.",
            f"{earlier['what'].capitalize()}: {estimate(earlier)} after {number(earlier['decisions'])} decisions.",
        ),
    )


def explore(result: Result) -> Section:
    rows = [
        (
            {"exploring": "`--explore disagreement`", "alone": "without"}[run["arm"]],
            str(run["seed"]),
            number(run["first arrival, decisions"]) if run["first arrival, decisions"] else "never",
            run["arrivals"],
            estimate(run["final"], 2),
            number(run["cpu_minutes"], 1),
        )
        for run in sorted(result["runs"], key=lambda run: run["arm"] != "exploring")
    ]
    columns = ("exploration", "seed", "first arrival, decisions", "arrivals", "return", "CPU-min")
    return Section(
        "A reward that is seldom met",
        f"MountainCarContinuous-v0: {result['reward_at_the_goal']} at the goal and no reward on the way; "
        f"{result['reference']['solved']} counts as solved. Mean return over "
        f"{len(result['runs'][0]['final']['returns'])} episodes after {number(result['decisions'])} decisions.",
        (Table(columns, rows),),
    )


def dyna_maze(result: Result) -> Section:
    learned = [
        (steps, number(run["episodes_to_near_optimal"]), run["book"].removeprefix("about "))
        for steps, run in result["dyna_maze"].items()
    ]
    changed = [
        (
            name,
            number(len(result[name]["dyna_q"]) * result["steps_between_rewards"]),
            number(result[name]["dyna_q_plus"][-1]),
            number(result[name]["dyna_q"][-1]),
        )
        for name in ("blocking", "shortcut")
    ]
    return Section(
        "Dyna mazes",
        f"Means over {result['seeds']} seeds. Near-optimal: {result['near_optimal']}.",
        (
            Table(("imagined steps after a real one", "episodes to near-optimal", "book, about"), learned),
            Table(("the maze changes", "steps", "Dyna-Q+, reward", "Dyna-Q, reward"), changed),
        ),
        (f"Book: {result['reference']['source']}.",),
    )


def dyna_learned(result: Result) -> Section:
    steps, threshold = result["real_steps"], result["threshold"]
    late = steps.index(result["late"]["from_step"])
    rows = [
        (
            arm,
            ", ".join(first_at_least(steps, curve, threshold["mean_return"]) for curve in curves),
            number(sum(sum(curve[late:]) for curve in curves) / sum(len(curve[late:]) for curve in curves)),
        )
        for arm, curves in result["returns"].items()
    ]
    columns = (
        "SAC on Pendulum",
        f"real steps to a mean return of {threshold['mean_return']}, by seed",
        f"mean return from {steps[late]} steps on",
    )
    return Section(
        "SAC with and without imagined steps",
        f"Evaluated up to {number(steps[-1])} real steps; {threshold['what']} at {threshold['mean_return']}.",
        (Table(columns, rows),),
        (f"{len(rows[0][1].split(', '))} seeds are too few for an interval.",),
    )


def first_at_least(steps: list[int], curve: list[float], threshold: float) -> str:
    return next((number(at) for at, value in zip(steps, curve, strict=True) if value >= threshold), "never")


def augment_fractions(result: Result) -> Section:
    gains = result["gain_over_0%"]
    rows = [
        (name, estimate(score, 2), estimate(gains[name], 2) if name in gains else "-")
        for name, score in result["real_return"].items()
    ]
    options = result["options"]
    better = [name for name, gain in gains.items() if gain["low"] > 0]
    return Section(
        "How much of a dataset may be imagined?",
        f"TD3+BC on {options['episodes']} episodes of a noisy driver of `point`, {options['drives']} evaluation "
        f"episodes, {options['seeds']} seeds.",
        (Table(("imagined rows", "real return", "gain over none"), rows),),
        (f"The gain's interval is above zero for: {', '.join(better) or 'none'}.",),
        picture="augment_fractions.svg",
    )
