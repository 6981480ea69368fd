"""A goal from a dataset: reach the state of one of its rows."""

from pathlib import Path

import torch

from worldloom.model import WorldModel
from worldloom.noise import TorchNoise
from worldloom.planners.objectives import Goal
from worldloom.runs.moment import find_moment, parse_start
from worldloom.runs.run import Run
from worldloom.runs.sources import open_sources

CONTEXT = 8  # rows that are observed before the goal's own, as one observation may not determine the state


def find_goal(model: WorldModel, run: Run, where: str, data: Path | None = None) -> Goal:
    """The objective to be near the belief at `where`, "EPISODE:FRAME" of the run's first dataset or of `data`.

    Raises `UserError` when there is no such row.
    """
    episode, frame = parse_start(where, "--goal")
    rows = find_moment(open_sources(run, data)[0], episode, frame, CONTEXT, "--goal").seen
    rows = rows.to(next(model.parameters()).device)
    with torch.no_grad():
        return Goal(model.track(rows.obs, rows.action, TorchNoise.seeded(0, rows.action.device))[:, -1])
