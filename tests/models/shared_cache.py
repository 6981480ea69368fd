"""A fake family whose belief carries a cache of 2 MB, as a video transformer would: the last 32 frames, 64 KB each.

Frames never change, so beliefs share them: between the candidates of a plan, the rows of a window and the nodes of a
tree. What a belief has of its own is a small hidden state, the addresses of its frames, and the newest frame.

B batch, T time, R frames of a block, L slots, W numbers of a frame, H hidden size, A action size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import unknown
from worldloom.model import State, WorldModel, state
from worldloom.noise import NOISE, Noise

SLOTS, FRAME, HIDDEN = 32, 16_384, 16
ENTRY = "tests.models.shared_cache:SharedCache"


@state
class CacheState(State):
    """hidden `[..., H]`; blocks: frames `[R, W]` in any number; address `[..., L, 2]`: block and row of each frame.

    Every method handles addresses and leaves frames where they are. Only `clone` copies some: those of blocks of which
    it needs a part, so that a node of a tree does not keep the batch alive in which it was imagined.
    """

    hidden: Tensor
    address: Tensor
    blocks: tuple[Tensor, ...]

    @property
    def features(self) -> Tensor:
        return self.hidden

    @property
    def nbytes(self) -> int:
        return self.hidden.nbytes + self.address.nbytes + self.shape.numel() * FRAME * self.blocks[0].element_size()

    def __getitem__(self, index: Any) -> "CacheState":
        return replace(self, hidden=self.hidden[index], address=self.address[index])

    def repeat(self, n: int) -> "CacheState":
        return replace(self, hidden=self.hidden.repeat_interleave(n, 0), address=self.address.repeat_interleave(n, 0))

    def flatten(self) -> "CacheState":
        return replace(self, hidden=self.hidden.flatten(0, 1), address=self.address.flatten(0, 1))

    def unflatten(self, batch: int) -> "CacheState":
        hidden, address = (x.unflatten(0, (batch, -1)) for x in (self.hidden, self.address))
        return replace(self, hidden=hidden, address=address)

    def where(self, mask: Tensor, other: "CacheState") -> "CacheState":
        (mine, theirs), blocks = merged([self, other])
        mask = mask.view(*mask.shape, *[1] * (self.hidden.ndim - mask.ndim))
        address = torch.where(mask[..., None], mine, theirs)
        return CacheState(torch.where(mask, self.hidden, other.hidden), address, blocks)

    def isfinite(self) -> Tensor:
        return self.hidden.isfinite().all(-1) & looked_up([x.isfinite().all(-1) for x in self.blocks], self).all(-1)

    def detach(self) -> "CacheState":
        blocks = tuple(x.detach() if x.requires_grad else x for x in self.blocks)
        return CacheState(self.hidden.detach(), self.address, blocks)

    def clone(self) -> "CacheState":
        address, blocks = torch.empty_like(self.address), []
        for number in self.address[..., 0].unique().tolist():
            here = self.address[..., 0] == number
            rows, place = self.address[here][:, 1].unique(return_inverse=True)
            address[here] = torch.stack([torch.full_like(place, len(blocks)), place], -1)
            whole = self.blocks[number]
            # A frame made in inference mode must be copied for those who differentiate through it.
            foreign = whole.is_inference() and not torch.is_inference_mode_enabled()
            blocks.append(whole[rows] if foreign or len(rows) < len(whole) else whole)
        return CacheState(self.hidden.clone(), address, tuple(blocks))

    def to(self, device: torch.device | str) -> "CacheState":
        blocks = tuple(x.to(device) for x in self.blocks)
        return CacheState(self.hidden.to(device), self.address.to(device), blocks)

    @classmethod
    def stack(cls, states: "Sequence[CacheState]", dim: int = 1) -> "CacheState":
        addresses, blocks = merged(states)
        return CacheState(torch.stack([x.hidden for x in states], dim), torch.stack(addresses, dim), blocks)

    @classmethod
    def cat(cls, states: "Sequence[CacheState]", dim: int = 0) -> "CacheState":
        addresses, blocks = merged(states)
        return CacheState(torch.cat([x.hidden for x in states], dim), torch.cat(addresses, dim), blocks)


def merged(states: Sequence[CacheState]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """The blocks of all beliefs, each once, and every belief's addresses among them."""
    numbers: dict[int, int] = {}
    blocks: list[Tensor] = []
    addresses = []
    for each in states:
        for block in each.blocks:
            if numbers.setdefault(id(block), len(blocks)) == len(blocks):
                blocks.append(block)
        new = torch.tensor([numbers[id(block)] for block in each.blocks], device=each.address.device)
        addresses.append(torch.stack([new[each.address[..., 0]], each.address[..., 1]], -1))
    return addresses, tuple(blocks)


def looked_up(values: Sequence[Tensor], belief: CacheState) -> Tensor:
    """Of values `[R, ...]` of the frames of each block, those of a belief's frames: `[..., L, ...]`."""
    starts = torch.tensor([0, *(len(x) for x in values[:-1])], device=belief.address.device).cumsum(0)
    return torch.cat(list(values))[starts[belief.address[..., 0]] + belief.address[..., 1]]


@dataclass(frozen=True)
class SharedCacheConfig:
    """`spread` is the standard deviation of what every verb adds to the hidden state."""

    spread: float = 0.1


class SharedCache(WorldModel[CacheState]):
    """A hidden state that attends to its frames and is written into a new one at every step. It knows vectors alone."""

    family: ClassVar[str] = "shared_cache"
    config_class: ClassVar[type] = SharedCacheConfig
    sizes: ClassVar[dict[str, SharedCacheConfig]] = {"debug": SharedCacheConfig()}
    config: SharedCacheConfig

    def __init__(self, spec: DataSpec, config: SharedCacheConfig):
        super().__init__()
        self.spec, self.config = spec, config
        self.parts = {key: spec.obs[key].shape[0] for key in spec.vector_keys}
        size = sum(self.parts.values())
        self.see, self.show = nn.Linear(size, HIDDEN), nn.Linear(HIDDEN, size)
        self.move = nn.Linear(2 * HIDDEN + spec.action.size, HIDDEN)
        self.correct = nn.Linear(2 * HIDDEN, HIDDEN)
        self.write = nn.Linear(HIDDEN, FRAME)
        self.loss_weights = dict.fromkeys(self.parts, 1.0)

    @property
    def decodes(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def start(self, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> CacheState:
        hidden = self._drawn(self.see(self._scaled(obs)).tanh(), noise)
        rows = torch.arange(len(hidden), device=hidden.device)
        address = torch.stack([torch.zeros_like(rows), rows], -1)[:, None].expand(-1, SLOTS, -1)
        return CacheState(hidden, address, (self.write(hidden),))

    def observe(self, state: CacheState, action: Tensor, obs: Mapping[str, Tensor], noise: Noise = NOISE) -> CacheState:
        moved = torch.cat([self._moved(state, action), self.see(self._scaled(obs)).tanh()], -1)
        return self._remembered(state, self._drawn(self.correct(moved).tanh(), noise))

    def predict(self, state: CacheState, action: Tensor, noise: Noise = NOISE) -> CacheState:
        return self._remembered(state, self._drawn(self._moved(state, action), noise, noise.temperature))

    def decode(self, state: CacheState, key: str) -> Tensor:
        if key not in self.parts:
            raise unknown("key", key, self.decodes)
        own = dict(zip(self.parts, self.show(state.hidden).split(list(self.parts.values()), -1), strict=True))[key]
        mean, std = self.spec.obs[key].mean or (0.0,), self.spec.obs[key].std or (1.0,)
        return own * own.new_tensor(std) + own.new_tensor(mean)

    def loss(self, segment: Segment, belief: CacheState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        belief = self.track(segment.obs, segment.action, noise) if belief is None else belief
        ahead = self.predict(belief[:, :-1].flatten(), segment.action[:, :-1].flatten(0, 1), noise)
        terms = {}
        for key in self.parts:
            decoded = self.decode(ahead.unflatten(len(segment.mask)), key)
            terms[key] = F.pad((decoded - segment.obs[key][:, 1:]).square().mean(-1), (1, 0))
        return terms

    def _moved(self, state: CacheState, action: Tensor) -> Tensor:
        """Attention over the frames; what a frame holds beyond one key and one value only has its weight."""
        keys, values = looked_up([x[:, : 2 * HIDDEN] for x in state.blocks], state).chunk(2, -1)
        weights = (keys * state.hidden[..., None, :]).sum(-1).softmax(-1)
        found = (weights[..., None] * values).sum(-2)
        return self.move(torch.cat([state.hidden, found, action], -1)).tanh()

    def _remembered(self, state: CacheState, hidden: Tensor) -> CacheState:
        """With a frame of its own in the place of the oldest; blocks that nobody addresses any more are let go."""
        rows = torch.arange(len(hidden), device=hidden.device)
        newest = torch.stack([torch.full_like(rows, len(state.blocks)), rows], -1)[:, None]
        address = torch.cat([state.address[:, 1:], newest], 1)
        used, place = address[..., 0].unique(return_inverse=True)
        blocks = (*state.blocks, self.write(hidden))
        return CacheState(hidden, torch.stack([place, address[..., 1]], -1), tuple(blocks[i] for i in used.tolist()))

    def _drawn(self, hidden: Tensor, noise: Noise, temperature: float = 1.0) -> Tensor:
        return hidden + temperature**0.5 * self.config.spread * noise.normal(hidden.shape, hidden)

    def _scaled(self, obs: Mapping[str, Tensor]) -> Tensor:
        found = []
        for key in self.parts:
            mean, std = self.spec.obs[key].mean or (0.0,), self.spec.obs[key].std or (1.0,)
            found.append((obs[key] - obs[key].new_tensor(mean)) / obs[key].new_tensor(std))
        return torch.cat(found, -1)
