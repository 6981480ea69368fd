"""Imagined rollouts that begin in a real row."""

from dataclasses import dataclass

import numpy as np
import torch

from worldloom.model import State, WorldModel
from worldloom.noise import TorchNoise
from worldloom.runs.start_row import StartRow


@dataclass(frozen=True)
class Dreams:
    """What was imagined: beliefs while watching `[1, C]` and with eyes closed `[N, H]`; actions `[N, H, A]`."""

    watched: State
    states: State
    actions: np.ndarray


def dream_from(model: WorldModel, moment: StartRow, actions: np.ndarray, seed: int, device: str) -> Dreams:
    """Watch the real rows, then close the eyes."""
    noise = TorchNoise.seeded(seed, device)
    with torch.inference_mode():
        seen = moment.seen.to(device)
        # The last row's action may be zeroed at an episode's end; `track` does not use it.
        watched = model.track(seen.obs, seen.action, noise)
        belief = watched[:, -1].repeat(len(actions))
        return Dreams(watched, model.imagine(belief, torch.from_numpy(actions).to(device), noise), actions)
