"""How fast windows of 64 x 64 frames with actions reach a training loop: warm page cache, one thread, CPU time.

    python benchmarks/data_loading.py [--json]

Makes its own dataset in a temporary folder. When stable-worldmodel is installed, its HDF5 and Lance readers load the
same frames in the same run through torch's DataLoader, as its training scripts do.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Row, print_rows

from worldloom.data.cache import cache_source
from worldloom.data.episode import Episode, EpisodeInfo, EpisodeSource
from worldloom.data.loader import SegmentLoader
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec

EPISODES, ROWS, ACTION = 150, 200, 6
WORK = {"windows of 4 frames, batch 64": (64, 4), "windows of 64 frames, batch 16": (16, 64)}
PEER = "stable-worldmodel"


class Synthetic(EpisodeSource):
    """Moving colour gradients: neither noise nor black, so that a peer's JPEGs decode as quickly as real ones."""

    def __init__(self) -> None:
        self.path = Path("synthetic")
        self.spec = DataSpec(
            {"image": KeySpec("image", (3, 64, 64))},
            ActionSpec("continuous", ACTION, low=(-1.0,) * ACTION, high=(1.0,) * ACTION),
            20.0,
        )
        self.episodes = [EpisodeInfo(ROWS)] * EPISODES
        self.about = {}

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        rng = np.random.default_rng(index)
        t, channel, y, x = np.ogrid[:ROWS, :3, :64, :64]
        image = (index * 40 + t * 3 + channel * 60 + y * 2 + x * rng.integers(1, 4)).astype(np.uint8)
        none, never = np.zeros(ROWS, np.float32), np.zeros(ROWS, bool)
        return Episode({"image": image}, rng.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32), none, never, never)

    def fingerprint(self) -> str:
        return "synthetic"


def frames_per_second(next_batch: Callable[[], object], frames: int, seconds: float = 3.0) -> float:
    """Frames per CPU second, the median of several stretches after a warm-up that touches all the data."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        next_batch()
    rates = []
    for _ in range(7):
        started, batches = time.process_time(), 0
        while time.process_time() - started < seconds / 7:
            next_batch()
            batches += 1
        rates.append(batches * frames / (time.process_time() - started))
    return float(np.median(rates))


def ours(folder: Path, batch: int, length: int) -> float:
    dataset = cache_source(Synthetic(), cache_dir=folder)
    loader = SegmentLoader([dataset], [range(len(dataset))], batch_size=batch, length=length)
    return frames_per_second(loader.__next__, batch * length)


def peer(folder: Path, reader: str, batch: int, length: int) -> float:
    """The peer's own writer and reader, named by its format registry."""
    from stable_worldmodel.data import get_format

    path = folder / {"hdf5": "frames.h5", "lance": "frames.lance"}[reader]
    if not path.exists():
        with get_format(reader).open_writer(path) as writer:
            for index in range(EPISODES):
                episode = Synthetic().read(index)
                pixels = list(episode.obs["image"].transpose(0, 2, 3, 1))
                writer.write_episode({"pixels": pixels, "action": list(episode.action)})
    dataset = get_format(reader).open_reader(path, num_steps=length)
    batches = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
    endless: Iterator[Any] = (b for _ in cycle([0]) for b in batches)
    return frames_per_second(lambda: next(endless), batch * length)


def main() -> None:
    torch.set_num_threads(1)
    installed = find_spec(PEER.replace("-", "_")) is not None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (batch, length) in WORK.items():
            rows.append(Row(name, ours(Path(folder), batch, length), "frames/s", 1, "uint8", "worldloom"))
            for reader in ("hdf5", "lance"):
                value = peer(Path(folder), reader, batch, length) if installed else None
                source = f"{PEER} {version(PEER)}, {reader}" if installed else f"{PEER}, {reader}: not installed"
                rows.append(Row(name, value, "frames/s", 1, "uint8", source))
    print_rows(rows)


if __name__ == "__main__":
    main()
