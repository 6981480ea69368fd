"""CartPole-v1 from 64 x 64 pictures alone, on a CPU: a world model and a policy that learns in its dreams.

    python recipes/cartpole_pixels.py --out runs/cartpole --json results/cartpole_pixels.json

No position, angle or velocity is seen, and one picture shows no velocity: the model's memory has to. The training is
`worldloom learn dreamer` and can be interrupted: started again, this script continues it. One core, within an hour.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from worldloom import cli
from worldloom.agents.play import play
from worldloom.agents.reference import RandomAgent
from worldloom.agents.saved import load_agent
from worldloom.envs import make_env
from worldloom.evaluation.cost import hardware
from worldloom.evaluation.policies.score import mean
from worldloom.learning.settings import DreamerSettings

ENV, PIXELS = "gym:CartPole-v1", {"pixels": True, "state": False}
LEARN = ["learn", "dreamer", ENV, "--options", "pixels=true", "state=false"]
FULL = ["--size", "size1m", "--steps", "12000", "--random-steps", "1000", "--updates", "0.4", "--batch-size", "8",
        "--policy.starts", "128", "--policy.discount", "0.99", "--eval-every", "3000"]  # fmt: skip
DEBUG = ["--size", "debug", "--steps", "60", "--random-steps", "40", "--updates", "0.1", "--max-episode-steps", "20",
         "--eval-episodes", "1"]  # fmt: skip
FIRST_SEED, SIDE_BY_SIDE = 3_000_000, 10


@dataclass(frozen=True)
class Options:
    """Where to learn, how long to judge, and where the figures go."""

    out: Path
    json: Path | None = None
    episodes: int = 100
    debug: bool = False
    """Seconds instead of an hour: whether everything works, not how well."""


def main(options: Options) -> dict[str, Any]:
    learn(options)
    settings = DreamerSettings.from_json(json.loads((options.out / "learn.json").read_text())["settings"])
    spent = last_record(options.out)
    torch.set_num_threads(1)
    agent = load_agent(options.out)
    figures = {
        "command": "python recipes/cartpole_pixels.py --out runs/cartpole --json results/cartpole_pixels.json",
        "learning": settings.command(),
        "hardware": hardware("cpu"),
        "seed": settings.seed,
        "decisions": spent["decisions"],
        "updates": spent["step"],
        "minutes": round(spent["seconds"] / 60, 1),
        "cpu_minutes": round(spent["cpu_seconds"] / 60, 1),
        "policy": score(agent, options),
        "random": score(RandomAgent(agent.spec), options),
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def learn(options: Options) -> None:
    resume = ["--resume"] if (options.out / "learn.json").exists() else []
    sizes = DEBUG if options.debug else FULL
    cli.run(LEARN[0], [*LEARN[1:], "--out", str(options.out), *sizes, *resume])


def last_record(run: Path) -> dict[str, Any]:
    """What the log said last of the learning itself."""
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record for record in records if "cpu_seconds" in record][-1]


def score(agent: Any, options: Options) -> dict[str, Any]:
    """The return over fixed seeds, each episode played to its end, with a 95 % interval of the mean."""
    seeds = range(FIRST_SEED, FIRST_SEED + (2 if options.debug else options.episodes))
    limit = 20 if options.debug else None
    played = play(agent, lambda: make_env(ENV, **PIXELS), seeds, SIDE_BY_SIDE, limit)
    returns = [episode.episode_return for episode in played]
    return {**asdict(mean(returns)), "returns": returns}


if __name__ == "__main__":
    shown = main(tyro.cli(Options))
    print(json.dumps({k: v for k, v in shown.items() if k not in ("policy", "random")}, indent=1))
    for name in ("policy", "random"):
        print(f"{name}: {shown[name]['value']:.1f} [{shown[name]['low']:.1f}, {shown[name]['high']:.1f}]")
