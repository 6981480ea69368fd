"""The data card of a dataset, as values."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class KeyFigures:
    """Of one observation key. Numbers are per dimension of a vector, per channel of an image.

    constant: dimensions that never change in the whole dataset. held: share of rows equal to the row before them.
    jumps: largest step of each dimension between two rows, and usual: the 99th percentile of its steps (vectors only).
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    names: list[str]
    low: list[float]
    high: list[float]
    mean: list[float]
    std: list[float]
    constant: list[int]
    held: float
    jumps: list[float] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)


@dataclass
class ActionFigures:
    """entropy: of the choices made (discrete) or of each dimension's use of its range in `BINS` bins, in bits;
    `evenness` is its share of the most that is possible. coverage: share of the choices or bins used at all, per
    dimension if continuous; `counts` are what both are computed from. jumps: largest step of each dimension between two
    rows (continuous). held: share of actions equal to the one before. zero: share of all-zero actions.
    """

    kind: str
    size: int
    names: list[str]
    declared: bool
    low: list[float]
    high: list[float]
    seen_low: list[float]
    seen_high: list[float]
    mean: list[float]
    std: list[float]
    entropy: list[float]
    evenness: list[float]
    coverage: list[float]
    counts: list[list[int]]
    constant: list[int]
    jumps: list[float]
    held: float
    zero: float


@dataclass
class DataCard:
    """Everything `worldloom inspect` prints.

    lengths: rows per episode. signals: further per-row facts such as "success". broken: what could not be read.
    looked_at: height and width that pictures were shrunk to before their figures were taken, None for their own.
    """

    path: str
    about: dict[str, Any]
    fingerprint: str
    bytes: int
    fps: float
    episodes: int
    readable: int
    rows: int
    hours: float
    lengths: dict[str, Any]
    keys: dict[str, KeyFigures]
    looked_at: tuple[int, int] | None
    action: ActionFigures
    reward: dict[str, Any] | None
    signals: dict[str, dict[str, float]]
    ends: dict[str, int]
    tasks: list[dict[str, Any]]
    duplicates: list[dict[str, Any]]
    broken: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
