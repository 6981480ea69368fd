"""The command `worldloom record`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from worldloom.envs import ENVIRONMENTS
from worldloom.envs.options import parse_options
from worldloom.envs.pool import Job
from worldloom.envs.recording import RecordingTarget, collect
from worldloom.flags import Allow, named
from worldloom.limits import at_least, check_limits
from worldloom.registry import allow

ENV_HELP = "Environment, such as doom, dmc:cheetah-run, atari:pong, minigrid:DoorKey-5x5-v0 or gym:CartPole-v1"


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """Play an environment and save its episodes as a LeRobotDataset v3.0.

    Every finished episode is on the disk at once and survives Ctrl-C and kill -9: type the same command again to go on.
    An episode has one row more than steps: the last row shows the terminal observation. Episode i depends on the seed
    and on i alone and they lie in the order of i, so that `--episodes` gives the same dataset for any `--num-envs`.
    """

    env: Annotated[Positional[str], named(ENVIRONMENTS, ENV_HELP)]
    out: Positional[Path]
    """The folder of the dataset, new or to be continued."""
    episodes: int | None = None
    """Record until the dataset holds this many episodes."""
    steps: int | None = None
    """Record until the dataset holds this many steps; episodes under way are finished, never cut or dropped, because
    dropping them would leave the long ones out."""
    num_envs: Annotated[int, at_least(1)] = 4
    """Environments that play at the same time, each in its own process."""
    policy: str = "random"
    """Random, your own module:function called as policy(obs, rng), or the folder of a saved agent."""
    hold: Annotated[int, at_least(1)] = 10
    """The random policy holds each action for a random 1 to HOLD steps."""
    seed: Annotated[int, at_least(0)] = 0
    """From which every episode's own seed is made."""
    image_size: Annotated[int, at_least(0)] = 64
    """Side of the recorded square pictures in pixels; 0 keeps their own size."""
    max_episode_steps: Annotated[int | None, at_least(1)] = None
    """Truncate episodes at this length."""
    options: tuple[str, ...] = ()
    """Options of the environment, such as pixels=true action_repeat=2."""
    license: str = "unknown"
    """The licence of the recorded data, for its data card."""
    allow: Allow = ()


def record(settings: Annotated[RecordSettings, arg(name="")]) -> None:
    """Play an environment and save its episodes as a LeRobotDataset v3.0."""
    allow(*settings.allow)  # said wrongly, it is said before anything is started
    goal = RecordingTarget(settings.episodes, settings.steps)
    check_limits(settings)
    job = Job(
        settings.env,
        parse_options(settings.options),
        settings.policy,
        settings.hold,
        settings.seed,
        settings.image_size,
        settings.max_episode_steps,
        settings.allow,
    )
    num_envs = min(settings.num_envs, settings.episodes or settings.num_envs)
    summary = collect(job, settings.out, goal, num_envs, settings.license)
    print(summary.line(settings.out))
    if summary.interrupted:
        raise KeyboardInterrupt
