"""Several members as one world model (Lakshminarayanan et al., 2017): where they disagree, the data have not spoken.

B batch, T time, H horizon, K members, F features of one member, C size of the common code, `[...]` any leading shape.

Every member sees every row and they differ in their initial weights alone, which makes better ensembles of networks
than bootstrapped data do (section 2.4 of the paper). All draw the same random numbers: they then disagree in what they
learned and not in what they drew, identical members agree exactly, and draws are averaged by particles (`State.repeat`)
as in any other model.

The members' parameters are stored stacked, so that one pass can run through all of them (`torch.func.vmap`), or they
take turns, which gives the same numbers. An update of five members, in CPU time of five separate models' updates:

    rssm debug (41 k parameters each), vectors, 16 windows of 32 rows    one pass 0.62    turns 1.09
    tdmpc nano (263 k), vectors, 16 windows of 4 rows                             0.85          1.15
    tdmpc small (1.7 M), vectors, 16 windows of 4 rows                            1.02          1.16
    rssm nano (1.1 M), vectors, 16 windows of 64 rows                             1.30          1.11
    rssm nano (1.2 M), pictures, 16 windows of 32 rows                            2.28          0.98

One pass saves what small operations cost besides their arithmetic. Convolutions become grouped ones, which are slow on
a CPU and have no rule for bf16.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.limits import at_least, check_limits
from worldloom.model import Obs, State, WorldModel, state
from worldloom.models import FAMILIES, build
from worldloom.nets.dense import BlockLinear, initialise
from worldloom.nets.observation import PictureScale, VectorScale, blank
from worldloom.noise import NOISE, Noise, RecordedNoise

R = TypeVar("R")
Call = Callable[[Any, Any, Noise], R]  # a member, its belief, and what it draws from
COMMON, DISAGREEMENT = "common", "disagreement"
SMALL = 500_000
GRID = 8  # pictures enter the common code as averages over this many rows and columns


@dataclass(frozen=True)
class EnsembleConfig:
    """`members` models of the family `member` at its preset `size`, single `hyperparameters` overridden by name.

    The config of a built ensemble holds all hyperparameters of its members, so that a checkpoint outlives a preset.
    `batched` None means one pass for vectors, where members are smaller than `SMALL` parameters or not on a CPU, and
    turns otherwise. `code` is C.
    """

    members: Annotated[int, at_least(1)] = 5
    member: str = "rssm"
    size: str = "nano"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    batched: bool | None = None
    code: Annotated[int, at_least(1)] = 32

    def __post_init__(self) -> None:
        """Raise `UserError` for a value no ensemble can be made of."""
        check_limits(self, "hyperparameter {} of family 'ensemble'".format)
        if self.member == "ensemble":
            raise UserError("hyperparameter member='ensemble' of family 'ensemble': name a family of single models")


@state
class EnsembleState(State):
    """The members' beliefs, each tensor with K behind the leading shape: `[B, K, ...]`, tracked `[B, T, K, ...]`."""

    members: State

    @property
    def features(self) -> Tensor:
        """Side by side `[..., K * F]`. Each member has axes of its own, so their mean would mean nothing."""
        return self.members.features.flatten(-2)

    @property
    def leading(self) -> int:
        """How many dimensions come before K."""
        return self.members.features.ndim - 2


class Ensemble(WorldModel[EnsembleState]):
    """The family `ensemble`. What is decoded is the members' mean; "disagreement" is how far their beliefs are apart.

    Beliefs that share no axes are compared in a common code, a fixed random projection of the observation (`ObsCode`).
    A linear readout of each member learns to tell it from the belief, which is the loss term "common" and moves no
    member. "disagreement" is the members' standard deviation in that code, where 1 is how much the data themselves
    vary; `disagreement` gives the same for any decoded key.
    """

    family: ClassVar[str] = "ensemble"
    config_class: ClassVar[type] = EnsembleConfig
    sizes: ClassVar[dict[str, EnsembleConfig]] = {
        size: EnsembleConfig(size=size) for size in ("debug", "nano", "small", "base")
    }
    config: EnsembleConfig

    def __init__(self, spec: DataSpec, config: EnsembleConfig):
        super().__init__()
        made = [build_member(spec, config) for _ in range(config.members)]
        self.spec, self.config = spec, replace(config, hyperparameters=hyperparameters(made[0]))
        self.small = sum(p.numel() for p in made[0].parameters()) < SMALL
        self.members = stack_members(made)
        with torch.no_grad():
            features = made[0].start(blank(spec)).features.shape[-1]
        self.code = ObsCode(spec, config.code)
        self.readout = BlockLinear(features * config.members, config.code * config.members, config.members)
        self.readout.apply(initialise)
        self.readout_bias = nn.Parameter(torch.zeros(config.members, 1, config.code))
        self.loss_weights = {**made[0].loss_weights, COMMON: 1.0}

    @classmethod
    def of(cls, models: Sequence[WorldModel]) -> Self:
        """An ensemble of models that were trained apart; their weights are copied and the readouts are yet to learn.

        Raises `UserError` unless they are of one family, configuration and description of data.
        """
        kinds = [(m.family, m.spec, hyperparameters(m)) for m in models]
        if not kinds or any(kind != kinds[0] for kind in kinds):
            raise UserError("an ensemble needs models of one family, one kind of data and the same hyperparameters")
        family, spec, values = kinds[0]
        made = cls(spec, EnsembleConfig(len(models), family, next(iter(FAMILIES[family].sizes)), values))
        made.members = stack_members(models)
        return made

    def member(self, number: int) -> WorldModel:
        """A copy of one member as a model of its own."""
        alone, stacked = build_member(self.spec, self.config), dict(self.members.named_parameters())
        tensors = self.members.state_dict()
        alone.load_state_dict({name: value[number] if name in stacked else value for name, value in tensors.items()})
        return alone

    def start(self, obs: Obs, noise: Noise = NOISE) -> EnsembleState:
        return EnsembleState(self._each(lambda member, _, noise: member.start(obs, noise), noise, out=1))

    def observe(self, state: EnsembleState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> EnsembleState:
        def observe(member: Any, own: Any, noise: Noise) -> Any:
            return member.observe(own, action, obs, noise)

        return EnsembleState(self._each(observe, noise, state, out=1))

    def predict(self, state: EnsembleState, action: Tensor, noise: Noise = NOISE) -> EnsembleState:
        def predict(member: Any, own: Any, noise: Noise) -> Any:
            return member.predict(own, action, noise)

        return EnsembleState(self._each(predict, noise, state, out=1))

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> EnsembleState:
        return EnsembleState(self._each(lambda member, _, noise: member.track(obs, actions, noise), noise, out=2))

    def imagine(self, state: EnsembleState, actions: Tensor, noise: Noise = NOISE) -> EnsembleState:
        def imagine(member: Any, own: Any, noise: Noise) -> Any:
            return member.imagine(own, actions, noise)

        return EnsembleState(self._each(imagine, noise, state, out=2))

    @property
    def decodes(self) -> tuple[str, ...]:
        return (*self.members.decodes, DISAGREEMENT)

    def decode(self, state: EnsembleState, key: str) -> Tensor:
        if key == DISAGREEMENT:
            return rms(apart(self._codes(state.features), -2), 2)
        return self._decode_each(state, key).mean(0)

    def disagreement(self, state: EnsembleState, key: str) -> Tensor:
        """The members' standard deviation of a decoded `key`, in its own units and with the shape of `decode`."""
        return rms(apart(self._decode_each(state, key), 0).movedim(0, -1), 1)

    def loss(self, segment: Segment, belief: EnsembleState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        """The members' mean of every term of theirs, and "common" `[B, T]`."""
        belief = self.track(segment.obs, segment.action, noise) if belief is None else belief
        terms = self._each(lambda member, own, noise: member.loss(segment, own, noise), noise, belief)
        common = self._code_loss(segment, belief, noise)
        return {**{name: term.mean(0) for name, term in terms.items()}, COMMON: common}

    def _code_loss(self, segment: Segment, belief: EnsembleState, noise: Noise) -> Tensor:
        """The error of each readout of the observation code, from the posterior and from the prior."""
        code = self.code(segment.obs)
        with torch.no_grad():
            before = belief[:, :-1].flatten()
            predicted = self.predict(before, segment.action[:, :-1].flatten(0, 1), noise).features
        read, ahead = (
            self._codes(belief.features.detach()),
            self._codes(predicted.unflatten(0, code[:, 1:].shape[:2])),
        )
        errors = [(c - s[..., None, :]).square().mean((-2, -1)) for c, s in ((read, code), (ahead, code[:, 1:]))]
        return errors[0] + F.pad(errors[1], (1, 0))

    def after_update(self) -> None:
        for tensors in self._tensors_of_each(detach=True):
            functional_call(Caller(self.members), tensors, (lambda member, *_: member.after_update(), None, NOISE))

    @property
    def batched(self) -> bool:
        """Whether one pass computes all members."""
        if self.config.batched is not None:
            return self.config.batched
        return not self.spec.image_keys and (self.small or self.readout.weight.device.type != "cpu")

    def _decode_each(self, state: EnsembleState, key: str) -> Tensor:
        """What each member decodes, `[K, ...]`."""
        if key not in self.members.decodes:
            raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")
        return self._each(lambda member, own, _: member.decode(own, key), NOISE, state)

    def current_name(self, tensor: str) -> str:
        """As the members' family has it."""
        return self.members.current_name(tensor)

    def _codes(self, features: Tensor) -> Tensor:
        """The common code as read from the belief of each member: `[..., K * F]` to `[..., K, C]`."""
        rows = features.flatten(0, -2)
        read = self.readout(rows, self.readout_bias.to(rows.dtype)).float()
        return read.transpose(0, 1).unflatten(0, features.shape[:-1])

    def _each(self, call: Call[R], noise: Noise, belief: EnsembleState | None = None, out: int = 0) -> R:
        """`call(member, its belief, noise)` for every member; K becomes dimension `out` of every tensor returned."""
        own, place = ((), None) if belief is None else (belief.members, belief.leading)
        return (self._together if self.batched else self._in_turns)(call, noise, own, place, out)

    def _together(self, call: Call[R], noise: Noise, own: Any, place: int | None, out: int) -> R:
        caller, tensors = Caller(self.members), prefixed(self.members)

        def one(tensors: dict[str, Tensor], own: Any) -> R:
            return functional_call(caller, tensors, (call, own, noise))

        try:
            results = vmap(one, in_dims=(0, place), randomness="same")(tensors, own)
        except RuntimeError as error:
            if "vmap" not in str(error) and "batching rule" not in str(error):
                raise
            what = f"members of family {self.config.member!r} can't be computed in one pass"
            raise UserError(f"{what}: make the ensemble with --set batched=false ({error})") from error
        # Not vmap's own `out_dims`, which fails on what no member computed, such as the action it was given.
        return tree_map(lambda x: x.movedim(0, out), results)

    def _in_turns(self, call: Call[R], noise: Noise, own: Any, place: int | None, out: int) -> R:
        caller, results, shared = Caller(self.members), [], RecordedNoise(source=noise)
        for number, tensors in enumerate(self._tensors_of_each()):
            shared.rewind()
            mine = own if place is None else own[(slice(None),) * place + (number,)]
            results.append(functional_call(caller, tensors, (call, mine, shared)))
        return stack(results, out)

    def _tensors_of_each(self, detach: bool = False) -> Iterator[dict[str, Tensor]]:
        """Each member's parameters, as views of the stacked ones."""
        columns = {name: (p.detach() if detach else p).unbind() for name, p in prefixed(self.members).items()}
        for number in range(self.config.members):
            yield {name: column[number] for name, column in columns.items()}


class Caller(nn.Module):
    """Lets `functional_call`, which knows only `forward`, reach every verb of a member."""

    def __init__(self, member: nn.Module):
        super().__init__()
        self.member = member

    def forward(self, call: Call[R], own: Any, noise: Noise) -> R:
        return call(self.member, own, noise)


class ObsCode(nn.Module):
    """A fixed random linear code of the observation, `[...]` rows to `[..., C]`: each entry varies by about 1 in the
    data.

    Vectors enter scaled by the data's own deviation, categories as they are, and pictures shrunk to a small grid.
    """

    projection: Tensor

    def __init__(self, spec: DataSpec, size: int):
        super().__init__()
        self.spec, self.vectors, self.pictures = spec, VectorScale(spec), PictureScale(spec)
        flat = [math.prod(spec.obs[k].shape) for k in (*spec.vector_keys, *spec.category_keys)]
        inputs = sum(flat) + sum(spec.obs[k].shape[0] * GRID**2 for k in spec.image_keys)
        self.register_buffer("projection", torch.randn(inputs, size) / math.sqrt(max(inputs, 1)))

    @torch.no_grad()
    def forward(self, obs: Obs) -> Tensor:
        parts = [obs[k] for k in self.spec.category_keys]
        if self.spec.vector_keys:
            parts.append(self.vectors(torch.cat([obs[k] for k in self.spec.vector_keys], -1)))
        if self.spec.image_keys:
            # Shrunk first: what follows then costs nothing.
            small = [F.adaptive_avg_pool2d(obs[k].flatten(0, -4).float(), GRID) for k in self.spec.image_keys]
            leading = obs[self.spec.image_keys[0]].shape[:-3]
            parts.append(self.pictures(torch.cat(small, -3)).float().flatten(1).unflatten(0, leading))
        with torch.autocast(self.projection.device.type, enabled=False):
            return torch.cat(parts, -1) @ self.projection


def build_member(spec: DataSpec, config: EnsembleConfig) -> WorldModel:
    """A new model like every member."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.hyperparameters.items()}
    return build(config.member, spec, config.size, **values)


def hyperparameters(model: WorldModel) -> dict[str, Any]:
    """All of a model's hyperparameters, as they come back from JSON."""
    return json.loads(json.dumps(asdict(model.config)))


def stack_members(models: Sequence[WorldModel]) -> WorldModel:
    """A model like each of `models` whose parameters are theirs, stacked: `[K, ...]`. Call it through `Caller` alone.

    Buffers belong to the data and are shared. Raises `UserError` where they differ between the models.
    """
    stacked = copy.deepcopy(models[0])
    for name, buffer in models[0].named_buffers():
        if buffer.device.type != "meta" and not all(torch.equal(m.get_buffer(name), buffer) for m in models):
            raise UserError(f"family {models[0].family!r} keeps {name} apart in each member: it can't be an ensemble's")
    made: dict[Tensor, nn.Parameter] = {}  # a parameter that two layers share stays shared
    for name, parameter in models[0].named_parameters(remove_duplicate=False):
        if parameter not in made:
            together = torch.stack([m.get_parameter(name).detach() for m in models])
            made[parameter] = nn.Parameter(together, parameter.requires_grad)
        owner, _, leaf = name.rpartition(".")
        stacked.get_submodule(owner).register_parameter(leaf, made[parameter])
    return stacked


def prefixed(members: nn.Module) -> dict[str, Tensor]:
    """The parameters by the names they have below `Caller`."""
    return {f"member.{name}": parameter for name, parameter in members.named_parameters()}


def stack(results: Sequence[Any], dim: int) -> Any:
    """What each member returned (beliefs, tensors or a dict of tensors) as one, K at dimension `dim`."""
    first = results[0]
    if isinstance(first, State):
        return type(first).stack(results, dim)
    if isinstance(first, dict):
        return {name: torch.stack([each[name] for each in results], dim) for name in first}
    return torch.stack(tuple(results), dim)


def apart(values: Tensor, dim: int) -> Tensor:
    """How far each member is from their mean along `dim`."""
    return values - values.mean(dim, keepdim=True)


def rms(values: Tensor, dims: int) -> Tensor:
    """Root mean square over the last `dims` dimensions. Its gradient at zero is zero, where a square root has none."""
    flat = values.flatten(-dims)
    return torch.linalg.vector_norm(flat, dim=-1) / math.sqrt(flat.shape[-1])
