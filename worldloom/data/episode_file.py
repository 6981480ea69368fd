"""One episode as one safetensors file: how a learner keeps what it has collected."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from worldloom.data import durable
from worldloom.data.episode import Episode
from worldloom.errors import UserError

OBS = "obs."
TASK = "task"  # its text in UTF-8
FIELDS = ("action", "reward", "terminated", "truncated")


def save_episode(path: Path, episode: Episode) -> None:
    """Write it whole or not at all; a file that was there is replaced."""
    arrays = {OBS + key: value for key, value in episode.obs.items()}
    arrays |= {name: getattr(episode, name) for name in FIELDS}
    arrays[TASK] = np.frombuffer(episode.task.encode(), np.uint8)
    with durable.replacing(path) as temporary:
        temporary.write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def load_episode(path: Path) -> Episode:
    """Raises `UserError` when the file is missing or damaged."""
    try:
        arrays = load(path.read_bytes())
        obs = {name.removeprefix(OBS): value for name, value in arrays.items() if name.startswith(OBS)}
        action, reward, terminated, truncated = (arrays[name] for name in FIELDS)
        task = arrays.get(TASK, np.empty(0, np.uint8)).tobytes().decode()
        return Episode(obs, action, reward, terminated, truncated, task)
    except (OSError, SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): the run cannot go on; start another --out") from error
