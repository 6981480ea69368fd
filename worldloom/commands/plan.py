"""`worldloom plan RUN ENV`: plan with a trained model in the real environment, and say what it scored."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.conf import FlagCreatePairsOff, Positional, arg

from worldloom.agents.play import check_seeds
from worldloom.agents.saved import PlanningSettings
from worldloom.data.spec import DataSpec
from worldloom.envs.options import parse_options
from worldloom.errors import UserError
from worldloom.evaluation.policies.trial import CARD, PolicyEvaluation
from worldloom.evaluation.policies.world import World
from worldloom.flags import Allow, named
from worldloom.limits import at_least, between, check_limits
from worldloom.planners import OBJECTIVES, PLANNERS
from worldloom.registry import allow, allow_typed
from worldloom.runs import checkpoint
from worldloom.runs.folders import unused
from worldloom.runs.precision import choose_device

PLANNER_HELP = "The search, by default mppi, for discrete actions categorical"
# Of a planner's numbers, those that are a share of its samples.
SHARES = ("elites", "policy_samples", "restarts")


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Plan with a trained model in the real environment: a score card, a video, and the agent as a folder.

    Writes score.json, imagined.mp4 and agent.json; `worldloom record ENV DATA --policy FOLDER` plays the agent again.
    """

    run: Positional[Path]
    """Folder of a `worldloom train` or `worldloom learn` run."""
    env: Positional[str]
    """The environment, named as for `worldloom record`."""
    planner: Annotated[str | None, named(PLANNERS, PLANNER_HELP)] = None
    horizon: int | None = None
    """Steps imagined ahead; by default the planner's own."""
    samples: int | None = None
    """Action sequences tried in each iteration; elites and prior samples keep their share of them."""
    iterations: int | None = None
    """How often the search is repeated around what was best."""
    settings: tuple[str, ...] = ()
    """Further settings of the planner, such as elites=32 temperature=1.0."""
    replan_every: int = 1
    """Follow each plan for so many steps before the next search."""
    action_repeat: int = 1
    """Take each action so many times, where the model's steps are longer than the environment's."""
    deadline: float | None = None
    """Milliseconds a decision may take; the best plan found by then is carried out."""
    discount: float | None = None
    """Of rewards in the imagined future; by default the one the model's values were learned with, or 0.99."""
    objective: Annotated[str | None, named(OBJECTIVES, "Plan for this instead of the return", "return")] = None
    goal: str | None = None
    """EPISODE:FRAME of a dataset; be where that row was instead of collecting reward."""
    goal_data: Path | None = None
    """The dataset of the goal; by default the run's own."""
    episodes: Annotated[int, at_least(0)] = 10
    """Play the seeds 0 to EPISODES - 1."""
    seeds: tuple[int, ...] | None = None
    """Play exactly these seeds instead."""
    num_envs: int = 1
    """Environments played side by side and decided in one batch; with 1 the latency is a single robot's."""
    max_episode_steps: int | None = None
    """Truncate episodes at this length."""
    options: tuple[str, ...] = ()
    """Options of the environment, such as pixels=true action_repeat=2."""
    out: Path | None = None
    """The folder to write, which must be new or empty; by default RUN/plan/ENV-PLANNER, or where a plan is there
    already the first free one of ENV-PLANNER-2, -3 and so on."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace the plan that is in --out, or in the default folder."""
    video: bool = True
    """Film the first seed."""
    video_steps: Annotated[int, at_least(1)] = 300
    """Film at most so many decisions."""
    baselines: bool = True
    """Play the seeds with the reference agents too: random actions, and no-op actions."""
    profile: bool = False
    """Print where a decision's milliseconds go."""
    step: int | None = None
    """The checkpoint of this step instead of the last one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, bf16 or fp32 of the model's matrix products."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, between(1, 1024)] = 1
    """CPU threads."""
    allow: Allow = ()


def plan(settings: Annotated[PlanSettings, arg(name="")]) -> None:
    """Plan with a trained model in the real environment: a score card, a video, and the agent as a folder."""
    played = tuple(range(settings.episodes)) if settings.seeds is None else settings.seeds
    if settings.goal is None and settings.goal_data is not None:
        raise UserError(f"--goal-data {settings.goal_data}: there is no goal yet, give --goal EPISODE:FRAME too")
    objective = None if settings.objective == "return" else settings.objective
    if objective is not None and settings.goal is not None:
        raise UserError(f"--objective {objective} and --goal {settings.goal} are two aims: give one of them")
    check_limits(settings)
    allow(*settings.allow)
    allow_typed(settings.planner, objective)
    check_seeds(played, settings.num_envs, settings.max_episode_steps)
    torch.set_num_threads(settings.threads)
    model, found = checkpoint.load(settings.run, str(choose_device(settings.device)), settings.step)
    name = settings.planner or default_planner(model.spec)
    given = {key: getattr(settings, key) for key in ("horizon", "samples", "iterations")}
    search = planner_settings(name, given, settings.settings)
    gamma = learned_discount(found.config) if settings.discount is None else settings.discount
    agent = PlanningSettings(
        name,
        search,
        settings.replan_every,
        settings.action_repeat,
        settings.deadline,
        gamma,
        use_prior=True,
        precision=settings.precision,
        goal=settings.goal,
        goal_data=None if settings.goal_data is None else str(settings.goal_data.resolve()),
        objective=objective,
    )
    world = World(settings.env, parse_options(settings.options), found.side, settings.max_episode_steps)
    folder = choose_folder(
        settings.out, settings.run / "plan" / f"{slug(settings.env)}-{slug(name)}", settings.overwrite
    )
    evaluation = PolicyEvaluation(model, found, agent, world, played, settings.num_envs, folder)
    evaluation.evaluate(settings.video_steps if settings.video else 0, settings.baselines, settings.profile)


def choose_folder(out: Path | None, default: Path, overwrite: bool) -> Path:
    """Where the results go. Raises `UserError` for a folder that holds a plan not to be replaced, or anything else."""
    if out is None and not overwrite:
        return unused(default)
    folder = default if out is None else out
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if held and CARD not in held:
        raise UserError(f"{folder} already holds something else ({held[0]}): choose another --out")
    if held and not overwrite:
        raise UserError(f"{folder} already holds a plan: choose another --out, or replace it with --overwrite")
    return folder


def learned_discount(config: dict[str, Any]) -> float:
    """What the values of a model, or of an ensemble's members, were discounted by; 0.99 where none were learned."""
    return config.get("discount", config.get("hyperparameters", {}).get("discount", 0.99))


def default_planner(spec: DataSpec) -> str:
    return "categorical" if spec.action.kind == "discrete" else "mppi"


def slug(env: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", env).strip("-")


def planner_settings(name: str, given: dict[str, int | None], further: tuple[str, ...]) -> dict[str, Any]:
    """The planner's hyperparameters as asked for. With other `samples`, what is a share of them keeps its share."""
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key, value in parse_options(further).items():
        if key in chosen:
            raise UserError(f"--settings {key}={value} and --{key} {chosen[key]} say it twice: give one of them")
        chosen[key] = value
    defaults = {f.name: f.default for f in fields(PLANNERS[name])}
    samples, usual = chosen.get("samples"), defaults.get("samples")
    if isinstance(samples, int) and isinstance(usual, int):
        for key in SHARES:
            share = defaults.get(key)
            if isinstance(share, int) and key not in chosen:
                chosen[key] = min(share, -(-share * samples // usual))
    return chosen
