"""Where a reward is seldom met: a car in a valley, driven by a policy that explores by disagreement and by one alone.

    python recipes/explore.py --out runs/explore --json results/explore.json

MountainCarContinuous pays 100 on the hill top, takes a little for every push, and says nothing on the way: chance
hardly ever arrives, and who never arrived learns to sit still. Plan2Explore (Sekar et al., 2020) goes where its
networks differ. Every run is `worldloom learn dreamer` and can be interrupted: started again, this script continues
it. Five to ten minutes of one core a run.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from worldloom import cli
from worldloom.agents.play import play
from worldloom.agents.saved import load_agent
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.policies.dream_to_real import FIRST_SEED, MOST_ENVS, environment_of
from worldloom.evaluation.policies.score import mean
from worldloom.evaluation.policies.world import World

WORLD = "gym:MountainCarContinuous-v0"
LEARN = ["--family", "mlp", "--size", "small", "--lr", "1e-3", "--updates", "0.5",
         "--policy.discount", "0.99", "--policy.starts", "128"]  # fmt: skip
ARMS = {"exploring": ["--explore", "disagreement", "--explore-steps", "8000"], "alone": []}
DEBUG = ["--steps", "60", "--random-steps", "20", "--max-episode-steps", "20", "--eval-episodes", "2"]


@dataclass(frozen=True)
class Options:
    """Where everything goes, with which seeds, and where the figures go."""

    out: Path
    json: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 10_000
    """Decisions in the world."""
    episodes: int = 100
    """Those on which the policy at the end is judged."""
    debug: bool = False
    """Seconds instead of an hour: whether everything works, not how well."""


def main(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)
    runs = [run(options, arm, seed) for seed in options.seeds for arm in ARMS]
    figures = {"command": "python " + " ".join(sys.argv), "hardware": hardware("cpu"), "env": WORLD, "runs": runs}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def run(options: Options, arm: str, seed: int) -> dict[str, Any]:
    """Learn, continue or leave alone one run, and judge the policy at its end."""
    folder = options.out / f"{arm}-{seed}"
    command = ["dreamer", WORLD, "--out", str(folder), "--seed", str(seed), *LEARN, *ARMS[arm]]
    sizes = ["--steps", str(options.steps), "--random-steps", "1000", "--eval-every", "1000"]
    resume = ["--resume"] if (folder / "learn.json").exists() else []
    cli.run("learn", [*command, *(DEBUG if options.debug else sizes), *resume])
    return {"arm": arm, "seed": seed, **curve(folder), **judge(folder, 2 if options.debug else options.episodes)}


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of the log that hold `kind`, "evaluation" or "returns"."""
    return [each for each in map(json.loads, (folder / "log.jsonl").read_text().splitlines()) if kind in each]


def curve(folder: Path) -> dict[str, Any]:
    """What was collected and how the task's policy was judged on the way. Only an arrival makes a return positive."""
    collected = [(each["decisions"], each["returns"][0]) for each in records(folder, "returns")]
    arrived = [decisions for decisions, reward in collected if reward > 0]
    judged = [each["evaluation"] for each in records(folder, "evaluation")]
    return {
        "first arrival, decisions": arrived[0] if arrived else None,
        "arrivals": f"{len(arrived)} of {len(collected)} episodes",
        "curve": [{key: each[key] for key in ("decisions", "mean", "low", "high")} for each in judged],
        "cpu_minutes": round(judged[-1]["cpu_seconds"] / 60, 1),
    }


def judge(folder: Path, episodes: int) -> dict[str, Any]:
    """The policy at the end, on seeds that no evaluation of its curve has used."""
    agent, limit = load_agent(folder, "cpu"), environment_of(folder)[-1]
    played = play(agent, World(WORLD, {}).make, range(FIRST_SEED, FIRST_SEED + episodes), MOST_ENVS, limit)
    returns = [each.episode_return for each in played]
    found = mean(returns)
    return {"final": {"mean": found.value, "low": found.low, "high": found.high, "returns": returns}}


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
