"""The public conformance suite of formats: run it on your own importer before a week's worth of data goes through it.

T rows, C H W image channels, height, width.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from worldloom.data.episode import Episode, EpisodeInfo, EpisodeSource
from worldloom.data.spec import DataSpec
from worldloom.data.validate import check_episode
from worldloom.errors import UserError

SMALL = (24, 32)  # height and width that pictures are asked for in
MOST = 5  # episodes that are read


def check_format(format: Any, path: Path | str) -> None:
    """Check each promise of `EpisodeSource` on the small dataset at `path` and fail with the first that is broken.

    `format` is the class. The promises: `detect` answers for any path and knows its own data; the description is
    whole; an episode is as long as announced and what `spec` says, the same however often and in whichever order
    episodes are read; pictures come in the size that was asked for; and the fingerprint changes with the data, of which
    a copy is changed. Raises `AssertionError`, or the `BrokenEpisode` that names what is wrong with an episode.
    """
    path = Path(path)
    is_source = isinstance(format, type) and issubclass(format, EpisodeSource)
    assert is_source, f"{format!r} is no subclass of EpisodeSource"
    check_detect(format, path)
    source = format(path)
    check_description(source)
    check_episodes(source, format(path))
    check_image_size(source)
    check_fingerprint(format, path)


def check_detect(format: Any, path: Path) -> None:
    """It says True or False of everything: its own data, nothing at all, an empty folder, and files of others."""
    with TemporaryDirectory() as folder:
        empty, words, missing = (Path(folder) / name for name in ("empty", "words.txt", "missing"))
        empty.mkdir()
        words.write_text("neither pictures nor numbers")
        for place, wanted in ((path, True), (empty, False), (words, False), (missing, False)):
            answer = format.detect(place)
            assert isinstance(answer, bool), f"detect({place}) is {answer!r}, not True or False"
            assert answer == wanted, f"detect({place}) is {answer}"


def check_description(source: EpisodeSource) -> None:
    """`path`, `spec`, `episodes` and `about` are there, and the spec goes through JSON."""
    assert isinstance(source.path, Path), f"path is {source.path!r}, not a Path"
    assert isinstance(source.spec, DataSpec), f"spec is a {type(source.spec).__name__}, not a DataSpec"
    assert DataSpec.from_json(source.spec.to_json()) == source.spec, (
        f"the spec changes on its way through JSON: {source.spec}"
    )
    assert source.spec.fps > 0, f"fps is {source.spec.fps}"
    assert isinstance(source.about, dict), f"about is {source.about!r}, not a dict"
    assert len(source.episodes) > 0, "there are no episodes"
    for info in source.episodes:
        assert isinstance(info, EpisodeInfo), f"an entry of episodes is {info!r}, not an EpisodeInfo"


def check_episodes(source: EpisodeSource, again: EpisodeSource) -> None:
    """Episodes are as announced, and the same when they are read again, last first, from a source opened `again`."""
    indices = range(min(MOST, len(source.episodes)))
    read = {index: source.read(index) for index in indices}
    for index, episode in read.items():
        info, where = source.episodes[index], f"episode {index}"
        assert len(episode) == info.length, f"{where} has {len(episode)} rows, but episodes says {info.length}"
        assert episode.task == info.task, f"{where} has the task {episode.task!r}, but episodes says {info.task!r}"
        check_episode(episode, source.spec, where, last_action=True)
        assert episode.reward[0] == 0, f"{where} begins with a reward of {episode.reward[0]}: nothing arrived before it"
    for index in reversed(indices):
        for name, value in arrays(again.read(index)).items():
            same = np.array_equal(value, arrays(read[index])[name])
            assert same, f"episode {index}: {name} is not the same when it is read again"


def check_image_size(source: EpisodeSource) -> None:
    """Pictures, and nothing else, follow the size that is asked for."""
    own, small = arrays(source.read(0)), arrays(source.read(0, SMALL))
    for name, value in small.items():
        if name in source.spec.image_keys:
            assert value.shape[2:] == SMALL, f"{name} is {value.shape} where {SMALL} was asked for, not [T, C, H, W]"
        else:
            assert np.array_equal(value, own[name]), f"{name} changes with the size of pictures"


def check_fingerprint(format: Any, path: Path) -> None:
    """The same for the same data, and another one once a file has grown by a byte."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copytree(path, copy) if path.is_dir() else shutil.copy2(path, copy)
        before, again = (format(copy).fingerprint() for _ in range(2))
        assert isinstance(before, str), f"the fingerprint is {before!r}, not a text"
        assert before, "the fingerprint is empty"
        assert before == again, f"the fingerprint of the same data is {before} and then {again}"
        files = [copy] if copy.is_file() else [file for file in copy.rglob("*") if file.is_file()]
        largest = max(files, key=lambda file: file.stat().st_size)
        with largest.open("ab") as file:
            file.write(b"\n")
        try:
            after = format(copy).fingerprint()
        except UserError:
            return  # refused altogether, so nobody takes it for what it was
        assert after != before, f"{largest.name} has grown by a byte, but the fingerprint is still {before}"


def arrays(episode: Episode) -> dict[str, np.ndarray]:
    """All of an episode by name."""
    signals = {name: getattr(episode, name) for name in ("action", "reward", "terminated", "truncated")}
    return {**episode.obs, **signals, **{name: np.asarray(value) for name, value in episode.extra.items()}}
