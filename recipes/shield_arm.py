"""An arm that bends its wrist too far and a shield that does not let it: record, train, calibrate, reach, count.

    python recipes/shield_arm.py --out runs/shield_arm --json results/shield_arm.json

DeepMind Control's reacher-easy under a script: the Jacobian's transpose pulls the finger to the target. The rule: the
wrist stays within 2.5 rad of straight (its stop is at 2.79). Then the joints' damping and the links' mass change.
"""

import itertools
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

from worldloom.agents.scripted import Scripted
from worldloom.commands.record import RecordSettings, record
from worldloom.data.segment import Segment
from worldloom.envs import make_env
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.describe import describe
from worldloom.evaluation.cost import hardware
from worldloom.model import Obs, WorldModel
from worldloom.planners.mppi import MPPI
from worldloom.runs.checkpoint import load
from worldloom.runs.sources import open_sources
from worldloom.runs.train_settings import TrainSettings
from worldloom.safety.audit import ShieldTrial
from worldloom.safety.calibration import calibrate, miscovered
from worldloom.safety.rules import Limit
from worldloom.safety.shield import Shield
from worldloom.training.session import run_training

RULES = (Limit("state", 1, -2.5, 2.5, label="wrist"),)
WORLDS = {"plain": {}, "damping x 0.5": {"damping": 0.5}, "damping x 2": {"damping": 2.0}, "mass x 4": {"mass": 4.0}}


@dataclass(frozen=True)
class Options:
    """Where runs and figures go, and how much of everything."""

    out: Path
    json: Path | None = None
    recorded: int = 700
    train_steps: int = 4000
    calibration: int = 1500
    held_out: int = 1500
    drives: int = 100
    horizon: int = 5
    alpha: float = 0.05
    alpha_ood: float = 0.01
    max_steps: int = 60
    num_envs: int = 100
    debug: bool = False  # a minute instead of an hour: whether everything works, not how well


FIRST_DRIVE = 100_000  # no setting was chosen on seeds from here on
DEBUG: dict[str, Any] = {
    "recorded": 24, "train_steps": 60, "calibration": 24, "held_out": 8, "drives": 2, "max_steps": 6,
    "horizon": 3, "alpha": 0.2, "alpha_ood": 0.2, "num_envs": 24,
}  # fmt: skip


def arm(damping: float = 1.0, mass: float = 1.0) -> AdaptedEnv:
    """The task in a world of other damping and mass."""
    env = make_env("dmc:reacher-easy", action_repeat=4)
    model = env.unwrapped.inner.physics.model  # type: ignore[attr-defined]
    model.dof_damping[:] *= damping
    model.body_mass[:] *= mass
    model.body_inertia[:] *= mass
    return env


def reach(obs: Obs) -> Tensor:
    """The finger is drawn to the target as by a spring; wrist and shoulder are the columns of the Jacobian."""
    state = obs["state"]
    angle, target, speed = state[:, :2].cumsum(1), state[:, 2:4], state[:, 4:]
    wrist = 0.12 * torch.stack([-angle[:, 1].sin(), angle[:, 1].cos()], 1)
    shoulder = wrist + 0.12 * torch.stack([-angle[:, 0].sin(), angle[:, 0].cos()], 1)
    pull = torch.stack([(shoulder * target).sum(1), (wrist * target).sum(1)], 1)
    return 60 * pull - 0.2 * speed


def inside(count: int, first: int) -> list[int]:
    """`count` seeds from `first` on whose episodes begin at least 0.2 rad within the limit."""
    env = arm()
    good = (seed for seed in itertools.count(first) if abs(env.reset(seed=seed)[0]["state"][1]) < 2.3)
    return list(itertools.islice(good, count))


def main(options: Options) -> dict[str, Any]:
    options, began = replace(options, **DEBUG) if options.debug else options, time.time()
    model, explored = learn(options)
    agent = Scripted(describe(arm()), reach)
    promise: dict[str, Any] = {"horizon": options.horizon, "alpha": options.alpha, "alpha_ood": options.alpha_ood}
    search = MPPI(horizon=3, samples=128, elites=16, iterations=4, policy_samples=0, max_std=1.0, temperature=5.0)
    first = Shield(agent, model, RULES, calibrate(model, RULES, explored, **promise), (0.0, 0.0), search)
    # Again, on the shielded arm's own movements, because that is what the promise shall then be about.
    seeds = inside(options.calibration + options.held_out, 10_000)
    trial = ShieldTrial(arm, seeds, RULES, model.spec, options.num_envs, options.max_steps)
    own = trial.run(first)[1].segments()
    learned = calibrate(model, RULES, own[: options.calibration], **promise)
    learned.save(options.out / "calibration.json")
    missing = miscovered(learned, model, RULES, own[options.calibration :]).float().mean(0)
    made = replace(first, calibration=learned)
    agents = {"bare": agent, "shielded": made, "tolerant": replace(made, tolerance=inf),
              "tolerant_not_adaptive": replace(made, tolerance=inf, adapt=False)}  # fmt: skip
    figures: dict[str, Any] = {
        "command": "python recipes/shield_arm.py --out runs/shield_arm --json results/shield_arm.json",
        "agent": "scripted: Jacobian transpose, knows no limit",
        "hardware": hardware("cpu"),
        "seeds": f"the first from {FIRST_DRIVE} (drives) and 10000 (the others) that begin within 2.3 rad",
        "options": {k: v for k, v in vars(options).items() if k not in ("out", "json", "debug")},
        "promise": {"alpha": options.alpha, "scope": learned.scope, "missed_by_horizon": rounded(missing)},
        "slack_by_horizon": rounded(learned.slack(torch.tensor(learned.typical)).amax(-1)),
        "worlds": {},
    }
    drives = inside(options.drives, FIRST_DRIVE)
    for name, world in WORLDS.items():
        figures["worlds"][name] = replace(trial, make=partial(arm, **world), seeds=drives).compare(agents)
        figures["minutes"] = round((time.time() - began) / 60, 1)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def learn(options: Options) -> tuple[WorldModel, list[Segment]]:
    """The model, and the recorded episodes it was not trained on."""
    data, run = options.out / "data", options.out / "run"
    played: dict[str, Any] = {"num_envs": 1, "hold": 4, "max_episode_steps": 50, "options": ("action_repeat=4",)}
    record(RecordSettings(env="dmc:reacher-easy", out=data, episodes=options.recorded, seed=1, **played))
    if not (run / "checkpoints").exists():
        steps: dict[str, Any] = {"steps": options.train_steps, "length": 50, "lr": 3e-3, "held_out": 0.3}
        run_training(TrainSettings("mlp", (data,), run, size="nano", precision="fp32", preview_every=0, **steps))
    model, found = load(run)
    source = open_sources(found, None)[0]
    return model, [source.dataset.segment(episode) for episode in source.held_out]


def rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
