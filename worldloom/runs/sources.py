"""The datasets of a run, and which of their episodes were trained on."""

import sys
from dataclasses import dataclass
from pathlib import Path

from worldloom.data.cache import CachedDataset
from worldloom.data.files import identity
from worldloom.errors import UserError
from worldloom.runs.run import DatasetUse, Run


@dataclass(frozen=True)
class Source:
    """One dataset as the run sees it, and the episodes of it that may be used for what.

    other: the run has data of its own, and these are none of them.
    """

    dataset: CachedDataset
    train: list[int]
    held_out: list[int]
    note: str = ""
    other: bool = False


def open_sources(run: Run, data: Path | str | None) -> list[Source]:
    """The run's datasets through its own spec, or `data` in their place.

    Raises `UserError` when a dataset of the run is no longer what was split, unless it is named as `data`: then that is
    said aloud.
    """
    uses = run.datasets
    if data is None and not uses:
        raise UserError(f"{run.path} learned while acting, so no data was held out: record some and name that dataset")
    if data is None:
        return [_open(run, use.path, use) for use in uses]
    twin = next((use for use in uses if Path(use.path).resolve() == Path(data).resolve()), None)
    return [_open(run, str(data), twin, named=True)]


def _open(run: Run, path: str, use: DatasetUse | None, named: bool = False) -> Source:
    from worldloom.data.cache import cache_dataset

    if not Path(path).exists():
        raise UserError(f"the dataset {path} of {run.path} is gone. Say where it is now with --data FOLDER.")
    raw = cache_dataset(path, run.image_size, skip_broken=True)
    dataset = raw.with_spec(run.spec)
    use = use or _moved(run, dataset)
    if use is None:
        note = f"{path} was not trained on by this run: all its {len(dataset)} episodes count as held out"
        _warn(note)
        return Source(dataset, [], list(range(len(dataset))), note, other=bool(run.datasets))
    note = ""
    if use.fingerprint != dataset.fingerprint and use.identity != identity(Path(path)):
        if use.identity and not named:
            raise UserError(
                f"{path} is not what {run.path} was trained on: its files have changed, so the episodes that were held "
                f"out may be others now. Restore it, or say --data {path} to use it as it is."
            )
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
    """The use that `dataset` at another path must be a copy of, so that no trained-on episode is taken for held out.

    Runs of before do not hold an identity of their data: the number of episodes decides.
    """
    same = [use for use in run.datasets if use.fingerprint == dataset.fingerprint]
    same += [use for use in run.datasets if use.identity == identity(Path(dataset.path))]
    as_long = [u for u in run.datasets if not u.identity and len(u.train) + len(u.held_out) == len(dataset)]
    return next(iter([*same, *as_long]), None)


def _warn(message: str) -> None:
    print(f"worldloom: WARNING: {message}", file=sys.stderr)
