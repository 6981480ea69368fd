"""`worldloom learn METHOD ENV`: an agent that collects, learns from what it collected, and is evaluated on the way."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from worldloom.errors import UserError
from worldloom.flags import Allow, named
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.limits import Bound, above, at_least, between, check_limits
from worldloom.models import FAMILIES
from worldloom.runs.train_settings import flags
from worldloom.schedule import Budget, OptimizerSettings

# A resumed run may go on for longer and report differently; anything else would make it another run.
FREE_ON_RESUME = frozenset(
    {"steps", "minutes", "eval_every", "eval_episodes", "checkpoint_every", "keep", "resume", "out", "allow"}
)


def changed(settings: Any) -> Iterator[tuple[str, Any]]:
    """The settings that are not the default ones, by the names they have on the command line."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from ((f"{each.name}.{name}", inner) for name, inner in changed(value))
        elif value != each.default:
            yield each.name, value


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The settings of every learning method. A method adds its own and gives its defaults."""

    method: ClassVar[str]

    env: str
    out: Path
    """Folder of this run: settings, checkpoints, log, episodes."""
    steps: Annotated[int, at_least(1)]
    seed: Annotated[int, at_least(0)] = 0
    """Seed of the weights, the environments and every draw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, between(1, 1024)] = 1
    """CPU threads."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --out from its last checkpoint."""
    allow: Allow = ()

    def check(self) -> None:
        """Refuse values that cannot work, before anything is made. Raises `UserError`."""
        check_limits(self)

    def changes(self, earlier: "Learning") -> None:
        """Raise `UserError` when continuing `earlier` under these settings would be another run."""
        for name in (each.name for each in fields(self)):
            now, then = getattr(self, name), getattr(earlier, name)
            if name not in FREE_ON_RESUME and now != then:
                flag = "set" if name == "overrides" else name.replace("_", "-")
                raise UserError(f"{self.out} was started with --{flag} {then}, not {now}: repeat the first value")

    def command(self) -> str:
        """The command line that asks for these settings."""
        words = ["worldloom", "learn", self.method, self.env]
        for name, value in changed(self):
            if name not in ("env", "resume"):
                words += flags(name, value)
        return shlex.join(words)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, without what was allowed: that holds for one command and is typed again with the next."""
        return {name: value for name, value in asdict(self).items() if name != "allow"} | {"out": str(self.out)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises `TypeError` or `KeyError` for settings of another version."""
        made: dict[str, Any] = {k: tuple(v) for k, v in data.items() if isinstance(v, list)} | {
            "out": Path(data["out"])
        }
        if "policy" in data:
            made["policy"] = ActorCriticConfig(**data["policy"])
        return cls(**{**data, **made})


@dataclass(frozen=True, kw_only=True)
class LearnSettings(Learning):
    """The settings of every method that learns in an environment.

    A step is one decision: with action_repeat=2 it moves the world twice.
    """

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """Environment, such as dmc:cartpole-swingup, gym:CartPole-v1, or your own module:function."""
    steps: Annotated[int, at_least(1)] = 50_000
    """Decisions taken in the environment, all in all."""
    size: str = "nano"
    """Preset size of the model family."""
    options: tuple[str, ...] = ()
    """Options of the environment, such as action_repeat=2."""
    num_envs: Annotated[int, at_least(1)] = 1
    """Environments that are played side by side, with one batched decision for all."""
    random_steps: Annotated[int, at_least(0)] = 2500
    """Decisions taken at random first; the updates they call for are then made up for."""
    updates: Annotated[float, above(0)] = 0.5
    """Model updates per decision, the replay ratio."""
    batch_size: Annotated[int, at_least(1)] = 128
    """Windows per update."""
    lr: Annotated[float, above(0)] = 1e-3
    """Learning rate."""
    final_lr: Annotated[float, above(0)] = 0.1
    """Learning rate at the end, as a share of --lr; a cosine leads there over the last third. 1 keeps it constant."""
    clip: Annotated[float, at_least(0)] = 0.3
    """A parameter's gradient norm is held below this share of the parameter's own norm; 0 switches clipping off."""
    capacity: Annotated[int, at_least(1)] = 1_000_000
    """Rows kept for learning; beyond that the oldest episodes are forgotten."""
    eval_every: Annotated[int, at_least(1)] = 10_000
    """Decisions between evaluations without exploration."""
    eval_episodes: Annotated[int, at_least(1)] = 10
    """Episodes of an evaluation, always with the same seeds."""
    checkpoint_every: Annotated[int, at_least(1)] = 5000
    """Decisions between checkpoints; one is taken when the episodes under way have ended. Inside a trained model these
    are updates, and at most 1000."""
    keep: Annotated[int, at_least(1)] = 2
    """Last checkpoints kept. Those of a policy learned inside a trained model are policies that can be compared."""
    max_episode_steps: Annotated[int | None, at_least(1)] = None
    """Truncate episodes at this length. By default those longer than 1000 are, where an evaluation or the end of the
    random steps is due, and every episode ends with --steps."""
    image_size: Annotated[int, at_least(1)] = 64
    """Side of pictures in pixels."""
    overrides: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")] = ()
    """Override one hyperparameter of the family."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """fp32, bf16, or auto for what the processor is fast in; models this small are fastest in fp32 on a CPU."""

    @property
    def collects(self) -> bool:
        """Whether there is an environment to act in."""
        return True

    def check(self) -> None:
        super().check()
        if self.collects and self.steps < self.random_steps:
            raise UserError(
                f"--steps is {self.steps}, but the first --random-steps {self.random_steps} are random and nothing "
                "would be learned: take more steps, or fewer random ones"
            )

    @property
    def family(self) -> str:
        """The world model's family."""
        raise NotImplementedError

    @property
    def budget(self) -> Budget:
        """How long the model is trained, so that its learning rate knows where the end is."""
        return Budget(max(1, int(self.steps * self.updates)))

    @property
    def optimizer(self) -> OptimizerSettings:
        return OptimizerSettings(lr=self.lr, final_lr=self.final_lr, clip=self.clip)


@dataclass(frozen=True, kw_only=True)
class TDMPCSettings(LearnSettings):
    """The world model is all that is trained, and its planner is the agent (TD-MPC2)."""

    method: ClassVar[str] = "tdmpc"

    average: Annotated[float, Bound(low=0, below=1)] = 0.999
    """EMA decay of the weights that are evaluated and saved; 0 takes the trained ones, which always collect."""
    samples: Annotated[int, at_least(1)] = 128
    """Action sequences tried in each iteration of a plan."""
    elites: Annotated[int, at_least(1)] = 16
    """How many of them shape the next iteration."""
    iterations: Annotated[int, at_least(1)] = 3
    """Iterations of a plan."""
    prior_samples: Annotated[int, at_least(0)] = 8
    """How many of the samples come from the model's own policy prior."""

    def check(self) -> None:
        super().check()
        if self.elites > self.samples:
            raise UserError(f"--elites is {self.elites}, but only --samples {self.samples} are drawn: lower it")

    @property
    def family(self) -> str:
        return "tdmpc"

    @property
    def optimizer(self) -> OptimizerSettings:
        return replace(super().optimizer, ema_decay=self.average)


@dataclass(frozen=True, kw_only=True)
class DreamerSettings(LearnSettings):
    """An actor and a critic learn in the dreams of a world model that is trained along with them (DreamerV3).

    Where ENV is the folder of a trained model, they learn inside that model, which stays as it is: a step is then one
    update, dreams begin in the data it was trained on, and nothing is collected or evaluated.
    """

    method: ClassVar[str] = "dreamer"

    updates: Annotated[float, above(0)] = 0.25
    """Updates of the model and the policy per decision, the replay ratio."""
    batch_size: Annotated[int, at_least(1)] = 16
    """Windows per update."""
    length: Annotated[int, at_least(1)] = 32
    """Rows of a window."""
    lr: Annotated[float, above(0)] = 4e-4
    """Learning rate of the model and the policy."""
    family: Annotated[str, named(FAMILIES, "Family of the world model, which must decode a reward")] = "rssm"
    explore: Literal["disagreement"] | None = None
    """Collect with a second policy, whose reward is the disagreement of predictions (Plan2Explore), and not with the
    task's. It dreams too, so that an update costs about twice as much."""
    explore_steps: Annotated[int | None, at_least(1)] = None
    """With --explore: from this decision on the task's policy collects after all; by default it never does."""
    minutes: Annotated[float | None, above(0)] = None
    """Inside a trained model: stop after so many minutes if that comes before the last of --steps updates."""
    temperature: Annotated[float, at_least(0)] = 1.0
    """Inside a trained model: how randomly it dreams. Above 1 is harder to exploit, 0 is always the likeliest dream."""
    policy: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    """The actor and the critic."""

    @property
    def budget(self) -> Budget:
        return super().budget if self.collects else Budget(self.steps, self.minutes)

    @property
    def collects(self) -> bool:
        """False inside a trained model."""
        return not (Path(self.env) / "run.json").exists()

    def check(self) -> None:
        super().check()
        if self.collects and self.minutes is not None:
            raise UserError(f"--minutes is {self.minutes}: only learning inside a trained model heeds it")
        if self.collects and self.temperature != 1:
            raise UserError(f"--temperature is {self.temperature}: only learning inside a trained model heeds it")
        if self.explore and not self.collects:
            raise UserError(f"--explore {self.explore}: {self.env} is a trained model, in which nothing is collected")
        if self.explore_steps is not None and (not self.explore or self.explore_steps <= self.random_steps):
            raise UserError(
                f"--explore-steps is {self.explore_steps}: it needs --explore, and to be more than the first "
                f"--random-steps {self.random_steps}, which are random"
            )


@dataclass(frozen=True, kw_only=True)
class CMASettings(Learning):
    """A linear controller is evolved by CMA-ES inside a trained model, which stays as it is (World Models, 2018).

    A step is one generation: every candidate acts in dreams that begin in the same real rows, and its fitness is their
    mean return. Nothing is collected or evaluated.
    """

    method: ClassVar[str] = "cma"

    env: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a trained model that decodes a reward."""
    steps: Annotated[int, at_least(1)] = 200
    """Generations."""
    minutes: Annotated[float | None, above(0)] = None
    """Stop after so many minutes if that comes before the last generation."""
    population: Annotated[int, at_least(4)] = 32
    """Candidates of a generation."""
    dreams: Annotated[int, at_least(1)] = 16
    """Dreams each of them acts in; all begin in the same rows."""
    horizon: Annotated[int, at_least(1)] = 500
    """Length of a dream in steps; what its end makes improbable counts as much less."""
    temperature: Annotated[float, at_least(0)] = 1.0
    """How randomly the model dreams. Above 1 is harder to exploit, 0 is always the likeliest dream."""
    sigma: Annotated[float, above(0)] = 0.1
    """Standard deviation of the first generation's weights."""
    length: Annotated[int, at_least(1)] = 32
    """Rows of the real windows in which dreams begin."""

    def check(self) -> None:
        super().check()
        if not (Path(self.env) / "run.json").exists():
            raise UserError(f"{self.env} is no trained model: cma evolves inside the folder of one, and nowhere else")
