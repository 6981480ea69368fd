"""A world model as a gymnasium environment, so that whatever learns in gymnasium learns in a dream.

N environments dreaming side by side, S starts, C context rows, F features, D vector size, A action size, H W image
height and width. Rewards, costs and ends are what the model decodes from each new belief.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from worldloom.data.cache import CachedDataset
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec, KeySpec, one_hot
from worldloom.errors import UserError, unknown
from worldloom.limits import at_least, check_limits
from worldloom.model import State, WorldModel
from worldloom.noise import TorchNoise

COLDEST = 1e-4
INFO_KEYS = ("cost", "disagreement")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Starts:
    """Where dreams begin: beliefs `[S]`, each tracked over a few real rows, and the context of those rows.

    `given` are the category keys of the last row `[S, ...]`: a task stays what it is for the whole dream.
    """

    belief: State
    given: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def track(cls, model: WorldModel, rows: Segment, seed: int = 0) -> Self:
        """The beliefs after real windows `[S, C]`, without those that an episode ends in. Raises `UserError`."""
        last = rows.mask.sum(1) - 1
        each = torch.arange(len(last), device=last.device)
        going = (last >= 0) & ~rows.terminated[each, last.clamp(min=0)]
        if not going.any():
            raise UserError("no start data: none of the windows holds a real row that its episode goes on from")
        each, last = each[going], last[going]
        tracked = model.track(rows.obs, rows.action, TorchNoise.seeded(seed, rows.action.device))
        return cls(tracked[each, last], {k: rows.obs[k][each, last] for k in model.spec.category_keys})

    def __len__(self) -> int:
        return self.belief.features.shape[0]


def draw_rows(
    dataset: CachedDataset, *, count: int = 256, context: int = 8, episodes: Sequence[int] | None = None, seed: int = 0
) -> Segment:
    """`count` windows `[S, C]` of real rows that begin anywhere in `episodes` (default: all), none past an end.

    An episode shorter than `context` is used whole. Raises `UserError` when there is nothing to draw from.
    """
    if count < 1 or context < 1:
        raise UserError(f"{count} starts of {context} rows: a dream needs at least 1 start and 1 row to begin from")
    chosen = list(range(len(dataset))) if episodes is None else list(episodes)
    dataset.check_episodes(chosen)
    # The last row is left out: it has no future.
    places = np.maximum(dataset.lengths[chosen] - context, 1)
    rng, parts = np.random.default_rng(seed), []
    for number in rng.choice(len(chosen), size=count, p=places / places.sum()):
        parts.append(dataset.segment(chosen[number], int(rng.integers(places[number])), context))
    return Segment.cat(parts)


@dataclass(frozen=True)
class DreamSettings:
    """How dreams are played. Raises `UserError` for values no dream can have.

    horizon: steps until a dream is truncated. observation: "decoded" shows what the model decodes, or of it `keys`;
    "features" the belief itself, `[F]`. temperature scales how randomly the model samples (`Noise.temperature`) and
    an end is drawn: 1 is as learned, 0 takes the likeliest, above 1 makes a dream that is harder to exploit (Ha &
    Schmidhuber, 2018). Of a model that does not sample it moves the ends alone.
    """

    horizon: Annotated[int, at_least(1)] = 64
    observation: Literal["decoded", "features"] = "decoded"
    keys: tuple[str, ...] | None = None
    temperature: Annotated[float, at_least(0)] = 1.0
    render_mode: str | None = None

    def __post_init__(self) -> None:
        check_limits(self, "the {} of a dream".format)
        if self.observation not in ("decoded", "features"):
            raise unknown("observation of a dream", self.observation, ("decoded", "features"))
        if self.render_mode not in (None, "rgb_array"):
            raise unknown("render mode of a dream", str(self.render_mode), ("rgb_array",))

    def check(self, model: WorldModel) -> None:
        """Raise `UserError` when `model` cannot be dreamed like this."""
        if "reward" not in model.decodes:
            raise UserError(f"the model decodes {', '.join(model.decodes)} but no reward: an environment needs one")
        if not model.spec.action.size:
            raise UserError("the model takes no actions: there is nothing to do in its dream")
        if self.render_mode and not pictures(model):
            raise UserError("the model decodes no picture: leave render_mode away")
        if self.observation == "decoded" and not shown(model, self.keys):
            raise UserError("the model decodes no observation: choose observation='features'")


def pictures(model: WorldModel) -> list[str]:
    """The image keys the model decodes."""
    return [k for k in model.spec.image_keys if k in model.decodes]


def shown(model: WorldModel, keys: Sequence[str] | None = None) -> list[str]:
    """The observation keys of a dream: what is decoded and given, or `keys` of them. Raises `UserError`."""
    decoded = [k for k in model.spec.obs if k in model.decodes]
    known = [*decoded, *model.spec.category_keys] if decoded else []
    for key in keys or ():
        if key not in known:
            raise unknown("observation key of a dream", key, known)
    return list(keys) if keys else known


def key_space(key: KeySpec) -> spaces.Box:
    """As environments show it: images uint8 `[H, W, C]`, all else float32 `[D]`."""
    if key.kind == "image":
        channels, height, width = key.shape
        return spaces.Box(0, 255, (height, width, channels), np.uint8)
    low, high = (0, 1) if key.kind == "category" else (-np.inf, np.inf)
    return spaces.Box(low, high, key.shape, np.float32)


def action_space(spec: DataSpec) -> spaces.Discrete | spaces.Box:
    """The choices, or the declared range in the environment's own units."""
    action = spec.action
    if action.kind == "discrete":
        return spaces.Discrete(action.size)
    low, high = (np.full(action.size, end) if own is None else np.asarray(own, np.float32)
                 for end, own in ((-np.inf, action.low), (np.inf, action.high)))  # fmt: skip
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def to_model(actions: np.ndarray, spec: DataSpec) -> Tensor:
    """Actions of N environments in their own units to model units `[N, A]`, clipped to the declared range."""
    if spec.action.kind == "discrete":
        if actions.ndim != 1 or actions.dtype.kind not in "iu":
            raise UserError(
                f"the actions are {actions.dtype} {actions.shape}, but this dream takes one whole number for each "
                f"environment, 0 to {spec.action.size - 1}"
            )
        wrong = actions[(actions < 0) | (actions >= spec.action.size)]
        if wrong.size:
            raise UserError(f"an action is {wrong[0]}: this dream takes 0 to {spec.action.size - 1}")
        return torch.from_numpy(one_hot(actions, spec.action.size))
    if actions.ndim != 2 or actions.shape[1] != spec.action.size:
        raise UserError(f"the actions are {actions.shape}, but this dream takes (environments, {spec.action.size})")
    if not np.isfinite(actions).all():
        raise UserError(f"an action is {actions[~np.isfinite(actions)][0]}: a dream takes finite ones")
    scaled = spec.action.scale(actions)
    return torch.from_numpy(scaled if spec.action.low is None else np.clip(scaled, -1, 1))


def to_picture(decoded: Tensor) -> np.ndarray:
    """Float `[N, C, H, W]` in [0, 1] to uint8 `[N, H, W, C]`."""
    return (255 * decoded.float()).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class _Dreams:
    """N dreams under way: beliefs `[N]`, which start each came from, its age in steps, and whether it is done."""

    belief: State
    start: np.ndarray
    age: np.ndarray
    done: np.ndarray


class DreamEnv(VectorEnv[Any, np.ndarray, np.ndarray]):
    """`num_envs` dreams of one model, computed as one batch.

    Resets follow gymnasium's next-step mode: the step after an end ignores its action and returns the first observation
    of a new dream with reward 0. `reset` takes one seed, from which every dream gets its own, or a list of them, and
    `options={"reset_mask": bool [N]}` restarts some dreams alone. `info` holds "cost" and "disagreement" where the
    model decodes them, `[N]`. torch's global generator is left as it was.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012, as gymnasium declares it
        "autoreset_mode": AutoresetMode.NEXT_STEP,
        "render_modes": ["rgb_array"],
    }

    def __init__(self, model: WorldModel, starts: Starts, num_envs: int = 1, **settings: Any):
        if num_envs < 1:
            raise UserError(f"num_envs is {num_envs}, but it must be 1 or more")
        self.settings = DreamSettings(**settings)
        self.settings.check(model)
        self.model, self.starts, self.num_envs = model, starts, num_envs
        self.render_mode = self.settings.render_mode
        self.metadata = {**self.metadata, "render_fps": model.spec.fps}
        self.single_observation_space = self._space()
        self.single_action_space = action_space(model.spec)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._dreams: _Dreams | None = None
        self._generators: list[np.random.Generator] = []

    @classmethod
    def of(cls, model: WorldModel, dataset: CachedDataset, num_envs: int = 1, seed: int = 0, **settings: Any) -> Self:
        """Dreams that begin anywhere in `dataset`."""
        device = next(model.parameters()).device
        starts = Starts.track(model, draw_rows(dataset, seed=seed).to(device), seed)
        return cls(model, starts, num_envs, **settings)

    @torch.no_grad()
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The first observations `[N, ...]`; those of dreams outside the mask are where they are."""
        mask = self._mask(options) if self._dreams else np.ones(self.num_envs, bool)
        self._seed(seed, mask)
        self._dreams = self._restart(self._dreams, mask)
        return self._observe(self._dreams), {}

    @torch.no_grad()
    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every dream; rewards float64, ends and truncations bool, each `[N]`."""
        dreams = self._dreams
        if dreams is None:
            raise gymnasium.error.ResetNeeded("reset the dreams before the first step")
        again, given = dreams.done, np.asarray(actions)
        if len(np.atleast_1d(given)) != self.num_envs:
            raise UserError(f"{len(np.atleast_1d(given))} actions for {self.num_envs} dreams: give one each")
        belief = self._predict(dreams, to_model(given, self.model.spec))
        dreams = replace(dreams, belief=belief, age=dreams.age + 1)
        dreams = self._restart(dreams, again) if again.any() else dreams
        rewards = np.where(again, 0.0, self._read(dreams, "reward"))
        if not np.isfinite(rewards).all():
            raise UserError(f"the model's reward became {rewards[~np.isfinite(rewards)][0]} in a dream: shorten it")
        terminated = ~again & self._ends(dreams)
        truncated = ~again & ~terminated & (dreams.age >= self.settings.horizon)
        self._dreams = dreams = replace(dreams, done=terminated | truncated)
        info: dict[str, Any] = {}
        for key in INFO_KEYS:
            if key in self.model.decodes:
                info |= {key: np.where(again, 0.0, self._read(dreams, key)), "_" + key: ~again}
        return self._observe(dreams), rewards, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The current picture of the first camera of each dream, uint8 `[H, W, C]`."""
        if self.render_mode is None or self._dreams is None:
            return None
        with torch.no_grad():
            return tuple(to_picture(self.model.decode(self._dreams.belief, pictures(self.model)[0])))

    def _space(self) -> spaces.Space:
        if self.settings.observation == "features":
            return spaces.Box(-np.inf, np.inf, (self.starts.belief.features.shape[-1],), np.float32)
        keys = shown(self.model, self.settings.keys)
        return spaces.Dict({k: key_space(self.model.spec.obs[k]) for k in keys})

    def _mask(self, options: dict[str, Any] | None) -> np.ndarray:
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise UserError(f"reset_mask must be bool [{self.num_envs}] with a True in it, but it is {mask}")
        return mask

    def _seed(self, seed: int | Sequence[int | None] | None, mask: np.ndarray) -> None:
        """Give dreams in the mask their own generators; without a seed the ones they have go on."""
        if isinstance(seed, np.ndarray):
            seed = seed.tolist()
        if isinstance(seed, int | np.integer):
            super().reset(seed=int(seed))
        if seed is None and self._generators:
            return
        seeds = self.np_random.integers(2**31, size=self.num_envs).tolist() if not isinstance(seed, Sequence) else seed
        if len(seeds) != self.num_envs:
            raise UserError(f"{len(seeds)} seeds for {self.num_envs} environments: give one each")
        made = [np.random.default_rng(s) for s in seeds]
        self._generators = [new if m else old for new, old, m in zip(made, self._generators or made, mask, strict=True)]
        # What a model samples is drawn for all dreams at once.
        self._noise = np.random.default_rng([s or 0 for s in seeds])

    def _restart(self, dreams: _Dreams | None, mask: np.ndarray) -> _Dreams:
        """The same dreams, but those in the mask at starts that their own generators draw."""
        new = np.array([self._generators[i].integers(len(self.starts)) for i in np.flatnonzero(mask)])
        device = self.starts.belief.features.device
        fresh = self.starts.belief[torch.from_numpy(new).to(device)]
        if dreams is None:
            return _Dreams(fresh, new, np.zeros(self.num_envs, int), np.zeros(self.num_envs, bool))
        order = torch.arange(self.num_envs)
        order[torch.from_numpy(mask)] = self.num_envs + torch.arange(len(new))
        start = dreams.start.copy()
        start[mask] = new
        belief = State.cat([dreams.belief, fresh])[order.to(device)]
        return _Dreams(belief, start, np.where(mask, 0, dreams.age), dreams.done & ~mask)

    def _predict(self, dreams: _Dreams, actions: Tensor) -> State:
        """The next beliefs, sampled at the dreams' temperature."""
        device = self.starts.belief.features.device
        noise = TorchNoise.seeded(int(self._noise.integers(2**31)), device, self.settings.temperature)
        return self.model.predict(dreams.belief, actions.to(device), noise)

    def _ends(self, dreams: _Dreams) -> np.ndarray:
        """Whether each dream ends here, drawn from the probability at the temperature."""
        if "terminated" not in self.model.decodes:
            return np.zeros(self.num_envs, bool)
        likely = np.clip(self._read(dreams, "terminated"), 1e-12, 1 - 1e-12)
        odds = np.clip(np.log(likely / (1 - likely)) / max(self.settings.temperature, COLDEST), -700, 700)
        drawn = np.array([generator.random() for generator in self._generators])
        return drawn < 1 / (1 + np.exp(-odds))

    def _read(self, dreams: _Dreams, key: str) -> np.ndarray:
        return self.model.decode(dreams.belief, key).double().cpu().numpy()

    def _observe(self, dreams: _Dreams) -> Any:
        belief, start = dreams.belief, torch.from_numpy(dreams.start)
        if self.settings.observation == "features":
            return belief.features.float().cpu().numpy().copy()
        obs: Arrays = {}
        for key, space in self.single_observation_space.spaces.items():  # type: ignore[attr-defined]
            if key in self.starts.given:
                obs[key] = self.starts.given[key].cpu()[start].numpy()
            elif space.dtype == np.uint8:
                obs[key] = to_picture(self.model.decode(belief, key))
            else:
                obs[key] = self.model.decode(belief, key).float().cpu().numpy().copy()
        return obs


class SingleDreamEnv(gymnasium.Env[Any, Any]):
    """One dream as an ordinary environment; the arguments are those of `DreamEnv`."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012, as gymnasium declares it

    def __init__(self, model: WorldModel, starts: Starts, **settings: Any):
        self.dreams = DreamEnv(model, starts, 1, **settings)
        self.observation_space = self.dreams.single_observation_space
        self.action_space = self.dreams.single_action_space
        self.render_mode = self.dreams.render_mode
        self.metadata = {**self.metadata, "render_fps": model.spec.fps}
        self._over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        obs, _ = self.dreams.reset(seed=int(self.np_random.integers(2**31)))
        self._over = False
        return _first(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("this dream has ended: reset it")
        obs, reward, terminated, truncated, info = self.dreams.step(np.asarray(action)[None])
        self._over = bool(terminated[0] or truncated[0])
        info = {k: float(v[0]) for k, v in info.items() if not k.startswith("_")}
        return _first(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        frames = self.dreams.render()
        return None if frames is None else frames[0]


def _first(obs: Any) -> Any:
    return {k: v[0] for k, v in obs.items()} if isinstance(obs, dict) else obs[0]
