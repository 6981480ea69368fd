"""Which numbers the matrix products run in. Weights, losses and the optimiser are fp32 in every case."""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from worldloom.errors import UserError


def choose_device(device: str, local_rank: int = 0) -> torch.device:
    """`auto` is this process's GPU if there is one, else the CPU. Raises `UserError` if torch cannot use `device`."""
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        # A bare "cuda" would be the first GPU for every process of a group.
        chosen = torch.device(f"cuda:{local_rank}" if wanted == "cuda" else wanted)
        if chosen.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {device!r} cannot be used here ({str(error).splitlines()[0]}): try --device cpu"
        ) from error
    return chosen


def choose_precision(asked: str, device: torch.device) -> str:
    """`auto` is bf16 where the processor is faster in it, else fp32."""
    if asked != "auto":
        return asked
    return "bf16" if has_fast_bf16(device) else "fp32"


def slow_precision(precision: str, device: torch.device) -> list[str]:
    """A line of warning where bf16 is slower on this processor than fp32, else none."""
    if precision != "bf16" or device.type != "cpu" or has_fast_bf16(device):
        return []
    why = f"{bf16_speed():.1f} times as fast" if bf16_speed() else "it imitates it, and took 80 times as long elsewhere"
    return [f"warning: bf16 is slower than fp32 on this CPU ({why}): ask for --precision fp32"]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products are faster in bf16 than in fp32: on Ampere and later GPUs, and on CPUs as measured."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bf16_speed() > 1


@cache
def bf16_speed(side: int = 512, times: int = 5) -> float:
    """How many times as fast as in fp32 this CPU multiplies matrices in bf16; 0 where it has no instructions for it.

    To have some is not enough: where a virtual machine shows AVX512-BF16 and hides AMX, bf16 was half as fast as fp32.
    """
    # These are the names torch has today; where one is absent the answer is the slower but safe "no".
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if not any(ask() for ask in asks if ask is not None):
        return 0.0
    least = {}
    for dtype in (torch.float32, torch.bfloat16):
        square, spent = torch.ones(side, side, dtype=dtype), []
        for _ in range(times):
            began = time.perf_counter()
            square @ square
            spent.append(time.perf_counter() - began)
        least[dtype] = min(spent)
    return least[torch.float32] / least[torch.bfloat16]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the model runs."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
