"""What a dataset holds, as plain values that travel as JSON inside every dataset cache and checkpoint.

D vector size, A action size, N categories, C H W image channels, height, width.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np


@dataclass(frozen=True)
class KeySpec:
    """One observation key.

    `image`: uint8 `(C, H, W)`. `vector`: float32 `(D,)`, in the data's own units. `category`: a float32 one-hot `(N,)`,
    context such as the language task; `names` then holds the N meanings. `mean` and `std` are
    fitted on training episodes (vectors: length D; images: length C, of pixels in [0, 1]). They normalise inside the
    model, so that what goes in and what is decoded keep their units.
    """

    kind: Literal["image", "vector", "category"]
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ActionSpec:
    """One action vector of `size` A (0 when the data has no actions).

    A discrete action is a one-hot vector and `names` are its choices. A continuous one is stored in its own units with
    `low` and `high` (length A); `scale` maps it to [-1, 1], which is all that a model ever sees, and `unscale` back.
    """

    kind: Literal["continuous", "discrete"]
    size: int
    names: tuple[str, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

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


@dataclass(frozen=True)
class DataSpec:
    """Everything a model needs to know about data: observation keys, the action, frames per second, existing signals.

    `has_end` is true when some row shows a terminal observation (`terminated`), so that an end can be learned at all.
    """

    obs: dict[str, KeySpec]
    action: ActionSpec
    fps: float
    has_reward: bool = False
    has_end: bool = False

    @property
    def image_keys(self) -> tuple[str, ...]:
        return tuple(k for k, s in self.obs.items() if s.kind == "image")

    @property
    def vector_keys(self) -> tuple[str, ...]:
        return tuple(k for k, s in self.obs.items() if s.kind == "vector")

    @property
    def category_keys(self) -> tuple[str, ...]:
        return tuple(k for k, s in self.obs.items() if s.kind == "category")

    def with_image_size(self, height: int, width: int) -> Self:
        """The same data seen at another resolution."""
        resized = {
            k: replace(s, shape=(s.shape[0], height, width)) if s.kind == "image" else s for k, s in self.obs.items()
        }
        return replace(self, obs=resized)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        obs = {k: KeySpec(**_tuples(v)) for k, v in data["obs"].items()}
        return cls(**{**data, "obs": obs, "action": ActionSpec(**_tuples(data["action"]))})


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
