"""Imagined rollouts that begin in a real row."""

from dataclasses import dataclass

import numpy as np
import torch

from worldloom.model import State, WorldModel
from worldloom.noise import TorchNoise
from worldloom.runs.start_row import StartRow


@dataclass(frozen=True)
class Dreams:
    """What was imagined: tracked beliefs `[1, C]` and open-loop ones `[N, H]`; actions `[N, H, A]`."""

    tracked: State
    states: State
    actions: np.ndarray


def dream_from(model: WorldModel, start: StartRow, actions: np.ndarray, seed: int, device: str) -> Dreams:
    """Track the real rows, then imagine open-loop from the last one."""
    noise = TorchNoise.seeded(seed, device)
    with torch.inference_mode():
        seen = start.observed.to(device)
        # The last row's action may be zeroed at an episode's end; `track` does not use it.
        tracked = model.track(seen.obs, seen.action, noise)
        belief = tracked[:, -1].repeat(len(actions))
        return Dreams(tracked, model.imagine(belief, torch.from_numpy(actions).to(device), noise), actions)
