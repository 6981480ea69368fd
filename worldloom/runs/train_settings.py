"""What one training is asked to do: the flags of `worldloom train`, their checks, and the line that continues a run."""

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from worldloom.data.spec import Role
from worldloom.errors import UserError
from worldloom.flags import Allow, named
from worldloom.limits import at_least, between, check_limits, strictly_between
from worldloom.models import FAMILIES
from worldloom.runs.parts import parse_parts
from worldloom.schedule import Budget, OptimizerSettings, Reporting

# A resumed run may go on for longer, learn at another pace, report differently and find its frozen parts, whose weights
# are checked, elsewhere; anything else makes it another run.
REPORTING = frozenset(
    {"checkpoint_every", "keep", "preview_every", "log_every", "tensorboard", "resume", "out", "part", "allow"}
)
FREE_ON_RESUME = REPORTING | {"steps", "minutes", "phase_steps", "lr", "warmup", "final_lr", "clip", "weight_decay"}
# Flags that are given once for each value.
REPEATED = frozenset({"overrides", "role", "part", "init_part", "phase_steps", "allow"})
# Where a flag is not called like its setting, or the setting not like the value that is made of it.
FLAGS = {"overrides": "set", "ema_decay": "average"}


@dataclass(frozen=True)
class TrainSettings:
    """One training: which family learns which data, for how long, and where it is kept."""

    family: Annotated[Positional[str], named(FAMILIES, "Model family", metavar="FAMILY")]
    data: Annotated[Positional[tuple[Path, ...]], arg(metavar="DATA")]
    """Dataset folders or files, one or several; their episodes are mixed."""
    out: Path
    """Folder of this run: settings, checkpoints, log, previews."""
    size: str = "nano"
    """Preset size of the family."""
    steps: int | None = None
    """Stop after this many updates."""
    minutes: float | None = None
    """Stop after this many minutes of training (with --steps: whichever comes first)."""
    batch_size: Annotated[int, between(1, 1_000_000)] = 16
    """Windows per update, over all processes together."""
    length: Annotated[int, between(2, 1_000_000)] = 64
    """Rows per window."""
    lr: float = OptimizerSettings.lr
    """Learning rate after the warm-up."""
    warmup: int = OptimizerSettings.warmup
    """Updates over which the learning rate rises from 0."""
    final_lr: float = OptimizerSettings.final_lr
    """Learning rate at the end, as a share of --lr; a cosine leads there over the last third. 1 keeps it constant."""
    average: float = OptimizerSettings.ema_decay
    """EMA decay, such as 0.999, of the weights that are evaluated, saved and used; 0 uses the trained ones."""
    clip: float = OptimizerSettings.clip
    """A parameter's gradient norm is held below this share of the parameter's own norm; 0 switches clipping off."""
    weight_decay: float = OptimizerSettings.weight_decay
    """Decoupled weight decay of AdamW."""
    seed: Annotated[int, at_least(0)] = 0
    """Seed of the weights, the split, the order of the data and the model's samples."""
    image_size: Annotated[int | tuple[int, int], between(0, 100_000)] = 64
    """Images are resized to this many pixels, height and width, or to HEIGHT WIDTH; 0 keeps each camera's own size."""
    role: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=ROLE")] = ()
    """What a key is for: observed (the default), given (context that is observed and not predicted) or target
    (predicted and never observed)."""
    held_out: Annotated[float, strictly_between(0, 1)] = 0.1
    """Share of episodes never trained on, at least one."""
    weights: Annotated[tuple[float, ...], at_least(0)] = ()
    """How often each dataset is drawn from, one number per dataset; by default by its number of rows."""
    overrides: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")] = ()
    """Override one hyperparameter of the family."""
    part: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=RUN@STEP")] = ()
    """Use a part of another run, such as its tokenizer, as it is: it is not trained and in no checkpoint, but referred
    to by hash. Without @STEP it is the last checkpoint's. With --resume: where a part is that moved."""
    init_part: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=RUN@STEP")] = ()
    """Begin with the weights of a part of another run and train them on."""
    phase_steps: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=N")] = ()
    """Updates of one of the family's phases; the others share what is left. 0 leaves a phase out."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs matrix products in bfloat16, the rest stays fp32; auto does so where that is faster here."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int | None, between(1, 1024)] = None
    """CPU threads of one process; by default 1 on a CPU, because recurrent steps are too small to share."""
    checkpoint_every: int = Reporting.checkpoint_every
    """Updates between checkpoints."""
    keep: int = Reporting.keep
    """Last checkpoints kept, besides the best one."""
    preview_every: int = Reporting.preview_every
    """Updates between film strips of a held-out episode, real over imagined; 0 for none."""
    log_every: int = Reporting.log_every
    """Updates between lines of the log."""
    skip_broken: FlagCreatePairsOff[bool] = False
    """Leave broken episodes out and list them, instead of stopping."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --out from its last checkpoint."""
    tensorboard: FlagCreatePairsOff[bool] = False
    """Also write TensorBoard files into the run."""
    allow: Allow = ()

    @property
    def resolution(self) -> tuple[int, int] | None:
        """Height and width of every picture, None where each camera keeps its own."""
        size = self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)
        return size if all(size) else None

    @property
    def roles(self) -> dict[str, str]:
        """Raises `UserError` for what is not KEY=ROLE."""
        pairs = [entry.partition("=") for entry in self.role]
        for key, equals, role in pairs:
            if not (key and equals) or role not in get_args(Role):
                raise UserError(f"--role {key}{equals}{role}: write KEY=ROLE, with one of {', '.join(get_args(Role))}")
        return {key: role for key, _, role in pairs}

    @property
    def budget(self) -> Budget:
        return Budget(self.steps, self.minutes)

    @property
    def optimizer(self) -> OptimizerSettings:
        return OptimizerSettings(self.lr, self.warmup, self.final_lr, self.clip, self.weight_decay, self.average)

    @property
    def reporting(self) -> Reporting:
        return Reporting(self.log_every, self.checkpoint_every, self.keep, self.preview_every)

    def check(self) -> None:
        """Refuse values that cannot work, before any data is read. Raises `UserError`."""
        for value in (self, self.budget, self.optimizer, self.reporting):
            check_limits(value, flag)
        _ = self.roles
        if isinstance(self.image_size, tuple) and not all(self.image_size):
            raise UserError(f"--image-size is {self.image_size}: 0 stands alone, for each camera's own size")
        if not self.data:
            raise UserError(f"no dataset given: worldloom train {self.family} DATA --out {self.out}")
        if self.steps is None and self.minutes is None and not self.phase_steps:
            raise UserError("how long to train was not said: give --steps N or --minutes M")
        for name in parse_parts(self.part).keys() & parse_parts(self.init_part, "--init-part").keys():
            raise UserError(f"{name} is given by --part, which never trains, and by --init-part, which does: drop one")
        if self.weights and len(self.weights) != len(self.data):
            raise UserError(f"--weights names {len(self.weights)} numbers for {len(self.data)} datasets: give one each")
        if self.weights and not sum(self.weights):
            raise UserError(f"--weights {self.weights}: give at least one that is above 0, not all 0")
        if self.out in (Path(), Path("/")):
            raise UserError(f"--out is {str(self.out)!r}: give the run a folder of its own, such as --out runs/first")

    def changes(self, earlier: "TrainSettings") -> list[str]:
        """How continuing `earlier` under these settings differs, in words. Raises `UserError` if it is another run."""
        changes = []
        for name, now in self.to_json().items():
            then = earlier.to_json()[name]
            if now == then or name in REPORTING:
                continue
            if name not in FREE_ON_RESUME:
                raise UserError(
                    f"{self.out} was started with {_describe(name, then)} and cannot continue with "
                    f"{_describe(name, now)}: repeat the first value, or choose another --out"
                )
            changes.append(f"{_describe(name, now)} from here on, {_describe(name, then)} before")
        return changes

    def resume_line(self) -> str:
        """The command that continues this run."""
        words = ["worldloom", "train", self.family, *map(str, self.data)]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if field.name != "resume" and value != field.default:
                words += flags(field.name, value)
        return shlex.join([*words, "--resume"])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; paths of datasets and parts absolute, so that the run is understood from any folder.

        What was allowed is left out: it holds for one command, and is typed again with the next.
        """
        data = [str(path.expanduser().resolve()) for path in self.data]
        parts = {name: _absolute(getattr(self, name)) for name in ("part", "init_part")}
        lists = {name: list(value) for name, value in asdict(self).items() if isinstance(value, tuple)}
        described = {**asdict(self), **lists, **parts, "data": data, "out": str(self.out)}
        return {name: value for name, value in described.items() if name != "allow"}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Raises `KeyError` or `TypeError` for settings that no training can have had."""
        tuples = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        paths = tuple(Path(path) for path in data["data"])
        return cls(**{**data, **tuples, "data": paths, "out": Path(data["out"])})


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + FLAGS.get(name, name).replace("_", "-")


def flags(name: str, value: Any) -> list[str]:
    """What to type for a setting to have this value."""
    if value is True:
        return [flag(name)]
    if name in REPEATED:
        return [word for item in value for word in (flag(name), item)]
    return [flag(name), *(map(str, value) if isinstance(value, tuple | list) else [str(value)])]


def _absolute(parts: tuple[str, ...]) -> list[str]:
    pairs = (entry.partition("=") for entry in parts)
    return [f"{name}={Path(run).expanduser().resolve()}" for name, _, run in pairs]


def _describe(name: str, value: Any) -> str:
    if name in ("family", "data"):
        return f"{name} {value if name == 'family' else ' '.join(map(str, value))}"
    if value is None or value is False or value == []:
        return f"no {flag(name)}"
    return " ".join(flags(name, value))
