"""Any gymnasium environment becomes one with a dict of images and vectors, a Discrete or flat Box action, and a rate.

H W image height and width, D vector size, A action size, N choices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from worldloom.errors import UserError

SMALLEST_IMAGE = 16
Obs = dict[str, np.ndarray]
ActionSpace = spaces.Discrete | spaces.Box


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
    to_inner: turns an action of this space into one of the original.
    action_names: what each choice or each dimension of the action is called, where the environment says so.
    A text observation (a mission) is not a key: it arrives as `info["task"]` from `reset`.
    """

    def __init__(self, env: gymnasium.Env, name: str, image_size: int, seed: int):
        self.env, self.name, self.metadata = env, name, env.metadata
        self.render_mode, self.spec = env.render_mode, env.spec
        self._leaves = find_leaves(env.observation_space, name, image_size)
        self._text = find_text(env.observation_space)
        self.observation_space: spaces.Dict = spaces.Dict({key: leaf.space for key, leaf in self._leaves.items()})
        self.action_space: ActionSpace
        self.action_space, self.to_inner = adapt_action(env.action_space, name)
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
        obs, reward, terminated, truncated, info = self.env.step(self.to_inner(action))
        if not isinstance(reward, SupportsFloat):
            raise UserError(f"{self.name}: step returned the reward {reward!r}, but it must be a number")
        return self._read(obs), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    @property
    def unwrapped(self) -> gymnasium.Env:
        return self.env.unwrapped

    def _read(self, obs: Any) -> Obs:
        return {key: leaf.read(obs) for key, leaf in self._leaves.items()}


def find_leaves(space: spaces.Space, name: str, image_size: int) -> dict[str, ObsLeaf]:
    """The observation keys of any space: a bare image is "image", a bare vector "state"; "_" joins what is nested."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        found = _nested(items, name, image_size)
        leaves = dict(found)
        if not leaves:
            raise UserError(f"{name}: the observation space {space} holds neither an image nor a vector")
        if len(leaves) < len(found):
            raise UserError(f"{name}: two observations would both be called one of {', '.join(leaves)}: rename one")
        return leaves
    leaf = make_leaf(space, (), name, image_size)
    return {"image" if leaf.space.dtype == np.uint8 else "state": leaf}


def _nested(items: Any, name: str, image_size: int, path: tuple[Any, ...] = ()) -> list[tuple[str, ObsLeaf]]:
    found = []
    for part, space in items:
        here = (*path, part)
        if isinstance(space, spaces.Dict | spaces.Tuple):
            inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
            found += _nested(inner, name, image_size, here)
        elif not is_text(space):
            found.append(("_".join(map(str, here)).replace("/", "_"), make_leaf(space, here, name, image_size)))
    return found


def make_leaf(space: spaces.Space, path: tuple[Any, ...], name: str, image_size: int) -> ObsLeaf:
    """One key's new space and conversion; raises `UserError` for a space that is neither picture nor numbers."""
    if isinstance(space, spaces.Box) and (layout := image_layout(space)):
        height, width = image_size or space.shape[layout.index("H")], image_size or space.shape[layout.index("W")]
        new = spaces.Box(0, 255, (height, width, 3), np.uint8)
        return ObsLeaf(path, new, lambda value: to_image(value, layout, height, width))
    if isinstance(space, spaces.Box):
        low, high = (np.asarray(edge, np.float32).reshape(-1) for edge in (space.low, space.high))
        return ObsLeaf(path, spaces.Box(low, high, dtype=np.float32), to_vector)
    if isinstance(space, spaces.Discrete):
        n, start = int(space.n), int(space.start)
        one_hot = np.eye(n, dtype=np.float32)
        return ObsLeaf(path, spaces.Box(0, 1, (n,), np.float32), lambda value: one_hot[int(value) - start].copy())
    if isinstance(space, spaces.MultiBinary | spaces.MultiDiscrete):
        size = int(np.prod(space.shape))
        return ObsLeaf(path, spaces.Box(-np.inf, np.inf, (size,), np.float32), to_vector)
    where = ".".join(map(str, path)) or "the observation"
    raise UserError(f"{name}: {where} is a {type(space).__name__} space; turn it into a Box, Discrete or Dict of those")


def image_layout(space: spaces.Box) -> str:
    """ "HWC", "CHW" or "HW" when the space is a picture, "" when it is numbers."""
    if space.dtype != np.uint8:
        return ""
    shape = space.shape
    if len(shape) == 2 and min(shape) >= SMALLEST_IMAGE:
        return "HW"
    if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= SMALLEST_IMAGE:
        return "HWC"
    if len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) >= SMALLEST_IMAGE:
        return "CHW"
    return ""


def to_image(value: np.ndarray, layout: str, height: int, width: int) -> np.ndarray:
    """Any picture to uint8 RGB `[H, W, 3]`: grey is repeated, alpha dropped, a larger one shrunk by area."""
    value = np.asarray(value)
    if layout == "HW":
        value = value[:, :, None]
    elif layout == "CHW":
        value = value.transpose(1, 2, 0)
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


def adapt_action(space: spaces.Space, name: str) -> tuple[ActionSpace, Callable[[Any], Any]]:
    """The action space as Discrete from 0 or a flat float32 Box, and the way back to the original."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return spaces.Discrete(int(space.n)), lambda action: int(action) + start
    if isinstance(space, spaces.Box):
        shape, dtype = space.shape, space.dtype
        low, high = (np.asarray(edge, np.float32).reshape(-1) for edge in (space.low, space.high))
        return spaces.Box(low, high, dtype=np.float32), lambda action: np.asarray(action, dtype).reshape(shape)
    fix = "wrap the environment so that its action is Discrete or a Box"
    raise UserError(f"{name}: the action is a {type(space).__name__} space, which has no single vector form; {fix}")


def read_action_names(env: gymnasium.Env, name: str) -> tuple[str, ...] | None:
    """`env.action_names` where it exists, checked against the action's size."""
    if not env.has_wrapper_attr("action_names"):
        return None
    names = tuple(str(n) for n in env.get_wrapper_attr("action_names"))
    space = env.action_space
    size = int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or (1,)))
    if len(names) != size:
        raise UserError(f"{name}: action_names holds {len(names)} names, but the action has {size}: name each of them")
    return names


def read_fps(env: gymnasium.Env, name: str) -> float:
    """Steps per second of the world's own time; a wrong guess would end up in every dataset, so it must be stated."""
    fps = env.metadata.get("render_fps") or 0
    if not fps > 0:
        raise UserError(f"{name} does not say how many steps a second has: give it metadata = {{'render_fps': 10}}")
    return float(fps)
