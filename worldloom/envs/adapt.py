"""Any gymnasium environment becomes one with a dict of images and vectors, a Discrete or flat Box action, and a rate.

H W image height and width, D vector size, A action size, N choices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from worldloom.console import say_once
from worldloom.envs.actions import ActionAdapter, Adapted, choices_of
from worldloom.errors import UserError

SMALLEST_IMAGE = 8  # a side of a picture
Obs = dict[str, np.ndarray]
ActionSpace = Adapted


def adapt(env: gymnasium.Env, name: str, image_size: int = 64, seed: int = 0) -> "AdaptedEnv":
    """Wrap what a factory returned; `name` is how errors call it."""
    if isinstance(env, AdaptedEnv):
        return env
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"{name} returned a {type(env).__name__}, not a gymnasium.Env: return one from that function")
    return AdaptedEnv(env, name, image_size, seed)


@dataclass(frozen=True)
class ObsLeaf:
    """One observation key: where it sits in the original observation, its new space and how a value gets there."""

    path: tuple[Any, ...]
    space: spaces.Box
    convert: Callable[[Any], np.ndarray]

    def read(self, obs: Any) -> np.ndarray:
        for part in self.path:
            obs = obs[part]
        return self.convert(obs)


class AdaptedEnv(gymnasium.Env[Any, Any]):
    """A gymnasium environment in worldloom's convention; `.env` is the original.

    fps: steps per second of the world's own time, from `metadata["render_fps"]`.
    acts: the action space, and how an action of it becomes one of the original (`ActionAdapter`).
    action_names: what each choice or each dimension of the action is called, where the environment says so.
    A text observation (a mission) is not a key: it arrives as `info["task"]` from `reset`.
    """

    def __init__(self, env: gymnasium.Env, name: str, image_size: int, seed: int):
        self.env, self.name, self.metadata = env, name, env.metadata
        self.render_mode, self.spec = env.render_mode, env.spec
        self._leaves = find_leaves(env.observation_space, name, image_size)
        self._text = find_text(env.observation_space)
        self.observation_space: spaces.Dict = spaces.Dict({key: leaf.space for key, leaf in self._leaves.items()})
        self.acts = ActionAdapter.of(env.action_space, name)
        self.action_space: ActionSpace = self.acts.space
        self.action_names = read_action_names(env, name)
        self.fps = read_fps(env, name)
        self._first_seed: int | None = seed

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        seed = self._first_seed if seed is None else seed
        self._first_seed = None
        obs, info = self.env.reset(seed=seed, options=options)
        if self._text is not None:
            info = {"task": str(obs[self._text]), **info}
        return self._read(obs), info

    def step(self, action: Any) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(self.acts.send(action))
        return (
            self._read(obs),
            one_number(reward, f"{self.name}: the reward of a step"),
            bool(terminated),
            bool(truncated),
            info,
        )

    @property
    def has_text(self) -> bool:
        """Whether a part of the observation is a text, which arrives as the task."""
        return self._text is not None

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    @property
    def unwrapped(self) -> gymnasium.Env:
        return self.env.unwrapped

    def _read(self, obs: Any) -> Obs:
        return {key: leaf.read(obs) for key, leaf in self._leaves.items()}


def one_number(value: Any, what: str) -> float:
    """A number, or an array that holds one; `what` it is stands in the error."""
    values = np.asarray(value)
    if values.size != 1 or values.dtype.kind not in "biuf":
        raise UserError(f"{what} is {value!r}, but it must be one number: fix the environment")
    return float(values.reshape(-1)[0])


def find_leaves(space: spaces.Space, name: str, image_size: int) -> dict[str, ObsLeaf]:
    """The observation keys of any space: a bare image is "image", a bare vector "state"; "_" joins what is nested.

    Parts that hold no number, such as a sensor that is off, and texts are left out.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        found = list(_nested(space, name, image_size))
        leaves = dict(found)
        if not leaves:
            raise UserError(f"{name}: the observation space {space} holds neither an image nor a vector")
        if len(leaves) < len(found):
            raise UserError(f"{name}: two observations would both be called one of {', '.join(leaves)}: rename one")
        return leaves
    leaf = make_leaf(space, (), name, image_size)
    return {"image" if leaf.space.dtype == np.uint8 else "state": leaf}


def _nested(
    space: spaces.Dict | spaces.Tuple, name: str, image_size: int, path: tuple[Any, ...] = ()
) -> Iterator[tuple[str, ObsLeaf]]:
    for part, inner in space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
        here = (*path, part)
        key = "_".join(map(str, here)).replace("/", "_")
        if isinstance(inner, spaces.Dict | spaces.Tuple):
            yield from _nested(inner, name, image_size, here)
        elif isinstance(inner, spaces.Box) and 0 in inner.shape:
            say_once(f"{name}: the observation {key!r} has the shape {inner.shape}, no number at all: it is left out")
        elif not is_text(inner):
            yield key, make_leaf(inner, here, name, image_size)


def make_leaf(space: spaces.Space, path: tuple[Any, ...], name: str, image_size: int) -> ObsLeaf:
    """One key's new space and conversion; raises `UserError` for a space that is neither picture nor numbers."""
    where = f"{name}: observation {'.'.join(map(str, path))!r}" if path else f"{name}: the observation"
    if isinstance(space, spaces.Box) and 0 in space.shape:
        raise UserError(f"{where} is a Box of shape {space.shape}, which holds no number")
    if isinstance(space, spaces.Box) and (layout := image_layout(space, where)):
        height, width = image_size or space.shape[layout.index("H")], image_size or space.shape[layout.index("W")]
        new = spaces.Box(0, 255, (height, width, 3), np.uint8)
        return ObsLeaf(
            path, new, lambda value: to_image(as_declared(value, space, where), layout, height, width, where)
        )
    if isinstance(space, spaces.Box):
        low, high = (np.asarray(edge, np.float32).reshape(-1) for edge in (space.low, space.high))
        return ObsLeaf(
            path, spaces.Box(low, high, dtype=np.float32), lambda value: to_vector(as_declared(value, space, where))
        )
    if isinstance(space, spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return ObsLeaf(
            path, spaces.Box(0, 1, (size,), np.float32), lambda value: to_vector(as_declared(value, space, where))
        )
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        parts = [part for _, part in choices_of(space)]
        sizes, starts = (np.array([getattr(part, of) for part in parts]) for of in ("size", "start"))
        choices = spaces.Box(0, 1, (int(sizes.sum()),), np.float32)
        return ObsLeaf(path, choices, lambda value: to_choices(value, sizes, starts, where))
    raise UserError(f"{where} is a {type(space).__name__} space; turn it into a Box, Discrete or Dict of those")


def image_layout(space: spaces.Box, where: str = "the observation") -> str:
    """ "HWC", "CHW" or "HW" when the space is a picture, "" when it is numbers.

    Raises `UserError` for a stack of pictures: four grey ones would else be taken for one with red, green, blue and
    alpha, whose last, the newest, is dropped.
    """
    shape = space.shape
    if space.dtype != np.uint8 or len(shape) < 2:
        return ""
    if len(shape) == 2 and min(shape) >= SMALLEST_IMAGE:
        return "HW"
    if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= SMALLEST_IMAGE:
        return "HWC"
    if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= SMALLEST_IMAGE:
        return "CHW"
    if len(shape) > 2 and sorted(shape)[-2] >= SMALLEST_IMAGE:
        raise UserError(
            f"{where} is a stack of pictures, {shape}: a world model has a memory of its own, so leave frame stacking "
            "out and show it the newest picture"
        )
    return ""


def as_declared(value: Any, space: spaces.Box | spaces.MultiBinary, where: str) -> np.ndarray:
    """An observation that has the shape its space says, and of a picture the type; anything else would be a cast."""
    values = np.asarray(value)
    if values.shape != space.shape or values.dtype.kind not in "biuf":
        raise UserError(f"{where} is {values.dtype} {values.shape}, but its space says {space.dtype} {space.shape}")
    if space.dtype == np.uint8 and values.dtype != np.uint8 and isinstance(space, spaces.Box):
        if ((values < 0) | (values > 255) | (values != np.rint(values))).any():
            raise UserError(
                f"{where} is {values.dtype} from {values.min()} to {values.max()}, but its space says uint8"
            )
        values = values.astype(np.uint8)
    return values


def to_choices(value: Any, sizes: np.ndarray, starts: np.ndarray, where: str) -> np.ndarray:
    """Whole numbers as one-hot slices side by side."""
    chosen = np.asarray(value).reshape(-1)
    found = chosen - starts if chosen.shape == sizes.shape else np.array([-1])
    if ((found < 0) | (found >= sizes)).any():
        raise UserError(f"{where} is {value!r}, which is no choice of its space")
    vector = np.zeros(int(sizes.sum()), np.float32)
    vector[np.concatenate([[0], np.cumsum(sizes)[:-1]]) + found.astype(int)] = 1
    return vector


def to_image(value: np.ndarray, layout: str, height: int, width: int, where: str = "the picture") -> np.ndarray:
    """Any picture to uint8 RGB `[H, W, 3]`: grey is repeated, opaque alpha dropped, a larger one shrunk by area."""
    if layout == "HW":
        value = value[:, :, None]
    elif layout == "CHW":
        value = value.transpose(1, 2, 0)
    if value.shape[2] == 4 and (value[..., 3] != 255).any():
        raise UserError(
            f"{where} has a fourth channel that is not opaque: if these are four grey frames, leave frame stacking "
            "out; else show red, green and blue alone"
        )
    value = np.repeat(value, 3, 2) if value.shape[2] == 1 else value[:, :, :3]
    return resize(np.ascontiguousarray(value, np.uint8), height, width)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 `[H, W, 3]` to another size. Shrinking averages areas, which is twice as fast as a bilinear window."""
    if image.shape[:2] == (height, width):
        return image.copy()
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def to_vector(value: Any) -> np.ndarray:
    return np.array(value, np.float32).reshape(-1)


def is_text(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Text) or (space.dtype is not None and space.dtype.kind == "U")


def find_text(space: spaces.Space) -> str | None:
    """The first text key of a dict observation: a mission, which is context and not something to predict."""
    if not isinstance(space, spaces.Dict):
        return None
    return next((key for key, inner in space.spaces.items() if is_text(inner)), None)


def read_action_names(env: gymnasium.Env, name: str) -> tuple[str, ...] | None:
    """`env.action_names` where it exists, checked against the action's size."""
    if not env.has_wrapper_attr("action_names"):
        return None
    names = tuple(str(n) for n in env.get_wrapper_attr("action_names"))
    space = ActionAdapter.of(env.action_space, name).space
    size = int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape))
    if len(names) != size:
        raise UserError(f"{name}: action_names holds {len(names)} names, but the action has {size}: name each of them")
    return names


def read_fps(env: gymnasium.Env, name: str) -> float:
    """Steps per second of the world's own time; a wrong guess would end up in every dataset, so it must be stated."""
    fps = env.metadata.get("render_fps") or 0
    if not fps > 0:
        raise UserError(f"{name} does not say how many steps a second has: give it metadata = {{'render_fps': 10}}")
    return float(fps)
