"""AdamW, a schedule that is a pure function of progress, and adaptive gradient clipping."""

from collections.abc import Iterable
from math import cos, pi

import torch
from torch import Tensor, nn

DECAY_SHARE = 1 / 3
SMALLEST_NORM = 1e-3


def make_optimizer(model: nn.Module, lr: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW in one fused kernel; vectors (biases, norms) are never decayed.

    `eps` is far below torch's 1e-8, because a loss averaged over 12,288 pixels has gradients of that size. The second
    moment forgets in a hundred steps rather than a thousand: the first gradients, which only find the mean picture, are
    fifty times larger than all later ones and would hold the steps back for most of a short run.
    """
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.99), eps=1e-12, fused=True)


def learning_rate(step: int, progress: float, lr: float, warmup: int, final: float) -> float:
    """Linear warm-up by `step`, then constant, then a cosine down to `final * lr` over the last third of the run.

    `progress` in [0, 1] is the share of the budget spent, in steps or minutes: both kinds of run end at `final * lr`.
    """
    rise = min(1.0, (step + 1) / max(warmup, 1))
    late = min(max((progress - (1 - DECAY_SHARE)) / DECAY_SHARE, 0.0), 1.0)
    return lr * rise * (final + (1 - final) * (1 + cos(pi * late)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], clip: float) -> Tensor:
    """Hold each parameter's gradient norm below `clip` times its own norm; returns the global norm before that.

    Adaptive gradient clipping (Brock et al. 2021) as DreamerV3 uses it: one setting fits losses of any scale, summed
    over pixels or averaged, where a global norm would have to be tuned for each family.
    """
    used = [(p, p.grad) for p in parameters if p.grad is not None]
    gradients = [gradient for _, gradient in used]
    norms = torch.stack(torch._foreach_norm(gradients))
    if clip:
        sizes = torch.stack(torch._foreach_norm([p for p, _ in used])).clamp(min=SMALLEST_NORM)
        scales = (clip * sizes / norms.clamp(min=1e-20)).clamp(max=1.0)
        torch._foreach_mul_(gradients, scales.unbind())
    return torch.linalg.vector_norm(norms)
