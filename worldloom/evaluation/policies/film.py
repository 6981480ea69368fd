"""What a planning agent imagined beside what then happened, gathered while it plays one episode.

T decisions, H horizon, D vector size, K pictures, C H W image channels, height, width.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldloom.agents.environment import to_obs
from worldloom.agents.planning import PlanningMemory
from worldloom.agents.play import Decision
from worldloom.agents.repeat import innermost
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.model import WorldModel

NUM_PICTURES = 4


@dataclass(frozen=True)
class FilmFrame:
    """One decision. `reward` is all that arrived since the decision before; `view` uint8 `[H, W, 3]`, if there is one.

    `made` is the decision at which the plan in force was made; `imagined` `{key: [H, ...]}` are its steps made + 1,
    made + 2, ...; `pictures` `{camera: uint8 [K, C, H, W]}` those of `picture_steps`.
    """

    step: int
    made: int
    reward: float
    obs: dict[str, np.ndarray]
    view: np.ndarray | None
    imagined: dict[str, np.ndarray]
    pictures: dict[str, np.ndarray]


@dataclass
class Film:
    """An observer of `play` for one episode: every decision is kept, the first `most` with what was imagined."""

    model: WorldModel
    seed: int
    most: int
    frames: list[FilmFrame] = field(default_factory=list)
    horizon: int = 1
    _reward: float = 0.0
    _made: int = 0

    @property
    def spec(self) -> DataSpec:
        return self.model.spec

    def watch(self, decision: Decision) -> None:
        """Keep one decision; episodes of other seeds are ignored."""
        if decision.seed != self.seed:
            return
        if decision.step == 0:
            self.frames, self._reward = [], 0.0
        self._reward += decision.reward
        memory, fresh = innermost(decision.memory)
        if decision.action is None:
            self.frames.append(FilmFrame(decision.step, self._made, self._reward, decision.obs, None, {}, {}))
        elif fresh and isinstance(memory, PlanningMemory):
            self._decided(decision, memory)

    def _decided(self, decision: Decision, memory: PlanningMemory) -> None:
        shown = len(self.frames) < self.most
        age = int(memory.age[0])
        self._made = len(self.frames) - age
        view = self.view(decision) if shown else None
        if not shown:
            imagined, pictures = {}, {}
        elif age:
            imagined, pictures = self.frames[-1].imagined, self.frames[-1].pictures
        else:
            imagined, pictures = self._imagined(memory)
        self.frames.append(FilmFrame(decision.step, self._made, self._reward, decision.obs, view, imagined, pictures))
        self._reward = 0.0

    @torch.no_grad()
    def _imagined(self, memory: PlanningMemory) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        states = memory.plan.states
        self.horizon = states.features.shape[1]
        numbers = {
            key: numpy(self.model.decode(states, key))[0]
            for key in self.model.decodes
            if key in ("reward", "value") or key in self.spec.vector_keys
        }
        chosen = states[:, list(picture_steps(self.horizon))]
        cameras = [key for key in self.spec.image_keys if key in self.model.decodes]
        decoded = {key: numpy(self.model.decode(chosen, key))[0] for key in cameras}
        pictures = {key: np.clip(np.round(made * 255), 0, 255).astype(np.uint8) for key, made in decoded.items()}
        return numbers, pictures

    def view(self, decision: Decision) -> np.ndarray | None:
        """The picture for the video: the model's first camera, else the environment's own picture, `[H, W, 3]`."""
        seen = [*self.spec.image_keys[:1], "image"]
        found = next((decision.obs[key] for key in seen if key in decision.obs), None)
        return found if found is not None else render(decision.env)

    def real(self, key: str, discount: float) -> np.ndarray:
        """What happened, `[T]` or `[T, D]`: a vector, the reward, or for "value" the discounted reward to come."""
        rewards = np.array([frame.reward for frame in self.frames])
        if key == "reward":
            return np.concatenate([[np.nan], rewards[1:]])  # nothing has arrived with the first observation
        if key != "value":
            rows = to_obs([frame.obs for frame in self.frames], only(self.spec, key))
            return rows[key].numpy()
        value = np.zeros(len(rewards))
        for t in range(len(rewards) - 2, -1, -1):
            value[t] = rewards[t + 1] + discount * value[t + 1]
        return value


def picture_steps(horizon: int) -> tuple[int, ...]:
    """Which of the imagined steps 0 to H - 1 are shown as pictures: evenly spread, the last one always."""
    return tuple(sorted({round(x) - 1 for x in np.linspace(max(1, horizon / NUM_PICTURES), horizon, NUM_PICTURES)}))


def render(env: AdaptedEnv) -> np.ndarray | None:
    """The environment's own picture, None where it has none."""
    if env.render_mode != "rgb_array":
        return None
    picture: Any = env.render()
    is_picture = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
    return picture if is_picture else None


def only(spec: DataSpec, key: str) -> DataSpec:
    """The same data without the other observation keys."""
    return DataSpec({key: spec.obs[key]}, spec.action, spec.fps)


def numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
