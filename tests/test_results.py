"""The figures on the pages are those of the results, and every result says how it came to be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "results").glob("*.json"))


def read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def lost(trial: dict[str, Any]) -> str:
    """The share of the return that keeping the rules costs, as the pages say it."""
    share = round(100 * trial["return_lost"], 1)
    return "none" if share <= 0 else f"{share:g} %"


@pytest.mark.parametrize("robot", ["point", "arm"])
def test_the_shields_tutorial_says_what_was_measured(robot: str) -> None:
    page = (ROOT / "docs" / "shield.md").read_text()
    for world, agents in read(f"shield_{robot}")["worlds"].items():
        shielded = [agents[name] for name in ("shielded", "tolerant", "tolerant_not_adaptive")]
        cells = [str(agents["bare"]["violations"]), *(f"{a['violations']} ({lost(a)})" for a in shielded)]
        name = robot if world == "plain" else f"{robot}, {world}"
        assert f"| {name} | {' | '.join(cells)} |" in page


def test_the_readme_says_what_agents_reached() -> None:
    page = (ROOT / "README.md").read_text()
    for run in read("tdmpc_dmc")["runs"]:
        value = f"{run['final']['mean']:.0f}"
        value = f"**{value}**" if run["reached"] else value
        interval = f"[{run['final']['low']:.0f}, {run['final']['high']:.0f}]"
        assert f"| {run['task']} | {run['seed']} | {value} {interval} |" in page


def test_the_readme_says_what_was_reached_from_pictures() -> None:
    page, found = (ROOT / "README.md").read_text(), read("cartpole_pixels")
    policy, random = (found[who] for who in ("policy", "random"))
    assert f"**{policy['value']:.0f}** [{policy['low']:.0f}, {policy['high']:.0f}] of 500" in page
    assert f"chance {random['value']:.0f} [{random['low']:.0f}, {random['high']:.0f}]" in page
    assert f"{found['decisions']:,} decisions and {found['updates']:,} updates" in page


def test_the_readme_says_what_the_demo_came_to_and_that_its_policy_beats_chance() -> None:
    page, found = (ROOT / "README.md").read_text().replace("**", ""), read("doom_demo")["metrics"]
    policy = found["policy"]
    scores = (
        f"{f['value']:.0f} [{f['low']:.0f}, {f['high']:.0f}]" for f in map(policy.get, ("reality", "dream", "random"))
    )
    assert f"random play | {' / '.join(scores)} |" in page
    assert policy["reality"]["low"] > policy["random"]["high"]
    for step in (1, 5, 15, 50):
        skill = found["skill"][f"image@{step}"]
        assert f"| skill@{step} | {skill['value']:.2f} [{skill['low']:.2f}, {skill['high']:.2f}] |" in page


def test_the_readme_says_what_policies_of_dreams_are_worth_in_doom() -> None:
    page, found = (ROOT / "README.md").read_text(), read("doom_dream")

    def words(score: dict[str, float]) -> str:
        return f"{score['mean']:.0f} [{score['low']:.0f}, {score['high']:.0f}]"

    tried = (found[name] for name in ("second_seed", "replay_weighed", "shorter_model", "eyes_closed_longer"))
    matched = found["second_seed"]["earlier"]["3000 updates"]
    learned = found["actor_critic"], matched, *tried, *found["vae_rnn_cma"].values()
    assert f"| chance | {words(found['random'])} |" in page
    for each in learned:
        assert f"{words(each['reality'])} | {words(each['dream'])}" in page.replace("**", "")
    assert f"{found['frames']:,} frames of random play" in page
    deaths = []
    for name in ("actor_critic", "eyes_closed_longer"):
        dream, real = (found[name]["survival"][f"{where}@30"]["value"] for where in ("dream", "reality"))
        deaths.append(f"{(1 - dream) / (1 - real):.0%}".replace("%", " %"))
    assert f"the dream foresees {deaths[0]} of the deaths" in page
    assert f"foresee {deaths[1]}" in page


def test_the_readme_says_whether_the_dream_ranks_policies_of_doom_rightly() -> None:
    page, found = (ROOT / "README.md").read_text().replace("\n", " "), read("doom_policies")
    rank, first, last = found["ranking"]["spearman"], "policy@300", "policy"
    assert f"Spearman {rank['value']:.2f} [{rank['low']:.2f}, {rank['high']:.2f}]" in page
    dream, reality = ([round(found[where][who]["value"]) for who in (first, last)] for where in ("dream", "reality"))
    other = found["second_seed"]["ranking"]["spearman"]
    assert f"seed 1, 20 episodes each, it is {other['value']:.2f} [{other['low']:.2f}, {other['high']:.2f}]" in page
    assert f"the dream pays {dream[0]} to {dream[1]} where reality pays {reality[0]} to {reality[1]}" in page


def test_the_readme_says_how_a_controller_of_dreams_drives() -> None:
    page, found = (ROOT / "README.md").read_text().replace("\n", " "), read("carracing_world_models")
    scores = (found[who] for who in ("controller", "dream", "random"))
    told = [f"{score['mean']:.0f} [{score['low']:.0f}, {score['high']:.0f}]" for score in scores]
    assert f"**{told[0]}** in the game, {told[1]} in the dream, chance {told[2]}" in page
    assert f"{found['frames']:,} frames" in page


def test_the_readme_says_how_policies_of_dreams_move_bodies() -> None:
    page, found = (ROOT / "README.md").read_text(), read("dreamer_dmc")
    for run in found["runs"]:
        last = run["final"]
        assert len(last["returns"]) == 100
        value = f"**{last['mean']:.0f}**" if run["reached"] else f"{last['mean']:.0f}"
        assert f"| {run['task']} | {value} [{last['low']:.0f}, {last['high']:.0f}] | {run['dreamerv3']} |" in page
    walker = max((run for run in found["tried"] if run["task"] == "walker-walk"), key=lambda run: len(run["curve"]))
    best, end = max(each["mean"] for each in walker["curve"]), walker["curve"][-1]["mean"]
    assert f"rose to {best:.0f} at 40,000 steps and fell to {end:.0f} at 50,000" in page.replace("\n", " ")


def test_the_readme_says_what_imagined_steps_save_a_learner() -> None:
    page, found = (ROOT / "README.md").read_text().replace("\n", " "), read("dyna_learned")

    def reached(arm: str) -> list[int | None]:
        steps = found["real_steps"]
        return [
            next((s for s, r in zip(steps, curve, strict=True) if r >= -200), None) for curve in found["returns"][arm]
        ]

    def words(arm: str) -> str:
        *first, last = (f"{steps:,}" for steps in reached(arm))
        return f"after {', '.join(first)} and {last}"

    dyna, alone, seldom = found["returns"]
    assert f"{words(dyna)} steps with imagined ones and {words(alone)} without" in page
    assert reached(seldom) == [None] * 3
    assert "with one update not within 1,500" in page
    late = [np.mean([curve[7:] for curve in found["returns"][arm]]) for arm in (dyna, alone)]
    assert f"{late[0]:.0f} with them and {late[1]:.0f} without" in page


def test_the_readme_says_what_exploring_finds() -> None:
    page, runs = (ROOT / "README.md").read_text().replace("\n", " "), read("explore")["runs"]
    exploring, alone = ([run for run in runs if run["arm"] == arm] for arm in ("exploring", "alone"))
    first = [f"{run['first arrival, decisions']:,}" for run in exploring]
    ends = [f"{run['final']['mean']:.1f}" for run in exploring]
    assert f"first arrive after {first[0]}, {first[1]} and {first[2]} decisions" in page
    assert f"{ends[0]}, {ends[1]} and {ends[2]} over 100 episodes" in page.replace("**", "")
    assert all(run["first arrival, decisions"] is None for run in alone)
    means = sorted(run["final"]["mean"] for run in alone)
    assert f"sit still: {means[0]:.1f} to {means[-1]:.1f}" in page


def test_the_page_on_play_says_how_many_promises_of_the_trust_meter_were_kept() -> None:
    page = (ROOT / "docs" / "play.md").read_text().replace("\n", " ").replace("*", "")
    first, second, short = read("trust")["runs"]
    for run in (first, second):
        *kept, last = (f"{promise['kept']:.2f}" for promise in run["promises"].values())
        assert f"{', '.join(kept)} and {last}" in page
    assert f"only {short['promises']['0.8']['kept']:.2f} of them" in page
    assert f"a Doom model with {first['held_out_episodes']} held-out episodes" in page
    silent = [
        " and ".join(f"{100 * run['promises'][level]['splits without a promise']:.0f}" for run in (first, second))
        for level in ("0.95", "0.9")
    ]
    assert f"none in {silent[0]} % of the splits, of 0.9 none in {silent[1]} %" in page


def test_the_readme_says_how_a_dream_is_served() -> None:
    page, found = (ROOT / "README.md").read_text(), read("play")
    alone, many = found["one_page"], found["twenty_pages_at_10"]
    assert f"| {alone['frames_per_second']:.0f} frames/s" in page
    assert f"{alone['p50_ms']:.0f} / {alone['p95_ms']:.0f} ms" in page
    assert f"{many['p50_ms']:.0f} / {many['p95_ms']:.0f} ms" in page
    assert f"{found['kilobytes_per_idle_session']:.0f} KB" in page
    assert f"{found['megabytes_per_1000_moments']:.0f} MB" in page
    assert f"{found['soak']['megabytes']['last third']:.0f} MB" in page


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_says_on_what_machine_it_was_made(path: Path) -> None:
    assert "hardware" in path.read_text()
