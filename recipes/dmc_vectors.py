"""DeepMind Control from vectors with family tdmpc: 100,000 environment steps a run, and the curves beside TD-MPC2's.

    python recipes/dmc_vectors.py --out runs/dmc --json results/tdmpc_dmc.json

Every run is `worldloom learn tdmpc` and can be interrupted: started again, this script continues it. Runs that are
finished are only read. About 25 minutes of one CPU core a run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from worldloom import cli
from worldloom.evaluation.cost import hardware
from worldloom.learning.settings import TDMPCSettings

# TD-MPC2's evaluation return at 100,000 environment steps with action repeat 2: mean and standard deviation of its
# seeds (Hansen et al., 2024, the curves published with the code).
PUBLISHED = {
    "cartpole-swingup": (839, 43),
    "reacher-easy": (937, 67),
    "cup-catch": (981, 7),
    "finger-spin": (948, 34),
    "walker-walk": (962, 13),
}
DMC_NAMES = {"cup-catch": "ball_in_cup-catch"}
SEEDS = {"cartpole-swingup": (1, 2, 3), "reacher-easy": (1, 2)}
DEBUG = [
    "--steps",
    "60",
    "--random-steps",
    "20",
    "--size",
    "debug",
    "--max-episode-steps",
    "20",
    "--eval-episodes",
    "2",
]


@dataclass(frozen=True)
class Options:
    """Which tasks to learn, where, and where the figures go."""

    out: Path
    json: Path | None = None
    tasks: tuple[str, ...] = tuple(PUBLISHED)
    debug: bool = False
    """Seconds instead of hours: whether everything works, not how well."""


def main(options: Options) -> None:
    figures = []
    for task in options.tasks:
        for seed in (1,) if options.debug else SEEDS.get(task, (1,)):
            run = options.out / f"{task}-{seed}"
            command = learn_command(task, seed, run, options.debug)
            if not finished(run):
                resume = ["--resume"] if (run / "learn.json").exists() else []
                cli.run(command[0], [*command[1:], *resume])
            figures.append(read(run, task, seed))
            print(line(figures[-1]))
    if options.json:
        options.json.write_text(json.dumps({"hardware": hardware("cpu"), "runs": figures}, indent=1) + "\n")


def learn_command(task: str, seed: int, run: Path, debug: bool) -> list[str]:
    name = DMC_NAMES.get(task, task)
    fixed = ["learn", "tdmpc", f"dmc:{name}", "--out", str(run), "--options", "action_repeat=2", "--seed", str(seed)]
    return fixed + (DEBUG if debug else [])


def finished(run: Path) -> bool:
    if not (run / "learn.json").exists():
        return False
    steps = json.loads((run / "learn.json").read_text())["settings"]["steps"]
    return any(e["decisions"] >= steps for e in evaluations(run))


def evaluations(run: Path) -> list[dict[str, Any]]:
    """What the log says of each evaluation; `seconds` are those since the beginning when it began."""
    found, seconds = [], 0.0
    for record in map(json.loads, (run / "log.jsonl").read_text().splitlines()):
        if "evaluation" in record:
            found.append({**record["evaluation"], "seconds": seconds})
        seconds = record.get("seconds", seconds)
    return found


def read(run: Path, task: str, seed: int) -> dict[str, Any]:
    """One run's curve. An environment step is one of the simulator's, two to a decision."""
    asked = TDMPCSettings.from_json(json.loads((run / "learn.json").read_text())["settings"])
    keys = ("mean", "low", "high", "seconds", "cpu_seconds")
    curve = [{"env_steps": 2 * e["decisions"], **{key: e[key] for key in keys}} for e in evaluations(run)]
    published, deviation = PUBLISHED[task]
    limit = published - deviation
    final = {**curve[-1], "returns": evaluations(run)[-1]["returns"]}
    return {
        "task": task, "seed": seed, "command": asked.command(), "curve": curve, "final": final,
        "tdmpc2": published, "tdmpc2_std": deviation, "limit": limit, "reached": curve[-1]["mean"] >= limit,
    }  # fmt: skip


def line(figure: dict[str, Any]) -> str:
    final = figure["final"]
    return (
        f"{figure['task']:18} seed {figure['seed']}  {final['mean']:6.1f} [{final['low']:.1f}, {final['high']:.1f}]  "
        f"TD-MPC2 {figure['tdmpc2']} +- {figure['tdmpc2_std']}  {final['cpu_seconds'] / 60:.0f} CPU-min"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
