"""An agent as a folder, described by `agent.json`.

For a planning agent it has the run, the checkpoint, the planner and all its settings; for a learned policy the run
whose checkpoints hold it.

The weights stay in the run. `worldloom record ENV OUT --policy FOLDER` plays such a folder.

A action size.
"""

import os
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldloom.agents.agent import Agent
from worldloom.agents.environment import to_env, to_obs
from worldloom.agents.goal import find_goal
from worldloom.agents.planning import PlanningAgent
from worldloom.agents.repeat import Repeat
from worldloom.data.durable import make_folder, write_json
from worldloom.envs.adapt import ActionSpace
from worldloom.envs.describe import describe_action
from worldloom.envs.policy import AGENT_FILE
from worldloom.errors import NotAllowed, UserError, unknown
from worldloom.model import State, WorldModel
from worldloom.planners import OBJECTIVES, PLANNERS
from worldloom.planners.objectives import Objective, Return
from worldloom.planners.planner import Planner
from worldloom.registry import Registry
from worldloom.runs import checkpoint
from worldloom.runs.run import Run, damaged, read_json

PLANNING, POLICY, FORMAT = "planning", "policy", 1


@dataclass(frozen=True)
class PlanningSettings:
    """The settings of a planning agent, as they stand in `agent.json` and on the score card."""

    planner: str
    settings: dict[str, Any] = field(default_factory=dict)
    replan_every: int = 1
    action_repeat: int = 1
    deadline: float | None = None
    discount: float = 0.99
    use_prior: bool = True
    precision: str = "auto"
    goal: str | None = None
    goal_data: str | None = None
    objective: str | None = None

    def make(self, model: WorldModel, run: Run, **further: Any) -> Agent:
        """The agent; `further` are fields of `PlanningAgent` that are not kept. Raises `UserError`."""
        agent = PlanningAgent(
            model,
            make_planner(self.planner, self.settings),
            self.make_objective(model, run),
            replan_every=self.replan_every,
            deadline=self.deadline,
            use_prior=self.use_prior,
            precision=self.precision,
            **further,
        )
        return agent if self.action_repeat == 1 else Repeat(agent, self.action_repeat)

    def make_objective(self, model: WorldModel, run: Run) -> Objective:
        """The return; or to be near the `goal`, a row "EPISODE:FRAME" of the run's data or of `goal_data`; or the
        `objective` of that name.
        """
        if not 0 <= self.discount <= 1:
            raise UserError(f"the discount is {self.discount}, but it must be from 0 to 1")
        if self.goal is not None:
            return find_goal(model, run, self.goal, None if self.goal_data is None else Path(self.goal_data))
        if self.objective is not None:
            return OBJECTIVES[self.objective]
        if "reward" not in model.decodes:
            raise UserError(
                f"{run.path} predicts no reward, as its data had none: give it a --goal EPISODE:FRAME of its data, or "
                "an --objective"
            )
        return Return(self.discount)


def make_planner(name: str, settings: dict[str, Any]) -> Planner:
    """A registered planner with some hyperparameters set by name. Raises `UserError` for one that does not exist."""
    made = PLANNERS[name]
    known = {f.name: f for f in fields(made)}
    for key, value in settings.items():
        if key not in known:
            raise unknown(f"setting of planner {name!r}", key, known)
        check_type(name, key, value, known[key].default)
    required = [f.name for f in known.values() if f.default is MISSING and f.default_factory is MISSING]
    for key in required:
        if key not in settings:
            raise UserError(f"planner {name!r} needs {key}, which only Python can give: make a PlanningAgent there")
    return made(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def check_type(planner: str, key: str, value: Any, default: Any) -> None:
    """Raise `UserError` for a value of another type than the default; an int is accepted as a float."""
    if default is MISSING or default is None:
        return
    wanted = (int, float) if isinstance(default, float) else (type(default),)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise UserError(f"planner {planner!r}: {key} is {value!r}, but it must be a {type(default).__name__}")


def save_agent(folder: Path, settings: PlanningSettings, run: Run) -> None:
    """Write `folder/agent.json`. The planner's every setting is kept, so that later defaults change nothing."""
    planner = make_planner(settings.planner, settings.settings)
    content = {
        "kind": PLANNING,
        "format": FORMAT,
        "run": where(run.path, folder),
        "step": run.step,
        "checkpoint": run.checkpoint_hash,
        **asdict(settings),
        "settings": asdict(planner),  # type: ignore[call-overload]
    }
    make_folder(folder)
    write_json(folder / AGENT_FILE, content)


def where(run: Path, folder: Path) -> str:
    """The path of the run from the agent's folder: relative if that lies inside the run, so that both can be moved."""
    run, folder = run.resolve(), folder.resolve()
    return os.path.relpath(run, folder) if folder.is_relative_to(run) else str(run)


def save_policy(run: Path) -> None:
    """Write `agent.json` into a run whose checkpoints hold a policy: the agent is that of the last checkpoint."""
    write_json(run / AGENT_FILE, {"kind": POLICY, "format": FORMAT, "run": "."})


def load_agent(folder: Path, device: str = "cpu", step: int | None = None) -> Agent:
    """The agent that `save_agent` or `save_policy` wrote. Raises `UserError` when it cannot be loaded.

    A learned policy is that of the checkpoint at `step`, by default the last.
    """
    path = folder / AGENT_FILE
    content = read_json(path, f"{folder} is not a saved agent")
    try:
        if content["kind"] not in KINDS or content["format"] != FORMAT:
            raise UserError(
                f"{path} is a {content['kind']!r} agent of format {content['format']!r}: this worldloom knows "
                f"{' and '.join(KINDS)} agents of format {FORMAT}"
            )
        return KINDS[content["kind"]](folder, content, device, step)
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error


def load_planning(folder: Path, content: dict[str, Any], device: str, step: int | None = None) -> Agent:
    """Raises `UserError` when the run is missing, the checkpoint is another one, or a `step` is given."""
    if step is not None:
        raise UserError(f"{folder} holds a planner, which belongs to one checkpoint: leave @{step} away")
    given = {name: content[name] for name in (f.name for f in fields(PlanningSettings)) if name != "objective"}
    kept = PlanningSettings(**given, objective=content.get("objective"))  # agents of before have none
    run, made, wanted = (folder / content["run"]).resolve(), content["step"], content["checkpoint"]
    model, found = checkpoint.load(run, device, made)
    if found.checkpoint_hash != wanted:
        raise UserError(
            f"{run} was trained again since {folder / AGENT_FILE} was saved: its step {made} is another one. Plan again"
        )
    try:
        return kept.make(model, found)
    except NotAllowed as error:
        raise error.named_in(folder / AGENT_FILE) from error


KINDS = Registry(
    "kind of saved agent",
    {
        PLANNING: "worldloom.agents.saved:load_planning",
        POLICY: "worldloom.learning.saved_policy:load_policy",
    },
)


class SavedPolicy:
    """A saved agent as a policy for recording, one environment at a time, on one thread."""

    def __init__(self, folder: Path, action_space: ActionSpace):
        torch.set_num_threads(1)
        self.agent = load_agent(folder)
        wanted, taken = self.agent.spec.action, describe_action(action_space, None)
        if (wanted.kind, wanted.size) != (taken.kind, taken.size):
            raise UserError(
                f"policy {str(folder)!r} plans {wanted.size} {wanted.kind} actions, but the environment takes "
                f"{taken.size} {taken.kind} ones"
            )
        self.reset()

    def reset(self) -> None:
        self.memory: State | None = None

    def __call__(self, obs: dict[str, np.ndarray], rng: np.random.Generator) -> Any:
        if self.memory is None:
            check_obs(obs, self.agent)
        batch = to_obs([obs], self.agent.spec)
        if self.memory is None:
            action, self.memory = self.agent.start(batch, int(rng.integers(2**31)))
        else:
            action, self.memory = self.agent.act(self.memory, batch)
        return to_env(action, self.agent.spec)[0]


def check_obs(obs: dict[str, np.ndarray], agent: Agent) -> None:
    """Raise `UserError` unless the environment has the keys that the agent observes, in the same shapes."""
    for key, spec in agent.spec.obs.items():
        if spec.kind == "category":
            continue
        if key not in obs:
            raise UserError(f"the environment shows {', '.join(obs)}, but the saved agent observes {key!r}")
        shape = obs[key].shape if spec.kind == "vector" else (obs[key].shape[2], *obs[key].shape[:2])
        if shape != spec.shape:
            raise UserError(
                f"the environment shows {key!r} as {shape}, but the saved agent was trained on {spec.shape}"
            )
