"""The conformance suite of formats passes ours, and finds what is wrong with others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toy import write_toy_dataset
from worldloom import check_format
from worldloom.data.episode import BrokenEpisode, Episode
from worldloom.data.formats.npz import NpzSource
from worldloom.data.lerobot.reader import LeRobotSource
from worldloom.data.spec import DataSpec


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """A small dataset of numbers alone, `data.npz`."""
    rng = np.random.default_rng(0)
    ends = np.arange(12) % 6 == 5
    file = tmp_path / "data.npz"
    np.savez(
        file,
        observations=rng.normal(size=(12, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, (12, 2)).astype(np.float32),
        rewards=np.ones(12, np.float32),
        terminals=ends,
        timeouts=np.zeros(12, bool),
    )
    return file


def test_the_formats_that_ship_with_us_keep_every_promise(tmp_path: Path, arrays: Path) -> None:
    check_format(NpzSource, arrays)
    check_format(LeRobotSource, write_toy_dataset(tmp_path / "lerobot", episodes=3, length=6))


class Changed(NpzSource):
    """An importer to spoil: `read` passes the index and the episode through `spoil`."""

    count = 0
    spoil: Callable[[int, Episode], Any] = staticmethod(lambda count, episode: None)

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        Changed.count += 1
        episode = super().read(index, image_size)
        type(self).spoil(Changed.count, episode)
        return episode


def drift(count: int, episode: Episode) -> None:
    episode.obs["state"] = episode.obs["state"] + count


def shorten(count: int, episode: Episode) -> None:
    episode.action = episode.action[:-1]


def pay(count: int, episode: Episode) -> None:
    episode.reward[0] = 1


def spoil_dtype(count: int, episode: Episode) -> None:
    episode.obs["state"] = episode.obs["state"].astype(np.float64)


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (drift, AssertionError, "state is not the same when it is read again"),
        (shorten, AssertionError, "5 rows, but episodes says 6"),
        (pay, AssertionError, "begins with a reward of 1.0"),
        (spoil_dtype, BrokenEpisode, "float64, expected float32"),
    ],
)
def test_an_episode_that_is_not_what_was_announced_is_found(
    arrays: Path, spoil: Callable[[int, Episode], None], error: type[Exception], words: str
) -> None:
    made = type("Spoiled", (Changed,), {"spoil": staticmethod(spoil)})
    with pytest.raises(error, match=words):
        check_format(made, arrays)


def broken_detect(path: Path) -> bool:
    return path.read_bytes().startswith(b"PK")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"detect": staticmethod(broken_detect)}, IsADirectoryError, "empty"),
        ({"detect": staticmethod(lambda path: True)}, AssertionError, r"detect\(.*empty\) is True"),
        ({"detect": staticmethod(lambda path: None)}, AssertionError, "not True or False"),
        ({"fingerprint": lambda self: "0" * 64}, AssertionError, "has grown by a byte, but the fingerprint is still"),
        ({"fingerprint": lambda self: ""}, AssertionError, "the fingerprint is empty"),
    ],
)
def test_a_format_that_answers_wrongly_is_found(
    arrays: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_format(type("Wrong", (NpzSource,), changes), arrays)


def test_pictures_that_ignore_the_size_are_found(tmp_path: Path) -> None:
    class Stubborn(LeRobotSource):
        def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
            return super().read(index)

    with pytest.raises(AssertionError, match=r"image is .* where \(24, 32\) was asked for"):
        check_format(Stubborn, write_toy_dataset(tmp_path / "lerobot", episodes=2, length=5))


def test_what_is_no_format_is_refused(arrays: Path) -> None:
    with pytest.raises(AssertionError, match="no subclass of EpisodeSource"):
        check_format(DataSpec, arrays)
