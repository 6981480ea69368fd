"""A robot of two arms seen by its joints alone: is a recurrent latent model as good as a plain one, and than a line?

    python recipes/robot_vectors.py --out runs/robot_vectors --json results/robot_vectors.json

34 joints follow commanded positions with motors of limited torque, against dry friction, gravity and the pull of their
neighbours; the state is the positions alone, so that velocities must be inferred. 40 episodes of commands that move and
rest, as in teleoperation, ten of them held out; every family trains for as many minutes of one core. Three seeds.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom.commands.evaluate import EvaluateSettings, evaluate
from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.evaluation.cost import hardware
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

JOINTS, FPS, ROWS, SUBSTEPS = 34, 30.0, 300, 10
TORQUE, FRICTION = 18.0, 3.0
HELD_OUT = 0.25  # of the episodes
ARMS: dict[str, dict[str, Any]] = {
    "mlp": {"family": "mlp", "size": "small"},
    "rssm": {"family": "rssm", "size": "debug", "overrides": ("vectors=change",)},
    "rssm-latent": {"family": "rssm", "size": "debug"},
}


@dataclass(frozen=True)
class Options:
    """Where everything goes, and how long it takes."""

    out: Path
    json: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 40
    minutes: float = 10
    steps: int | None = None
    """Train every arm for so many updates instead; of the committed results each run tells its own."""
    arms: tuple[str, ...] = tuple(ARMS)
    debug: bool = False
    """Seconds instead of an hour: whether everything works, not how well."""


def commands(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Smooth targets `[T, 34]`: each joint moves between random places at its own times, and rests there."""
    found = np.empty((rows, JOINTS))
    for joint in range(JOINTS):
        turns = np.sort(rng.choice(rows, 6, replace=False))
        places = rng.normal(0, 0.6, 7)
        path = np.repeat(places, np.diff([0, *turns, rows]))
        kernel = np.hanning(41) / np.hanning(41).sum()
        found[:, joint] = np.convolve(np.pad(path, 20, mode="edge"), kernel, "valid")
    return found


def simulate(rng: np.random.Generator, rows: int) -> Episode:
    """One episode: positions before each command, with sensor noise."""
    target = commands(rng, rows)
    stiff, damp = np.linspace(30, 90, JOINTS), np.linspace(6, 12, JOINTS)
    place, velocity = target[0] + rng.normal(0, 0.05, JOINTS), np.zeros(JOINTS)
    seen = np.empty((rows, JOINTS))
    for row in range(rows):
        seen[row] = place
        for _ in range(SUBSTEPS):
            torque = np.clip(stiff * (target[row] - place), -TORQUE, TORQUE) - damp * velocity
            load = 8 * np.sin(np.roll(place, 1) - place) - 10 * np.sin(2 * place) - FRICTION * np.tanh(velocity / 0.02)
            velocity = velocity + (torque + load) / (FPS * SUBSTEPS)
            place = place + velocity / (FPS * SUBSTEPS)
    last = np.arange(rows) == rows - 1
    return Episode(
        obs={"state": (seen + rng.normal(0, 0.003, seen.shape)).astype(np.float32)},
        action=np.where(last[:, None], 0, target).astype(np.float32),
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
        truncated=last,
    )


def record(out: Path, episodes: int, rows: int) -> None:
    if out.exists():
        return
    names = tuple(f"{side}_{number}" for side in ("left", "right") for number in range(JOINTS // 2))
    spec = DataSpec(
        {"state": KeySpec("vector", (JOINTS,), names=names)}, ActionSpec("continuous", JOINTS, names=names), FPS
    )
    with LeRobotWriter(out, spec, robot_type="simulated", about={"license": "CC0"}) as writer:
        for number in range(episodes):
            writer.add(simulate(np.random.default_rng(number), rows), place=number)


def judge(options: Options, arm: str, seed: int) -> dict[str, Any]:
    """Train one arm, continue it or leave it alone, and read its card."""
    run = options.out / f"{arm}-{seed}"
    budget = {"steps": options.steps} if options.steps else {"minutes": options.minutes}
    asked = {**ARMS[arm], "lr": 1e-3, **budget}
    if options.debug:
        asked |= {"minutes": None, "steps": 20, "size": "debug", "batch_size": 4, "length": 8}
    if not (run / "summary.json").exists():
        fixed: dict[str, Any] = {"seed": seed, "held_out": HELD_OUT, "preview_every": 0, "threads": 1}
        resume = (run / "run.json").exists()
        run_training(TrainSettings(data=(options.out / "data",), out=run, resume=resume, **fixed, **asked))
    evaluate(EvaluateSettings(run=run, horizons=(1, 5, 15)))
    card = json.loads((run / "card.json").read_text())
    skill = {key: card["metrics"]["skill"][key] for key in ("state@1", "state@5", "state@15")}
    linear = {key: card["baselines"]["linear"]["skill"][key] for key in skill}
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    return {"arm": arm, "seed": seed, "updates": last["step"], "skill": skill, "linear": linear}


def main(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)
    began = time.time()
    record(options.out / "data", 8 if options.debug else options.episodes, 40 if options.debug else ROWS)
    runs = [judge(options, arm, seed) for seed in options.seeds for arm in options.arms]
    figures = {
        "command": "python recipes/robot_vectors.py --out runs/robot_vectors --json results/robot_vectors.json",
        "hardware": hardware("cpu"),
        "seeds": list(options.seeds),
        "minutes_each": options.minutes,
        "world": {"joints": JOINTS, "fps": FPS, "rows": ROWS, "episodes": options.episodes, "held_out": HELD_OUT},
        "runs": runs,
        "minutes": round((time.time() - began) / 60, 1),
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
