"""What a training reads: its datasets, their split by episode, the fitted description, and held-out windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from worldloom.data.cache import CachedDataset, cache_dataset
from worldloom.data.files import identity
from worldloom.data.loader import SegmentLoader, merge_specs
from worldloom.data.sampler import split_episodes
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.runs.run import DatasetUse
from worldloom.training.distributed import ProcessGroup
from worldloom.training.loop import HeldOutData
from worldloom.training.preview import CONTEXT, HORIZON

HELD_OUT_BATCHES = 4


@dataclass(frozen=True)
class DatasetSplit:
    """Datasets that all speak `spec`, and which of their episodes are for what."""

    datasets: list[CachedDataset]
    uses: list[DatasetUse]
    spec: DataSpec

    @classmethod
    def fitted(
        cls,
        datasets: Sequence[CachedDataset],
        held_out: float,
        seed: int = 0,
        weights: Sequence[float] = (),
        roles: Mapping[str, str] | None = None,
    ) -> Self:
        """Split by episode, a share `held_out` of them held out, and fit the description on the others alone.

        `roles` are those of some keys, by name. Raises `UserError` for a role that a key cannot have.
        """
        splits = [split_episodes(dataset, held_out, seed) for dataset in datasets]
        specs = [dataset.fit(train) for dataset, (train, _) in zip(datasets, splits, strict=True)]
        spec = merge_specs(specs, [dataset.tasks for dataset in datasets]).with_roles(roles or {})
        rows = [float(dataset.lengths[train].sum()) for dataset, (train, _) in zip(datasets, splits, strict=True)]
        weights = weights or rows
        uses = [
            DatasetUse(
                str(dataset.path.resolve()),
                dataset.fingerprint,
                weight / sum(weights),
                train,
                apart,
                identity(dataset.path),
            )
            for dataset, weight, (train, apart) in zip(datasets, weights, splits, strict=True)
        ]
        return cls([dataset.with_spec(spec) for dataset in datasets], uses, spec)

    @classmethod
    def again(cls, datasets: Sequence[CachedDataset], uses: list[DatasetUse], spec: DataSpec) -> Self:
        """The same split and description as before. Raises `UserError` when the data have changed since."""
        for dataset, use in zip(datasets, uses, strict=True):
            if dataset.fingerprint != use.fingerprint:
                raise UserError(f"{dataset.path} has changed since this run began: restore it, or choose another --out")
        return cls([dataset.with_spec(spec) for dataset in datasets], uses, spec)

    def loader(self, batch_size: int, length: int, seed: int = 0, group: ProcessGroup | None = None) -> SegmentLoader:
        """Training windows in seeded order, this process's slice of each batch."""
        episodes = [use.train for use in self.uses]
        windows = self.windows(episodes)
        if windows < batch_size:
            raise UserError(
                f"--batch-size is {batch_size}, but the training episodes hold only {windows} windows: "
                "lower --batch-size, or record more"
            )
        return self._loader(episodes, batch_size, length, seed, group or ProcessGroup())

    def held_out(self, batch_size: int, length: int, seed: int, device: torch.device) -> HeldOutData:
        """A few fixed batches of held-out windows, and the beginning of the longest held-out episode."""
        episodes = [use.held_out for use in self.uses]
        size = min(batch_size, self.windows(episodes))
        loader = self._loader(episodes, size, length, seed, ProcessGroup())
        batches = [next(loader).to(device) for _ in range(HELD_OUT_BATCHES)]
        longest = max(episodes[0], key=lambda episode: int(self.datasets[0].lengths[episode]))
        rows = min(CONTEXT + HORIZON, int(self.datasets[0].lengths[longest]))
        return HeldOutData(batches, self.datasets[0].segment(longest, 0, rows).to(device))

    def _loader(
        self, episodes: list[list[int]], batch_size: int, length: int, seed: int, group: ProcessGroup
    ) -> SegmentLoader:
        return SegmentLoader(
            self.datasets,
            episodes,
            batch_size=batch_size,
            length=length,
            seed=seed,
            weights=[use.weight for use in self.uses],
            rank=group.rank,
            world_size=group.size,
        )

    def windows(self, episodes: Sequence[Sequence[int]]) -> int:
        """How many different windows those episodes hold: one from every row but the last."""
        pairs = zip(self.datasets, episodes, strict=True)
        return sum(max(int(dataset.lengths[e]) - 1, 1) for dataset, chosen in pairs for e in chosen)

    def describe(self) -> list[str]:
        """One line per dataset for the console."""
        return [
            f"{use.path}: {len(use.train)} episodes to train on ({dataset.lengths[use.train].sum():,} rows, "
            f"share {use.weight:.2f}), {len(use.held_out)} held out"
            + (f", {len(dataset.skipped)} broken ones left out" if dataset.skipped else "")
            for dataset, use in zip(self.datasets, self.uses, strict=True)
        ]


def read_datasets(
    paths: Sequence[Path],
    image_size: tuple[int, int] | None,
    skip_broken: bool = False,
    group: ProcessGroup | None = None,
) -> list[CachedDataset]:
    """Open every dataset, its pictures at a size or (None) at their own.

    Rank 0 decodes what is not yet in the cache while the others wait.
    """
    group = group or ProcessGroup()
    if not group.is_main:
        group.barrier()
    datasets = [cache_dataset(path, image_size, skip_broken=skip_broken) for path in paths]
    if group.is_main:
        group.barrier()
    return datasets
