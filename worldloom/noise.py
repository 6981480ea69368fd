"""Random numbers as an argument: where a verb that samples draws from, and how randomly it samples.

B rows. Every verb takes `noise`; without one it draws from torch's own generators.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Noise(ABC):
    """A source of random numbers, and the `temperature` of what is sampled with them.

    The temperature scales how randomly `predict` samples: 1 is as learned, 0 always the likeliest sample.
    """

    temperature: float = 1.0

    @abstractmethod
    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Numbers in [0, 1) of a shape, `[B, ...]`, with the dtype and device of `like`."""

    @abstractmethod
    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers of a shape, `[B, ...]`, with the dtype and device of `like`."""


class TorchNoise(Noise):
    """Draws from torch's default generators, or from a `generator` on the device that is drawn for."""

    def __init__(self, temperature: float = 1.0, generator: torch.Generator | None = None):
        self.temperature, self.generator = temperature, generator

    @classmethod
    def seeded(cls, seed: int, device: torch.device | str = "cpu", temperature: float = 1.0) -> "TorchNoise":
        """A generator of its own that begins at `seed`; torch's are left as they are."""
        return cls(temperature, torch.Generator(device).manual_seed(seed))

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=like.dtype, device=like.device)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=like.dtype, device=like.device)


NOISE = TorchNoise()
"""The default: torch's own generators at temperature 1."""


class RowNoise(Noise):
    """Row b of everything that is drawn comes from `seeds[b]` alone, whatever the other rows of the batch are.

    A row drawn in a batch is the same as drawn by itself, and the same on every device. Raises `AssertionError` for a
    tensor whose first dimension is not B, because its draws would tie rows to each other.
    """

    def __init__(self, seeds: Sequence[int], temperature: float = 1.0):
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._rows(torch.rand, shape, like)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._rows(torch.randn, shape, like)

    def _rows(self, draw: Callable[..., Tensor], shape: Sequence[int], like: Tensor) -> Tensor:
        assert shape[0] == len(self.generators), f"{tuple(shape)} drawn for {len(self.generators)} rows"
        rows = [draw(tuple(shape[1:]), generator=generator) for generator in self.generators]
        return torch.stack(rows).to(like.device, like.dtype)


class RecordedNoise(Noise):
    """Hands out given tensors in their order: `draws` that were recorded, or the noise inputs of an exported graph.

    With a `source`, what is drawn beyond `draws` comes from there and is recorded. Raises `AssertionError` when another
    shape is asked for than was recorded, or more tensors than there are.
    """

    def __init__(self, draws: Sequence[Tensor] = (), source: Noise | None = None, temperature: float = 1.0):
        self.draws, self.source, self.place = list(draws), source, 0
        self.temperature = temperature if source is None else source.temperature

    def rewind(self) -> None:
        """Begin again with the first draw."""
        self.place = 0

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._next(shape, lambda source: source.uniform(shape, like))

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._next(shape, lambda source: source.normal(shape, like))

    def _next(self, shape: Sequence[int], draw: Callable[[Noise], Tensor]) -> Tensor:
        if self.place == len(self.draws):
            assert self.source is not None, f"only {self.place} tensors of noise were given, and more are drawn"
            self.draws.append(draw(self.source))
        drawn = self.draws[self.place]
        assert drawn.shape == torch.Size(shape), f"{tuple(drawn.shape)} was given, but {tuple(shape)} is drawn"
        self.place += 1
        return drawn


@contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """For code that takes no noise: torch's draws inside follow from `seed`, and those after are as if there were none.

    `device` is where it draws, beside the CPU.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # `torch.manual_seed` would also note for every other kind of device where it was called, which takes longer
        # than a small model's step.
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
