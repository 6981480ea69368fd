"""Does a plan suffer when the model's products run in bf16? Scores of the same candidates, and returns, in both.

    python benchmarks/planning_precision.py RUN dmc:cartpole-swingup --options action_repeat=2 [--seeds 0 1] [--json]

Episodes are played in fp32 and in bf16. On every tenth belief of the former 512 candidates, drawn as widely as a search
ends with, are scored in both: rows tell how alike the orders are (Spearman's rank correlation), how many of the best 64
are the same, and how much of the range of scores the candidate chosen in bf16 loses in the eyes of fp32.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from report import Row, print_rows
from torch import Tensor

from worldloom.agents.planning import PlanningAgent, PlanningMemory
from worldloom.agents.play import Decision, play
from worldloom.envs import make_env
from worldloom.envs.options import parse_options
from worldloom.planners.mppi import MPPI
from worldloom.planners.objectives import Return
from worldloom.planners.planner import Problem
from worldloom.runs import checkpoint
from worldloom.runs.precision import autocast

CANDIDATES, ELITES, WIDTH = 512, 64, 0.3


def scores(agent: PlanningAgent, memory: PlanningMemory, actions: Tensor, precision: str) -> Tensor:
    problem = Problem(agent.model, memory.belief, agent.objective)
    with torch.no_grad(), autocast(precision, agent.device):
        return problem.score(actions)[0][0]


def compare(agent: PlanningAgent, memory: PlanningMemory) -> tuple[float, float, float]:
    """Rank correlation, share of common elites, and the loss of the bf16 choice as a share of the range of scores."""
    plan = memory.plan.actions[:, None]
    actions = (plan + WIDTH * torch.randn(1, CANDIDATES, *plan.shape[2:])).clamp(-1, 1)
    exact, fast = (scores(agent, memory, actions, precision) for precision in ("fp32", "bf16"))
    orders = torch.stack([x.argsort().argsort().float() for x in (exact, fast)])
    common = len(set(exact.topk(ELITES).indices.tolist()) & set(fast.topk(ELITES).indices.tolist()))
    lost = (exact.max() - exact[fast.argmax()]) / (exact.max() - exact.min()).clamp(min=1e-9)
    return float(torch.corrcoef(orders)[0, 1]), common / ELITES, float(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("env")
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, _ = checkpoint.load(asked.run, "cpu", None)
    config: Any = model.config
    planner = MPPI(config.horizon, asked.samples, asked.samples // 8, policy_samples=asked.samples // 16)
    agent, found = PlanningAgent(model, planner, Return(config.discount), precision="fp32"), []

    def watch(decision: Decision) -> None:
        if decision.step % 10 == 0 and decision.action is not None and isinstance(decision.memory, PlanningMemory):
            found.append(compare(agent, decision.memory))

    def episodes(which: PlanningAgent, callback: Any = None) -> float:
        options = parse_options(asked.options)
        return mean(
            e.episode_return
            for e in play(which, lambda: make_env(asked.env, **options), asked.seeds, on_decision=callback)
        )

    exact, fast = episodes(agent, watch), episodes(replace(agent, precision="bf16"))
    correlation, common, lost = (mean(column) for column in zip(*found, strict=True))
    task = asked.env.partition(":")[2]
    search = f"{task}, mppi {asked.samples} x {planner.iterations} x {planner.horizon}"
    figures = (
        (f"{search}, return", exact, "return", "fp32"),
        (f"{search}, return", fast, "return", "bf16"),
        (f"{task}, rank correlation of the scores of {CANDIDATES} candidates", correlation, "", "bf16"),
        (f"{task}, common elites of {ELITES}", 100 * common, "%", "bf16"),
        (f"{task}, score lost by choosing in bf16, of the range", 100 * lost, "%", "bf16"),
    )
    print_rows([Row(name, value, unit, 1, dtype, "worldloom") for name, value, unit, dtype in figures])


if __name__ == "__main__":
    main()
