"""The data card's figures: what a dataset holds, what is odd about it, and what cannot be read.

N rows, T rows of one episode, D vector size, A action size, C H W image channels, height, width. The last row of an
episode has no action (it is padding) and is left out of every figure about actions.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.cache_build import with_progress
from worldloom.data.card.card import ActionFigures, DataCard, KeyFigures
from worldloom.data.card.duplicates import Signature, duplicates, signature
from worldloom.data.card.notes import notes_on
from worldloom.data.episode import BrokenEpisode, Episode, EpisodeSource
from worldloom.data.files import files_below
from worldloom.data.spec import ActionSpec, DataSpec
from worldloom.data.validate import check_episode
from worldloom.errors import UserError

BINS = 32  # per action dimension, for entropy and coverage
STRIDE = 4  # image statistics look at every fourth pixel in both directions


def data_card(source: EpisodeSource, skip_broken: bool = False, image_size: tuple[int, int] | None = None) -> DataCard:
    """Read every episode of `source` once, pictures shrunk to `image_size` if given, and describe what was found.

    Broken episodes are listed and never stop the card. They still count in episodes, rows, hours, lengths and tasks (by
    what the metadata declare) unless `skip_broken`. Raises `UserError` when no episode can be read.
    """
    reading = _read(source, image_size)
    lengths = reading.lengths if skip_broken else [info.length for info in source.episodes]
    tasks = reading.tasks if skip_broken else [info.task for info in source.episodes]
    rows = int(sum(lengths))
    card = DataCard(
        path=str(source.path),
        about=source.about,
        fingerprint=source.fingerprint(),
        bytes=size_on_disk(Path(source.path)),
        fps=source.spec.fps,
        episodes=len(lengths),
        readable=len(reading.lengths),
        rows=rows,
        hours=rows / source.spec.fps / 3600,
        lengths=_length_figures(lengths),
        keys={key: reading.key_figures(key) for key in source.spec.obs},
        looked_at=image_size if source.spec.image_keys else None,
        action=action_figures(source.spec.action, reading.actions),
        reward=_reward_figures(reading) if source.spec.has_reward else None,
        signals={name: _signal_figures(rows) for name, rows in reading.signals.items()},
        ends=reading.ends,
        tasks=_task_figures(tasks, lengths),
        duplicates=[asdict(group) for group in duplicates(reading.signatures)],
        broken=[{"episode": index, "problem": problem} for index, problem in reading.broken],
    )
    card.notes = notes_on(card)
    return card


class _Reading:
    """What one pass over the episodes keeps: vectors, actions and rewards whole, of images sums and thumbnails."""

    def __init__(self, source: EpisodeSource, image_size: tuple[int, int] | None):
        self.spec, self.where = source.spec, str(source.path)
        self.read_spec = self.spec.with_image_size(*image_size) if image_size else self.spec
        self.lengths: list[int] = []
        self.tasks: list[str] = []
        self.broken: list[tuple[int, str]] = []
        self.signatures: dict[int, Signature] = {}
        self.ends = {"terminated": 0, "truncated": 0, "neither": 0}
        self.vectors: dict[str, list[np.ndarray]] = {k: [] for k in self.spec.vector_keys}
        self.images = {k: _ImageSums(self.spec.obs[k].shape[0]) for k in self.spec.image_keys}
        self.actions: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self.signals: dict[str, list[np.ndarray]] = {}

    def add(self, index: int, episode: Episode) -> None:
        check_episode(episode, self.read_spec, self.where)
        episode.obs = {key: np.ascontiguousarray(values) for key, values in episode.obs.items()}
        self.lengths.append(len(episode))
        self.tasks.append(episode.task)
        self.signatures[index] = signature(episode, self.spec)
        for key, sums in self.images.items():
            sums.add(episode.obs[key])
        for key, kept in self.vectors.items():
            kept.append(episode.obs[key])
        self.actions.append(episode.action[:-1])
        self.rewards.append(episode.reward[1:])
        for name, values in episode.extra.items():
            self.signals.setdefault(name, []).append(np.asarray(values, np.float64).reshape(len(episode), -1))
        self.ends["terminated"] += bool(episode.terminated.any())
        self.ends["truncated"] += bool(episode.truncated.any() and not episode.terminated.any())
        self.ends["neither"] += not (episode.terminated.any() or episode.truncated.any())

    def key_figures(self, key: str) -> KeyFigures:
        spec = self.spec.obs[key]
        common: dict[str, Any] = {"kind": spec.kind, "shape": spec.shape, "names": list(spec.names or ())}
        if key in self.images:
            return KeyFigures(**common, dtype="uint8", **self.images[key].figures())
        values = np.concatenate(self.vectors[key])
        low, high = values.min(0), values.max(0)
        return KeyFigures(
            **common,
            dtype="float32",
            low=low.tolist(),
            high=high.tolist(),
            mean=values.mean(0, dtype=np.float64).tolist(),
            std=values.std(0, dtype=np.float64).tolist(),
            constant=np.flatnonzero(low == high).tolist(),
            held=held_share(self.vectors[key]),
            jumps=_jumps(self.vectors[key]),
            usual=_usual_steps(self.vectors[key]),
        )


class _ImageSums:
    """Per-channel statistics of a camera, gathered episode by episode."""

    def __init__(self, channels: int):
        self.counts = np.zeros((channels, 256), np.int64)
        self.low = np.full(channels, 255)
        self.high = np.zeros(channels, int)
        self.held = self.steps = 0

    def add(self, frames: np.ndarray) -> None:
        """frames: uint8 `[T, C, H, W]`, contiguous: reductions over the last axis are then 20 times faster."""
        flat = frames.reshape(*frames.shape[:2], -1)
        self.low = np.minimum(self.low, flat.min(-1).min(0))
        self.high = np.maximum(self.high, flat.max(-1).max(0))
        for channel, counts in enumerate(self.counts):
            counts += np.bincount(frames[:, channel, ::STRIDE, ::STRIDE].ravel(), minlength=256)
        self.held += int((flat[1:] == flat[:-1]).reshape(len(flat) - 1, flat[0].size).all(1).sum())
        self.steps += len(frames) - 1

    def figures(self) -> dict[str, Any]:
        levels = np.arange(256)
        count = self.counts.sum(1)
        mean = self.counts @ levels / count
        variance = self.counts @ levels**2 / count - mean**2
        return {
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "mean": mean.tolist(),
            "std": np.sqrt(np.maximum(variance, 0)).tolist(),
            "constant": np.flatnonzero(self.low == self.high).tolist(),
            "held": self.held / max(self.steps, 1),
        }


def looking_size(spec: DataSpec, side: int) -> tuple[int, int] | None:
    """`(height, width)` that brings the longer side of the largest camera down to `side` pixels, or None when all are
    as small already or `side` is 0.
    """
    height, width = max((spec.obs[key].shape[1:] for key in spec.image_keys), key=max, default=(0, 0))
    scale = side / max(height, width, 1)
    return None if side == 0 or scale >= 1 else (max(1, round(height * scale)), max(1, round(width * scale)))


def _read(source: EpisodeSource, image_size: tuple[int, int] | None) -> _Reading:
    reading = _Reading(source, image_size)
    for index in with_progress(source, "reading"):
        try:
            reading.add(index, source.read(index, image_size))
        except BrokenEpisode as error:
            reading.broken.append((index, str(error)))
    if not reading.lengths:
        first = f" The first problem: {reading.broken[0][1]}" if reading.broken else ""
        raise UserError(f"{source.path}: none of its {len(source.episodes)} episodes can be read.{first}")
    return reading


def action_figures(spec: ActionSpec, actions: list[np.ndarray]) -> ActionFigures:
    """`actions` hold one `[T - 1, A]` array per episode, in own units."""
    values = np.concatenate(actions) if actions else np.zeros((0, spec.size), np.float32)
    if not len(values):
        values = np.zeros((1, spec.size), np.float32)
    seen_low, seen_high = values.min(0), values.max(0)
    low = np.asarray(spec.low if spec.low is not None else seen_low, np.float64)
    high = np.asarray(spec.high if spec.high is not None else seen_high, np.float64)
    if spec.kind == "discrete":
        tables = [values.sum(0, dtype=np.float64)]
    else:
        tables = [_histogram(values[:, i], low[i], high[i]) for i in range(spec.size)]
    entropy = [_entropy(table) for table in tables]
    most = np.log2(max(spec.size, 2)) if spec.kind == "discrete" else np.log2(BINS)
    return ActionFigures(
        kind=spec.kind,
        size=spec.size,
        names=list(spec.names or ()),
        declared=spec.low is not None and spec.high is not None,
        low=low.tolist(),
        high=high.tolist(),
        seen_low=seen_low.tolist(),
        seen_high=seen_high.tolist(),
        mean=values.mean(0, dtype=np.float64).tolist(),
        std=values.std(0, dtype=np.float64).tolist(),
        entropy=entropy,
        evenness=[bits / float(most) for bits in entropy],
        coverage=[float((table > 0).mean()) for table in tables],
        counts=[table.astype(int).tolist() for table in tables],
        constant=np.flatnonzero(seen_low == seen_high).tolist(),
        jumps=_jumps(actions) if spec.kind == "continuous" and actions else [],
        held=held_share(actions),
        zero=float((values == 0).all(1).mean()) if spec.size else 0.0,
    )


def held_share(episodes: list[np.ndarray]) -> float:
    """Share of rows that equal the row before them in the same episode."""
    held = sum(int((rows[1:] == rows[:-1]).all(1).sum()) for rows in episodes)
    return held / max(sum(max(len(rows) - 1, 0) for rows in episodes), 1)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in files_below(path))


def _histogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.array([len(values)])
    return np.histogram(np.clip(values, low, high), BINS, (low, high))[0]


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum()) + 0.0


def _jumps(episodes: list[np.ndarray]) -> list[float]:
    """The largest step of each dimension between two rows of an episode."""
    return np.max([np.abs(np.diff(rows, axis=0)).max(0, initial=0) for rows in episodes], axis=0).tolist()


def _usual_steps(episodes: list[np.ndarray]) -> list[float]:
    """The size that 99 % of the steps of each dimension stay below."""
    steps = np.concatenate([np.abs(np.diff(rows, axis=0)) for rows in episodes])
    return np.percentile(steps, 99, axis=0).tolist() if len(steps) else [0.0] * steps.shape[1]


def _length_figures(lengths: list[int]) -> dict[str, Any]:
    counts, edges = np.histogram(lengths, min(10, max(lengths) - min(lengths) + 1))
    return {
        "min": int(min(lengths)),
        "median": float(np.median(lengths)),
        "mean": float(np.mean(lengths)),
        "max": int(max(lengths)),
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }


def _reward_figures(reading: _Reading) -> dict[str, Any]:
    values = np.concatenate(reading.rewards)
    returns = np.array([rows.sum(dtype=np.float64) for rows in reading.rewards])
    values = values if len(values) else np.zeros(1, np.float32)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "nonzero": float((values != 0).mean()),
        "return": {"min": float(returns.min()), "mean": float(returns.mean()), "max": float(returns.max())},
    }


def _signal_figures(episodes: list[np.ndarray]) -> dict[str, float]:
    values = np.concatenate([rows.ravel() for rows in episodes])
    active = sum(bool(rows.any()) for rows in episodes)
    return {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean()), "episodes": active}


def _task_figures(tasks: list[str], lengths: list[int]) -> list[dict[str, Any]]:
    rows: Counter[str] = Counter()
    for task, length in zip(tasks, lengths, strict=True):
        rows[task] += length
    return [{"task": t, "episodes": n, "rows": rows[t]} for t, n in Counter(tasks).most_common()]
