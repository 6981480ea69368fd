"""Metric 15: what a model costs to run, and what it cost to make.

B batch, A action size.
"""

import platform
import resource
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from worldloom.model import State, WorldModel
from worldloom.noise import TorchNoise
from worldloom.stats.bootstrap import Figure

WARM_UPS = 20
STEPS = 100
BATCH = 64
BATCH_STEPS = 20


def measure_cost(model: WorldModel, belief: State, device: str) -> dict[str, Figure]:
    """Milliseconds of one step of live use (predict, then decode every key) at batch 1, and dreaming speed at batch 64.

    `belief` is any belief `[B]`; it is repeated as needed. Sizes of the model and of the process stand beside them.
    """
    single = _step_times(model, belief[:1], device)
    found = {
        "step_ms_p50": float(np.percentile(single, 50)),
        "step_ms_p95": float(np.percentile(single, 95)),
        "imagined_steps_per_second": _dream_speed(model, belief[:1].repeat(BATCH), device),
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "peak_memory_mb": peak_memory_mb(device),
    }
    return {name: Figure(value, None, None) for name, value in found.items()}


def _step_times(model: WorldModel, belief: State, device: str) -> list[float]:
    action, noise = _still(model, 1, device), TorchNoise.seeded(0, device)
    times = []
    for number in range(WARM_UPS + STEPS):
        start = perf_counter()
        belief = model.predict(belief, action, noise)
        for key in model.decodes:
            model.decode(belief, key)
        _finish(device)
        if number >= WARM_UPS:
            times.append(1000 * (perf_counter() - start))
    return times


def _dream_speed(model: WorldModel, beliefs: State, device: str) -> float:
    actions = _still(model, BATCH, device)[:, None].expand(-1, BATCH_STEPS, -1)
    noise = TorchNoise.seeded(0, device)
    model.imagine(beliefs, actions, noise)
    _finish(device)
    start = perf_counter()
    model.imagine(beliefs, actions, noise)
    _finish(device)
    return BATCH * BATCH_STEPS / (perf_counter() - start)


def _still(model: WorldModel, batch: int, device: str) -> Tensor:
    return torch.zeros(batch, model.spec.action.size, device=device)


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_memory_mb(device: str) -> float:
    """The most memory this process held: of the GPU where there is one, else resident memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if platform.system() == "Darwin" else 2**10)


def hardware(device: str) -> str:
    """The machine in a few words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
