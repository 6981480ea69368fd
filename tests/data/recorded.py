"""Small random episodes for the tests of readers and writers."""

from pathlib import Path

import numpy as np

from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys

SPEC = DataSpec(
    {
        "image": KeySpec("image", (3, 8, 12)),
        "front": KeySpec("image", (3, 128, 160)),
        "state": KeySpec("vector", (4,), ("x", "y", "z", "grip")),
        "speed": KeySpec("vector", (1,)),
        **signal_keys(reward=True, terminated=True),
    },
    ActionSpec("continuous", 2, ("steer", "gas"), (-1.0, 0.0), (1.0, 2.0)),
    10,
)
LEAN = DataSpec(
    {"state": KeySpec("vector", (2,)), **signal_keys(reward=True, terminated=True)},
    ActionSpec("discrete", 3, ("left", "stay", "right")),
    5,
)


def make_episode(spec: DataSpec, rows: int, seed: int = 0, task: str = "", truncated: bool = False) -> Episode:
    """An episode that keeps `spec`, with a smooth picture (so that lossy video stays close) and a zero last action."""
    rng = np.random.default_rng(seed)
    obs = {}
    for key, value in spec.obs.items():
        if value.kind == "image":
            obs[key] = drifting(rng, rows, value.shape)
        else:
            obs[key] = rng.normal(size=(rows, *value.shape)).astype(np.float32)
    if spec.action.kind == "discrete":
        action = np.eye(spec.action.size, dtype=np.float32)[rng.integers(0, spec.action.size, rows)]
    else:
        low, high = np.asarray(spec.action.low), np.asarray(spec.action.high)
        action = rng.uniform(low, high, (rows, spec.action.size)).astype(np.float32)
    action[-1] = 0
    reward = rng.normal(size=rows).astype(np.float32)
    reward[0] = 0
    end = np.zeros((2, rows), bool)
    end[int(truncated), -1] = True
    return Episode(obs, action, reward * spec.has_reward, end[0], end[1], task)


def drifting(rng: np.random.Generator, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 `[T, C, H, W]`: a gradient that moves, different in every row."""
    _, height, width = shape
    phase = rng.uniform(0, 6) + np.arange(rows)[:, None, None] / 5
    wave = np.sin(phase + np.arange(width) / width * 4) * np.cos(np.arange(height)[:, None] / height * 3)
    return np.stack([128 + 100 * wave, 120 + 60 * wave, 140 - 90 * wave], 1).astype(np.uint8)


def record(path: Path, spec: DataSpec = LEAN, lengths: tuple[int, ...] = (4, 6, 3), **options: object) -> list[Episode]:
    """Write episodes of these lengths, every second one truncated and every third of another task; returns them."""
    episodes = [make_episode(spec, n, i, ("push", "", "pull")[i % 3], i % 2 == 1) for i, n in enumerate(lengths)]
    with LeRobotWriter(path, spec, **options) as writer:  # type: ignore[arg-type]
        for episode in episodes:
            writer.add(episode)
    return episodes


def assert_same(found: Episode, wanted: Episode, lossy: tuple[str, ...] = ()) -> None:
    """Equal in every field; the `lossy` image keys within 4 grey levels on average."""
    assert found.obs.keys() == wanted.obs.keys()
    for key, value in wanted.obs.items():
        assert (found.obs[key].shape, found.obs[key].dtype) == (value.shape, value.dtype), key
        if key in lossy:
            assert np.abs(found.obs[key].astype(int) - value).mean() < 4, key
        else:
            np.testing.assert_array_equal(found.obs[key], value, key)
    for name in ("action", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
        assert getattr(found, name).dtype == getattr(wanted, name).dtype
    assert found.task == wanted.task
    assert found.extra.keys() == wanted.extra.keys()
    for name, value in wanted.extra.items():
        np.testing.assert_array_equal(found.extra[name], value, name)
