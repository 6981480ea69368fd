"""A network from observation and action to the next observation: the model of fully observed vector environments.

B batch, T time, A action size, D summed vector size, N summed categories, U units.

The belief is the vector observation itself, known or predicted, as in Nagabandi et al. (2018) and in the members of
PETS (Chua et al., 2018), which is this family in an `ensemble`. It has no memory, so it cannot fill in what an
observation leaves out; where nothing is left out it learns in seconds what a recurrent model learns in minutes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.limits import at_least, check_limits, odd
from worldloom.model import Obs, State, WorldModel, state
from worldloom.nets.dense import plain_mlp
from worldloom.nets.heads import head_losses, signal_heads
from worldloom.nets.observation import VectorScale
from worldloom.noise import NOISE, Noise


@dataclass(frozen=True)
class MLPConfig:
    """`units` wide, `layers` deep; `bins` of the reward's head."""

    units: Annotated[int, at_least(1)] = 128
    layers: Annotated[int, at_least(1)] = 2
    bins: Annotated[int, odd(3)] = 255  # one bin is zero

    def __post_init__(self) -> None:
        """Raise `UserError` for a value no model can be made of."""
        check_limits(self, "hyperparameter {} of family 'mlp'".format)


@state
class MLPState(State):
    """observed `[B, D]` at unit scale, context `[B, N]`, and the hidden layer `[B, U]` of the step that led here."""

    observed: Tensor
    context: Tensor
    hidden: Tensor

    @property
    def features(self) -> Tensor:
        return torch.cat([self.observed, self.context], -1)


class MLP(WorldModel[MLPState]):
    """The family `mlp`. `loss` returns one term a decoded key `[B, T]`: row t > 0 holds what predicting row t cost."""

    family: ClassVar[str] = "mlp"
    config_class: ClassVar[type] = MLPConfig
    sizes: ClassVar[dict[str, MLPConfig]] = {
        "debug": MLPConfig(units=32),
        "nano": MLPConfig(),
        "small": MLPConfig(units=256, layers=3),
        "base": MLPConfig(units=512, layers=4),
    }
    config: MLPConfig

    def __init__(self, spec: DataSpec, config: MLPConfig):
        super().__init__()
        if spec.image_keys or not any(spec.keys[k].role == "observed" for k in spec.vector_keys):
            raise UserError("family mlp predicts vectors and nothing else: use rssm for pictures")
        self.spec, self.config = spec, config
        given = [key for key in spec.vector_keys if spec.obs[key].role == "given"]
        self.parts = {key: spec.obs[key].shape[0] for key in spec.vector_keys if key not in given}
        self.given = nn.ModuleDict({key: VectorScale(spec, [key]) for key in given})
        self.scale = VectorScale(spec, tuple(self.parts))
        size = sum(self.parts.values())
        inputs = size + sum(spec.obs[key].shape[0] for key in (*given, *spec.category_keys)) + spec.action.size
        self.body, self.change = plain_mlp(inputs, config.units, config.layers), nn.Linear(config.units, size)
        # Most of a short step is linear, so that part need not go through the network.
        self.linear = nn.Linear(inputs, size, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.heads = signal_heads(spec, config.units, units=config.units, layers=1, bins=config.bins, begin=None)
        self.loss_weights = dict.fromkeys(self.decodes, 1.0)

    @property
    def decodes(self) -> tuple[str, ...]:
        return (*self.parts, *self.heads)

    def start(self, obs: Obs, noise: Noise = NOISE) -> MLPState:
        observed, context = self._split(obs)
        return MLPState(observed, context, observed.new_zeros(*observed.shape[:-1], self.config.units))

    def observe(self, state: MLPState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> MLPState:
        return MLPState(*self._split(obs), self._hidden(state, action))

    def predict(self, state: MLPState, action: Tensor, noise: Noise = NOISE) -> MLPState:
        hidden = self._hidden(state, action)
        moved = self.change(hidden) + self.linear(torch.cat([state.features, action], -1))
        return MLPState(state.observed + moved, state.context, hidden)

    def decode(self, state: MLPState, key: str) -> Tensor:
        if key in self.heads:
            return self.heads[key](state.hidden).mean
        if key in self.parts:
            vectors = self.scale.undo(state.observed).split(list(self.parts.values()), -1)
            return dict(zip(self.parts, vectors, strict=True))[key]
        raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> MLPState:
        """One call for all rows: each belief is its observation."""
        observed, context = self._split(obs)
        first = self.start({key: value[:, :1] for key, value in obs.items()})
        later = self._hidden(MLPState(observed, context, observed)[:, :-1], actions[:, :-1])
        return MLPState(observed, context, torch.cat([first.hidden, later], 1))

    def loss(self, segment: Segment, belief: MLPState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        observed, context = self._split(segment.obs)
        ahead = self.predict(MLPState(observed, context, observed)[:, :-1], segment.action[:, :-1])
        errors = (ahead.observed - observed[:, 1:]).square().split(list(self.parts.values()), -1)
        terms = {key: error.mean(-1) for key, error in zip(self.parts, errors, strict=True)}
        terms |= head_losses(self.heads, ahead.hidden, segment[:, 1:])
        return {key: nn.functional.pad(term, (1, 0)) for key, term in terms.items()}

    def _split(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """Observed vectors `[..., D]` at unit scale, and given ones and categories `[..., N]`, side by side."""
        observed = self.scale(torch.cat([obs[key] for key in self.parts], -1).float())
        given = [scale(obs[key].float()) for key, scale in self.given.items()]
        return observed, torch.cat([observed[..., :0], *given, *(obs[key] for key in self.spec.category_keys)], -1)

    def _hidden(self, state: MLPState, action: Tensor) -> Tensor:
        return self.body(torch.cat([state.features, action], -1))
