"""An exponential moving average of a model's weights, which is evaluated, saved and used in place of the trained ones.

The last few updates alone can spoil what the thousand before agreed on (Polyak & Juditsky, 1992).
"""

import copy

import torch

from worldloom.model import WorldModel


def ema_copy(model: WorldModel) -> WorldModel:
    """A copy of `model` in eval mode that takes no gradient and shares its frozen parts."""
    shared = {id(part): part for part in map(model.get_submodule, model.frozen)}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()


@torch.no_grad()
def move_ema(ema: WorldModel, model: WorldModel, decay: float) -> None:
    """Move the averaged weights and floating buffers towards those of `model`; other buffers, such as counts, follow.

    Tensors of frozen parts, which both share, stay as they are.
    """
    pairs = [(slow, fast) for slow, fast in zip(_tensors(ema), _tensors(model), strict=True) if slow is not fast]
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([slow for slow, _ in moving], [fast for _, fast in moving], 1 - decay)
    for slow, fast in pairs:
        if not slow.is_floating_point():
            slow.copy_(fast)


def _tensors(model: WorldModel) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
