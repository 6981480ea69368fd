"""A transition table over states and actions: Dyna's model (Sutton, 1991), for a few hundred states.

B batch, T time, A actions, S states. A state is a one-hot vector, as environments with a discrete observation return
it.

A belief is a probability of each state, so nothing is sampled and predictions are exact. The table is learned by
gradient like any model, or, as in Dyna, written entry by entry (`remember`).
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

MOST_STATES = 2048
SCALE = 50.0  # of the logits, which are kept this many times smaller: an optimiser's steps suit weights, not logits
CERTAIN = 7.0  # how far the logit of what is known lies above that of all else together, or of the opposite


@dataclass(frozen=True)
class TabularConfig:
    """Nothing to choose: the table is as large as the state space."""


@state
class TabularState(State):
    """probs `[B, S]`: the probability of each state. reward and terminated `[B]`: the expected reward of the step that
    led here, and the probability that it terminated the episode.
    """

    probs: Tensor
    reward: Tensor
    terminated: Tensor

    @property
    def features(self) -> Tensor:
        return self.probs


class Tabular(WorldModel[TabularState]):
    """The family `tabular`. An action never tried is predicted to keep the state, with reward 0.

    `loss` returns "place", and "reward" and "terminated" where the data has them, `[B, T]`: row t > 0 holds the
    error of predicting row t.
    """

    family: ClassVar[str] = "tabular"
    renamed_tensors: ClassVar[dict[str, str]] = {"paid": "reward"}
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
        states, actions = spec.obs[self.key].shape[0], spec.action.size
        if states > MOST_STATES:
            raise UserError(
                f"family tabular holds at most {MOST_STATES} states, but {self.key!r} has {states}: choose mlp"
            )
        self.known = (CERTAIN + math.log(states)) / SCALE
        self.following = nn.Parameter(self.known * torch.eye(states)[:, None].repeat(1, actions, 1))
        self.reward = nn.Parameter(torch.zeros(states, actions))
        self.over = nn.Parameter(torch.full((states, actions), -CERTAIN / SCALE))
        terms = {"place": True, "reward": spec.has_reward, "terminated": spec.has_end}
        self.loss_weights = {name: 1.0 for name, there in terms.items() if there}

    def start(self, obs: Obs, noise: Noise = NOISE) -> TabularState:
        probs = obs[self.key].float()
        return TabularState(probs, probs.new_zeros(probs.shape[:-1]), probs.new_zeros(probs.shape[:-1]))

    def observe(self, state: TabularState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> TabularState:
        return TabularState(obs[self.key].float(), *self._outcome(state.probs, action))

    def predict(self, state: TabularState, action: Tensor, noise: Noise = NOISE) -> TabularState:
        probs = torch.einsum("...s,...a,sat->...t", state.probs, action, (SCALE * self.following).softmax(-1))
        return TabularState(probs, *self._outcome(state.probs, action))

    @property
    def decodes(self) -> tuple[str, ...]:
        return (self.key, *(name for name in ("reward", "terminated") if name in self.loss_weights))

    def decode(self, state: TabularState, key: str) -> Tensor:
        found = {self.key: state.probs, "reward": state.reward, "terminated": state.terminated}
        if key in self.decodes:
            return found[key]
        raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> TabularState:
        """One call for all rows: the state is observed."""
        probs = obs[self.key].float()
        reward, terminated = self._outcome(probs[:, :-1], actions[:, :-1])
        return TabularState(probs, F.pad(reward, (1, 0)), F.pad(terminated, (1, 0)))

    def loss(self, segment: Segment, belief: TabularState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        probs, action = segment.obs[self.key].float(), segment.action[:, :-1]
        # The state of a row is known, so the loss takes logits: unlike a probability of nearly 0 they have gradients.
        next_state, end = (
            SCALE * torch.einsum("bts,bta,sa...->bt...", probs[:, :-1], action, table)
            for table in (self.following, self.over)
        )
        terms = {"place": F.cross_entropy(next_state.transpose(1, 2), probs[:, 1:].transpose(1, 2), reduction="none")}
        if "reward" in self.loss_weights:
            terms["reward"] = (self._outcome(probs[:, :-1], action)[0] - segment.reward[:, 1:]).square()
        if "terminated" in self.loss_weights:
            target = segment.terminated[:, 1:].float()
            terms["terminated"] = F.binary_cross_entropy_with_logits(end, target, reduction="none")
        return {name: F.pad(term, (1, 0)) for name, term in terms.items()}

    @torch.no_grad()
    def remember(self, state: int, action: int, reward: float, next_state: int, terminated: bool) -> None:
        """Overwrite the entry of `state` and `action` with one observed transition."""
        self.following[state, action] = 0.0
        self.following[state, action, next_state] = self.known
        self.reward[state, action] = reward
        self.over[state, action] = (CERTAIN if terminated else -CERTAIN) / SCALE

    def _outcome(self, probs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward and termination probability of `action` `[..., A]` in states of `probs` `[..., S]`."""
        tables = (self.reward, (SCALE * self.over).sigmoid())
        reward, terminated = (torch.einsum("...s,...a,sa->...", probs, action, table) for table in tables)
        return reward, terminated
