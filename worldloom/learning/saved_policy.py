"""A learned policy made again from the checkpoints of its run."""

from pathlib import Path
from typing import Any

from worldloom.agents.actor import LinearController
from worldloom.agents.agent import Agent
from worldloom.agents.policy import PolicyAgent
from worldloom.learning.actor_critic import ActorCritic, feature_size
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.exploration import Exploration, policy_for
from worldloom.model import WorldModel
from worldloom.runs import checkpoint
from worldloom.runs.run import read_json


def load_policy(folder: Path, content: dict[str, Any], device: str, step: int | None = None) -> Agent:
    """The policy of the run's checkpoint at `step`, by default the last, looking through the model of the same one."""
    run = folder / content["run"]
    learned = read_json(run / "learn.json", f"{run} holds no policy")
    saved = checkpoint.Checkpoint.read(run, step, trainer=False)
    model, _ = checkpoint.load(run, device, saved.step)
    auxiliary = auxiliary_of(model, learned)
    saved.fill_auxiliary(auxiliary, checkpoint.folder(run, saved.step))
    auxiliary = auxiliary.to(device).eval()
    return PolicyAgent(model, auxiliary if isinstance(auxiliary, LinearController) else auxiliary.actor)


def auxiliary_of(model: WorldModel, learned: dict[str, Any]) -> LinearController | ActorCritic | Exploration:
    """What learned beside `model`, without its weights, as `learn.json` describes it."""
    settings = learned["settings"]
    if learned["method"] == "cma":
        return LinearController(feature_size(model), model.spec.action)
    return policy_for(model, ActorCriticConfig(**settings["policy"]), settings.get("explore"))
