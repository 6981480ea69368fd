"""Data-parallel training from outside: the processes torchrun started, as one value. Models know nothing of it.

Started without torchrun there is one process, and everything here does nothing.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from worldloom.errors import UserError


def local_rank() -> int:
    """This process's number on its machine, as torchrun gave it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class Objectives(nn.Module):
    """Calls an objective of `model` by the name of its method, so that DDP, which hooks `forward`, hooks every one."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, name: str, *args: Any) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = getattr(self.model, name)(*args)
        return terms


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model together; each reads its slice of the same global batch."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device_type: str = "cpu") -> Self:
        """The group torchrun's environment variables describe; a group of one without them."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if "MASTER_ADDR" not in os.environ:
            raise UserError(f"WORLD_SIZE is {size}, but MASTER_ADDR is not set: start the processes with torchrun")
        if device_type == "cuda":
            torch.cuda.set_device(local_rank())  # which NCCL's barrier uses; all would meet on the first GPU
        # Rank 0 alone decodes the data on first use, which can take long; the others wait for it.
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=timedelta(hours=6))
        return cls(dist.get_rank(), dist.get_world_size())

    def destroy(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Rank 0 alone writes files and prints."""
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over the group, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, value: Tensor) -> Tensor:
        """Rank 0's `value`, for every process."""
        return self.sum(value.clone() if self.is_main else torch.zeros_like(value))

    def agree(self, seconds: float, stop: bool, device: torch.device) -> tuple[float, bool]:
        """Rank 0's clock and whether any process was asked to stop: with these, all take the same turns in the loop."""
        if self.size == 1:
            return seconds, stop
        mine = torch.tensor([seconds * self.is_main, float(stop)], dtype=torch.float64, device=device)
        clock, stops = self.sum(mine).tolist()
        return clock, stops > 0

    def gather(self, value: Tensor) -> list[Tensor]:
        """Every process's `value`, in the order of ranks."""
        if self.size == 1:
            return [value]
        gathered = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(gathered, value)
        return gathered

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call with an objective's name and arguments: its gradients are the group's mean.

        One wrapped module serves one objective, as its graph is taken to stay the same; wrap again for another.
        """
        objectives = Objectives(model)
        if self.size == 1:
            return objectives
        # A static graph may have parameters the loss does not use, such as an action's where the data have none.
        return DistributedDataParallel(objectives, gradient_as_bucket_view=True, static_graph=True)
