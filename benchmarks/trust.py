"""What the trust meter promises against what is kept, on episodes it was not calibrated on.

    python benchmarks/trust.py RUN [RUN ...] [--splits 60] [--json results/trust.json]

Held-out episodes are imagined once. In each split a random half calibrates and the other half checks; kept and checked
promises of all splits are pooled: a meter with a favourable half promises more, which a mean of shares would hide.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldloom.evaluation.cost import hardware
from worldloom.evaluation.windows import held_out_episodes
from worldloom.play.calibration_rollouts import CalibrationSamples, collect_samples
from worldloom.play.trust import DEFAULTS, LEVELS, learn
from worldloom.runs import checkpoint
from worldloom.runs.sources import open_sources

FIRST_SEED = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--splits", type=int, default=60)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {"command": "python " + " ".join(sys.argv), "hardware": hardware("cpu"), "first_seed": FIRST_SEED}
    found |= {"splits": asked.splits, "settings": DEFAULTS, "runs": [check(run, asked.splits) for run in asked.runs]}
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def check(path: Path, splits: int) -> dict[str, Any]:
    """One run's meter over all splits."""
    model, run = checkpoint.load(path)
    held = held_out_episodes(open_sources(run, None))
    samples = collect_samples(model, held, **DEFAULTS)
    outcomes = [outcome(samples, FIRST_SEED + split, split) for split in range(splits)]
    return {
        "run": path.name,
        "family": run.family,
        "step": run.step,
        "held_out_episodes": len(held),
        "promises": {level: pooled([each[level] for each in outcomes]) for level in LEVELS},
    }


def outcome(samples: CalibrationSamples, seed: int, split: int) -> dict[float, np.ndarray]:
    """By promise: weight of kept and checked ones, shares of samples with one and with a broken one, first steps."""
    episodes = np.random.default_rng(seed).permutation(np.unique(samples.episode))
    half = len(episodes) // 2
    meter, other = learn(samples.of_episodes(episodes[:half]), seed=split), samples.of_episodes(episodes[half:])
    found = {}
    for level in LEVELS:
        steps = meter.steps(other.depth, other.spread, level)
        checked, broken = other.check(steps)
        kept = other.by_episode(checked & ~broken).sum()
        shares = (steps >= 1).mean(), other.by_episode(broken).mean(), steps[other.depth == 0].mean()
        found[level] = np.array([kept, other.by_episode(checked).sum(), *shares])
    return found


def pooled(outcomes: list[np.ndarray]) -> dict[str, float]:
    rows = np.stack(outcomes)
    some = rows[rows[:, 1] > 0]
    return {
        "kept": float(rows[:, 0].sum() / max(rows[:, 1].sum(), 1e-9)),
        "deviation between splits": float((some[:, 0] / some[:, 1]).std()) if len(some) else 0.0,
        "splits without a promise": float((rows[:, 1] == 0).mean()),
        "moments with a promise": float(rows[:, 2].mean()),
        "broken, of all moments": float(rows[:, 3].mean()),
        "steps promised at a look": float(rows[:, 4].mean()),
    }


if __name__ == "__main__":
    main()
