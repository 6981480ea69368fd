"""What heads learn from open-loop: a recurrent model's own rollout along the recorded actions of a window.

An uncertain model draws what no observation shows. Heads that learn on observations alone underestimate rare events
there, the more so the longer the rollout. B batch, T time, A action size, D size of what is carried on, F features.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def roll_out_along(
    carried: Tensor,
    actions: Tensor,
    steps: int,
    draw: Callable[[Tensor], Tensor],
    move: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """What is carried `[B, T, D]` and drawn `[B, T, S]` in each row, open-loop for 1 to `steps` rows before it.

    `carried` is the recurrent state after the observations before each row, `draw` what the model predicts from it
    (`[N, D]` to `[N, S]`), `move` where both and an action `[N, A]` lead (`[N, D]`). How long a rollout is follows from
    a row's place in the window; windows begin anywhere, so every row of an episode gets every length. Gradients flow
    back along what is carried alone.
    """
    rows = carried.shape[1]
    done = F.pad(actions, (0, 0, 0, -rows % steps)).unflatten(1, (-1, steps))
    closed = done.shape[1]
    now = carried[:, ::steps].flatten(0, 1)
    found = []
    for action in done.flatten(0, 1).unbind(1):
        drawn = draw(now).detach()
        found.append((now, drawn))
        if len(found) < steps:
            now = move(now, drawn, action)
    each_row = (torch.stack(part, 1).unflatten(0, (-1, closed)).flatten(1, 2) for part in zip(*found, strict=True))
    through, seen = (part[:, :rows] for part in each_row)
    return through, seen
