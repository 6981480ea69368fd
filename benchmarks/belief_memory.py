"""What consumers add to the memory of a process when beliefs are large: a cache of 2 MB each, whose frames are shared.

    python -m benchmarks.belief_memory [--json results/belief_memory.json]

The family is the tests' fake one (`tests/models/shared_cache.py`): the last 32 frames, 64 KB each. Measured on Linux,
one process a figure: the highest memory during the work (VmHWM) less what was resident before it (VmRSS), in MB of a
million bytes. "unshared" is what the beliefs alone would take if each had its own cache.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.models.segments import SPECS, random_segment
from tests.models.shared_cache import FRAME, SLOTS, CacheState, SharedCache, SharedCacheConfig
from worldloom.evaluation.cost import hardware
from worldloom.planners.cem import CEM
from worldloom.planners.objectives import Decoded
from worldloom.planners.planner import Problem
from worldloom.play.engine import Engine
from worldloom.play.session import PlaySession

ROOT = Path(__file__).resolve().parents[1]
CANDIDATES, HORIZON, NODES, BATCH, TIME = 512, 5, 10_000, 16, 64
MOST = {"planning": 300, "tree": 1000, "track": 500}  # MB
BELIEFS = {"planning": CANDIDATES * HORIZON, "tree": NODES, "track": BATCH * TIME}
NAMES = {
    "planning": f"a plan of {CANDIDATES} candidates for {HORIZON} steps, 3 iterations",
    "tree": f"a tree of {NODES:,} nodes in play",
    "track": f"track on {BATCH} x {TIME} rows",
}


def make_model() -> SharedCache:
    torch.manual_seed(0)
    return SharedCache(SPECS["vector"], SharedCacheConfig()).eval()


def plan(model: SharedCache) -> Callable[[], object]:
    near = Decoded(lambda seen: -seen["state"].square().sum(-1), ("state",))
    planner = CEM(HORIZON, samples=CANDIDATES, elites=64, iterations=3)
    return lambda: planner.plan(Problem(model, full(model), near))


def grow(model: SharedCache, nodes: int) -> Callable[[], object]:
    """A session in which every step is taken from a node chosen at random."""
    rng = np.random.default_rng(0)
    session = PlaySession(Engine(model, particles=1), {"state": np.zeros(5, np.float32)}, max_nodes=nodes)

    def work() -> PlaySession:
        while len(session.nodes) < nodes:
            session.fork(int(rng.integers(len(session.nodes))))
            session.step(rng.uniform(-1, 1, 3))
        return session

    return work


def track(model: SharedCache) -> Callable[[], object]:
    segment = random_segment(SPECS["vector"], batch=BATCH, time=TIME)
    return torch.no_grad()(lambda: model.track(segment.obs, segment.action))


@torch.no_grad()
def full(model: SharedCache) -> CacheState:
    """One belief whose frames are all different."""
    segment = random_segment(SPECS["vector"], batch=1, time=SLOTS + 1)
    return model.track(segment.obs, segment.action)[:, -1].clone()


def work_of(name: str, nodes: int) -> Callable[[], object]:
    model = make_model()
    full(model)  # what torch needs for itself is there before
    return {"planning": lambda: plan(model), "tree": lambda: grow(model, nodes), "track": lambda: track(model)}[name]()


def added_megabytes(name: str, nodes: int = NODES) -> float:
    """By how much the memory of this process grows at most while the work is done and its result is held."""
    torch.set_num_threads(1)
    work = work_of(name, nodes)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again at what is resident now
    before = kilobytes("VmRSS")
    result = work()
    added = kilobytes("VmHWM") - before
    del result
    return 1.024e-3 * added


def kilobytes(entry: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{entry}:")[2].split()[0])


def measure() -> dict[str, Any]:
    rows = []
    for name in NAMES:
        command = [sys.executable, "-m", "benchmarks.belief_memory", "--only", name]
        added = float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        unshared = BELIEFS[name] * SLOTS * FRAME * 4 / 1e6
        rows.append({"name": NAMES[name], "value": added, "unit": "MB", "most": MOST[name], "unshared": unshared})
    command = "python -m benchmarks.belief_memory --json results/belief_memory.json"
    return {"command": command, "hardware": hardware("cpu"), "seed": 0, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, default=NODES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print(added_megabytes(asked.only, asked.nodes))
        return
    found = measure()
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
