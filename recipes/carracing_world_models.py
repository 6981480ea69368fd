"""CarRacing by World Models (Ha & Schmidhuber, 2018): a linear controller evolved inside the dream, driven for real.

    python recipes/carracing_world_models.py --out runs/carracing --json results/carracing_world_models.json

Random driving is recorded once, vision and memory learn from it (family vae_rnn), and CMA-ES evolves a controller
that sees the real game only when it is judged. The paper evolved it in the real game, after 10,000 random episodes.
Started again after an interruption, this script continues.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom import cli
from worldloom.agents.play import play
from worldloom.agents.reference import RandomAgent
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.policies.dream_to_real import MOST_ENVS, DreamToRealGap, policy_of
from worldloom.evaluation.policies.score import mean
from worldloom.evaluation.policies.world import World
from worldloom.runs.named import Named

# Mean and standard deviation over 100 episodes, section 3.5 of the paper.
PAPER = {"z only": (632, 251), "z and a hidden layer": (788, 141), "z and h": (906, 21)}
SMALL = ["--size", "debug", "--steps", "10", "--batch-size", "4", "--length", "8", "--held-out", "0.4"]


@dataclass(frozen=True)
class Options:
    """Where everything goes, and how long each part takes."""

    out: Path
    json: Path | None = None
    frames: int = 100_000
    """Steps of random driving to record; the episodes under way are finished."""
    model_steps: int | None = None
    """Train the model for so many updates, however long that takes."""
    model_minutes: float = 60
    """Where no updates are given: for so long, however many updates that are."""
    controller_steps: int | None = None
    """Evolve the controller for so many generations."""
    controller_minutes: float = 40
    """Where no generations are given."""
    horizon: int = 100
    """Length of a dream in steps."""
    temperature: float = 1.0
    episodes: int = 100
    max_steps: int = 1000
    """Length of a real episode."""
    debug: bool = False
    """Seconds instead of hours: whether everything works, not how well."""


def main(options: Options) -> dict[str, Any]:
    if options.debug:
        options = replace(options, frames=60, horizon=5, episodes=2, max_steps=20)
    (out := options.out).mkdir(parents=True, exist_ok=True)
    for stage in (record, train, evolve):
        stage(options)
    torch.set_num_threads(1)
    figures = {
        "command": "python " + " ".join(["recipes/carracing_world_models.py", *sys.argv[1:]]),
        "hardware": hardware("cpu"),
        "frames": json.loads((out / "data/meta/info.json").read_text())["total_frames"],
        **judge(options),
        "paper": PAPER,
        "minutes": {name: round(spent["minutes"], 1) for name, spent in stages(out).items()},
        "updates": {name: updates(out / name) for name in ("model", "controller")},
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def record(options: Options) -> None:
    how = ["--options", "pedal=true", "--hold", 5, "--max-episode-steps", min(options.max_steps, 400)]
    worldloom(options, "record", "carracing", options.out / "data", "--steps", options.frames, *how)


def train(options: Options) -> None:
    run = options.out / "model"
    taken = SMALL if options.debug else [*budget(options.model_steps, options.model_minutes), "--length", 32]
    resume = ["--resume"] if (run / "run.json").exists() else []
    worldloom(options, "train", "vae_rnn", options.out / "data", "--out", run, *taken, *resume)


def evolve(options: Options) -> None:
    run = options.out / "controller"
    small = ["--steps", 2, "--population", 4, "--dreams", 2, "--length", 8]
    taken = small if options.debug else budget(options.controller_steps, options.controller_minutes)
    dream = ["--horizon", options.horizon, "--temperature", options.temperature]
    resume = ["--resume"] if (run / "learn.json").exists() else []
    worldloom(options, "learn", "cma", options.out / "model", "--out", run, *dream, *taken, *resume)


def budget(steps: int | None, minutes: float) -> list[object]:
    """What ends a stage: its last update where their number is given, else the clock."""
    return ["--steps", steps] if steps else ["--minutes", minutes, "--steps", 1_000_000]


def worldloom(options: Options, verb: str, *words: object) -> None:
    """One stage, unless it has ended well before."""
    if stages(options.out).get(verb, {}).get("done"):
        return
    with timed(options.out, verb):
        cli.run(verb, list(map(str, words)))


def stages(out: Path) -> dict[str, dict[str, Any]]:
    """Of each stage its minutes, with those of attempts that were interrupted, and whether it is done."""
    return json.loads(path.read_text()) if (path := out / "stages.json").exists() else {}


def updates(run: Path) -> int:
    """How many a run came to; of a controller they are generations."""
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]


@contextmanager
def timed(out: Path, name: str) -> Iterator[None]:
    began, done, found = time.perf_counter(), False, stages(out)
    earlier = found.get(name, {"minutes": 0.0, "done": False})
    try:
        yield
        done = True
    finally:
        minutes = (time.perf_counter() - began) / 60 + (0.0 if earlier["done"] else earlier["minutes"])
        (out / "stages.json").write_text(json.dumps({**found, name: {"minutes": minutes, "done": done}}))


def judge(options: Options) -> dict[str, Any]:
    """Returns on fixed seeds: the controller's in reality and in dreams as hot as those it evolved in, and chance's."""
    agent = policy_of(Named(options.out / "controller"), "cpu")
    world = World("carracing", {"pedal": True}, max_steps=options.max_steps)
    gap = DreamToRealGap(agent, world, options.episodes, options.temperature)
    with timed(options.out, "play"):
        real = gap.play()
        chance = play(RandomAgent(agent.spec), gap.world.make, gap.seeds, MOST_ENVS, options.max_steps)
    returns = {"controller": real.returns, "dream": gap.dream(real.first, real.longest)}
    returns["random"] = [episode.episode_return for episode in chance]
    return {who: summary(found) for who, found in returns.items()}


def summary(returns: list[float]) -> dict[str, Any]:
    """The mean with its 95 % interval, and the standard deviation over episodes, which is what the paper gives."""
    found = mean(returns)
    spread = {"low": found.low, "high": found.high, "std": float(np.std(returns))}
    return {"mean": found.value, **spread, "returns": returns}


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
