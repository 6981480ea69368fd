"""Times one decision of another planner. `planning.py` runs it with the peer's own interpreter.

    PYTHON planning_driver.py tdmpc2 CHECKOUT fp32|bf16 DECISIONS
    PYTHON planning_driver.py stable-worldmodel - fp32|bf16 DECISIONS

The last line it prints is JSON. It imports nothing of worldloom, so the peer's environment needs nothing of ours; it
only builds and calls the peer's public classes. Times are CPU time of the whole process on one thread.

tdmpc2: `_plan` of the size called 5, evaluation mode, warm-started, not compiled: 24 numbers seen, 6 actions, 512
samples (24 of them the prior's), 6 iterations, horizon 3, 5 values of which two are read.
stable-worldmodel: `CEMSolver.solve` with 300 samples, 10 iterations, horizon 5, 30 elites, for a plain MLP of 465,088
parameters that maps a latent of 192 numbers and 10 actions to the next latent, and the squared distance of the last
latent to a goal. bf16 is torch's autocast around the peer's own call, which neither does by itself.
"""

import contextlib
import io
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

OBS, ACTION, WARM_UP = 24, 6, 2


class Peer(NamedTuple):
    """One decision, which returns the action; the number of parameters in use; the library, with its version."""

    decide: Callable[[], torch.Tensor]
    parameters: int
    library: str


def tdmpc2(checkout: str) -> Peer:
    """The official implementation, nicklashansen/tdmpc2, on the processor instead of the "cuda:0" that it names."""
    sys.path.insert(0, str(Path(checkout) / "tdmpc2"))
    with on_processor():
        from common import MODEL_SIZE
        from common.world_model import WorldModel
        from tdmpc2 import TDMPC2

        # It is made on the processor, and a newer torch than the peer's refuses to move its parameterless copies.
        WorldModel.to = lambda self, *_: self

        agent = TDMPC2(tdmpc2_config(Path(checkout), MODEL_SIZE[5]))
    agent.eval()
    obs = torch.randn(1, OBS)
    model = agent.model
    used = (model._encoder, model._dynamics, model._reward, model._pi, model._Qs)
    parameters = sum(p.numel() for part in used for p in part.parameters() if not p.is_meta)
    return Peer(lambda: agent._plan(obs, eval_mode=True), parameters, f"torch {torch.__version__}")


def tdmpc2_config(checkout: Path, size: dict[str, int]) -> Any:
    """Its `config.yaml` with one of its sizes, as its own parser fills it for one task of 500 decisions."""
    import yaml

    text = (checkout / "tdmpc2" / "config.yaml").read_text().replace("???", "null")
    config = SimpleNamespace(**yaml.safe_load(text) | size)
    config.multitask, config.compile, config.task_dim = False, False, 0
    config.obs_shape, config.action_dim, config.episode_length = {"state": (OBS,)}, ACTION, 500
    config.steps, config.lr, config.entropy_coef = int(1e7), float(config.lr), float(config.entropy_coef)
    config.bin_size = (config.vmax - config.vmin) / (config.num_bins - 1)
    config.get = lambda name, default=None: getattr(config, name, default)
    return config


@contextlib.contextmanager
def on_processor() -> Any:
    """Every `torch.device("cuda:0")` named while the peer is built is the processor."""
    import tensordict  # noqa: F401, it and what it imports use torch.device as the type it is
    import torch._dynamo

    device = torch.device
    torch.device = lambda *named: device(*("cpu" if n == "cuda:0" else n for n in named))  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.device = device  # type: ignore[misc]


def stable_worldmodel(_: str) -> Peer:
    """`CEMSolver` of the package stable-worldmodel."""
    from importlib.metadata import version

    import gymnasium
    import numpy as np
    from stable_worldmodel.policy import PlanConfig
    from stable_worldmodel.solver import CEMSolver

    model = LatentMLP()
    solver = CEMSolver(model, num_samples=300, n_steps=10, topk=30)
    box = gymnasium.spaces.Box(-1, 1, (1, LatentMLP.action), np.float32)
    solver.configure(action_space=box, n_envs=1, config=PlanConfig(horizon=5, receding_horizon=1))
    info = {"latent": torch.randn(1, LatentMLP.latent), "goal": torch.randn(1, LatentMLP.latent)}
    parameters = sum(p.numel() for p in model.parameters())
    library = f"stable-worldmodel {version('stable-worldmodel')}, torch {torch.__version__}"
    return Peer(lambda: solver.solve(info)["actions"], parameters, library)


class LatentMLP(torch.nn.Module):
    """What the peer's solver calls a cost model: roll the latent forward, compare its last value with the goal."""

    latent, action, units = 192, 10, 512

    def __init__(self) -> None:
        super().__init__()
        widths = (self.latent + self.action, self.units, self.units, self.latent)
        linear = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        self.net = torch.nn.Sequential(linear[0], torch.nn.SiLU(), linear[1], torch.nn.SiLU(), linear[2])

    def get_cost(self, info: dict[str, torch.Tensor], candidates: torch.Tensor) -> torch.Tensor:
        latent = info["latent"]
        for action in candidates.unbind(2):
            latent = self.net(torch.cat([latent, action], -1))
        return (latent.float() - info["goal"]).square().sum(-1)


PEERS = {"tdmpc2": tdmpc2, "stable-worldmodel": stable_worldmodel}


def cpu_milliseconds(decide: Callable[[], torch.Tensor], decisions: int) -> list[float]:
    times = []
    for _ in range(WARM_UP + decisions):
        started = time.process_time()
        action = decide()
        times.append(1000 * (time.process_time() - started))
    assert action.isfinite().all(), f"the peer's action is {action}"
    return times[WARM_UP:]


def main() -> None:
    name, checkout, precision, decisions = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    fast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with contextlib.redirect_stdout(io.StringIO()):
        peer = PEERS[name](checkout)
        with torch.no_grad(), fast:
            times = cpu_milliseconds(peer.decide, int(decisions))
    print(json.dumps({"cpu_ms": times, "parameters": peer.parameters, "library": peer.library}))


if __name__ == "__main__":
    main()
