"""A cart on a line, models that know it or are wrong, agents that push, and episodes of theirs.

B environments, N beliefs, T rows, A action size. The cart is at "state" (place, velocity); an action in [-1, 1] is an
acceleration of 4 m/s^2 at most, and a step lasts 0.1 s.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from worldloom.agents.agent import Agent
from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import unknown
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import NOISE, Noise
from worldloom.safety.calibration import Calibration, calibrate
from worldloom.safety.rules import Limit, Values

SPEC = DataSpec(
    {"state": KeySpec("vector", (2,), names=("place", "velocity"))},
    ActionSpec("continuous", 1, low=(-4.0,), high=(4.0,)),
    10.0,
)
RULES = (Limit("state", 0, high=1.0, label="the wall"),)


def step(place: Tensor, action: Tensor, strength: float = 1.0) -> Tensor:
    """The next `[N, 2]` after actions `[N, 1]` in model units."""
    velocity = place[:, 1] + 0.4 * strength * action[:, 0]
    return torch.stack([place[:, 0] + 0.1 * velocity, velocity], 1)


def brake(values: Values) -> Tensor:
    """Full force against the velocity, less where that would turn it round."""
    return (-values["state"][:, 1:] / 0.4).clamp(-1, 1)


@state
class CartState(State):
    place: Tensor

    @property
    def features(self) -> Tensor:
        return self.place


class Cart(WorldModel):
    """The world itself as a model; `bias` pulls every prediction to the left, `noise` makes it sample.

    With `recurrent`, a belief is corrected by what is seen rather than put in its place, so what it once took in stays.
    """

    family: ClassVar[str] = "cart"

    def __init__(
        self,
        bias: float = 0.0,
        noise: float = 0.0,
        spec: DataSpec = SPEC,
        broken: bool = False,
        recurrent: bool = False,
    ):
        super().__init__()
        self.spec, self.noise, self.broken, self.recurrent = spec, noise, broken, recurrent
        self.bias = nn.Parameter(torch.tensor(bias))

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("state",)

    def start(self, obs: Obs, noise: Noise = NOISE) -> CartState:
        return CartState(obs["state"])

    def observe(self, state: State, action: Tensor, obs: Obs, noise: Noise = NOISE) -> CartState:
        if self.recurrent:
            prior = self.predict(state, action, noise).place
            return CartState(prior + 1.2 * (obs["state"] - prior))
        return CartState(obs["state"])

    def predict(self, state: State, action: Tensor, noise: Noise = NOISE) -> CartState:
        place = step(state.features, action) - self.bias
        if self.broken:
            place = place * torch.nan
        return CartState(place + self.noise * noise.normal(place.shape, place) if self.noise else place)

    def decode(self, state: State, key: str) -> Tensor:
        if key != "state":
            raise unknown("key", key, self.decodes)
        return state.features

    def loss(self, segment: Segment, belief: State | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        return {}


@state
class Counted(State):
    """How many actions an agent has chosen, `[B]`, and the last one, `[B, A]`."""

    count: Tensor
    action: Tensor

    @property
    def features(self) -> Tensor:
        return self.action


@dataclass(frozen=True)
class Pusher(Agent):
    """Always the same action, in model units."""

    push: float = 1.0
    spec: DataSpec = SPEC

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, Counted]:
        action = torch.full((len(obs["state"]), self.spec.action.size), self.push)
        return action, Counted(torch.ones(len(action)), action)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, Counted]:
        assert isinstance(memory, Counted)
        action = torch.full_like(memory.action, self.push)
        return action, Counted(memory.count + 1, action)


def look(place: Tensor) -> dict[str, Tensor]:
    return {"state": place}


def episodes(count: int, first: int = 0, rows: int = 30, noise: float = 0.02) -> list[Segment]:
    """Episodes `[1, T]` of random pushes near the origin in a world that trembles a little."""
    generator = torch.Generator().manual_seed(first)
    place = torch.rand(count, 2, generator=generator) * 0.4 - 0.2
    places, actions = [], []
    for _ in range(rows):
        pull = -0.5 * place[:, :1] - 0.5 * place[:, 1:]
        action = (pull + torch.rand(count, 1, generator=generator) * 2 - 1).clamp(-1, 1)
        places.append(place)
        actions.append(action)
        place = step(place, action) + noise * torch.randn(count, 2, generator=generator)
    actions[-1] = torch.zeros(count, 1)
    flags = {key: torch.zeros(count, rows, dtype=torch.bool) for key in ("terminated", "truncated")}
    whole = Segment(
        {"state": torch.stack(places, 1)},
        torch.stack(actions, 1),
        {"reward": torch.zeros(count, rows), **flags},
        mask=torch.ones(count, rows, dtype=torch.bool),
    )
    return [whole[i : i + 1] for i in range(count)]


def calibrated(model: WorldModel, horizon: int = 8, alpha: float = 0.1, **options: object) -> Calibration:
    settings = {"alpha_ood": 0.05, **options}
    return calibrate(model, RULES, episodes(60), horizon=horizon, alpha=alpha, **settings)  # type: ignore[arg-type]


def drive(agent: Agent, steps: int = 40, batch: int = 3, strength: float = 1.0) -> tuple[Tensor, list[State]]:
    """Places `[B, T]` of an agent in the world, where actions may be weaker than the model thinks, and its memories."""
    place = torch.zeros(batch, 2)
    place[:, 0] = torch.linspace(-0.2, 0.2, batch)
    places, memories, memory = [place[:, 0]], [], None
    for _ in range(steps):
        action, memory = agent.start(look(place)) if memory is None else agent.act(memory, look(place))
        memories.append(memory)
        place = step(place, action, strength)
        places.append(place[:, 0])
    return torch.stack(places, 1), memories
