"""The datasets of a run, and which of their episodes were trained on."""

import sys
from dataclasses import dataclass
from pathlib import Path

from worldloom.data.cache import CachedDataset
from worldloom.errors import UserError
from worldloom.runs.run import DatasetUse, Run


@dataclass(frozen=True)
class Source:
    """One dataset as the run sees it, and the episodes of it that may be used for what."""

    dataset: CachedDataset
    train: list[int]
    held_out: list[int]
    note: str = ""


def open_sources(run: Run, data: Path | str | None) -> list[Source]:
    """The run's datasets through its own spec, or `data` in their place. Warns loudly when data is not what it was."""
    uses = run.datasets
    if data is None and not uses:
        raise UserError(f"{run.path} learned while acting, so no data was held out: record some and name that dataset")
    if data is None:
        return [_open(run, use.path, use) for use in uses]
    twin = next((use for use in uses if Path(use.path).resolve() == Path(data).resolve()), None)
    return [_open(run, str(data), twin)]


def _open(run: Run, path: str, use: DatasetUse | None) -> Source:
    from worldloom.data.cache import cache_dataset

    if not Path(path).exists():
        raise UserError(f"the dataset {path} of {run.path} is gone. Say where it is now with --data FOLDER.")
    raw = cache_dataset(path, run.image_size, skip_broken=True)
    dataset = raw.with_spec(run.spec)
    use = use or _moved(run, dataset)
    if use is None:
        note = f"{path} was not trained on by this run: all its {len(dataset)} episodes count as held out"
        _warn(note)
        return Source(dataset, [], list(range(len(dataset))), note)
    note = ""
    if use.fingerprint != dataset.fingerprint:
        note = f"{path} CHANGED since training (fingerprint {dataset.fingerprint[:12]}, then {use.fingerprint[:12]})"
        _warn(f"{note}: its held-out episodes may not be the ones that were held out.")
    last = max([*use.held_out, *use.train], default=-1)
    if last >= len(dataset):
        raise UserError(
            f"{path} has {len(dataset)} episodes but the run split {last + 1}: it is not the dataset of {run.path}. "
            "Restore it or give the right one with --data FOLDER."
        )
    return Source(dataset, list(use.train), list(use.held_out), note)


def _moved(run: Run, dataset: CachedDataset) -> DatasetUse | None:
    """The use that `dataset` at another path must be a copy of, so that no trained-on episode is taken for held out."""
    same = [use for use in run.datasets if use.fingerprint == dataset.fingerprint]
    as_long = [use for use in run.datasets if len(use.train) + len(use.held_out) == len(dataset)]
    return next(iter([*same, *as_long]), None)


def _warn(message: str) -> None:
    print(f"worldloom: WARNING: {message}", file=sys.stderr)
