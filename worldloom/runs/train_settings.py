"""What one training is asked to do: the flags of `worldloom train`, their checks, and the line that continues a run."""

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from worldloom.errors import UserError
from worldloom.flags import named
from worldloom.models import FAMILIES

# A resumed run may go on for longer, learn at another pace and report differently; anything else makes it another run.
REPORTING = frozenset({"checkpoint_every", "keep", "preview_every", "log_every", "tensorboard", "resume", "out"})
FREE_ON_RESUME = REPORTING | {"steps", "minutes", "lr", "warmup", "final_lr", "clip", "weight_decay"}


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
    batch_size: int = 16
    """Windows per update, over all processes together."""
    length: int = 64
    """Rows per window."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    warmup: int = 50
    """Updates over which the learning rate rises from 0."""
    final_lr: float = 0.1
    """Learning rate at the end, as a share of --lr; a cosine leads there over the last third. 1 keeps it constant."""
    average: float = 0.0
    """Judge, save and use weights that follow the trained ones this slowly, such as 0.999; 0 uses the trained ones."""
    clip: float = 0.3
    """A parameter's gradient norm is held below this share of the parameter's own norm; 0 switches clipping off."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    seed: int = 0
    """Seed of the weights, the split, the order of the data and the model's samples."""
    image_size: int = 64
    """Images are resized to this many pixels, height and width."""
    held_out: float = 0.1
    """Share of episodes never trained on, at least one."""
    weights: tuple[float, ...] = ()
    """How often each dataset is drawn from, one number per dataset; by default by its number of rows."""
    overrides: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")] = ()
    """Override one hyperparameter of the family."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs matrix products in bfloat16, the rest stays fp32; auto does so where that is faster here."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int | None = None
    """CPU threads of one process; by default 1 on a CPU, because recurrent steps are too small to share."""
    checkpoint_every: int = 500
    """Updates between checkpoints."""
    keep: int = 2
    """Last checkpoints kept, besides the best one."""
    preview_every: int = 1000
    """Updates between film strips of a held-out episode, real over imagined; 0 for none."""
    log_every: int = 50
    """Updates between lines of the log."""
    skip_broken: FlagCreatePairsOff[bool] = False
    """Leave broken episodes out and list them, instead of stopping."""
    resume: FlagCreatePairsOff[bool] = False
    """Continue the run in --out from its last checkpoint."""
    tensorboard: FlagCreatePairsOff[bool] = False
    """Also write TensorBoard files into the run."""

    def check(self) -> None:
        """Refuse values that cannot work, before any data is read. Raises `UserError`."""
        if not self.data:
            raise UserError(f"no dataset given: worldloom train {self.family} DATA --out {self.out}")
        if self.steps is None and self.minutes is None:
            raise UserError("how long to train was not said: give --steps N or --minutes M")
        if self.weights and len(self.weights) != len(self.data):
            raise UserError(f"--weights names {len(self.weights)} numbers for {len(self.data)} datasets: give one each")
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise UserError(f"{flag(name)} is {value}, but must be at least {low}")
            most = _HIGHEST.get(name)
            if value is not None and most is not None and value > most:
                raise UserError(f"{flag(name)} is {value}, but must be at most {most}")
        for name in ("lr", "minutes", "clip", "final_lr", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"{flag(name)} is {value}, but must be a number that is not negative")
        if not 0 <= self.average < 1:
            raise UserError(f"--average is {self.average}, but must be from 0 to below 1, such as 0.999")
        if self.minutes == 0:
            raise UserError("--minutes is 0, but must be more than 0")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out is {self.held_out}, but must lie between 0 and 1, such as 0.1")
        if any(not weight >= 0 for weight in self.weights) or (
            self.weights and not 0 < sum(self.weights) < float("inf")
        ):
            raise UserError(f"--weights {self.weights}: weights must be 0 or more, finite, and not all 0")
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
                    f"{self.out} was started with {_words(name, then)} and cannot continue with "
                    f"{_words(name, now)}: repeat the first value, or choose another --out"
                )
            changes.append(f"{_words(name, now)} from here on, {_words(name, then)} before")
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
        """Plain JSON; dataset paths absolute, so that the run is understood from any folder."""
        data = [str(path.expanduser().resolve()) for path in self.data]
        return {**asdict(self), "data": data, "out": str(self.out), "weights": list(self.weights)} | {
            "overrides": list(self.overrides)
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        paths = tuple(Path(path) for path in data["data"])
        tuples = {k: tuple(data[k]) for k in ("weights", "overrides")}
        return cls(**{**data, "data": paths, "out": Path(data["out"]), **tuples})


_LOWEST = {
    "steps": 1, "batch_size": 1, "length": 2, "warmup": 0, "image_size": 1, "threads": 1,
    "checkpoint_every": 1, "keep": 1, "preview_every": 0, "log_every": 1, "seed": 0,
}  # fmt: skip
# What is above has never been meant, and would end in a number that overflows or memory that does not exist.
_HIGHEST = {"batch_size": 10**6, "length": 10**6, "image_size": 10**5, "threads": 1024, "seed": 2**32 - 1}


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--set" if name == "overrides" else "--" + name.replace("_", "-")


def flags(name: str, value: Any) -> list[str]:
    """What to type for a setting to have this value."""
    if value is True:
        return [flag(name)]
    if name == "overrides":
        return [word for item in value for word in ("--set", item)]
    return [flag(name), *(map(str, value) if isinstance(value, tuple | list) else [str(value)])]


def _words(name: str, value: Any) -> str:
    if name in ("family", "data"):
        return f"{name} {value if name == 'family' else ' '.join(map(str, value))}"
    if value is None or value is False or value == []:
        return f"no {flag(name)}"
    return " ".join(flags(name, value))
