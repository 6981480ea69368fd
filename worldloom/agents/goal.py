"""A goal from a dataset: reach the state of one of its rows."""

from pathlib import Path

import torch

from worldloom.model import WorldModel
from worldloom.noise import TorchNoise
from worldloom.planners.objectives import Goal
from worldloom.runs.run import Run
from worldloom.runs.sources import open_sources
from worldloom.runs.start_row import find_start, parse_start

CONTEXT = 8  # rows that are observed before the goal's own, as one observation may not determine the state


def find_goal(model: WorldModel, run: Run, where: str, data: Path | None = None) -> Goal:
    """The objective to be near the belief at `where`, "EPISODE:FRAME" of the run's first dataset or of `data`.

    Raises `UserError` when there is no such row.
    """
    episode, frame = parse_start(where, "--goal")
    rows = find_start(open_sources(run, data)[0], episode, frame, CONTEXT, "--goal").observed
    rows = rows.to(next(model.parameters()).device)
    with torch.no_grad():
        return Goal(model.track(rows.obs, rows.action, TorchNoise.seeded(0, rows.action.device))[:, -1])
