"""Dyna with a learned model around SAC: what imagined steps save, in returns against real steps.

    python recipes/dyna_learned.py --json results/dyna_learned.json

The same learner (SAC of Stable-Baselines3) with and without the steps it imagines in an `mlp` world model that learns
along with it, at as many gradient steps for each real step, and alone with one. Needs the extra `sb3`; five minutes of
one core a seed. Other worlds of vectors work too, such as `--env dmc:cartpole-swingup --options action_repeat=2`.
"""

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom.data.replay import Replay
from worldloom.data.spec import DataSpec
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.envs.options import parse_options
from worldloom.evaluation.cost import hardware
from worldloom.learning.mbpo import Dyna, DynaSettings
from worldloom.learning.stable_baselines import StableBaselines
from worldloom.models import build
from worldloom.registry import require
from worldloom.schedule import Budget, OptimizerSettings
from worldloom.training.trainer import Trainer

EVALUATION_SEED = 1_000_000


@dataclass(frozen=True)
class Options:
    json: Path | None = None
    env: str = "gym:Pendulum-v1"
    options: tuple[str, ...] = ()
    seeds: int = 5
    steps: int = 1500
    random_steps: int = 200
    updates: int = 8
    """Gradient steps of the learner for each real step."""
    model_updates: int = 4
    """Those of the model."""
    model_warmup: int = 2000
    """Updates of the model before the first dream."""
    eval_every: int = 100
    eval_episodes: int = 10
    debug: bool = False
    """Seconds instead of minutes."""


def main(options: Options) -> dict[str, Any]:
    if options.debug:
        options = replace(options, seeds=1, steps=220, updates=2, eval_every=110, eval_episodes=1, model_warmup=5)
    torch.set_num_threads(1)
    dyna = DynaSettings(
        updates=options.updates,
        random_steps=options.random_steps,
        model_updates=options.model_updates,
        model_warmup=options.model_warmup,
    )
    arms = {
        f"dyna, {options.updates} updates a step": dyna,
        f"alone, {options.updates} updates a step": replace(dyna, branches=0),
        "alone, 1 update a step": replace(dyna, branches=0, updates=1),
    }
    began = time.time()
    curves: dict[str, list[list[float]]] = {name: [] for name in arms}
    for seed in range(options.seeds):
        for name, settings in arms.items():
            curves[name].append(learn(options, settings, seed))
            print(f"seed {seed}, {name}: " + " ".join(f"{value:.0f}" for value in curves[name][-1]), flush=True)
    figures = {
        "command": "python " + " ".join(sys.argv),
        "hardware": hardware("cpu"),
        "env": options.env,
        "dyna": vars(dyna),
        "real_steps": list(range(options.eval_every, options.steps + 1, options.eval_every)),
        "mean_return": {name: np.mean(found, 0).round(1).tolist() for name, found in curves.items()},
        "returns": {name: np.round(found, 1).tolist() for name, found in curves.items()},
        "minutes": round((time.time() - began) / 60, 1),
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def learn(options: Options, settings: DynaSettings, seed: int) -> list[float]:
    """The mean return after every `eval_every` real steps."""
    torch.manual_seed(seed)
    env, judge = (make_env(options.env, **parse_options(options.options)) for _ in range(2))
    replay = Replay(describe(env), batch_size=128, length=8, seed=seed)
    learner = StableBaselines(make_sac(env, seed), total=options.steps)

    def make_trainer(spec: DataSpec, replay: Replay) -> Trainer:
        settings = OptimizerSettings(final_lr=1.0)
        return Trainer(build("mlp", spec), replay, Budget(options.steps), settings, torch.device("cpu"))

    dyna, curve = Dyna(env, learner, replay, make_trainer, settings, seed), []
    for taken in range(1, options.steps + 1):
        dyna.step()
        if taken % options.eval_every == 0:
            curve.append(np.mean([score(learner, judge, EVALUATION_SEED + i) for i in range(options.eval_episodes)]))
    return curve


def make_sac(env: Any, seed: int) -> Any:
    sac = require("stable_baselines3", "sb3").SAC
    networks = {"net_arch": [128, 128]}
    return sac(
        "MultiInputPolicy", env, learning_rate=1e-3, batch_size=128, policy_kwargs=networks, seed=seed, device="cpu"
    )


def score(learner: StableBaselines, env: Any, seed: int) -> float:
    """The return of one episode without exploration."""
    obs, total, over = env.reset(seed=seed)[0], 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(
            learner.act({k: v[None] for k, v in obs.items()}, explore=False)[0]
        )
        total, over = total + reward, terminated or truncated
    return total


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
