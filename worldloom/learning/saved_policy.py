"""A learned policy made again from the checkpoints of its run."""

from pathlib import Path
from typing import Any

from torch import nn

from worldloom.agents.actor import LinearController
from worldloom.agents.agent import Agent
from worldloom.agents.policy import PolicyAgent
from worldloom.errors import NotAllowed, UserError
from worldloom.learning.methods import METHODS
from worldloom.model import WorldModel
from worldloom.runs import checkpoint
from worldloom.runs.run import read_json


def load_policy(folder: Path, content: dict[str, Any], device: str, step: int | None = None) -> Agent:
    """The policy of the run's checkpoint at `step`, by default the last, looking through the model of the same one."""
    run = folder / content["run"]
    learned = read_json(run / "learn.json", f"{run} holds no policy")
    saved = checkpoint.Checkpoint.read(run, step, trainer=False)
    model, _ = checkpoint.load(run, device, saved.step)
    made = companion_of(model, learned, run / "learn.json")
    saved.fill_companion(made, checkpoint.folder(run, saved.step))
    made = made.to(device).eval()
    actor: Any = made if isinstance(made, LinearController) else made.actor
    return PolicyAgent(model, actor)


def companion_of(model: WorldModel, learned: dict[str, Any], file: Path) -> nn.Module:
    """What learned beside `model`, without its weights, as `file`, the `learn.json`, describes it."""
    try:
        make = METHODS[learned["method"]].policy
    except NotAllowed as error:
        raise error.named_in(file) from error
    if make is None:
        raise UserError(f"{file}: the learning method {learned['method']!r} keeps no policy")
    return make(model, learned["settings"])
