"""What a dataset holds, as plain values that travel as JSON inside every dataset cache and checkpoint.

Every array of a dataset is one entry of one table of keys, whatever it is: a camera, a state, a reward, an end, a
weather. D vector size, A action size, N categories or members, C H W image channels, height, width, k samples.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal, Self

import numpy as np

from worldloom.errors import UserError, unknown

Kind = Literal["image", "vector", "category", "flag", "text", "set", "window"]
Role = Literal["observed", "given", "target"]
RESERVED = ("action", "mask", "task_index", "truncated")
MASK = ".mask"
HUGE = 1e8  # a bound beyond it is a way to write "none", such as float32's largest number


def mask_name(key: str) -> str:
    """Under which name a key's mask lies beside it: true where a row, or a member of a set, is there."""
    return key + MASK


@dataclass(frozen=True)
class KeySpec:
    """One array of a dataset.

    | kind | one row |
    |---|---|
    | `image` | uint8 `(C, H, W)` |
    | `vector` | float32 `(D,)` in the data's own units, or `()` for one number such as a reward |
    | `flag` | bool `()`, yes or no |
    | `category` | float32 one-hot `(N,)`; `names` are the N meanings |
    | `text` | a string; `names` are the different ones, and a row holds the index of its own |
    | `set` | float32 `(N, D)`, at most N members of which `NAME.mask` `(N,)` says who is there |
    | `window` | float32 `(k, C)`, k samples of C channels since the last row |

    role: `observed` is what the encoder takes and a model predicts; `given` is context that it takes and that need not
    be predicted, such as a task; `target` is only predicted, never observed: rewards, ends, costs, labels.
    per: whether it can change from row to row or is one value for an `episode`, in which all rows then agree.
    masked: some rows lack it; `NAME.mask` says which have it.
    mean, std: fitted on training episodes (vectors and windows: one a channel; images: length C, of pixels in [0, 1]).
    They normalise inside the model, so that what goes in and what is decoded keep their units.
    """

    kind: Kind
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    role: Role = "observed"
    per: Literal["row", "episode"] = "row"
    masked: bool = False

    @property
    def has_mask(self) -> bool:
        """Whether `NAME.mask` lies beside it."""
        return self.masked or self.kind == "set"

    @property
    def dtype(self) -> str:
        """How numpy keeps it in an `Episode`; a text is kept as strings."""
        return {"image": "uint8", "flag": "bool", "text": "str"}.get(self.kind, "float32")

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Of one row of the mask: a set says it for each member."""
        return self.shape[:1] if self.kind == "set" else ()


SIGNALS = {
    "reward": KeySpec("vector", (), role="target"),
    "terminated": KeySpec("flag", (), role="target"),
    "success": KeySpec("flag", (), role="target"),
    "cost": KeySpec("vector", (), role="target"),
}


def signal_keys(**there: bool) -> dict[str, KeySpec]:
    """Entries of the table for the usual signals: `signal_keys(reward=True, terminated=has_end)`."""
    return {name: SIGNALS[name] for name, wanted in there.items() if wanted}


def one_hot(choices: np.ndarray, size: int) -> np.ndarray:
    """Whole numbers `[...]` in 0 to size - 1 as float32 `[..., size]`; memory follows their number, not its square."""
    encoded = np.zeros((choices.size, size), np.float32)
    encoded[np.arange(choices.size), choices.reshape(-1)] = 1
    return encoded.reshape(*choices.shape, size)


@dataclass(frozen=True)
class ActionGroup:
    """A named slice of the action: one device, or one agent, or one choice of several.

    A discrete group is a one-hot slice and `names` are its choices; `low` and `high` belong to continuous ones.
    """

    name: str
    kind: Literal["continuous", "discrete"]
    size: int
    names: tuple[str, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ActionSpec:
    """One action vector of `size` A (0 when the data has no actions).

    A discrete action is a one-hot vector and `names` are its choices. A continuous one is stored in its own units with
    `low` and `high` (length A); `scale` maps it to [-1, 1], which is what models use, and `unscale` back.
    One of several `groups` has a slice for each, side by side; it is `mixed` unless all of them are continuous.
    masked: some rows have no recorded action; it is zero there and `action.mask` says which have one.
    """

    kind: Literal["continuous", "discrete", "mixed"]
    size: int
    names: tuple[str, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    groups: tuple[ActionGroup, ...] = ()
    masked: bool = False

    @classmethod
    def of(cls, groups: tuple[ActionGroup, ...]) -> Self:
        """An action of named groups. One discrete group alone is simply a discrete action."""
        if len(groups) == 1 and groups[0].kind == "discrete":
            return cls("discrete", groups[0].size, groups[0].names)
        kind: Literal["continuous", "mixed"] = "continuous" if all(g.kind == "continuous" for g in groups) else "mixed"
        names = tuple(f"{g.name}.{part}" for g in groups for part in g.names or map(str, range(g.size)))
        return cls(kind, sum(g.size for g in groups), names, *_bounds(groups), groups)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each group lies in the vector; an action without groups is one, `action`."""
        if not self.groups:
            return {"action": slice(0, self.size)}
        ends = list(accumulate(g.size for g in self.groups))
        return {g.name: slice(end - g.size, end) for g, end in zip(self.groups, ends, strict=True)}

    @property
    def choices(self) -> tuple[slice, ...]:
        """The one-hot slices of a mixed action."""
        return tuple(self.slices[group.name] for group in self.groups if group.kind == "discrete")

    def chosen(self, action: np.ndarray) -> np.ndarray:
        """A copy of `[..., A]` with the largest number of each choice of a mixed action as 1, its others as 0."""
        whole = np.array(action, np.float32)
        for part in self.choices:
            whole[..., part] = one_hot(whole[..., part].argmax(-1), part.stop - part.start)
        return whole

    @property
    def parts(self) -> tuple[ActionGroup, ...]:
        """The groups; an action without any is one."""
        if self.groups or self.kind == "mixed":
            return self.groups
        return (ActionGroup("action", self.kind, self.size, self.names, self.low, self.high),)

    def scale(self, action: np.ndarray) -> np.ndarray:
        """Own units to [-1, 1]; `[..., A]` float32. A dimension with an empty range maps to 0."""
        if self.kind == "discrete" or self.low is None or self.high is None:
            return np.asarray(action, np.float32)
        centre, half = self._centre_half()
        return ((np.asarray(action, np.float32) - centre) / np.where(half > 0, half, 1)).astype(np.float32)

    def unscale(self, action: np.ndarray) -> np.ndarray:
        """[-1, 1] to own units; the inverse of `scale`."""
        if self.kind == "discrete" or self.low is None or self.high is None:
            return np.asarray(action, np.float32)
        centre, half = self._centre_half()
        return (np.asarray(action, np.float32) * half + centre).astype(np.float32)

    def _centre_half(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return (high + low) / 2, (high - low) / 2


def _bounds(groups: tuple[ActionGroup, ...]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Low and high of the whole vector, None where a continuous group has none. -1 and 1 leave a one-hot as it is."""
    low: list[float] = []
    high: list[float] = []
    for group in groups:
        if group.kind == "discrete":
            low, high = low + [-1.0] * group.size, high + [1.0] * group.size
        elif group.low is None or group.high is None:
            return None, None
        else:
            low, high = [*low, *group.low], [*high, *group.high]
    return tuple(low), tuple(high)


@dataclass(frozen=True)
class DataSpec:
    """Everything a model needs to know about data: the table of keys, the action, frames per second.

    A name is one key, so that an observation can never be taken for a signal. Raises `UserError` for a reserved name.
    "terminated" is there when some row shows a terminal observation, so that an end can be learned at all.
    """

    keys: dict[str, KeySpec]
    action: ActionSpec
    fps: float
    obs: dict[str, KeySpec] = field(init=False, repr=False, compare=False)
    targets: dict[str, KeySpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, key in self.keys.items():
            if name in RESERVED or name.endswith(MASK):
                raise UserError(f"the key {name!r} has a reserved name: rename it ({name}_observed, say)")
            if name in SIGNALS and key.role != "target":
                raise UserError(f"the observation {name!r} has the name of a signal: rename it ({name}_observed, say)")
        # Looked up in every verb of every model, so computed once.
        object.__setattr__(self, "obs", {k: s for k, s in self.keys.items() if s.role != "target"})
        found = sorted((k for k, s in self.keys.items() if s.role == "target"), key=_usual_first)
        object.__setattr__(self, "targets", {k: self.keys[k] for k in found})

    @property
    def has_reward(self) -> bool:
        return "reward" in self.keys

    @property
    def has_end(self) -> bool:
        return "terminated" in self.keys

    @property
    def image_keys(self) -> tuple[str, ...]:
        return self.of_kind("image")

    @property
    def vector_keys(self) -> tuple[str, ...]:
        return self.of_kind("vector")

    @property
    def category_keys(self) -> tuple[str, ...]:
        return self.of_kind("category")

    @property
    def arrays(self) -> dict[str, KeySpec]:
        """What an `Episode` keeps in `obs`, whatever its role: all but one-number signals and the language task."""
        return {k: s for k, s in self.keys.items() if k != "task" and (s.role != "target" or s.shape)}

    def of_kind(self, *kinds: Kind) -> tuple[str, ...]:
        """The observed and given keys of some kinds, in their order."""
        return tuple(k for k, s in self.obs.items() if s.kind in kinds)

    def with_obs(self, obs: Mapping[str, KeySpec]) -> Self:
        """The same targets with other observations."""
        return replace(self, keys={**obs, **self.targets})

    def with_targets(self, targets: Mapping[str, KeySpec]) -> Self:
        """The same observations with other targets."""
        return replace(self, keys={**self.obs, **targets})

    def with_roles(self, roles: Mapping[str, str]) -> Self:
        """The same data with other roles for some keys. Raises `UserError` for a role that a key cannot have."""
        keys = dict(self.keys)
        for name, role in roles.items():
            if name not in keys:
                raise unknown("key of the data", name, keys)
            if role != "target" and (name in SIGNALS or (not keys[name].shape and keys[name].role == "target")):
                raise UserError(f"{name!r} is a signal, which is only ever a target, not {role}")
            if role == "target" and name == "task":
                raise UserError("the task is context, and no model predicts it: its role is given")
            keys[name] = replace(keys[name], role=role)  # type: ignore[arg-type]
        if roles and all(key.role != "observed" for key in keys.values()):
            raise UserError(f"no key is observed any more (roles: {dict(roles)}): leave one that the model can observe")
        return replace(self, keys=keys)

    def with_image_size(self, height: int, width: int) -> Self:
        """The same data at another resolution."""
        resized = {
            k: replace(s, shape=(s.shape[0], height, width)) if s.kind == "image" else s for k, s in self.keys.items()
        }
        return replace(self, keys=resized)

    def to_json(self) -> dict[str, Any]:
        keys = {name: short(asdict(key)) for name, key in self.keys.items()}
        return {"keys": keys, "action": short(asdict(self.action)), "fps": self.fps}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Also of a file that was written before there was one table of keys."""
        data = upgraded(data) if "obs" in data else data
        action = tuples(data["action"])
        groups = tuple(ActionGroup(**tuples(group)) for group in action.pop("groups", ()))
        keys = {name: KeySpec(**tuples(key)) for name, key in data["keys"].items()}
        return cls(keys, ActionSpec(**action, groups=groups), data["fps"])


def upgraded(data: dict[str, Any]) -> dict[str, Any]:
    """A spec of format 1, with observations and two flags for signals, as one with a table of keys."""
    obs = {name: key | ({"role": "given"} if key["kind"] == "category" else {}) for name, key in data["obs"].items()}
    known = signal_keys(reward=data.get("has_reward", False), terminated=data.get("has_end", False))
    return {
        "keys": obs | {name: asdict(key) for name, key in known.items()},
        "action": data["action"],
        "fps": data["fps"],
    }


def _usual_first(name: str) -> tuple[int, str]:
    usual = list(SIGNALS)
    return (usual.index(name) if name in SIGNALS else len(usual), name)


def short(data: dict[str, Any]) -> dict[str, Any]:
    """A key or an action as JSON, without what has its default, so that the files stay readable."""
    defaults = {"role": "observed", "per": "row", "masked": False, "groups": ()}
    return {k: v for k, v in data.items() if v is not None and not (k in defaults and v == defaults[k])}


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """The other way: lists of JSON as the tuples they were."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
