"""Luck by the row: what a model draws for one belief does not depend on whose beliefs are in the batch beside it.

B rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

UNIFORM, NORMAL = (torch.rand, torch.rand_like), (torch.randn, torch.randn_like)
OTHERS = frozenset(
    {
        torch.randint,
        torch.randint_like,
        torch.multinomial,
        torch.bernoulli,
        torch.normal,
        Tensor.bernoulli_,
        Tensor.exponential_,
        Tensor.normal_,
        Tensor.random_,
        Tensor.uniform_,
    }
)


class Luck(TorchFunctionMode):
    """Inside, row b of every uniform or normal tensor `[B, ...]` that is drawn comes from `seeds[b]` alone.

    So a batch is to a stochastic model what its rows would be one at a time. Other kinds of draws raise
    `NotImplementedError`, because they would tie rows to each other unnoticed.
    """

    def __init__(self, seeds: Sequence[int]):
        super().__init__()
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in UNIFORM or func in NORMAL:
            return self._draw(torch.rand if func in UNIFORM else torch.randn, args, kwargs)
        if func in OTHERS:
            raise NotImplementedError(f"{func.__name__} draws for all rows at once: a family must use rand or randn")
        return func(*args, **kwargs)

    def _draw(self, draw: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        like = args[0] if args and isinstance(args[0], Tensor) else None
        size = like.shape if like is not None else torch.Size(args[0] if isinstance(args[0], Sequence) else args)
        assert size[0] == len(self.generators), f"{tuple(size)} drawn for {len(self.generators)} rows"
        dtype = kwargs.get("dtype") or (torch.get_default_dtype() if like is None else like.dtype)
        device = kwargs.get("device") or ("cpu" if like is None else like.device)
        with torch._C.DisableTorchFunction():
            rows = [draw(size[1:], generator=generator) for generator in self.generators]
            return torch.stack(rows).to(device, dtype)
