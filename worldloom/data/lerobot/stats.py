"""Statistics as LeRobotDataset keeps them: per episode in meta/episodes, over the dataset in meta/stats.json.

Images are sampled and reduced to `[3, 1, 1]` in [0, 1]; vectors are reduced over rows. When episodes are merged, mean
and std are exact; quantiles are the count-weighted mean of the episodes' quantiles, as in LeRobot.
"""

from collections.abc import Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MOST_FRAMES, MOST_PIXELS = 100, 150  # frames sampled from an episode; longer side of a frame after skipping pixels

Stats = dict[str, np.ndarray]


def vector_stats(rows: np.ndarray) -> Stats:
    """Statistics of `[T]` or `[T, D]` over T; every entry is `[D]`, count is `[1]`."""
    values = rows.reshape(len(rows), -1).astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def image_stats(frames: np.ndarray) -> Stats:
    """Statistics of sampled pixels of uint8 `[T, C, H, W]`, per channel: `[C, 1, 1]` in [0, 1], count `[1]`."""
    rows = np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).round().astype(int)
    step = -(-max(frames.shape[2:]) // MOST_PIXELS)
    sampled = frames[rows, :, ::step, ::step]
    counts = np.stack([np.bincount(sampled[:, c].ravel(), minlength=256) for c in range(frames.shape[1])])
    return {k: v if k == "count" else v[:, None, None] for k, v in _histogram_stats(counts).items()}


def _histogram_stats(counts: np.ndarray) -> Stats:
    """The statistics of values 0, 1/255 .. 1 that were seen `counts` `[C, 256]` times."""
    values, total = np.arange(256) / 255, counts[0].sum()
    mean = counts @ values / total
    cumulative = counts.cumsum(1)
    quantiles = {k: values[(cumulative >= q * total).argmax(1)] for k, q in QUANTILES.items()}
    return {
        "min": values[(counts > 0).argmax(1)],
        "max": values[255 - (counts[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0)),
        "count": np.array([total]),
        **quantiles,
    }


def merge(parts: Sequence[Stats]) -> Stats:
    """The statistics of all rows together from those of the episodes."""
    stacked = {k: np.stack([np.asarray(p[k], np.float64) for p in parts]) for k in parts[0]}
    count = stacked["count"].reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    weight = count / count.sum()
    mean = (stacked["mean"] * weight).sum(0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weight).sum(0)
    return {
        "min": stacked["min"].min(0),
        "max": stacked["max"].max(0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(count.sum())]),
        **{k: (stacked[k] * weight).sum(0) for k in QUANTILES},
    }
