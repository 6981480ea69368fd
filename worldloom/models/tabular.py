"""A table of what follows each action in each place: Dyna's model (Sutton, 1991), for worlds of a few hundred places.

B batch, T time, A actions, S places. A place is a one-hot vector, as environments with a discrete observation show it.

A belief is a probability of each place, so nothing is sampled and what a plan leads to is exact. The table is learned
by gradient like any model, or, as in Dyna, written entry by entry as things happen (`remember`).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import NOISE, Noise

MOST_PLACES = 2048
SCALE = 50.0  # of the logits, which are kept this many times smaller: an optimiser's steps suit weights, not logits
CERTAIN = 7.0  # how far the logit of what is known lies above that of all else together, or of the opposite


@dataclass(frozen=True)
class TabularConfig:
    """Nothing to choose: the table is as large as the world."""


@state
class TabularState(State):
    """place `[B, S]`: how probable each place is. reward and ended `[B]`: what the step that led here is expected to
    pay, and how probably it ended the episode.
    """

    place: Tensor
    reward: Tensor
    ended: Tensor

    @property
    def features(self) -> Tensor:
        return self.place


class Tabular(WorldModel[TabularState]):
    """The family `tabular`. An action never tried is thought to leave one where one is, unpaid.

    `loss` returns "place", and "reward" and "terminated" where the data has them, `[B, T]`: row t > 0 holds what
    predicting row t cost.
    """

    family: ClassVar[str] = "tabular"
    config_class: ClassVar[type] = TabularConfig
    sizes: ClassVar[dict[str, TabularConfig]] = dict.fromkeys(("debug", "nano", "small", "base"), TabularConfig())
    config: TabularConfig

    def __init__(self, spec: DataSpec, config: TabularConfig):
        super().__init__()
        if spec.image_keys or len(spec.vector_keys) != 1 or spec.category_keys:
            raise UserError(
                f"family tabular wants one key that is one-hot, but the data have {', '.join(spec.obs)}: choose another"
            )
        if spec.action.kind != "discrete":
            raise UserError("family tabular wants discrete actions, but these are continuous: choose another family")
        self.spec, self.config = spec, config
        (self.key,) = spec.vector_keys
        places, actions = spec.obs[self.key].shape[0], spec.action.size
        if places > MOST_PLACES:
            raise UserError(
                f"family tabular holds at most {MOST_PLACES} places, but {self.key!r} has {places}: choose mlp"
            )
        self.known = (CERTAIN + math.log(places)) / SCALE
        self.following = nn.Parameter(self.known * torch.eye(places)[:, None].repeat(1, actions, 1))
        self.paid = nn.Parameter(torch.zeros(places, actions))
        self.over = nn.Parameter(torch.full((places, actions), -CERTAIN / SCALE))
        terms = {"place": True, "reward": spec.has_reward, "terminated": spec.has_end}
        self.loss_weights = {name: 1.0 for name, there in terms.items() if there}

    def start(self, obs: Obs, noise: Noise = NOISE) -> TabularState:
        place = obs[self.key].float()
        return TabularState(place, place.new_zeros(place.shape[:-1]), place.new_zeros(place.shape[:-1]))

    def observe(self, state: TabularState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> TabularState:
        return TabularState(obs[self.key].float(), *self._outcome(state.place, action))

    def predict(self, state: TabularState, action: Tensor, noise: Noise = NOISE) -> TabularState:
        place = torch.einsum("...s,...a,sat->...t", state.place, action, (SCALE * self.following).softmax(-1))
        return TabularState(place, *self._outcome(state.place, action))

    @property
    def decodes(self) -> tuple[str, ...]:
        return (self.key, *(name for name in ("reward", "terminated") if name in self.loss_weights))

    def decode(self, state: TabularState, key: str) -> Tensor:
        found = {self.key: state.place, "reward": state.reward, "terminated": state.ended}
        if key in self.decodes:
            return found[key]
        raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> TabularState:
        """One call for all rows: a place is seen."""
        place = obs[self.key].float()
        paid, over = self._outcome(place[:, :-1], actions[:, :-1])
        return TabularState(place, F.pad(paid, (1, 0)), F.pad(over, (1, 0)))

    def loss(self, segment: Segment, belief: TabularState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        place, action = segment.obs[self.key].float(), segment.action[:, :-1]
        # Rows are known, so logits can be looked up: unlike a probability of nearly 0 they have gradients.
        following, over = (
            SCALE * torch.einsum("bts,bta,sa...->bt...", place[:, :-1], action, table)
            for table in (self.following, self.over)
        )
        terms = {"place": F.cross_entropy(following.transpose(1, 2), place[:, 1:].transpose(1, 2), reduction="none")}
        if "reward" in self.loss_weights:
            terms["reward"] = (self._outcome(place[:, :-1], action)[0] - segment.reward[:, 1:]).square()
        if "terminated" in self.loss_weights:
            truth = segment.terminated[:, 1:].float()
            terms["terminated"] = F.binary_cross_entropy_with_logits(over, truth, reduction="none")
        return {name: F.pad(term, (1, 0)) for name, term in terms.items()}

    @torch.no_grad()
    def remember(self, place: int, action: int, reward: float, following: int, ended: bool) -> None:
        """Write down that `action` in `place` was paid `reward` and led to `following`; what was there is forgotten."""
        self.following[place, action] = 0.0
        self.following[place, action, following] = self.known
        self.paid[place, action] = reward
        self.over[place, action] = (CERTAIN if ended else -CERTAIN) / SCALE

    def _outcome(self, place: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The expected reward and the probability of an end of `action` `[..., A]` in `place` `[..., S]`."""
        tables = (self.paid, (SCALE * self.over).sigmoid())
        paid, over = (torch.einsum("...s,...a,sa->...", place, action, table) for table in tables)
        return paid, over
