"""DeepMind Control from vectors by learning in dreams: 100,000 environment steps a task, beside DreamerV3's curve.

    python recipes/dreamer_dmc.py --out runs/dreamer_dmc --json results/dreamer_dmc.json

The world model is an `mlp`, since these observations hide nothing, and the actor follows the gradient of its returns
back through it. Every run is `worldloom learn dreamer` and can be interrupted: started again, this script continues it.
Runs that are finished are only played. The ten evaluation episodes of a curve say little where some targets are found
and others are not, so each policy is judged once more at the end, on a hundred. Three quarters of an hour of one core a
run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom import cli
from worldloom.agents.play import play
from worldloom.agents.saved import load_agent
from worldloom.envs.options import parse_options
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.policies.dream_to_real import FIRST_SEED, MOST_ENVS, environment_of
from worldloom.evaluation.policies.score import mean
from worldloom.evaluation.policies.world import World
from worldloom.learning.settings import DreamerSettings

# DreamerV3's return at 100,000 environment steps, read from the curves published with its code.
PUBLISHED = {"cartpole-swingup": 528, "reacher-easy": 693, "walker-walk": 475}
LEARN = ["--family", "mlp", "--size", "small", "--options", "action_repeat=2", "--lr", "1e-3", "--updates", "0.5",
         "--policy.gradient", "dynamics", "--policy.discount", "0.99"]  # fmt: skip
# The gradient is followed as far as the model is true. A walker's contacts are not foretold beyond a step or two.
SMOOTH = ["--policy.horizon", "10", "--policy.starts", "128"]
CONTACTS = ["--policy.horizon", "2", "--policy.starts", "256", "--policy.replay-weight", "2"]
DREAMS = {"cartpole-swingup": SMOOTH, "reacher-easy": SMOOTH, "walker-walk": CONTACTS}
DEBUG = ["--steps", "60", "--random-steps", "20", "--max-episode-steps", "20", "--eval-episodes", "2"]


@dataclass(frozen=True)
class Options:
    """Which tasks to learn, where, with which seeds, and where the figures go."""

    out: Path
    json: Path | None = None
    tasks: tuple[str, ...] = tuple(PUBLISHED)
    seeds: tuple[int, ...] = (0,)
    steps: int = 50_000
    """Decisions, of two environment steps each."""
    episodes: int = 100
    """Those on which the policy at the end is judged."""
    debug: bool = False
    """Seconds instead of hours: whether everything works, not how well."""


def main(options: Options) -> None:
    figures = []
    for task in options.tasks:
        for seed in options.seeds:
            run = options.out / f"{task}-{seed}"
            learn(task, seed, run, options)
            figures.append(read(run, task, seed) | judge(run, task, 2 if options.debug else options.episodes))
            print(line(figures[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps({"hardware": hardware("cpu"), "runs": figures}, indent=1) + "\n")


def learn(task: str, seed: int, run: Path, options: Options) -> None:
    """Start, continue or leave alone the run of one task."""
    started = (run / "learn.json").exists()
    if started and any(e["decisions"] >= settings(run).steps for e in evaluations(run)):
        return
    command = ["learn", "dreamer", f"dmc:{task}", "--out", str(run), "--seed", str(seed), *LEARN, *DREAMS[task]]
    sizes = DEBUG if options.debug else ["--steps", str(options.steps), "--eval-every", "5000"]
    resume = ["--resume"] if started else []
    cli.run(command[0], [*command[1:], *sizes, *resume])


def settings(run: Path) -> DreamerSettings:
    return DreamerSettings.from_json(json.loads((run / "learn.json").read_text())["settings"])


def evaluations(run: Path) -> list[dict[str, Any]]:
    """What the log says of each evaluation; `step` counts updates, `seconds` are those when it began."""
    found, seconds = [], 0.0
    for record in map(json.loads, (run / "log.jsonl").read_text().splitlines()):
        if "evaluation" in record:
            found.append({**record["evaluation"], "step": record["step"], "seconds": seconds})
        seconds = record.get("seconds", seconds)
    return found


def read(run: Path, task: str, seed: int) -> dict[str, Any]:
    """One run's curve. An environment step is one of the simulator's, two to a decision."""
    asked = settings(run)
    keys = ("mean", "low", "high", "step", "seconds", "cpu_seconds")
    curve = [{"env_steps": 2 * e["decisions"], **{key: e[key] for key in keys}} for e in evaluations(run)]
    rows = asked.batch_size * asked.length * asked.updates
    return {
        "task": task, "seed": seed, "command": asked.command(), "curve": curve,
        "updates per decision": asked.updates, "replayed rows per env step": rows / 2,
        "imagined steps per env step": asked.policy.starts * asked.policy.horizon * asked.updates / 2,
    }  # fmt: skip


def judge(run: Path, task: str, episodes: int) -> dict[str, Any]:
    """The policy at the end, on seeds that no evaluation of its curve has used."""
    torch.set_num_threads(1)
    name, options, limit = environment_of(run)
    world = World(name, parse_options(options), max_steps=limit)
    played = play(load_agent(run, "cpu"), world.make, range(FIRST_SEED, FIRST_SEED + episodes), MOST_ENVS, limit)
    returns = [each.episode_return for each in played]
    found = mean(returns)
    final = {"mean": found.value, "low": found.low, "high": found.high, "returns": returns}
    return {"final": final, "dreamerv3": PUBLISHED[task], "reached": float(np.mean(returns)) >= PUBLISHED[task]}


def line(figure: dict[str, Any]) -> str:
    final, spent = figure["final"], figure["curve"][-1]["cpu_seconds"] / 60
    return (
        f"{figure['task']:18} seed {figure['seed']}  {final['mean']:6.1f} [{final['low']:.1f}, {final['high']:.1f}]  "
        f"DreamerV3 {figure['dreamerv3']}  {spent:.0f} CPU-min"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
