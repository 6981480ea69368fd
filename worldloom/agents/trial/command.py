"""`worldloom plan RUN ENV`: plan with a trained model in the real environment, and say what it scored."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from worldloom.agents.play import check_seeds
from worldloom.agents.saved import PlanningSettings
from worldloom.agents.trial.run import Trial
from worldloom.agents.trial.world import World
from worldloom.data.record import parse_options
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.evaluation.evaluate import check_counts
from worldloom.planners import PLANNERS
from worldloom.training import checkpoint
from worldloom.training.precision import choose_device

# Of a planner's numbers, those that are a share of its samples.
SHARES = ("elites", "policy_samples", "restarts")


def plan(
    run: tyro.conf.Positional[Path],
    env: tyro.conf.Positional[str],
    *,
    planner: str | None = None,
    horizon: int | None = None,
    samples: int | None = None,
    iterations: int | None = None,
    settings: tuple[str, ...] = (),
    replan_every: int = 1,
    action_repeat: int = 1,
    deadline: float | None = None,
    discount: float | None = None,
    goal: str | None = None,
    goal_data: Path | None = None,
    episodes: int = 10,
    seeds: tuple[int, ...] | None = None,
    num_envs: int = 1,
    max_episode_steps: int | None = None,
    options: tuple[str, ...] = (),
    out: Path | None = None,
    video: bool = True,
    video_steps: int = 300,
    floors: bool = True,
    profile: bool = False,
    step: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: str = "auto",
    threads: int = 1,
) -> None:
    """Plan with a trained model in the real environment: a score card, a video, and the agent as a folder.

    Writes score.json, imagined.mp4 and agent.json; `worldloom record ENV DATA --policy FOLDER` plays the agent again.

    Args:
        run: folder of a `worldloom train` or `worldloom learn` run.
        env: the environment, named as for `worldloom record`.
        planner: cem, icem, mppi, gradient or categorical; by default mppi, for discrete actions categorical.
        horizon: steps imagined ahead; by default the planner's own.
        samples: action sequences tried in each iteration; elites and prior samples keep their share of them.
        iterations: how often the search is repeated around what was best.
        settings: further settings of the planner, such as elites=32 temperature=1.0.
        replan_every: follow each plan for so many steps before the next search.
        action_repeat: take each action so many times, where the model's steps are longer than the environment's.
        deadline: milliseconds a decision may take; the best plan found by then is carried out.
        discount: of rewards in the imagined future; by default the one the model's values were learned with, or 0.99.
        goal: EPISODE:FRAME of a dataset; be where that row was instead of collecting reward.
        goal_data: the dataset of the goal; by default the run's own.
        episodes: play the seeds 0 to EPISODES - 1.
        seeds: play exactly these seeds instead.
        num_envs: environments played side by side and decided in one batch; with 1 the latency is a single robot's.
        max_episode_steps: truncate episodes at this length.
        options: options of the environment, such as pixels=true action_repeat=2.
        out: the folder to write; by default RUN/plan/ENV-PLANNER.
        video: film the first seed.
        video_steps: film at most so many decisions.
        floors: play the seeds at random and doing nothing too, to compare.
        profile: print where a decision's milliseconds go.
        step: the checkpoint of this step instead of the last one.
        precision: auto, bf16 or fp32 of the model's matrix products.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    played = tuple(range(episodes)) if seeds is None else seeds
    if goal is None and goal_data is not None:
        raise UserError(f"--goal-data {goal_data} says where a goal is, but there is none: give --goal EPISODE:FRAME")
    check_counts({"threads": threads, "video-steps": video_steps}, {"episodes": episodes})
    check_seeds(played, num_envs, max_episode_steps)
    torch.set_num_threads(threads)
    model, found = checkpoint.load(run, str(choose_device(device)), step)
    name = planner or default_planner(model.spec)
    search = planner_settings(name, {"horizon": horizon, "samples": samples, "iterations": iterations}, settings)
    gamma = learned_discount(found.config) if discount is None else discount
    agent = PlanningSettings(
        name,
        search,
        replan_every,
        action_repeat,
        deadline,
        gamma,
        use_prior=True,
        precision=precision,
        goal=goal,
        goal_data=None if goal_data is None else str(goal_data.resolve()),
    )
    world = World(env, parse_options(options), found.image_size[0], max_episode_steps)
    folder = out or run / "plan" / f"{slug(env)}-{name}"
    trial = Trial(model, found, agent, world, played, num_envs, folder)
    trial.hold(video_steps if video else 0, floors, profile)


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
