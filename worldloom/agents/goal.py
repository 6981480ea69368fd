"""A goal pointed at in a dataset: be where that episode was in that row."""

from pathlib import Path

import torch

from worldloom.model import WorldModel
from worldloom.noise import TorchNoise
from worldloom.planners.objectives import Goal
from worldloom.runs.run import Run
from worldloom.runs.sources import open_sources
from worldloom.runs.start_row import find_start, parse_start

CONTEXT = 8  # rows that are watched before the goal's own, for what one observation does not show


def find_goal(model: WorldModel, run: Run, where: str, data: Path | None = None) -> Goal:
    """The belief at `where`, "EPISODE:FRAME" of the run's first dataset or of `data`, as something to get near to.

    Raises `UserError` when there is no such row.
    """
    episode, frame = parse_start(where, "--goal")
    seen = find_start(open_sources(run, data)[0], episode, frame, CONTEXT, "--goal").observed
    seen = seen.to(next(model.parameters()).device)
    with torch.no_grad():
        return Goal(model.track(seen.obs, seen.action, TorchNoise.seeded(0, seen.action.device))[:, -1])
