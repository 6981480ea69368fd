"""What a decision's time buys: the return of each planner at several deadlines, with one trained model.

    python benchmarks/planning_curve.py RUN dmc:cartpole-swingup --options action_repeat=2 --out results \\
        [--planners mppi cem icem gradient] [--deadlines 2 5 10 20 50] [--seeds 0 1 2] [--json]

Every episode of the list of seeds is played to its end. Planners keep their default samples and iterations, and plan as
far ahead as the model was trained to; without a deadline they finish, with one they do what fits. One thread, and the
deadline is counted in CPU milliseconds, so that what else runs on the machine does not decide the returns. Writes
OUT/planning_curve_TASK.json and .svg, the former after every episode: run again, it goes on where it was stopped.
"""

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from itertools import product
from math import log10
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import torch
from report import Row, print_rows
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.planning import PlanningAgent
from worldloom.agents.play import play
from worldloom.data.durable import write_json
from worldloom.data.spec import DataSpec
from worldloom.envs import make_env
from worldloom.envs.options import parse_options
from worldloom.evaluation.cost import hardware
from worldloom.model import Obs, State, WorldModel
from worldloom.planners import PLANNERS
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Return
from worldloom.runs import checkpoint
from worldloom.training.memory import keep_freed_memory

COLOURS = {"mppi": "#2563eb", "cem": "#d97706", "icem": "#059669", "gradient": "#9333ea", "categorical": "#2563eb"}
WIDTH, HEIGHT, EDGE = 640, 360, 56


@dataclass
class Timed(Agent):
    """An agent whose decisions are counted in CPU milliseconds."""

    inner: Agent
    spent: list[float]

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        return self.inner.spec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, State]:
        return self.inner.start(obs, seed)  # the first call of a process warms up, and is not counted

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, State]:
        began = time.process_time()
        decided = self.inner.act(memory, obs)
        self.spent.append(1000 * (time.process_time() - began))
        return decided


@dataclass(frozen=True)
class Episode:
    """One episode of a planner at a deadline (None: as long as it likes). `late` is the share of late decisions."""

    planner: str
    deadline: float | None
    seed: int
    episode_return: float
    median_ms: float
    p99_ms: float
    late: float


def measure(model: WorldModel, asked: argparse.Namespace, planner: str, deadline: float | None, seed: int) -> Episode:
    config: Any = model.config
    agent = PlanningAgent(
        model,
        PLANNERS[planner](horizon=config.horizon),
        Return(config.discount),
        deadline=deadline,
        make_clock=lambda limit: Clock(limit, time.process_time),
    )
    timed = Timed(agent, [])
    options = parse_options(asked.options)
    (played,) = play(timed, lambda: make_env(asked.env, **options), [seed])
    late = mean(ms > deadline for ms in timed.spent) if deadline else 0.0
    p99 = quantiles(timed.spent, n=100)[-1]
    return Episode(planner, deadline, seed, played.episode_return, median(timed.spent), p99, late)


def gather(episodes: list[Episode]) -> list[Episode]:
    """The mean of each planner's episodes at each deadline; the seed is then the number of them."""
    groups: dict[tuple[str, float | None], list[Episode]] = {}
    for episode in episodes:
        groups.setdefault((episode.planner, episode.deadline), []).append(episode)
    figures = ("episode_return", "median_ms", "p99_ms", "late")
    return [
        Episode(*key, len(group), *(mean(getattr(e, figure) for e in group) for figure in figures))
        for key, group in groups.items()
    ]


def comparable(episodes: list[Episode]) -> list[Episode]:
    """The points of the seeds that every planner played at every one of its deadlines."""
    groups: dict[tuple[str, float | None], set[int]] = {}
    for episode in episodes:
        groups.setdefault((episode.planner, episode.deadline), set()).add(episode.seed)
    shared = set.intersection(*groups.values())
    return gather([e for e in episodes if e.seed in shared])


def rows(points: list[Episode], task: str) -> list[Row]:
    free = {p.planner: p.episode_return for p in points if p.deadline is None}
    made = []
    for p in points:
        share = 100 * p.episode_return / free[p.planner] if free[p.planner] else None
        name = f"{task}, {p.planner}, " + (f"{p.deadline:g} ms" if p.deadline else "no deadline")
        figures = (
            (f"return of {p.seed} seeds", p.episode_return, "return"),
            ("of the return without deadline", share, "%"),
            ("a decision", p.median_ms, "CPU-ms"),
            ("99 of 100 decisions", p.p99_ms, "CPU-ms"),
            ("late decisions", 100 * p.late, "%"),
        )
        made += [Row(f"{name}, {what}", value, unit, 1, "auto", "worldloom") for what, value, unit in figures]
    return made


def picture(points: list[Episode], task: str) -> str:
    """Mean return over the median milliseconds of a decision, which are drawn on a logarithmic scale."""
    left, right = (log10(f(p.median_ms for p in points)) for f in (min, max))
    top = 1.05 * max(p.episode_return for p in points)

    def place(ms: float, value: float) -> tuple[float, float]:
        x = EDGE + (log10(ms) - left) / max(right - left, 1e-6) * (WIDTH - EDGE - 100)
        return x, 16 + (1 - value / top) * (HEIGHT - EDGE - 16)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in range(0, int(top) + 1, 200):
        y = place(10**left, value)[1]
        parts.append(f'<path d="M{EDGE} {y:.1f}H{WIDTH - 100}" stroke="#ddd"/>')
        parts.append(f'<text x="{EDGE - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    for ms in (1, 2, 5, 10, 20, 50, 100, 200):
        if left <= log10(ms) <= right:
            parts.append(f'<text x="{place(ms, 0)[0]:.1f}" y="{HEIGHT - EDGE + 18}" text-anchor="middle">{ms}</text>')
    for i, planner in enumerate(dict.fromkeys(p.planner for p in points)):
        mine = sorted((p.median_ms, p.episode_return) for p in points if p.planner == planner)
        places = [place(*each) for each in mine]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline fill="none" stroke="{COLOURS[planner]}" stroke-width="2" points="{line}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[planner]}"/>' for x, y in places]
        parts.append(f'<text x="{WIDTH - 90}" y="{40 + 20 * i}" fill="{COLOURS[planner]}">{planner}</text>')
    words = f"{task}: return over CPU-ms of a decision (log scale); seeds: {points[0].seed}"
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">{words}</text></svg>')
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("env")
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--planners", nargs="+", choices=COLOURS, default=["mppi", "cem", "icem", "gradient"])
    parser.add_argument("--deadlines", nargs="+", type=float, default=[2, 5, 10, 20, 50])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--step", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    model, found = checkpoint.load(asked.run, "cpu", asked.step)
    task = asked.env.partition(":")[2] or asked.env
    facts = {"env": asked.env, "options": asked.options, "step": found.step, "checkpoint": found.checkpoint_hash}
    file = asked.out / f"planning_curve_{task}.json"
    episodes = resume(file, facts)
    known = {(e.planner, e.deadline, e.seed) for e in episodes}
    for each in product(asked.planners, (None, *asked.deadlines), asked.seeds):
        if each not in known:
            episodes.append(measure(model, asked, *each))
            print(each, episodes[-1].episode_return, file=sys.stderr)
            made = {
                "episodes": [asdict(e) for e in episodes],
                "rows": [asdict(r) for r in rows(comparable(episodes), task)],
            }
            command = shlex.join(["python", "benchmarks/planning_curve.py", *sys.argv[1:]])
            write_json(file, {"command": command, "hardware": hardware("cpu"), "threads": 1, **facts, **made})
    file.with_suffix(".svg").write_text(picture(comparable(episodes), task) + "\n")
    print_rows(rows(comparable(episodes), task))


def resume(file: Path, facts: dict[str, Any]) -> list[Episode]:
    """What an earlier run already measured of the same checkpoint in the same world."""
    if not file.exists():
        return []
    earlier = json.loads(file.read_text())
    same = all(earlier[key] == value for key, value in facts.items())
    return [Episode(**e) for e in earlier["episodes"]] if same else []


if __name__ == "__main__":
    main()
