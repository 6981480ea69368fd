"""`worldloom learn METHOD ENV`: an agent that collects, learns from what it collected, and is judged on the way."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from worldloom.errors import UserError
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.registry import Registry
from worldloom.runs.train_settings import flags
from worldloom.schedule import Budget, OptimizerSettings

LEARNERS = Registry(
    "learning method",
    {
        "tdmpc": "worldloom.learning.planning:PlanningLearner",
        "dreamer": "worldloom.learning.dreaming:DreamingLearner",
    },
)

# A resumed run may go on for longer and report differently; anything else would make it another run.
FREE_ON_RESUME = frozenset(
    {"steps", "minutes", "eval_every", "eval_episodes", "checkpoint_every", "keep", "resume", "out"}
)
LARGEST_SEED = 2**32 - 1


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
    """What every way of learning is told. A method adds its own words and gives its defaults."""

    method: ClassVar[str]

    env: str
    out: Path
    """Folder of this run: settings, checkpoints, log, episodes."""
    steps: int
    seed: int = 0
    """Seed of the weights, the environments and every draw."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = 1
    """CPU threads."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --out from its last checkpoint."""

    def check(self) -> None:
        """Refuse values that cannot work, before anything is made. Raises `UserError`."""
        least = dict.fromkeys(("random_steps", "seed", "prior_samples"), 0)
        for name in (each.name for each in fields(self)):
            value, low = getattr(self, name), least.get(name, 1)
            if isinstance(value, int) and not isinstance(value, bool) and value < low:
                raise UserError(f"--{name.replace('_', '-')} is {value}, but must be at least {low}")
        if self.seed > LARGEST_SEED:
            raise UserError(f"--seed is {self.seed}, but must be at most {LARGEST_SEED}")

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
        return {**asdict(self), "out": str(self.out)}

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
    """What every way of learning in an environment is told.

    A step is one decision: with action_repeat=2 it moves the world twice.
    """

    env: Annotated[Positional[str], arg(metavar="ENV")]
    """Environment, such as dmc:cartpole-swingup, gym:CartPole-v1, or your own module:function."""
    steps: int = 50_000
    """Decisions taken in the environment, all in all."""
    size: str = "nano"
    """Preset size of the model family."""
    options: tuple[str, ...] = ()
    """Options of the environment, such as action_repeat=2."""
    num_envs: int = 1
    """Environments that are played side by side, with one batched decision for all."""
    random_steps: int = 2500
    """Decisions taken at random first; the updates they call for are then made up for."""
    updates: float = 0.5
    """Model updates per decision, the replay ratio."""
    batch_size: int = 128
    """Windows per update."""
    lr: float = 1e-3
    """Learning rate."""
    final_lr: float = 0.1
    """Learning rate at the end, as a share of --lr; a cosine leads there over the last third. 1 keeps it constant."""
    clip: float = 0.3
    """A parameter's gradient norm is held below this share of the parameter's own norm; 0 switches clipping off."""
    capacity: int = 1_000_000
    """Rows kept for learning; beyond that the oldest episodes are forgotten."""
    eval_every: int = 10_000
    """Decisions between evaluations without exploration."""
    eval_episodes: int = 10
    """Episodes of an evaluation, always with the same seeds."""
    checkpoint_every: int = 5000
    """Decisions between checkpoints; one is taken when the episodes under way have ended. Inside a trained model these
    are updates, and at most 1000."""
    keep: int = 2
    """Last checkpoints kept. Those of a policy learned inside a trained model are policies that can be compared."""
    max_episode_steps: int | None = None
    """Truncate episodes at this length."""
    image_size: int = 64
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
        if not 0 <= self.clip < float("inf"):
            raise UserError(f"--clip is {self.clip}, but must be a number that is not negative")
        if self.collects and self.steps < self.random_steps:
            raise UserError(
                f"--steps is {self.steps}, but the first --random-steps {self.random_steps} are random and nothing "
                "would be learned: take more steps, or fewer random ones"
            )
        for name in ("updates", "lr", "final_lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}, but must be a number above 0")

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

    average: float = 0.999
    """Judge and save weights that follow the trained ones this slowly; 0 are the trained ones, which collect."""
    samples: int = 128
    """Action sequences tried in each iteration of a plan."""
    elites: int = 16
    """How many of them shape the next iteration."""
    iterations: int = 3
    """Iterations of a plan."""
    prior_samples: int = 8
    """How many of the samples come from the model's own policy prior."""

    def check(self) -> None:
        super().check()
        if not 0 <= self.average < 1:
            raise UserError(f"--average is {self.average}, but must be from 0 to below 1")
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

    updates: float = 0.25
    """Updates of the model and the policy per decision, the replay ratio."""
    batch_size: int = 16
    """Windows per update."""
    length: int = 32
    """Rows of a window."""
    lr: float = 4e-4
    """Learning rate of the model and the policy."""
    family: str = "rssm"
    """Family of the world model; it must decode a reward."""
    explore: Literal["disagreement"] | None = None
    """Collect with a second policy, paid for what the model has yet to learn (Plan2Explore), and not with the task's.
    It dreams too, so that an update costs about twice as much."""
    explore_steps: int | None = None
    """With --explore: from this decision on the task's policy collects after all; by default it never does."""
    minutes: float | None = None
    """Inside a trained model: stop after so many minutes if that comes before the last of --steps updates."""
    temperature: float = 1.0
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
        if self.minutes is not None and (self.collects or not 0 < self.minutes < float("inf")):
            raise UserError(
                f"--minutes is {self.minutes}: it must be above 0, and only learning inside a trained model heeds it"
            )
        if not 0 <= self.temperature < float("inf") or (self.collects and self.temperature != 1):
            raise UserError(
                f"--temperature is {self.temperature}: it must not be negative, and only learning inside a trained "
                "model heeds it"
            )
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

    A step is one generation: every candidate acts in dreams that begin in the same real moments, and is worth what they
    pay. Nothing is collected or evaluated.
    """

    method: ClassVar[str] = "cma"

    env: Annotated[Positional[str], arg(metavar="RUN")]
    """Folder of a trained model that decodes a reward."""
    steps: int = 200
    """Generations."""
    minutes: float | None = None
    """Stop after so many minutes if that comes before the last generation."""
    population: int = 32
    """Candidates of a generation."""
    dreams: int = 16
    """Dreams each of them acts in; all begin in the same moments."""
    horizon: int = 500
    """Length of a dream in steps; what its end makes improbable counts as much less."""
    temperature: float = 1.0
    """How randomly the model dreams. Above 1 is harder to exploit, 0 is always the likeliest dream."""
    sigma: float = 0.1
    """Standard deviation of the first generation's weights."""
    length: int = 32
    """Rows of the real windows on whose moments dreams begin."""

    def check(self) -> None:
        super().check()
        if not (Path(self.env) / "run.json").exists():
            raise UserError(f"{self.env} is no trained model: cma evolves inside the folder of one, and nowhere else")
        if self.population < 4:
            raise UserError(f"--population is {self.population}, but a generation needs at least 4 candidates")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature is {self.temperature}, but must not be negative")
        for name in ("sigma", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"--{name} is {value}, but must be a number above 0")


LEARNING: dict[str, type[Learning]] = {each.method: each for each in (TDMPCSettings, DreamerSettings, CMASettings)}
