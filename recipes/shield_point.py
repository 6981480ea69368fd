"""A greedy robot that cuts through obstacles and a shield that does not let it: record, train, calibrate, drive, count.

    python recipes/shield_point.py --out runs/shield_point --json results/shield_point.json

The robot is scripted: it pushes towards the goal and knows no obstacle. The shield's model has seen random driving in
the plain world and no obstacle either; the obstacles are rules. Then the world changes its mass and its friction.
"""

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.scripted import Scripted
from worldloom.commands.record import RecordSettings, record
from worldloom.data.segment import Segment
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.envs.point import OBSTACLES
from worldloom.evaluation.cost import hardware
from worldloom.model import Obs, WorldModel
from worldloom.planners.mppi import MPPI
from worldloom.runs.checkpoint import load
from worldloom.runs.sources import open_sources
from worldloom.runs.train_settings import TrainSettings
from worldloom.safety.audit import ShieldTrial
from worldloom.safety.calibration import Calibration, calibrate, miscovered
from worldloom.safety.rules import Circle, Forbidden, Values
from worldloom.safety.shield import Shield
from worldloom.training.session import run_training

RULES = tuple(
    Forbidden("state", (0, 1), Circle((x, y), r), label=f"obstacle {i}") for i, (x, y, r) in enumerate(OBSTACLES)
)
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {}, "mass x 2": {"mass": 2.0}, "mass x 0.7": {"mass": 0.7}, "friction x 0": {"friction": 0.0},
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Where runs and figures go, and how much of everything."""

    out: Path
    json: Path | None = None
    recorded: int = 800
    train_steps: int = 3000
    calibration: int = 2000
    held_out: int = 2000
    drives: int = 200
    horizon: int = 12
    alpha: float = 0.05
    alpha_ood: float = 0.01
    max_steps: int = 100
    num_envs: int = 300
    debug: bool = False
    """A minute instead of an hour: whether everything works, not how well."""


FIRST_DRIVE = 100_000  # no setting was chosen on seeds from here on
DEBUG: dict[str, Any] = {
    "recorded": 24, "train_steps": 60, "calibration": 24, "held_out": 8, "drives": 2, "max_steps": 6,
    "horizon": 3, "alpha": 0.2, "alpha_ood": 0.2, "num_envs": 24,
}  # fmt: skip


def greedy(obs: Obs) -> Tensor:
    """Straight to the goal."""
    place, velocity = obs["state"][:, :2], obs["state"][:, 2:]
    return 2 * (obs["goal"] - place) - 1.2 * velocity


def brake(values: Values) -> Tensor:
    return (-4 * values["state"][:, 2:]).clamp(-1, 1)


def main(options: Options) -> dict[str, Any]:
    options, began = replace(options, **DEBUG) if options.debug else options, time.time()
    model, explored = learn(options)
    agent = Scripted(describe(make_env("point")), greedy)
    promise: dict[str, Any] = {"horizon": options.horizon, "alpha": options.alpha, "alpha_ood": options.alpha_ood}
    first = calibrate(model, RULES, explored, **promise)
    # Again, on the shielded robot's own driving, because that is what the promise shall then be about.
    seeds = range(10_000, 10_000 + options.calibration + options.held_out)
    trial = ShieldTrial(partial(make_env, "point"), seeds, RULES, model.spec, options.num_envs, options.max_steps)
    own = trial.run(shielded(agent, model, first))[1].segments()
    learned = calibrate(model, RULES, own[: options.calibration], **promise)
    learned.save(options.out / "calibration.json")
    missing = miscovered(learned, model, RULES, own[options.calibration :]).float().mean(0)
    made = shielded(agent, model, learned)
    agents = {
        "bare": agent,
        "shielded": made,
        "tolerant": replace(made, tolerance=inf),
        "tolerant_not_adaptive": replace(made, tolerance=inf, adapt=False),
    }
    drives = range(FIRST_DRIVE, FIRST_DRIVE + options.drives)
    figures: dict[str, Any] = {
        "command": "python recipes/shield_point.py --out runs/shield_point --json results/shield_point.json",
        "agent": "scripted: pushes straight to the goal, knows no obstacle",
        "hardware": hardware("cpu"),
        "seeds": {"drives": f"{drives[0]} to {drives[-1]}", "calibration and held out": f"{seeds[0]} to {seeds[-1]}"},
        "options": {k: v for k, v in vars(options).items() if k not in ("out", "json", "debug")},
        "promise": {"alpha": options.alpha, "scope": learned.scope, "missed_by_horizon": rounded(missing)},
        "slack_by_horizon": rounded(learned.slack(torch.tensor(learned.typical)).amax(-1)),
        "worlds": {},
    }
    for name, world in WORLDS.items():
        there = replace(trial, make=partial(make_env, "point", **world), seeds=drives)
        figures["worlds"][name] = there.compare(agents)
        figures["minutes"] = round((time.time() - began) / 60, 1)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def learn(options: Options) -> tuple[WorldModel, list[Segment]]:
    """The model, and the recorded episodes it was not trained on."""
    data, run = options.out / "data", options.out / "run"
    record(
        RecordSettings(
            env="point",
            out=data,
            episodes=options.recorded,
            num_envs=1,
            hold=6,
            max_episode_steps=50,
            options=("goal=false",),
        )
    )
    if not (run / "checkpoints").exists():
        steps: dict[str, Any] = {"steps": options.train_steps, "length": 50, "lr": 3e-3, "held_out": 0.3}
        run_training(TrainSettings("mlp", (data,), run, size="debug", precision="fp32", preview_every=0, **steps))
    model, found = load(run)
    source = open_sources(found, None)[0]
    return model, [source.dataset.segment(episode) for episode in source.held_out]


def shielded(agent: Agent, model: WorldModel, calibration: Calibration) -> Shield:
    steps = min(10, calibration.horizon)
    search = MPPI(horizon=steps, samples=192, elites=16, iterations=4, policy_samples=0, max_std=1.0, temperature=5.0)
    return Shield(agent, model, RULES, calibration, brake, search)


def rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
