"""What a decision costs: our planners beside TD-MPC2's and stable-worldmodel's in one run, and each planner by itself.

    export WORLDLOOM_PEER_TDMPC2=PYTHON:CHECKOUT WORLDLOOM_PEER_STABLE_WORLDMODEL=PYTHON:CHECKOUT
    python benchmarks/planning.py [--json] [--decisions 10] [--work tdmpc2 cem planners]

One thread. Work with a peer is counted in CPU-ms (user + system time of the process), medians, everything from the
observation to the action; what exactly the peers do stands at the head of `planning_driver.py`, and ours is the same
in samples, iterations, horizon and size of the model. "planners" are wall milliseconds of whole decisions of small
models, an equal budget for each planner, for one environment and for ten at once. Weights are random: they cost the
same. Peers that are not on this machine are rows without a value.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import peers
import torch
from report import Row, print_rows
from torch import Tensor, nn

from worldloom.agents.planning import PlanningAgent
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.model import Obs, State, WorldModel, state
from worldloom.models import build
from worldloom.noise import NOISE, Noise
from worldloom.planners import PLANNERS
from worldloom.planners.objectives import Goal, Return
from worldloom.runs.precision import has_fast_bf16
from worldloom.training.memory import keep_freed_memory

DRIVER = Path(__file__).with_name("planning_driver.py")
OBS, ACTION, WARM_UP = 24, 6, 3
PRECISIONS = ("bf16", "fp32") if has_fast_bf16(torch.device("cpu")) else ("fp32",)
PEERS = {
    "tdmpc2": peers.Peer("nicklashansen/tdmpc2", "torch tensordict pyyaml"),
    "cem": peers.Peer("galilai-group/stable-worldmodel", "stable-worldmodel"),
}
BUDGET: dict[str, Any] = {"horizon": 5, "samples": 256, "elites": 32, "iterations": 4}
PLANNED = {
    "cem": BUDGET,
    "icem": BUDGET,
    "mppi": BUDGET,
    "gradient": {"horizon": 5},
    "categorical": BUDGET,
}


@state
class Latent(State):
    """latent `[..., L]`"""

    latent: Tensor

    @property
    def features(self) -> Tensor:
        return self.latent


class LatentMLP(WorldModel):
    """The peer's work as a world model: a plain MLP of 465,088 parameters that steps a latent of 192 numbers."""

    latent, action, units = 192, 10, 512

    def __init__(self) -> None:
        super().__init__()
        action = ActionSpec("continuous", self.action, low=(-1.0,) * self.action, high=(1.0,) * self.action)
        self.spec = DataSpec(
            {"latent": KeySpec("vector", (self.latent,)), **signal_keys(reward=False, terminated=False)}, action, 10.0
        )
        hidden = (
            nn.Linear(self.latent + self.action, self.units),
            nn.SiLU(),
            nn.Linear(self.units, self.units),
            nn.SiLU(),
        )
        self.net = nn.Sequential(*hidden, nn.Linear(self.units, self.latent))

    @property
    def decodes(self) -> tuple[str, ...]:
        return ()

    def start(self, obs: Obs, noise: Noise = NOISE) -> Latent:
        return Latent(obs["latent"])

    def observe(self, state: State, action: Tensor, obs: Obs, noise: Noise = NOISE) -> Latent:
        return Latent(obs["latent"])

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> Latent:
        return Latent(self.net(torch.cat([state.features, action], -1)))

    def decode(self, state: State, key: str) -> Tensor:
        raise NotImplementedError("nothing is decoded: the plan is for a goal")

    def loss(self, segment: Any, belief: State | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        raise NotImplementedError("nothing is learned here")


def tdmpc2(precision: str) -> tuple[PlanningAgent, Obs]:
    """TD-MPC2's size 5: our base. Its planner's settings are the defaults of ours."""
    model = scrambled(build("tdmpc", vectors("continuous"), "base"))
    return PlanningAgent(model, PLANNERS["mppi"](), precision=precision), {"vector": torch.randn(1, OBS)}


def cem(precision: str) -> tuple[PlanningAgent, Obs]:
    planner = PLANNERS["cem"](horizon=5, samples=300, iterations=10, elites=30)
    goal = Goal(Latent(torch.randn(1, LatentMLP.latent)))
    return PlanningAgent(LatentMLP().eval(), planner, goal, precision=precision), {
        "latent": torch.randn(1, LatentMLP.latent)
    }


def beside(work: str, decisions: int) -> list[Row]:
    """Our decision and the peer's, and the parameters that each uses."""
    made, rows = {"tdmpc2": tdmpc2, "cem": cem}[work], []
    name = {"tdmpc2": "plan, TD-MPC2 5M, 512 x 6 x 3", "cem": "plan, CEM, 465k MLP, 300 x 10 x 5"}[work]
    for precision in PRECISIONS:
        agent, obs = made(precision)
        spent = milliseconds(agent, obs, decisions, time.process_time)
        rows.append(Row(name, median(spent), "CPU-ms", 1, precision, "worldloom"))
    rows.append(Row(f"{name}, parameters", used(agent.model), "count", 1, "float32", "worldloom"))
    return rows + [row for precision in ("fp32", "bf16") for row in peer(work, name, precision, decisions)]


def peer(work: str, name: str, precision: str, decisions: int) -> list[Row]:
    """The peer's decision in fp32, as it comes, and under torch's autocast, which it does not do by itself."""
    which = PEERS[work]
    setting = os.environ.get(which.variable, "")
    if not setting:
        hint = f"not installed; set {which.variable}=PYTHON:CHECKOUT"
        return [Row(name, None, "CPU-ms", 1, precision, f"{which.repository} ({hint})")]
    python, checkout = peers.installed(which.variable, setting)
    short = which.repository.split("/")[1]
    command = [str(python), str(DRIVER), short, str(checkout), precision, str(decisions)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        print(f"{' '.join(command)}\n{finished.stderr[-2000:]}", file=sys.stderr)
        hint = f"failed, see stderr; {python} needs {which.needs}"
        return [Row(name, None, "CPU-ms", 1, precision, f"{which.repository} ({hint})")]
    result = json.loads(finished.stdout.splitlines()[-1])
    source = f"{which.repository}, {result['library']}" + (", in autocast" if precision == "bf16" else "")
    row = Row(name, median(result["cpu_ms"]), "CPU-ms", 1, precision, source)
    return [row] + [Row(f"{name}, parameters", result["parameters"], "count", 1, "float32", source)] * (
        precision == "fp32"
    )


def planners(decisions: int) -> list[Row]:
    """A whole decision of each planner, the middle and the slowest of `decisions`, in wall milliseconds."""
    rows = []
    for family in ("tdmpc", "rssm"):
        for name, budget in PLANNED.items():
            planner = PLANNERS[name](**budget)
            model = scrambled(build(family, vectors("discrete" if name == "categorical" else "continuous"), "nano"))
            agent = PlanningAgent(model, planner, Return())
            for batch in (1, 10):
                spent = milliseconds(
                    agent, {"vector": torch.randn(batch, OBS)}, decisions, time.perf_counter, warm_up=1
                )
                what = f"{name} {shape(planner)}, {family} nano, {batch} environment{'s' * (batch > 1)}"
                rows.append(Row(what, median(spent), "ms", 1, agent.precision_for(batch), "worldloom"))
                rows.append(Row(f"{what}, slowest", max(spent), "ms", 1, agent.precision_for(batch), "worldloom"))
    return rows


def shape(planner: Any) -> str:
    candidates = getattr(planner, "restarts", None) or planner.samples
    return f"{candidates} x {planner.iterations} x {planner.horizon}"


def vectors(kind: Any) -> DataSpec:
    ends = None if kind == "discrete" else (-1.0,) * ACTION, None if kind == "discrete" else (1.0,) * ACTION
    action = ActionSpec(kind, ACTION, low=ends[0], high=ends[1])
    return DataSpec({"vector": KeySpec("vector", (OBS,)), **signal_keys(reward=True, terminated=False)}, action, 20.0)


def scrambled(model: WorldModel) -> WorldModel:
    """Heads that start at zero would give every candidate the same score: what is zero becomes small noise."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def used(model: WorldModel) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def milliseconds(
    agent: PlanningAgent, obs: Obs, decisions: int, clock: Callable[[], float], warm_up: int = WARM_UP
) -> list[float]:
    action, memory = agent.start(obs)
    spent = []
    for _ in range(warm_up + decisions):
        began = clock()
        action, memory = agent.act(memory, obs)
        spent.append(1000 * (clock() - began))
    assert action.isfinite().all(), action
    return spent[warm_up:]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=10)
    parser.add_argument(
        "--work", nargs="+", choices=["tdmpc2", "cem", "planners"], default=["tdmpc2", "cem", "planners"]
    )
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    rows = []
    for work in asked.work:
        rows += planners(asked.decisions) if work == "planners" else beside(work, asked.decisions)
    print_rows(rows, asked.json)


if __name__ == "__main__":
    main()
