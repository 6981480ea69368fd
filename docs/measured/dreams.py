"""Policies learned inside a model alone, and how far to trust the model's score of a policy."""

from collections.abc import Iterator, Mapping
from typing import Any

from .page import Result, Section, Table, estimate, number, percent, spread

SURVIVAL_STEPS = "30"  # the longest horizon at which survival was recorded


def doom_dream(result: Result) -> Section:
    reference, targets = result["reference"], result["targets"]
    return Section(
        "Doom, learned in the model alone",
        f"take_cover, {number(result['frames'])} frames of random play, an action held for {result['action_repeat']} "
        f"tics. Mean return in tics over {result['episodes']} real episodes on fixed seeds, and over as many dreams; "
        f"{reference['solved']} counts as solved.",
        (
            doom_policies_learned(result),
            evolved_otherwise(result),
            survival(result),
            terminations_by_age(result),
            before_the_fix(result),
            Table(("setting", "why"), list(result["what_mattered"].items()), "Settings that mattered most:"),
        ),
        (
            f"Published: {reference['source']}; random play {spread(result['paper_random'])}.",
            f"Targets: {number(targets['actor_critic'])} for the actor-critic, {number(targets['vae_rnn_cma'])} "
            "for CMA-ES.",
            f"Calibration error of termination on the card of a model with clamped windows: "
            f"{result['ends_by_age']['ece_on_the_card_before']}.",
        ),
    )


def doom_policies_learned(result: Result) -> Table:
    rows = [row(name, score, minutes, paper) for name, score, minutes, paper in doom_scores(result)]
    columns = ("policy", "real", "in dreams", "min: model, policy", "published real", "published in dreams")
    chance = ("random play", estimate(result["random"]), "-", "-", spread(result["paper_random"]), "-")
    return Table(columns, [chance, *rows])


def row(name: str, score: Mapping[str, Any], minutes: str, paper: Mapping[str, Any]) -> tuple[str, ...]:
    published = (spread(paper[where]) if paper else "-" for where in ("reality", "dream"))
    return (name, estimate(score["reality"]), estimate(score["dream"]), minutes, *published)


def doom_scores(result: Result) -> Iterator[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]]:
    """(policy, its scores, minutes of model and policy, the paper's scores), in the order of the table."""
    minutes, second = result["minutes"], result["second_seed"]
    both = f"{number(minutes['rssm'])}, {number(minutes['actor-critic'])}"
    yield (
        f"actor-critic in `rssm`, {number(result['updates']['actor-critic'])} updates",
        result["actor_critic"],
        both,
        {},
    )
    for updates, score in second["earlier"].items():
        yield f"the same with another seed, {updates}", score, f"{number(minutes['rssm'])}, -", {}
    end = f"the same at the end, {number(second['updates']['actor-critic'])} updates"
    yield end, second, f"{number(minutes['rssm'])}, {number(second['minutes'])}", {}
    yield result["replay_weight"]["what"], result["replay_weight"], both, {}
    shorter = result["shorter_model"]
    yield shorter["what"], shorter, f"{shorter['minutes_model']}, {number(minutes['actor-critic'])}", {}
    yield result["open_loop_16"]["what"], result["open_loop_16"], both, {}
    for temperature, score in result["vae_rnn_cma"].items():
        spent = f"{number(minutes['vae_rnn'])}, {number(score['minutes'])}"
        yield f"CMA-ES in `vae_rnn`, temperature {temperature}", score, spent, score["paper"]


def evolved_otherwise(result: Result) -> Table:
    shorter = result["vae_rnn_cma_shorter_model"]
    tried = [(f"{shorter['what']}, temperature {t}", score) for t, score in shorter["temperatures"].items()]
    tried += [(score["what"], score) for score in result["vae_rnn_cma_tried"]]
    rows = [(what, estimate(score["reality"]), estimate(score["dream"])) for what, score in tried]
    return Table(("CMA-ES in other `vae_rnn` models", "real", "in dreams"), rows)


def survival(result: Result) -> Table:
    """How many of the terminations ahead a model predicts, for each policy on which it was measured."""
    rows = []
    for name, score, _, _ in doom_scores(result):
        if "survival" in score:
            real, dream = (score["survival"][f"{where}@{SURVIVAL_STEPS}"] for where in ("reality", "dream"))
            share = (1 - dream["value"]) / (1 - real["value"])
            rows.append((name, estimate(real, 3), estimate(dream, 3), percent(share)))
    columns = ("policy", "real survival", "survival in dreams", "terminations predicted")
    caption = f"Share of the real states of a policy from which it survives {SURVIVAL_STEPS} more steps:"
    return Table(columns, rows, caption)


def terminations_by_age(result: Result) -> Table:
    ages = result["ends_by_age"]
    windows = [name for name in ages if name.startswith("windows")]
    rows = [
        (
            f"{real['rows'][0]} to {real['rows'][1]}",
            *(percent(ages[name][index]["predicted"], 1) for name in windows),
            percent(real["real"], 1),
        )
        for index, real in enumerate(ages[windows[0]])
    ]
    return Table(("rows of the episode", *windows, "observed"), rows, f"{ages['what'].capitalize()}:")


def before_the_fix(result: Result) -> Table:
    earlier = result["before_window_fix"]
    one_tic = earlier["one_tic_a_step"]
    rows = [("actor-critic", earlier["actor_critic"])]
    rows += [(tried.get("what") or f"{tried['model']}; {tried['policy']}", tried) for tried in earlier["tried"]]
    rows.append(("one tic a step, actor-critic", one_tic["actor_critic"]))
    rows += [(f"one tic a step, CMA-ES, temperature {t}", score) for t, score in one_tic["vae_rnn_cma"].items()]
    cells = [(name, estimate(r["reality"]), estimate(r["dream"]) if "dream" in r else "-") for name, r in rows]
    return Table(("policy", "real", "in dreams"), cells, f"{earlier['what'].capitalize()}:")


def doom_policies(result: Result) -> Section:
    groups = [
        (result["policies"], result),
        (result["second_seed"]["what"], result["second_seed"]),
        (result["before_window_fix"]["what"], result["before_window_fix"]),
    ]
    names = {"spearman": 2, "pearson": 2, "mmrv": 0, "regret": 0}
    ranking = [(what, *(estimate(g["ranking"][name], digits) for name, digits in names.items())) for what, g in groups]
    scores = [
        (policy, estimate(group["reality"][policy]), estimate(group["dream"][policy]))
        for _, group in groups[:2]
        for policy in group["reality"]
    ]
    return Section(
        "Does the model rank policies of Doom as the game does?",
        f"Mean return in tics of {result['episodes']} real episodes and of as many dreams for each policy. MMRV and "
        "regret are in tics too: see [the card](card.md).",
        (
            Table(("policies", "Spearman", "Pearson", "MMRV", "regret"), ranking),
            Table(("policy @ updates", "real", "in dreams"), scores),
        ),
    )


def carracing_world_models(result: Result) -> Section:
    paper = [(f"published, {name}", spread(score), "-", "-") for name, score in result["paper"].items()]
    rows = [
        (name, *(estimate(run[who]) for who in ("controller", "dream", "random")))
        for name, run in [("this run", result), *((tried["what"], tried) for tried in result["tried"])]
    ]
    reference = result["reference"]
    return Section(
        "CarRacing, a controller evolved in dreams",
        f"A linear controller evolved in dreams of {result['horizon']} steps of a `vae_rnn`, from "
        f"{number(result['frames'])} frames of random driving. Mean return over "
        f"{len(result['controller']['returns'])} episodes.",
        (Table(("controller", "real", "in dreams", "random driving"), [*rows, *paper]),),
        (
            f"Published: {reference['source']}, after {number(reference['episodes'])} random episodes.",
            *(f"{tried['what'].capitalize()}: {tried['note']}." for tried in result["tried"]),
        ),
    )
