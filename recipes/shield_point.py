"""A greedy robot that cuts through obstacles and a shield that does not let it: record, train, calibrate, drive, count.

    python recipes/shield_point.py --out runs/shield_point --json results/shield_point.json

The robot is scripted: it pushes towards the goal and knows no obstacle. The shield's model has seen random driving in
the plain world and no obstacle either; the obstacles are rules. Then the world changes its mass and its friction.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import tyro
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.play import Played, play
from worldloom.agents.scripted import Scripted
from worldloom.data.record import record
from worldloom.data.segment import Segment
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.envs.point import OBSTACLES
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.windows import open_sources
from worldloom.model import Obs, WorldModel
from worldloom.planners.mppi import MPPI
from worldloom.safety.audit import Audit
from worldloom.safety.calibration import Calibration, calibrate, missed
from worldloom.safety.rules import Circle, Forbidden, Values
from worldloom.safety.shield import Shield
from worldloom.training.checkpoint import load
from worldloom.training.session import run_training
from worldloom.training.settings import TrainSettings

RULES = tuple(
    Forbidden("state", (0, 1), Circle((x, y), r), label=f"obstacle {i}") for i, (x, y, r) in enumerate(OBSTACLES)
)
WORLDS = {
    "plain": {}, "mass x 1.5": {"mass": 1.5}, "mass x 2": {"mass": 2.0}, "mass x 0.7": {"mass": 0.7},
    "friction x 0": {"friction": 0.0}, "friction x 2": {"friction": 2.0},
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Where runs and figures go, and how much of everything."""

    out: Path
    json: Path | None = None
    recorded: int = 800
    train_steps: int = 3000
    calibration: int = 1000
    held_out: int = 1000
    drives: int = 100
    horizon: int = 8
    alpha: float = 0.05
    alpha_ood: float = 0.01
    max_steps: int = 100
    num_envs: int = 100
    debug: bool = False
    """A minute instead of an hour: whether everything works, not how well."""


DEBUG: dict[str, Any] = {"recorded": 24, "train_steps": 60, "calibration": 24, "held_out": 8, "drives": 4, "max_steps": 12,
         "alpha": 0.2, "alpha_ood": 0.2, "num_envs": 24}  # fmt: skip


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
    count = options.calibration + options.held_out
    own = drive(options, shielded(agent, model, first), range(10_000, 10_000 + count))[1].segments()
    learned = calibrate(model, RULES, own[: options.calibration], **promise)
    learned.save(options.out / "calibration.json")
    missing = missed(learned, model, RULES, own[options.calibration :]).float().mean(0)
    made = shielded(agent, model, learned)
    figures = {
        "command": "python recipes/shield_point.py --out runs/shield_point --json results/shield_point.json",
        "agent": "scripted: pushes straight to the goal, knows no obstacle",
        "hardware": hardware("cpu"),
        "options": {k: v for k, v in vars(options).items() if k not in ("out", "json", "debug")},
        "promise": {"alpha": options.alpha, "scope": learned.scope, "missed_by_horizon": rounded(missing)},
        "slack_by_horizon": rounded(learned.slack(torch.tensor(learned.typical)).amax(-1)),
        "worlds": {name: compare(options, agent, made, world) for name, world in WORLDS.items()},
        "minutes": round((time.time() - began) / 60, 1),
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def learn(options: Options) -> tuple[WorldModel, list[Segment]]:
    """The model, and the recorded episodes it was not trained on."""
    data, run = options.out / "data", options.out / "run"
    record("point", data, episodes=options.recorded, num_envs=1, hold=6, max_episode_steps=50, options=("goal=false",))
    if not (run / "checkpoints").exists():
        steps: dict[str, Any] = {
            "steps": options.train_steps,
            "length": 50,
            "lr": 3e-3,
            "held_out": 0.3,
            "preview_every": 0,
        }
        run_training(TrainSettings("mlp", (data,), run, size="debug", precision="fp32", **steps))
    model, found = load(run)
    source = open_sources(found, None)[0]
    return model, [source.dataset.segment(episode) for episode in source.held_out]


def shielded(agent: Agent, model: WorldModel, calibration: Calibration) -> Shield:
    search = MPPI(horizon=4, samples=48, elites=8, iterations=3, policy_samples=0, max_std=1.0, temperature=5.0)
    return Shield(agent, model, RULES, calibration, brake, search)


def drive(options: Options, agent: Agent, seeds: Sequence[int], **world: Any) -> tuple[list[Played], Audit]:
    audit = Audit(RULES, describe(make_env("point", goal=False)))
    make = partial(make_env, "point", max_steps=options.max_steps, **world)
    return play(agent, make, seeds, options.num_envs, watch=audit), audit


def compare(options: Options, agent: Agent, made: Shield, world: dict[str, Any]) -> dict[str, Any]:
    """The same agent on the same seeds without and with the shield, and with a shield whose bounds do not widen."""
    figures: dict[str, Any] = {}
    for name, driver in (("bare", agent), ("shielded", made), ("not_adaptive", replace(made, adapt=False))):
        played, audit = drive(options, driver, range(options.drives), **world)
        figures[name] = {"return": mean([one.episode_return for one in played]), **audit.summary()}
    bare, kept = figures["bare"], figures["shielded"]
    return figures | {
        "times_fewer_violations": round(bare["violations"] / max(1, kept["violations"]), 1),
        "return_lost": round(1 - kept["return"] / bare["return"], 4),
    }


def rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
