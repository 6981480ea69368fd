"""The mazes of Sutton & Barto (2018), chapter 8: what imagined steps save, and what curiosity is good for.

    python recipes/dyna_maze.py --json results/dyna_maze.json

The Dyna maze (example 8.1) with 0, 5 and 50 imagined steps a real one; the blocking and the shortcut maze (examples 8.2
and 8.3) with Dyna-Q and Dyna-Q+. Some minutes of one core.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.evaluation.cost import hardware
from worldloom.learning.dyna_q import DynaConfig, DynaQ
from worldloom.models import build

OPTIMAL = 14  # steps from start to goal in the Dyna maze
NEARLY = 1.5  # with one action in ten at random nobody walks the optimum every time
BOOK = {0: 25, 5: 5, 50: 3}


@dataclass(frozen=True)
class Options:
    json: Path | None = None
    seeds: int = 30
    episodes: int = 50
    blocking_steps: int = 3000
    shortcut_steps: int = 6000
    debug: bool = False
    """Seconds instead of minutes."""


def main(options: Options) -> dict[str, Any]:
    if options.debug:
        options = replace(options, seeds=2, episodes=8, blocking_steps=300, shortcut_steps=300)
    torch.set_num_threads(1)
    began = time.time()
    figures: dict[str, Any] = {
        "command": "python recipes/dyna_maze.py --json results/dyna_maze.json",
        "hardware": hardware("cpu"),
        "seeds": options.seeds,
        "near_optimal": f"the first episode from which the mean over seeds of five episodes is at most "
        f"{NEARLY * OPTIMAL:g} steps; the optimum is {OPTIMAL}",
        "dyna_maze": {},
    }
    for planning, book in BOOK.items():
        steps = np.array([episode_lengths(planning, seed, options.episodes) for seed in range(options.seeds)])
        figures["dyna_maze"][planning] = {
            "episodes_to_near_optimal": near_optimal(steps.mean(0)),
            "book": f"about {book}",
            "steps_by_episode": steps.mean(0).round(1).tolist(),
        }
    for layout, steps in (("blocking", options.blocking_steps), ("shortcut", options.shortcut_steps)):
        figures[layout] = {
            name: rewards(layout, steps, DynaConfig(planning=50, step_size=0.7, bonus=bonus), options.seeds)
            for name, bonus in (("dyna_q", 0.0), ("dyna_q_plus", 1e-3))
        }
    figures["minutes"] = round((time.time() - began) / 60, 1)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def episode_lengths(planning: int, seed: int, episodes: int) -> list[int]:
    """The steps of each episode of one learner in the Dyna maze."""
    env = make_env("maze")
    learner = DynaQ(build("tabular", describe(env)), DynaConfig(planning=planning), seed)
    return [sum(1 for _ in episode(learner, env)) for _ in range(episodes)]


def rewards(layout: str, steps: int, config: DynaConfig, seeds: int) -> list[float]:
    """The mean cumulative reward of learners in a maze that changes, every 100 steps."""
    earned = np.zeros((seeds, steps))
    for seed in range(seeds):
        env, taken = make_env("maze", layout=layout), 0
        learner = DynaQ(build("tabular", describe(env)), config, seed)
        while taken < steps:
            for reward in episode(learner, env, steps - taken):
                earned[seed, taken] = reward
                taken += 1
    return earned.cumsum(1).mean(0)[99::100].round(2).tolist()


def episode(learner: DynaQ, env: Any, most: int = 10_000) -> Any:
    """One episode: yields the reward of each step."""
    place, ended, taken = int(env.reset()[0]["state"].argmax()), False, 0
    while not ended and taken < most:
        action = learner.act(place)
        obs, reward, ended, _, _ = env.step(action)
        following = int(obs["state"].argmax())
        learner.learn(place, action, reward, following, ended)
        place, taken = following, taken + 1
        yield reward


def near_optimal(steps: np.ndarray) -> int | None:
    """The number of the first episode (from 1) from which five in a row take few steps on average."""
    for first in range(len(steps) - 4):
        if steps[first : first + 5].mean() <= NEARLY * OPTIMAL:
            return first + 1
    return None


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
