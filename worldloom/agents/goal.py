"""A goal pointed at in a dataset: be where that episode was in that row."""

import re
from pathlib import Path

import torch

from worldloom.errors import UserError
from worldloom.evaluation.windows import open_sources
from worldloom.model import WorldModel
from worldloom.planners.objectives import Goal
from worldloom.training.run import Run

CONTEXT = 8  # rows that are watched before the goal's own, for what one observation does not show


def find_goal(model: WorldModel, run: Run, where: str, data: Path | None = None) -> Goal:
    """The belief at `where`, "EPISODE:FRAME" of the run's first dataset or of `data`, as something to get near to.

    Raises `UserError` when there is no such row.
    """
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", where.strip())
    if match is None:
        raise UserError(f"--goal {where[:40]}: want EPISODE:FRAME, two whole numbers such as 12:40")
    episode, frame = int(match[1]), int(match[2])
    dataset = open_sources(run, data)[0].dataset
    if episode >= len(dataset):
        raise UserError(f"--goal {where}: {dataset.path} has episodes 0 to {len(dataset) - 1}")
    if frame >= int(dataset.lengths[episode]):
        last = int(dataset.lengths[episode]) - 1
        raise UserError(f"--goal {where}: episode {episode} of {dataset.path} has frames 0 to {last}")
    first = max(0, frame - CONTEXT + 1)
    segment = dataset.segment(episode, first, frame + 1 - first).to(next(model.parameters()).device)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        return Goal(model.track(segment.obs, segment.action)[:, -1])
