"""Times one training update of another implementation of DreamerV3. `peers.py` runs it with the peer's own interpreter.

    PYTHON peer_driver.py dreamerv3|r2dreamer CHECKOUT vector|image UPDATES

The last line it prints is JSON. It imports nothing of worldloom, so the peer's environment needs nothing of ours; it
only builds and calls the peer's public classes.

The work, alike for every peer: the size called size1m, 16 segments of 64 steps, 15 imagined steps from each of the
1,024 beliefs, world model, actor, critic and optimiser, float32, one core. Observations are a vector of 24 values or
a 64 x 64 x 3 image, actions 6 continuous values. Times are CPU time of the whole process, all its threads counted.
"""

import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH, LENGTH, VECTOR, IMAGE, ACTION, WARM_UP = 16, 64, 24, 64, 6, 3


class Peer(NamedTuple):
    """One update, which returns a loss; the number of trained parameters; the library underneath, with its version."""

    update: Callable[[], float]
    parameters: int
    library: str


def random_batch(work: str, length: int) -> dict[str, np.ndarray]:
    """`[BATCH, length, ...]`: one observation, an action, rewards, and flags: no episode begins or ends."""
    rng = np.random.default_rng(0)
    flags = {k: np.zeros((BATCH, length), bool) for k in ("is_first", "is_last", "is_terminal")}
    vector = rng.standard_normal((BATCH, length, VECTOR), dtype=np.float32)
    image = rng.integers(0, 256, (BATCH, length, IMAGE, IMAGE, 3), dtype=np.uint8)
    reward = rng.standard_normal((BATCH, length), dtype=np.float32)
    action = rng.uniform(-1, 1, (BATCH, length, ACTION)).astype(np.float32)
    return {work: image if work == "image" else vector, **flags, "reward": reward, "action": action}


def dreamerv3(checkout: Path, work: str) -> Peer:
    """The official implementation in JAX, danijar/dreamerv3."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.devices()  # started here, because the peer overwrites the XLA_FLAGS that the user may have set
    agent = dreamerv3_agent(checkout, work)
    batch = random_batch(work, LENGTH + agent.config.replay_context)
    rest = {k: space for k, space in agent.spaces.items() if k not in batch}
    batch |= {k: np.zeros((*batch["reward"].shape, *space.shape), space.dtype) for k, space in rest.items()}
    batch = next(iter(agent.stream(itertools.repeat(batch))))
    carry = agent.init_train(BATCH)

    def update() -> float:
        nonlocal carry
        carry, _, metrics = agent.train(carry, dict(batch))
        jax.block_until_ready((agent.params, carry))
        return float(metrics.get("opt/loss", 0.0))  # of the update before: the peer fetches metrics one update late

    trained = re.compile(r"(enc|dyn|dec|rew|con|pol|val)/")
    return Peer(update, sum(v.size for k, v in agent.params.items() if trained.match(k)), f"jax {jax.__version__}")


def dreamerv3_agent(checkout: Path, work: str) -> Any:
    """Its agent in its own preset, without the profiler, the acting copy of the policy and the report."""
    import elements
    from dreamerv3.agent import Agent
    from ruamel.yaml import YAML

    presets = YAML(typ="safe").load((checkout / "dreamerv3" / "configs.yaml").read_text())
    config = elements.Config(presets["defaults"]).update(presets["size1m"])
    options = {"platform": "cpu", "compute_dtype": "float32", "prealloc": False, "profiler": False}
    shared = ("seed", "batch_size", "batch_length", "replay_context", "report_length", "replica", "replicas")
    settings = elements.Config(
        **{**config.agent, "report": False},
        **{k: config[k] for k in shared},
        logdir="",
        jax={**config.jax, **options, "enable_policy": False},
    )
    obs = {k: elements.Space(bool) for k in ("is_first", "is_last", "is_terminal")}
    obs["reward"] = elements.Space(np.float32)
    obs[work] = elements.Space(*((np.uint8, (IMAGE, IMAGE, 3)) if work == "image" else (np.float32, (VECTOR,))))
    return Agent(obs, {"action": elements.Space(np.float32, (ACTION,), -1, 1)}, settings)


def r2dreamer(checkout: Path, work: str) -> Peer:
    """NM512/r2dreamer in PyTorch, with the decoder of DreamerV3 and not compiled (that takes over 15 minutes)."""
    import dreamer
    import torch
    from tensordict import TensorDict

    torch.set_num_threads(1)
    torch.manual_seed(0)
    # It knows only float16 autocast, which is meant for a GPU; the work is defined in float32.
    dreamer.autocast = lambda **_: contextlib.nullcontext()
    agent = r2dreamer_agent(checkout, work)
    batch = {k: torch.from_numpy(v) for k, v in random_batch(work, LENGTH).items()}
    batch |= {k: batch[k][..., None] for k in ("reward", "is_last", "is_terminal")}

    class Replay:
        """Hands out the one batch, and drops the beliefs that come back."""

        def sample(self) -> tuple[Any, ...]:
            return TensorDict(dict(batch), (BATCH, LENGTH)), None, agent.rssm.initial(BATCH)

        def update(self, *beliefs: Any) -> None:
            pass

    parameters = sum(v.numel() for group in agent._optimizer.param_groups for v in group["params"])
    replay = Replay()
    return Peer(lambda: agent.update(replay)["opt/loss"].item(), parameters, f"torch {torch.__version__}")


def r2dreamer_agent(checkout: Path, work: str) -> Any:
    """Its agent, in the sizes of DreamerV3's size1m, for which it has no preset."""
    import dreamer
    import gymnasium
    import hydra

    sizes = {"deter": 512, "hidden": 64, "discrete": 4, "depth": 4, "units": 64}
    model = {**sizes, "rep_loss": "dreamer", "compile": False}
    env = "dmc_vision" if work == "image" else "dmc_proprio"
    with hydra.initialize_config_dir(str(checkout / "configs"), version_base=None):
        overrides = [f"env={env}", "device=cpu", *(f"model.{k}={v}" for k, v in model.items())]
        config = hydra.compose("configs", overrides)
    box = gymnasium.spaces.Box
    seen = box(0, 255, (IMAGE, IMAGE, 3), np.uint8) if work == "image" else box(-np.inf, np.inf, (VECTOR,))
    return dreamer.Dreamer(config.model, gymnasium.spaces.Dict({work: seen}), box(-1, 1, (ACTION,)))


def stay_on_one_core() -> None:
    """A library's threads then share it, so that their waiting for each other is not counted as work."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu_milliseconds(update: Callable[[], float], updates: int) -> list[float]:
    times = []
    for _ in range(WARM_UP + updates):
        started = time.process_time()
        loss = update()
        times.append(1000 * (time.process_time() - started))
    assert 0 < abs(loss) < float("inf"), f"the peer's loss is {loss}"
    return times[WARM_UP:]


def main() -> None:
    name, folder, work, updates = sys.argv[1:]
    stay_on_one_core()
    checkout = Path(folder).resolve()
    sys.path.insert(0, str(checkout))
    peer = {"dreamerv3": dreamerv3, "r2dreamer": r2dreamer}[name](checkout, work)
    times = cpu_milliseconds(peer.update, int(updates))
    print(json.dumps({"cpu_ms": times, "parameters": peer.parameters, "library": peer.library}))


if __name__ == "__main__":
    main()
