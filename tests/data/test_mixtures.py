"""Data of every kind, on the disk and in a batch, and datasets that lack what others have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.segments import MIXED
from worldloom.data.cache import cache_source
from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.loader import SegmentLoader, merge_specs
from worldloom.data.segment import Segment
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, mask_name, signal_keys
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.runs.checkpoint import load
from worldloom.runs.sources import open_sources
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

STATE = KeySpec("vector", (2,))
PUSH = ActionSpec("continuous", 1, low=(-1.0,), high=(1.0,))
EVERY = DataSpec(
    {
        "front": KeySpec("image", (3, 20, 36)),
        "wrist": KeySpec("image", (1, 16, 16)),
        "state": STATE,
        "gyro": KeySpec("window", (4, 3)),
        "cars": KeySpec("set", (4, 2)),
        "wind": KeySpec("vector", (2,), role="given", per="episode"),
        "grip": KeySpec("flag", ()),
        "said": KeySpec("text", ()),
        "pose": KeySpec("vector", (2,), role="target", masked=True),
        "heat": KeySpec("image", (1, 12, 10), role="target"),
        **signal_keys(reward=True, terminated=True),
    },
    replace(MIXED, masked=True),
    10.0,
)


def episode_of(spec: DataSpec, rows: int, seed: int, extra: dict[str, np.ndarray] | None = None) -> Episode:
    rng = np.random.default_rng(seed)
    obs: dict[str, np.ndarray] = {}
    for name, key in spec.arrays.items():
        if key.kind == "image":
            obs[name] = rng.integers(0, 256, (rows, *key.shape), dtype=np.uint8)
        elif key.kind == "text":
            obs[name] = np.array([f"word {i % 3}" for i in range(rows)])
        elif key.kind == "flag":
            obs[name] = rng.random(rows) < 0.5
        else:
            obs[name] = rng.normal(size=(rows, *key.shape)).astype(np.float32)
        if key.per == "episode":
            obs[name][:] = obs[name][:1]
        if key.has_mask:
            obs[mask_name(name)] = rng.random((rows, *key.mask_shape)) < 0.5
    action = np.zeros((rows, spec.action.size), np.float32)
    for group, place in zip(spec.action.parts, spec.action.slices.values(), strict=True):
        chosen = np.eye(group.size)[rng.integers(group.size, size=rows)] if group.size else action[:, place]
        action[:, place] = chosen if group.kind == "discrete" else rng.uniform(0, 1, (rows, group.size))
    action[-1] = 0
    known = rng.random(rows) < 0.7 if spec.action.masked else None
    last = np.arange(rows) == rows - 1
    reward = np.r_[0, rng.normal(size=rows - 1)].astype(np.float32) * spec.has_reward
    ended = last & spec.has_end
    return Episode(obs, action, reward, ended, last & ~ended, "", extra or {}, known)


class Made(EpisodeSource):
    """Episodes made up from a spec; `extra` are signals of each row."""

    def __init__(self, path: Path, spec: DataSpec, extra: dict[str, Any] | None = None, episodes: int = 3):
        self.path, self.spec, self.about = path, spec, {}
        self.episodes = [EpisodeInfo(8)] * episodes
        self.extra = extra or {}

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        extra = {name: np.full(8, value(index)) for name, value in self.extra.items()}
        return episode_of(self.spec, 8, index, extra)

    def fingerprint(self) -> str:
        return f"{self.path.name:0<32}"


def test_every_kind_comes_back_from_the_disk_as_it_was_written(tmp_path: Path) -> None:
    written = [episode_of(EVERY, 6, seed) for seed in range(2)]
    with LeRobotWriter(tmp_path / "data", EVERY) as writer:
        for episode in written:
            writer.add(episode)
    source = open_dataset(tmp_path / "data")
    assert source.spec == EVERY
    for index, episode in enumerate(written):
        found = source.read(index)
        assert found.obs.keys() == episode.obs.keys()
        for name, values in episode.obs.items():
            assert found.obs[name].dtype.kind == values.dtype.kind, name
            np.testing.assert_array_equal(found.obs[name], values, err_msg=name)
        np.testing.assert_array_equal(found.action, episode.action)
        np.testing.assert_array_equal(found.action_mask, episode.action_mask)


def test_a_recording_of_every_kind_can_be_continued(tmp_path: Path) -> None:
    for seed in range(2):
        with LeRobotWriter(tmp_path / "data", EVERY) as writer:
            writer.add(episode_of(EVERY, 6, seed))
    assert len(open_dataset(tmp_path / "data").episodes) == 2


def test_every_kind_reaches_a_batch(tmp_path: Path) -> None:
    source = Made(tmp_path / "every", EVERY)
    dataset = cache_source(source, None, cache_dir=tmp_path / "cache")
    segment, episode = dataset.segment(1), source.read(1)
    assert set(segment.obs) == {"front", "wrist", "state", "gyro", "cars", "cars.mask", "wind", "grip", "said"}
    assert set(segment.signals) == {
        *("reward", "terminated", "truncated", "pose", "pose.mask", "heat", "action.mask"),
    }
    for name in ("front", "state", "gyro", "cars", "cars.mask", "wind", "grip"):
        np.testing.assert_array_equal(segment.obs[name][0].numpy(), episode.obs[name], err_msg=name)
    words = dataset.spec.keys["said"].names
    assert words is not None
    assert [words[i] for i in segment.obs["said"][0]] == episode.obs["said"].tolist()
    np.testing.assert_array_equal(segment.known("pose")[0].numpy(), episode.obs["pose.mask"])  # type: ignore[index]
    np.testing.assert_array_equal(segment.known("action")[0].numpy(), episode.action_mask)  # type: ignore[index]


def test_scales_are_those_of_what_is_there(tmp_path: Path) -> None:
    source = Made(tmp_path / "every", EVERY)
    spec = cache_source(source, None, cache_dir=tmp_path / "cache").fit([0, 1, 2])
    episodes = [source.read(i) for i in range(3)]
    members = np.concatenate([e.obs["cars"][e.obs["cars.mask"]] for e in episodes])
    np.testing.assert_allclose(spec.keys["cars"].mean, members.mean(0), rtol=1e-5, atol=1e-6)
    gyro = np.concatenate([e.obs["gyro"] for e in episodes]).reshape(-1, 3)
    np.testing.assert_allclose(spec.keys["gyro"].std, gyro.std(0), rtol=1e-5)
    poses = np.concatenate([e.obs["pose"][e.obs["pose.mask"]] for e in episodes])
    np.testing.assert_allclose(spec.keys["pose"].mean, poses.mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "kind"), [((0.0, 1.0, 0.0), "flag"), ((0.0, 2.0, 0.0), "vector"), ((True, False, True), "flag")]
)
def test_a_signal_is_a_flag_while_it_is_nothing_but_0_and_1(tmp_path: Path, values: tuple, kind: str) -> None:
    spec = DataSpec({"state": STATE}, PUSH, 10.0)
    dataset = cache_source(Made(tmp_path / "cost", spec, {"cost": lambda i: values[i]}), cache_dir=tmp_path / "cache")
    assert dataset.spec.keys["cost"] == KeySpec(kind, (), role="target")  # type: ignore[arg-type]
    assert [float(dataset.segment(i).signals["cost"][0, 0]) for i in range(3)] == [float(v) for v in values]


def mixture(tmp_path: Path, *sources: Made) -> Segment:
    """A batch of half a hundred windows of every source."""
    datasets = [cache_source(source, cache_dir=tmp_path / "cache") for source in sources]
    spec = merge_specs([d.fit(range(len(d))) for d in datasets])
    datasets = [dataset.with_spec(spec) for dataset in datasets]
    return next(SegmentLoader(datasets, [range(3)] * len(sources), batch_size=50, length=4, seed=1))


def test_labelled_and_unlabelled_episodes_mix_in_one_batch(tmp_path: Path) -> None:
    labelled = Made(tmp_path / "labelled", DataSpec({"state": STATE}, PUSH, 10.0))
    unlabelled = Made(tmp_path / "unlabelled", DataSpec({"state": STATE}, ActionSpec("continuous", 0), 10.0))
    segment = mixture(tmp_path, labelled, unlabelled)
    known = segment.known("action")
    assert known is not None
    assert known.any(1).any()
    assert not known.any(1).all()
    assert not segment.action[~known].any()
    assert segment.action[known & segment.mask].any()


def test_signals_that_only_some_datasets_have_are_masked(tmp_path: Path) -> None:
    rewarded = Made(tmp_path / "rewarded", DataSpec({"state": STATE, **signal_keys(reward=True)}, PUSH, 10.0))
    costly = Made(tmp_path / "costly", DataSpec({"state": STATE}, PUSH, 10.0), {"cost": lambda i: float(i)})
    segment = mixture(tmp_path, rewarded, costly)
    reward, cost = segment.known("reward"), segment.known("cost")
    assert reward is not None
    assert cost is not None
    assert torch.equal(reward, ~cost)
    assert not segment.reward[~reward].any()


def test_what_is_missing_costs_nothing_and_teaches_nothing(tmp_path: Path) -> None:
    rewarded = Made(tmp_path / "rewarded", DataSpec({"state": STATE, **signal_keys(reward=True)}, PUSH, 10.0))
    plain = Made(tmp_path / "plain", DataSpec({"state": STATE}, PUSH, 10.0))
    segment = mixture(tmp_path, rewarded, plain)
    datasets = [cache_source(source, cache_dir=tmp_path / "cache") for source in (rewarded, plain)]
    model = build("rssm", merge_specs([d.fit([0]) for d in datasets]), "debug")
    known = segment.known("reward")
    assert known is not None
    assert not model.loss(segment)["reward"][~known].any()
    assert model.loss(segment)["reward"][known].any()


def test_a_model_without_the_signal_reads_data_that_have_it(tmp_path: Path) -> None:
    """An older run, or another dataset with one more signal than it was trained on."""
    spec = DataSpec({"state": STATE}, PUSH, 10.0)
    old = cache_source(Made(tmp_path / "old", spec), cache_dir=tmp_path / "cache")
    new = cache_source(Made(tmp_path / "new", spec, {"cost": lambda i: 1.0}), cache_dir=tmp_path / "cache")
    segment = new.with_spec(old.fit([0])).segment(0)
    assert "cost" not in segment.signals
    np.testing.assert_allclose(segment.obs["state"][0].numpy(), new.segment(0).obs["state"][0].numpy())


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("wind", lambda x: x + np.arange(6, dtype=np.float32)[:, None], "row 1: changes"),
        ("cars.mask", lambda x: x[:, :3], r"cars.mask: shape \(6, 3\), expected \(6, 4\)"),
        ("grip", lambda x: x.astype(np.float32), "grip: dtype float32, expected bool"),
        ("said", lambda x: np.arange(6), "expected a string"),
        ("gyro", lambda x: x[:, 0], r"gyro: shape \(6, 3\), expected \(6, 4, 3\)"),
    ],
)
def test_an_array_that_is_not_what_its_key_says_is_named(tmp_path: Path, name: str, wrong: Any, says: str) -> None:
    episode = episode_of(EVERY, 6, 0)
    bent = replace(episode, obs={**episode.obs, name: wrong(episode.obs[name])})
    with LeRobotWriter(tmp_path / "data", EVERY) as writer, pytest.raises(BrokenEpisode, match=says):
        writer.add(bent)


def test_a_mask_that_is_not_there_is_named(tmp_path: Path) -> None:
    episode = replace(episode_of(EVERY, 6, 0), action_mask=None)
    with LeRobotWriter(tmp_path / "data", EVERY) as writer, pytest.raises(BrokenEpisode, match="action mask"):
        writer.add(episode)
    bent = replace(episode_of(EVERY, 6, 0))
    bent.action[0, 2:] = 0.5
    bent.action_mask[0] = True  # type: ignore[index]
    with LeRobotWriter(tmp_path / "data", EVERY) as writer, pytest.raises(BrokenEpisode, match="group 'grip'"):
        writer.add(bent)


def test_pictures_of_any_size_and_keys_of_any_role_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"front": KeySpec("image", (3, 20, 36)), "wrist": KeySpec("image", (1, 16, 16)), "state": STATE}
    spec = DataSpec({**keys, "pose": KeySpec("vector", (2,)), **signal_keys(reward=True)}, MIXED, 10.0)
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        for seed in range(4):
            writer.add(episode_of(spec, 8, seed))
    settings: dict[str, Any] = {"size": "debug", "steps": 2, "batch_size": 2, "length": 4, "preview_every": 0}
    roles = ("pose=target", "state=given")
    run_training(TrainSettings("rssm", (tmp_path / "data",), tmp_path / "run", image_size=0, role=roles, **settings))
    model, run = load(tmp_path / "run")
    assert run.image_size is None
    assert [run.spec.keys[k].shape for k in ("front", "wrist")] == [(3, 20, 36), (1, 16, 16)]
    assert "pose" in model.decodes
    assert "state" not in model.decodes
    segment = open_sources(run, None)[0].dataset.segment(0)
    assert "pose" in segment.signals
    belief = model.track(segment.obs, segment.action)
    assert model.decode(belief, "front").shape == (1, 8, 3, 20, 36)
    with pytest.raises(UserError, match="'wide'"):
        run_training(TrainSettings("rssm", (tmp_path / "data",), tmp_path / "no", role=("wide=target",), **settings))
    with pytest.raises(UserError, match="'reward' is a signal"):
        run_training(TrainSettings("rssm", (tmp_path / "data",), tmp_path / "no", role=("reward=given",), **settings))
    every = tuple(f"{key}=target" for key in ("front", "wrist", "state", "pose"))
    with pytest.raises(UserError, match="no key is observed"):
        run_training(TrainSettings("rssm", (tmp_path / "data",), tmp_path / "no", role=every, **settings))


def test_text_is_refused_by_a_family_that_cannot_read_it() -> None:
    with pytest.raises(UserError, match=r"'said' is text.*--role said=target"):
        build("rssm", EVERY, "debug")
