"""Which numbers the matrix products run in. Weights, losses and the optimiser are fp32 in every case."""

from contextlib import AbstractContextManager, nullcontext

import torch

from worldloom.errors import UserError


def choose_device(device: str, local_rank: int = 0) -> torch.device:
    """`auto` is this process's GPU if there is one, else the CPU. Raises `UserError` if torch cannot use `device`."""
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        # A bare "cuda" would be the first GPU for every process of a team.
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
    """`auto` is bf16 where the processor multiplies it natively, else fp32, which would be faster there."""
    if asked != "auto":
        return asked
    return "bf16" if has_fast_bf16(device) else "fp32"


def slow_precision(precision: str, device: torch.device) -> list[str]:
    """A line of warning where bf16 is imitated by a processor that does not have it, else none."""
    if precision != "bf16" or device.type != "cpu" or has_fast_bf16(device):
        return []
    return [
        "warning: this CPU has no bf16 arithmetic and imitates it, about 80 times slower than fp32 where that was "
        "measured: ask for --precision fp32"
    ]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 products are done in hardware: Ampere and later GPUs, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # These are the names torch has today; where one is absent the answer is the slower but safe "no".
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(ask() for ask in asks if ask is not None)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the model runs."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
