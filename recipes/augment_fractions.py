"""How much of a dataset may be imagined? A policy learned offline from 0, 20, 40, 60 and 80 % of it, played for real.

    python recipes/augment_fractions.py --out runs/augment_fractions --json results/augment_fractions.json

A clumsy driver of `point` is recorded for 20 short episodes and an ensemble learns its world. Branches with changed
actions (`worldloom augment`) make the imagined rows; TD3+BC learns from each mixture with the same number of updates.
A seed is a dataset, an ensemble and a learner of its own. Ten times the real data shows how much there is to gain.
"""

import json
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldloom.agents.play import play
from worldloom.commands.augment import AugmentSettings, augment
from worldloom.commands.record import RecordSettings, record
from worldloom.data.source import open_dataset
from worldloom.envs import make_env
from worldloom.evaluation.cost import hardware
from worldloom.learning.td3_bc import TD3BCConfig, learn_offline
from worldloom.runs.train_settings import TrainSettings
from worldloom.stats.bootstrap import figure
from worldloom.training.session import run_training

FRACTIONS = (0.0, 0.2, 0.4, 0.6, 0.8)
MORE = "ten times the real data"
FIRST_SEED, FIRST_DRIVE = 100, 100_000  # no setting was chosen on what has these seeds
WIDTH, HEIGHT, EDGE = 560, 320, 52


@dataclass(frozen=True)
class Options:
    out: Path
    json: Path | None = None
    seeds: int = 8
    episodes: int = 20
    train_steps: int = 500
    updates: int = 2000
    drives: int = 40
    max_steps: int = 100
    debug: bool = False
    """Seconds instead of minutes: whether everything works, not how well."""


DEBUG: dict[str, Any] = {"seeds": 1, "episodes": 4, "train_steps": 5, "updates": 3, "drives": 2, "max_steps": 5}


class Clumsy:
    """Drives towards the goal, half as hard as it should, while a random push lasts for one to six steps."""

    def __init__(self, action_space: Any):
        self.reset()

    def reset(self) -> None:
        self.left, self.push = 0, np.zeros(2)

    def __call__(self, obs: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        if not self.left:
            self.left, self.push = int(rng.integers(1, 7)), rng.uniform(-1.5, 1.5, 2)
        self.left -= 1
        towards = obs["goal"] - obs["state"][:2] - 0.6 * obs["state"][2:]
        return np.clip(0.5 * towards + self.push, -1, 1).astype(np.float32)


def main(options: Options) -> dict[str, Any]:
    options, began = replace(options, **DEBUG) if options.debug else options, time.process_time()
    torch.set_num_threads(1)
    assert not options.out.exists(), f"--out {options.out} exists already: choose a new folder"
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    datasets = [path for seed in seeds for path in prepare(options, seed)]
    config = TD3BCConfig(options.updates, batch_size=128, units=64, discount=0.9, follow=0.01)
    agents = learn_offline([open_dataset(path) for path in datasets], config, seed=0)
    drives = range(FIRST_DRIVE, FIRST_DRIVE + options.drives)
    played = [play(a, partial(make_env, "point"), drives, options.drives, options.max_steps) for a in agents]
    scores = np.array([np.mean([p.episode_return for p in each]) for each in played]).reshape(options.seeds, -1)
    names = [*(f"{fraction:.0%}" for fraction in FRACTIONS), MORE]
    figures = {
        "command": "python " + " ".join(sys.argv),
        "hardware": hardware("cpu"),
        "seeds": {"datasets": f"{seeds[0]} to {seeds[-1]}", "drives": f"{drives[0]} to {drives[-1]}"},
        "options": {k: v for k, v in vars(options).items() if k not in ("out", "json", "debug")},
        "learner": vars(config),
        "imagined": [open_dataset(path).about["branches"] for path in datasets[: len(FRACTIONS)]],
        "real_return": {name: over_seeds(column) for name, column in zip(names, scores.T, strict=True)},
        "gain_over_0%": {n: over_seeds(c - scores[:, 0]) for n, c in zip(names[1:], scores.T[1:], strict=True)},
        "by_seed": scores.round(3).tolist(),
        "cpu_minutes": round((time.process_time() - began) / 60, 1),
    }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
        options.json.with_suffix(".svg").write_text(picture(figures["real_return"]) + "\n")
    return figures


def prepare(options: Options, seed: int) -> list[Path]:
    """The mixtures of one seed, and ten times its real data."""
    folder = options.out / str(seed)
    asked: dict[str, Any] = {"num_envs": 1, "max_episode_steps": 30, "policy": "augment_fractions:Clumsy"}
    record(RecordSettings(env="point", out=folder / "real", episodes=options.episodes, seed=seed, **asked))
    record(RecordSettings(env="point", out=folder / "more", episodes=10 * options.episodes, seed=1000 + seed, **asked))
    training: dict[str, Any] = {"length": 16, "lr": 3e-3, "held_out": 0.2, "precision": "fp32", "preview_every": 0}
    training |= {"size": "debug", "steps": options.train_steps, "overrides": ("member=mlp", "members=3"), "seed": seed}
    run_training(TrainSettings("ensemble", (folder / "real",), folder / "run", **training))
    mixtures = [folder / f"mixed-{fraction:g}" for fraction in FRACTIONS]
    for fraction, out in zip(FRACTIONS, mixtures, strict=True):
        augment(
            AugmentSettings(
                run=folder / "run", data=folder / "real", out=out, fraction=fraction, noise=0.5, seed=seed, threads=1
            )
        )
    return [*mixtures, folder / "more"]


def over_seeds(values: np.ndarray) -> dict[str, float | None]:
    """The mean over seeds `[S]` with its 95 % interval."""
    found = figure(lambda weights: weights @ values / weights.sum(1), np.arange(len(values)))
    return {k: None if v is None else round(v, 3) for k, v in vars(found).items() if k != "why"}


def picture(returns: dict[str, dict[str, float | None]]) -> str:
    """Real return over the imagined share, with its interval, as an SVG; the dashed line is ten times the real data."""
    marks = [(m["value"] or 0, m["low"] or 0, m["high"] or 0) for m in returns.values()]
    low, high = min(0.0, *(m[1] for m in marks)), max(m[2] for m in marks) + 0.5

    def y(value: float) -> float:
        return 16 + (high - value) / (high - low) * (HEIGHT - EDGE - 16)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{EDGE} {y(marks[-1][0]):.1f}H{WIDTH - 16}" stroke="#888" stroke-dasharray="5 3"/>',
        f'<text x="{WIDTH - 20}" y="{y(marks[-1][0]) - 6:.1f}" text-anchor="end">{MORE}</text>',
    ]
    for tick in range(int(np.ceil(low)), int(high) + 1):
        parts.append(f'<text x="{EDGE - 10}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    for i, (fraction, (value, least, most)) in enumerate(zip(FRACTIONS, marks[:-1], strict=True)):
        x = EDGE + 40 + i * (WIDTH - 2 * EDGE - 40) / (len(FRACTIONS) - 1)
        parts.append(f'<path d="M{x:.1f} {y(least):.1f}V{y(most):.1f}" stroke="#0b62a4" stroke-width="2"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y(value):.1f}" r="4" fill="#0b62a4"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - EDGE + 20}" text-anchor="middle">{fraction:.0%}</text>')
    words = "real return over the imagined share of the data, 95 % over seeds"
    return "\n".join([*parts, f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{words}</text></svg>'])


if __name__ == "__main__":
    print(json.dumps(main(tyro.cli(Options)), indent=1))
