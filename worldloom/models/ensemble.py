"""Several members as one world model (Lakshminarayanan et al., 2017): where they disagree, the data have not spoken.

B batch, T time, H horizon, K members, F features of one member, C size of the common code.

Every member sees every row; they differ in their initial weights alone, which makes better ensembles of networks than
bootstrapped data do (Lakshminarayanan et al., 2017, section 2.4). All draw the same random numbers: they then disagree
in what they have learned and not in their luck, identical members agree exactly, and luck is averaged by particles
(`State.repeat`) as in any other model.

The members' parameters are stored stacked, so that one pass can run through all of them. `batched` is that pass
(`torch.func.vmap`): on a CPU it halves the time of small networks, changes nothing once the products are large, and
loses where there are pictures, whose convolutions become grouped ones and have no rule for bf16. There the members take
turns, which gives the same numbers. Each costs as much as a model of its own.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, State, WorldModel, state
from worldloom.models import build
from worldloom.nets.code import ObsCode
from worldloom.nets.dense import BlockLinear, initialise

R = TypeVar("R")
COMMON = "common"
DISAGREEMENT = "disagreement"


@dataclass(frozen=True)
class EnsembleConfig:
    """`members` models of the family `member` at its preset `size`, its `hyperparameters` overridden by name.

    A built ensemble's config holds all hyperparameters of its members, so that a checkpoint outlives a preset. `batched`
    None lets the data decide: together for vectors, in turns for pictures. `code` is the size of the common code.
    """

    members: int = 5
    member: str = "rssm"
    size: str = "nano"
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    batched: bool | None = None
    code: int = 32

    def __post_init__(self) -> None:
        """Raise `UserError` for a value no ensemble can be made of."""
        for name in ("members", "code"):
            if getattr(self, name) < 1:
                raise UserError(f"hyperparameter {name}={getattr(self, name)} of family 'ensemble': must be at least 1")
        if self.member == "ensemble":
            raise UserError("hyperparameter member='ensemble' of family 'ensemble': name a family that is not one")


@state
class EnsembleState(State):
    """The members' beliefs as one belief of their family, K in the dimension after the leading ones: `[..., K, ...]`."""

    members: State

    @property
    def features(self) -> Tensor:
        """Side by side, `[..., K * F]`: each member has axes of its own, so that a mean of them would mean nothing."""
        return self.members.features.flatten(-2)

    @property
    def leading(self) -> int:
        """How many dimensions come before K."""
        return self.members.features.ndim - 2


class Ensemble(WorldModel):
    """The family `ensemble`. What is decoded is the members' mean, and "disagreement" `[...]` how far they are apart.

    Members that share no axes are compared in a common code: a fixed random projection of what is seen, which a linear
    readout of each belief learns to name ("common" in the loss; it moves no member). Their standard deviation there is
    the disagreement in belief space, in units of the data's own deviation. `disagreement` tells that of any key.
    """

    family: ClassVar[str] = "ensemble"
    config_class: ClassVar[type] = EnsembleConfig
    sizes: ClassVar[dict[str, EnsembleConfig]] = {
        size: EnsembleConfig(size=size) for size in ("debug", "nano", "small", "base")
    }

    def __init__(self, spec: DataSpec, config: EnsembleConfig):
        super().__init__()
        made = [build(config.member, spec, config.size, **_tuples(config.hyperparameters)) for _ in range(config.members)]
        resolved = json.loads(json.dumps(asdict(made[0].config)))  # type: ignore[call-overload]
        self.spec, self.config = spec, replace(config, hyperparameters=resolved)
        features = made[0].start(blank(spec)).features.shape[-1]
        self.members = stack_members(made)
        self.batched = not spec.image_keys if config.batched is None else config.batched
        self.code = ObsCode(spec, config.code)
        self.readout = BlockLinear(features * config.members, config.code * config.members, config.members)
        self.readout.apply(initialise)
        self.loss_weights = {**made[0].loss_weights, COMMON: 1.0}

    @classmethod
    def of(cls, members: Sequence[WorldModel]) -> Self:
        """An ensemble of models of one family and configuration that were trained apart; their weights are copied."""
        first = members[0]
        values = asdict(first.config)  # type: ignore[call-overload]
        if any(m.family != first.family or m.spec != first.spec or asdict(m.config) != values for m in members):  # type: ignore[call-overload]
            raise UserError("these models differ in family, data or hyperparameters: an ensemble needs members alike")
        made = cls(first.spec, EnsembleConfig(len(members), first.family, _a_size(first), values))
        made.members = stack_members(members)
        return made

    def member(self, number: int) -> WorldModel:
        """A copy of one member as a model of its own."""
        alone = build(self.config.member, self.spec, self.config.size, **_tuples(self.config.hyperparameters))
        alone.load_state_dict({name: pick(value, number) for name, value in self.members.state_dict().items()})
        return alone

    def start(self, obs: Obs) -> EnsembleState:
        return EnsembleState(self._each(lambda member, _: member.start(obs), out=1))

    def observe(self, state: EnsembleState, action: Tensor, obs: Obs) -> EnsembleState:  # type: ignore[override]
        return EnsembleState(self._each(lambda member, own: member.observe(own, action, obs), state, out=1))

    def predict(self, state: EnsembleState, action: Tensor) -> EnsembleState:  # type: ignore[override]
        return EnsembleState(self._each(lambda member, own: member.predict(own, action), state, out=1))

    def track(self, obs: Obs, actions: Tensor) -> EnsembleState:
        return EnsembleState(self._each(lambda member, _: member.track(obs, actions), out=2))

    def imagine(self, state: EnsembleState, actions: Tensor) -> EnsembleState:  # type: ignore[override]
        return EnsembleState(self._each(lambda member, own: member.imagine(own, actions), state, out=2))
