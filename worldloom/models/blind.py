"""What heads learn from with eyes closed: a recurrent model's own dream along the actions of a window.

A memory that is unsure draws what no look ever shows. Heads that know looks alone are too calm about it, the more so
the longer the dream. B batch, T time, A action size, D size of what is carried on, F features.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def dream_along(
    carried: Tensor,
    actions: Tensor,
    steps: int,
    draw: Callable[[Tensor], Tensor],
    move: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """What is carried `[B, T, D]` and drawn `[B, T, S]` in each row, eyes closed for 1 to `steps` rows before it.

    `carried` is what the looks before each row left there, `draw` what the model foresees from it (`[N, D]` to
    `[N, S]`), `move` where both and an action `[N, A]` lead (`[N, D]`). How long eyes are closed goes by a row's place
    in the window; windows begin anywhere, so every row of an episode gets every length. Errors flow back along what is
    carried alone: what is drawn is left to the looks that it is there to foretell.
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
