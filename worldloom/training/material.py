"""What a training reads: its datasets, their split by episode, the fitted description, and the windows for looking."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from worldloom.data.cache import CachedDataset, cache_dataset
from worldloom.data.loader import SegmentLoader, merge_specs
from worldloom.data.sampler import split_episodes
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.runs.run import DatasetUse
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.distributed import Team
from worldloom.training.loop import HeldOut
from worldloom.training.preview import CONTEXT, HORIZON

HELD_OUT_BATCHES = 4


@dataclass(frozen=True)
class Material:
    """Datasets that all speak `spec`, and which of their episodes are for what."""

    datasets: list[CachedDataset]
    uses: list[DatasetUse]
    spec: DataSpec

    @classmethod
    def fitted(cls, datasets: Sequence[CachedDataset], settings: TrainSettings) -> Self:
        """Split by episode and fit the description on training episodes alone."""
        splits = [split_episodes(dataset, settings.held_out, settings.seed) for dataset in datasets]
        specs = [dataset.fit(train) for dataset, (train, _) in zip(datasets, splits, strict=True)]
        spec = merge_specs(specs, [dataset.tasks for dataset in datasets])
        rows = [float(dataset.lengths[train].sum()) for dataset, (train, _) in zip(datasets, splits, strict=True)]
        weights = settings.weights or rows
        uses = [
            DatasetUse(str(dataset.path.resolve()), dataset.fingerprint, weight / sum(weights), train, held_out)
            for dataset, weight, (train, held_out) in zip(datasets, weights, splits, strict=True)
        ]
        return cls([dataset.with_spec(spec) for dataset in datasets], uses, spec)

    @classmethod
    def again(cls, datasets: Sequence[CachedDataset], uses: list[DatasetUse], spec: DataSpec) -> Self:
        """The same split and description as before. Raises `UserError` when the data have changed since."""
        for dataset, use in zip(datasets, uses, strict=True):
            if dataset.fingerprint != use.fingerprint:
                raise UserError(f"{dataset.path} has changed since this run began: restore it, or choose another --out")
        return cls([dataset.with_spec(spec) for dataset in datasets], uses, spec)

    def loader(self, settings: TrainSettings, team: Team) -> SegmentLoader:
        """Training windows in seeded order, this process's slice of each batch."""
        windows = self.windows([use.train for use in self.uses])
        if windows < settings.batch_size:
            raise UserError(
                f"--batch-size is {settings.batch_size}, but the training episodes hold only {windows} windows: "
                "lower --batch-size, or record more"
            )
        return SegmentLoader(
            self.datasets,
            [use.train for use in self.uses],
            batch_size=settings.batch_size,
            length=settings.length,
            seed=settings.seed,
            weights=[use.weight for use in self.uses],
            rank=team.rank,
            world_size=team.size,
        )

    def held_out(self, settings: TrainSettings, device: torch.device) -> HeldOut:
        """A few fixed batches of held-out windows, and the beginning of the longest held-out episode."""
        episodes = [use.held_out for use in self.uses]
        size = min(settings.batch_size, self.windows(episodes))
        loader = SegmentLoader(
            self.datasets,
            episodes,
            batch_size=size,
            length=settings.length,
            seed=settings.seed,
            weights=[use.weight for use in self.uses],
        )
        batches = [next(loader).to(device) for _ in range(HELD_OUT_BATCHES)]
        longest = max(episodes[0], key=lambda episode: int(self.datasets[0].lengths[episode]))
        rows = min(CONTEXT + HORIZON, int(self.datasets[0].lengths[longest]))
        return HeldOut(batches, self.datasets[0].segment(longest, 0, rows).to(device))

    def windows(self, episodes: Sequence[Sequence[int]]) -> int:
        """How many different windows those episodes hold: one from every row but the last."""
        pairs = zip(self.datasets, episodes, strict=True)
        return sum(max(int(dataset.lengths[e]) - 1, 1) for dataset, chosen in pairs for e in chosen)

    def words(self) -> list[str]:
        """One line per dataset for the console."""
        return [
            f"{use.path}: {len(use.train)} episodes to train on ({dataset.lengths[use.train].sum():,} rows, "
            f"share {use.weight:.2f}), {len(use.held_out)} held out"
            + (f", {len(dataset.skipped)} broken ones left out" if dataset.skipped else "")
            for dataset, use in zip(self.datasets, self.uses, strict=True)
        ]


def read_datasets(settings: TrainSettings, team: Team) -> list[CachedDataset]:
    """Open every dataset; rank 0 decodes what is not yet in the cache while the others wait."""
    if not team.leads:
        team.wait()
    size = (settings.image_size, settings.image_size)
    datasets = [cache_dataset(path, size, skip_broken=settings.skip_broken) for path in settings.data]
    if team.leads:
        team.wait()
    return datasets
