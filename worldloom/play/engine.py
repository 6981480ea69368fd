"""One model for many players.

A call always has the same number of rows, filled up where fewer ask, because a matrix product of another height may
round another way; on some processors so does the same row at another place in it. So players are answered one by one:
a moment is then the same, bit for bit, however busy the server was when it was imagined.

B rows, N askers, P particles, A action size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from worldloom.model import State, WorldModel
from worldloom.noise import Noise, RowNoise
from worldloom.render.filmstrip import as_frames

Arrays = dict[str, np.ndarray]
SIGNALS = ("reward", "terminated", "cost", "disagreement")


@dataclass(frozen=True)
class Ask:
    """What one player wants to know: what `action` `[A]` leads to from `belief` `[P]`, or what a look shows.

    With `obs` (rows of one, `[1, ...]`) the eyes are open: after the action, or with `belief` None at the beginning.
    """

    luck: int
    belief: State | None = None
    action: np.ndarray | None = None
    obs: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Answer:
    """A moment: the particles' belief `[P]`, and what the first of them decodes to.

    pictures: uint8 `[H, W, 3]`. vectors: in their own units `[D]`. signals: reward, chance of an end, cost and
    disagreement where the model knows them. spread: how far the particles' features are apart, 0 for a sure model.
    """

    belief: State
    pictures: Arrays
    vectors: Arrays
    signals: dict[str, float]
    spread: float


@dataclass
class Engine:
    """Answers `width` askers in one call, for whom `particles` of every moment are imagined together.

    More than one is for those who need many answers and not the same bits again: eight cost half of what they cost one
    by one.
    """

    model: WorldModel
    particles: int = 4
    width: int = 1
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        assert self.particles > 0, self.particles
        assert self.width > 0, self.width
        self.device = next(self.model.parameters()).device

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """One `Answer` for each of `asks`, in their order. Not to be called by two threads at a time."""
        found: dict[int, Answer] = {}
        kinds: dict[str, list[int]] = {}
        for i, ask in enumerate(asks):
            kinds.setdefault(kind(ask), []).append(i)
        for name, numbers in kinds.items():
            for first in range(0, len(numbers), self.width):
                group = numbers[first : first + self.width]
                found |= dict(zip(group, self._call(name, [asks[i] for i in group]), strict=True))
        return [found[i] for i in range(len(asks))]

    @torch.inference_mode()
    def _call(self, name: str, asks: Sequence[Ask]) -> list[Answer]:
        filled = [*asks, *[asks[-1]] * (self.width - len(asks))]
        noise = RowNoise([particle_seed(ask.luck, p) for ask in filled for p in range(self.particles)])
        return self._read(VERBS[name](self, filled, noise), len(asks))

    def look(self, asks: Sequence[Ask], noise: Noise) -> State:
        """First looks `[B]`."""
        return self.model.start(self._obs(asks), noise)

    def act(self, asks: Sequence[Ask], noise: Noise) -> State:
        """Predicted beliefs `[B]`."""
        return self.model.predict(beliefs(asks), self._actions(asks), noise)

    def act_and_look(self, asks: Sequence[Ask], noise: Noise) -> State:
        """Beliefs `[B]` after an action and what it led to."""
        return self.model.observe(beliefs(asks), self._actions(asks), self._obs(asks), noise)

    def _obs(self, asks: Sequence[Ask]) -> dict[str, Tensor]:
        obs = [ask.obs for ask in asks if ask.obs is not None]
        joined = {key: torch.cat([each[key] for each in obs]) for key in obs[0]}
        return {key: value.to(self.device).repeat_interleave(self.particles, 0) for key, value in joined.items()}

    def _actions(self, asks: Sequence[Ask]) -> Tensor:
        actions = np.stack([ask.action for ask in asks if ask.action is not None])
        return torch.from_numpy(actions).float().to(self.device).repeat_interleave(self.particles, 0)

    def _read(self, belief: State, count: int) -> list[Answer]:
        """What the beliefs `[B]` of the first `count` askers show."""
        model, shown = self.model, belief[:: self.particles]
        keys = [key for key in (*model.spec.obs, *SIGNALS) if key in model.decodes]
        read = {key: model.decode(shown, key).float().cpu().numpy() for key in keys}
        pictures = {key: to_pictures(read[key]) for key in model.spec.image_keys if key in read}
        vectors = {key: read[key] for key in model.spec.vector_keys if key in read}
        signals = {key: read[key].tolist() for key in SIGNALS if key in read}
        spread = self._spread(belief)
        return [
            Answer(
                # Copies, or every moment would keep the whole batch alive in which it was imagined.
                belief[i * self.particles : (i + 1) * self.particles].clone(),
                {key: value[i].copy() for key, value in pictures.items()},
                {key: value[i].copy() for key, value in vectors.items()},
                {key: value[i] for key, value in signals.items()},
                spread[i],
            )
            for i in range(count)
        ]

    def _spread(self, belief: State) -> list[float]:
        """Root mean square, over features, of the particles' standard deviation: one number an asker."""
        features = belief.features.float().flatten(1).unflatten(0, (-1, self.particles))
        return features.var(1, correction=0).mean(-1).sqrt().cpu().tolist()

    @torch.inference_mode()
    def uncertain_pixels(self, belief: State) -> Arrays:
        """How unsure each pixel of every picture is: the particles' standard deviation, `[H, W]` in [0, 1]."""
        found = {}
        for key in self.model.spec.image_keys:
            if key in self.model.decodes:
                found[key] = self.model.decode(belief, key).float().std(0, correction=0).mean(0).cpu().numpy()
        return found


VERBS: dict[str, Callable[[Engine, Sequence[Ask], Noise], State]] = {
    "look": Engine.look,
    "act": Engine.act,
    "act and look": Engine.act_and_look,
}


def kind(ask: Ask) -> str:
    if ask.belief is None:
        return "look"
    return "act" if ask.obs is None else "act and look"


def beliefs(asks: Sequence[Ask]) -> State:
    """All particles of all askers `[B]`."""
    return State.cat([ask.belief for ask in asks if ask.belief is not None])


def particle_seed(luck: int, particle: int) -> int:
    """Another stream of draws for each particle of a moment."""
    return (luck * 1_000_003 + particle * 7_919) % 2**63


def to_pictures(decoded: np.ndarray) -> np.ndarray:
    """Float `[N, C, H, W]` in [0, 1] to uint8 `[N, H, W, 3]`; grey becomes all three colours."""
    frames = as_frames(decoded).transpose(0, 2, 3, 1)
    return np.broadcast_to(frames, (*frames.shape[:3], 3))
