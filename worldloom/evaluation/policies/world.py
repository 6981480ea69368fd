"""The environment an agent is evaluated in: as asked, with pictures for a video, and without pictures."""

from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from gymnasium.error import DependencyNotInstalled

from worldloom.agents.agent import Agent
from worldloom.agents.environment import check_fits, to_obs
from worldloom.data.spec import DataSpec
from worldloom.envs import ENVIRONMENTS, make_env
from worldloom.envs.adapt import AdaptedEnv
from worldloom.errors import UserError

SAME_RATE = 0.1  # datasets may keep whole frames per second


@dataclass(frozen=True)
class World:
    """How an environment is made, and where its episodes are cut."""

    name: str
    options: dict[str, Any]
    image_size: int = 64
    max_steps: int | None = None

    def make(self) -> AdaptedEnv:
        return make_env(self.name, image_size=self.image_size, **self.options)

    def make_for_spectators(self, spec: DataSpec) -> AdaptedEnv:
        """The same world, drawn in its own size where it can be drawn and the agent needs no pictures."""
        head = self.name.partition(":")[0]
        drawable = head in ENVIRONMENTS.entries and "pixels" in signature(ENVIRONMENTS[head]).parameters
        if drawable and not spec.image_keys and "pixels" not in self.options:
            try:
                return make_env(self.name, image_size=0, **self.options, pixels=True)
            except (UserError, DependencyNotInstalled):
                return self.make()  # nothing here can draw it; its own render() may still do
        return self.make()

    def make_without_pictures(self) -> AdaptedEnv:
        """The same environment without pictures, where it can omit them."""
        if self.options.get("pixels") is True and self.options.get("state", True) is True:
            return replace(self, options={**self.options, "pixels": False}).make()
        return self.make()

    def dry_run(self, agent: Agent, action_repeat: int = 1) -> float:
        """One decision that is not carried out; returns the steps a second of the environment.

        Raises `UserError` when this is another world than the agent's, or a planner that cannot search its actions.
        """
        env = self.make()
        try:
            check_fits(env, agent.spec)
            check_rate(env, agent.spec, action_repeat)
            obs, info = env.reset(seed=0)
            agent.start(to_obs([obs], agent.spec, agent.device, [str(info.get("task", ""))]))
            return env.fps
        finally:
            env.close()


def check_rate(env: AdaptedEnv, spec: DataSpec, action_repeat: int) -> None:
    """Raise `UserError` when a step of the model lasts longer or shorter than a decision in this environment."""
    decisions = env.fps / action_repeat
    if abs(decisions / spec.fps - 1) <= SAME_RATE:
        return
    repeat = env.fps / spec.fps
    whole = repeat >= 1 and abs(repeat / round(repeat) - 1) <= SAME_RATE
    fix = (
        f"let each action be done {round(repeat)} times (plan: --action-repeat {round(repeat)}; elsewhere --options "
        f"action_repeat={round(repeat)}, where the environment has it), or give the options the data were recorded with"
        if whole
        else ("make the environment as it was when the data were recorded")
    )
    raise UserError(
        f"{env.name} takes {decisions:g} decisions a second, but the model's steps are {spec.fps:g} a second: {fix}"
    )
