"""Doom's take_cover, learned inside the dream alone: the task of World Models (Ha & Schmidhuber, 2018), by two ways.

    python recipes/doom_dream.py --out runs/doom_dream --json results/doom_dream.json

Random play is recorded once. In an RSSM an actor-critic learns (DreamerV3); in the paper's own model, VAE and RNN, a
linear controller is evolved by CMA-ES at each temperature of the paper's table. No policy sees the real game before it
is judged there. Everything can be interrupted: started again, this script continues. Four hours of one core.

An action is held for four tics: fast enough to dodge, and 15 imagined steps then look as far ahead as a fireball
flies. Frames are counted in tics, as the paper does, though only every fourth is seen.
"""

import json
import sys
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
from worldloom.evaluation.policies.dream_to_real import DreamToRealGap, policy_of
from worldloom.evaluation.policies.score import mean
from worldloom.evaluation.policies.survival import SurvivalSamples, survival
from worldloom.evaluation.policies.world import World
from worldloom.runs.named import Named

# Mean and standard deviation over episodes, tables 1 and 2 of the paper; "solved" is 750.
PAPER = {
    "random": (210, 108),
    0.1: {"dream": (2086, 140), "reality": (193, 58)},
    0.5: {"dream": (2060, 277), "reality": (196, 50)},
    1.0: {"dream": (1145, 690), "reality": (868, 511)},
    1.15: {"dream": (918, 546), "reality": (1092, 556)},
    1.3: {"dream": (732, 269), "reality": (753, 139)},
}
REPEAT = 4
FRAMES = 394_000  # in tics; the episode under way is finished: at most 400,000
SEES = ["--set", "representation_weight=0.1", "--set", "open_loop_head_weight=1.0"]
DREAMS = ["--policy.starts=256", "--policy.discount=0.99", "--policy.replay-weight=0", "--temperature=1.15"]


@dataclass(frozen=True)
class Options:
    """Where everything goes, and what each part takes: as many updates as for the committed results, or by the clock.

    Of the evolution only the minutes are known.
    """

    out: Path
    json: Path | None = None
    model_steps: int = 8299
    policy_steps: int = 3011
    vae_steps: int = 9567
    cma_steps: int | None = None
    """Generations."""
    model_minutes: float | None = None
    """Train the RSSM for so long, however many updates that are; on one core of the committed results it was 70."""
    policy_minutes: float | None = None
    """Likewise the actor-critic: 25."""
    vae_minutes: float | None = None
    """Likewise VAE and RNN: 60."""
    cma_minutes: float | None = 10
    """Evolve each controller for so long, unless its generations are given."""
    temperatures: tuple[float, ...] = (0.1, 0.5, 1.0, 1.15, 1.3)
    episodes: int = 100
    debug: bool = False
    """Seconds instead of hours: whether everything works, not how well."""


def main(options: Options) -> dict[str, Any]:
    out = options.out
    random_play(options)
    train(options, "rssm", budget(options.model_steps, options.model_minutes), *SEES)
    taken = budget(options.policy_steps, options.policy_minutes)
    learn(options, "dreamer", out / "rssm", out / "actor-critic", taken, *DREAMS)
    train(options, "vae_rnn", budget(options.vae_steps, options.vae_minutes))
    taken = budget(options.cma_steps, None if options.cma_steps else options.cma_minutes)
    for t in options.temperatures:
        learn(options, "cma", out / "vae_rnn", out / f"cma-{t}", taken, "--temperature", str(t))
    torch.set_num_threads(1)
    figures = {
        "command": "python " + " ".join(sys.argv),
        "hardware": hardware("cpu"),
        "frames": REPEAT * json.loads((out / "data/meta/info.json").read_text())["total_frames"],
        "minutes": {run: minutes(out / run) for run in ("rssm", "actor-critic", "vae_rnn")},
        "updates": {run: last(out / run)["step"] for run in ("rssm", "actor-critic", "vae_rnn")},
        "random": chance(options),
        "actor_critic": score(options, "actor-critic", 1.0),
        "vae_rnn_cma": {str(t): score(options, f"cma-{t}", t) | {"paper": PAPER.get(t)} for t in options.temperatures},
        "paper_random": PAPER["random"],
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def random_play(options: Options) -> None:
    size = ["--steps", "600", "--max-episode-steps", "60"] if options.debug else ["--steps", str(FRAMES // REPEAT)]
    held = ["--options", f"action_repeat={REPEAT}", "--hold", "3", "--num-envs", "2"]
    worldloom("record", "doom", str(options.out / "data"), *held, *size)


def budget(steps: int | None, minutes: float | None) -> list[str]:
    """What ends a part: its last update, or where minutes are given the clock."""
    return ["--steps", str(steps)] if minutes is None else ["--minutes", str(minutes), "--steps", "1000000"]


def train(options: Options, family: str, taken: list[str], *further: str) -> None:
    run = options.out / family
    if (run / "summary.json").exists():
        return
    small = ["--size", "debug", "--steps", "10", "--batch-size", "4", "--length", "8", "--held-out", "0.2"]
    asked = small if options.debug else [*taken, "--length", "32"]
    resume = ["--resume"] if (run / "run.json").exists() else []
    fixed = [family, str(options.out / "data"), "--out", str(run), "--threads", "1"]
    worldloom("train", *fixed, *asked, *further, *resume)


def learn(options: Options, method: str, source: Path, run: Path, taken: list[str], *further: str) -> None:
    small = {"dreamer": ["--steps", "4", "--batch-size", "4", "--length", "8"],
             "cma": ["--steps", "2", "--population", "4", "--dreams", "2", "--horizon", "5"]}[method]  # fmt: skip
    asked = small if options.debug else taken
    resume = ["--resume"] if (run / "learn.json").exists() else []
    worldloom("learn", method, str(source), "--out", str(run), *asked, *further, *resume)


def worldloom(*words: str) -> None:
    cli.run(words[0], list(words[1:]))


def minutes(run: Path) -> float:
    return round(last(run)["seconds"] / 60, 1)


def last(run: Path) -> dict[str, Any]:
    """The last record of a run's log."""
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])


def gap_of(options: Options, name: str) -> DreamToRealGap:
    """A policy, the real game and the fixed seeds on which it is played."""
    world = World("doom", {"action_repeat": REPEAT}, 64, 60 if options.debug else None)
    return DreamToRealGap(policy_of(Named(options.out / name), "cpu"), world, 2 if options.debug else options.episodes)


def score(options: Options, name: str, temperature: float) -> dict[str, Any]:
    """The policy's returns in reality, on fixed seeds, and in dreams as hot as those it learned in."""
    gap = replace(gap_of(options, name), temperature=temperature)
    samples = SurvivalSamples()
    real = gap.play(samples.watch)
    scores = {"reality": summary(real.returns), "dream": summary(gap.dream(real.first, real.longest))}
    lives = survival(gap.agent, samples, real.played, gap.noise)
    spent = {"minutes": minutes(options.out / name), "updates": last(options.out / name)["step"]}
    return {**spent, **scores, "survival": {k: f.to_json() for k, f in lives.items()}}


def chance(options: Options) -> dict[str, Any]:
    gap = gap_of(options, "actor-critic")
    played = play(RandomAgent(gap.agent.spec), gap.world.make, gap.seeds, 10, gap.world.max_steps)
    return summary([each.episode_return for each in played])


def summary(returns: list[float]) -> dict[str, Any]:
    found, std = mean(returns), float(np.std(returns))
    return {"mean": found.value, "low": found.low, "high": found.high, "std": std, "returns": returns}


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
