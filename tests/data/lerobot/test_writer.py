"""The writer refuses what breaks the spec before anything is written, continues its own datasets and nobody else's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.recorded import LEAN, SPEC, assert_same, make_episode, record
from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import FileLimits, LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError

RANGED = replace(LEAN, action=ActionSpec("continuous", 2, None, (-1.0, 0.5), (1.0, 2.0)))


def change(episode: Episode, **fields: Any) -> Episode:
    return replace(episode, **fields)


def with_obs(episode: Episode, **obs: np.ndarray) -> Episode:
    return replace(episode, obs={**episode.obs, **obs})


def put(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    made = array.copy()
    made[place] = value
    return made


def episode_of(rows: int) -> Episode:
    return make_episode(LEAN, rows)


REFUSED: list[tuple[Callable[[Episode], Episode], str]] = [
    (lambda e: Episode({"state": e.obs["state"][:0]}, *(getattr(e, n)[:0] for n in FIELDS)), "has 0 rows"),
    (lambda e: with_obs(e, stat=e.obs["state"]), "unknown observation key .* 'stat'. Did you mean 'state'"),
    (lambda e: change(e, obs={}), "'state' is missing"),
    (lambda e: with_obs(e, state=e.obs["state"].astype(np.float64)), "state: dtype float64, expected float32"),
    (lambda e: with_obs(e, state=e.obs["state"][:, :1]), r"state: shape \(5, 1\), expected \(5, 2\)"),
    (lambda e: with_obs(e, state=e.obs["state"][:4]), r"state: shape \(4, 2\), expected \(5, 2\)"),
    (lambda e: with_obs(e, state=put(e.obs["state"], (3, 1), np.nan)), "state, row 3: entry 1 is nan"),
    (lambda e: with_obs(e, state=put(e.obs["state"], (0, 0), np.inf)), "state, row 0: entry 0 is inf"),
    (lambda e: change(e, reward=put(e.reward, 2, -np.inf)), "reward, row 2: is -inf"),
    (lambda e: change(e, reward=e.reward.astype(np.float64)), "reward: dtype float64"),
    (lambda e: change(e, action=e.action.argmax(1)), "action: dtype int64"),
    (lambda e: change(e, action=put(e.action, (1, slice(None)), 1)), "row 1: the action .* is not a one-hot choice"),
    (lambda e: change(e, terminated=put(e.terminated, 2, True)), "row 2: terminated before the last row"),
    (lambda e: change(e, truncated=e.terminated), "row 4: both terminated and truncated. .* is an end"),
    (lambda e: change(e, task=3), "the task is 3, not words"),
    (lambda e: change(e, extra={"cost": np.ones(4, np.float32)}), r"extra 'cost': shape \(4,\)"),
    (lambda e: change(e, extra={"cost": np.array(["a"] * 5)}), "extra 'cost': dtype <U1"),
]
FIELDS = ("action", "reward", "terminated", "truncated")


@pytest.mark.parametrize(("spoil", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_an_episode_that_breaks_the_spec_is_refused_whole(
    tmp_path: Path, spoil: Callable[[Episode], Episode], words: str
) -> None:
    good = make_episode(LEAN, 5)
    with LeRobotWriter(tmp_path / "data", LEAN) as writer:
        writer.add(good)
        before = sorted(p.name for p in (tmp_path / "data/.journal").iterdir())
        with pytest.raises(UserError, match=words) as caught:
            writer.add(spoil(good))
        assert "\n" not in str(caught.value)
        assert sorted(p.name for p in (tmp_path / "data/.journal").iterdir()) == before
    assert len(open_dataset(tmp_path / "data").episodes) == 1


def test_an_action_outside_the_range_is_refused_and_the_padding_row_is_not_judged(tmp_path: Path) -> None:
    episode = make_episode(RANGED, 4)
    assert episode.action[-1].tolist() == [0, 0]  # 0 is below the low of 0.5
    with LeRobotWriter(tmp_path / "data", RANGED) as writer:
        writer.add(episode)
        with pytest.raises(UserError, match=r"row 1: action\[1\] is 3.0, outside the declared range \[0.5, 2.0\]"):
            writer.add(change(episode, action=put(episode.action, (1, 1), 3)))
    assert open_dataset(tmp_path / "data").spec.action == RANGED.action


def test_an_image_of_another_dtype_or_size_is_refused(tmp_path: Path) -> None:
    spec = DataSpec({"image": KeySpec("image", (3, 8, 8)), **signal_keys(reward=True, terminated=True)}, LEAN.action, 5)
    episode = make_episode(spec, 3)
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        with pytest.raises(UserError, match="image: dtype float32, expected uint8"):
            writer.add(with_obs(episode, image=episode.obs["image"].astype(np.float32)))
        with pytest.raises(UserError, match=r"image: shape \(3, 8, 8, 3\), expected \(3, 3, 8, 8\)"):
            writer.add(with_obs(episode, image=episode.obs["image"].transpose(0, 2, 3, 1)))


def test_an_end_that_the_spec_denies_is_refused(tmp_path: Path) -> None:
    with (
        LeRobotWriter(tmp_path / "data", LEAN.with_targets(signal_keys(reward=True))) as writer,
        pytest.raises(UserError, match="has no key 'terminated'"),
    ):
        writer.add(make_episode(LEAN, 3))


def test_an_unbounded_action_range_is_refused(tmp_path: Path) -> None:
    action = ActionSpec("continuous", 1, None, (-np.inf,), (np.inf,))
    with pytest.raises(UserError, match="not finite"):
        LeRobotWriter(tmp_path / "data", replace(LEAN, action=action))


def test_extra_signals_must_be_the_same_in_every_episode(tmp_path: Path) -> None:
    episode = make_episode(LEAN, 3)
    with LeRobotWriter(tmp_path / "data", LEAN) as writer:
        writer.add(change(episode, extra={"cost": np.ones(3, np.float32)}))
        with pytest.raises(UserError, match="Every episode must have the same ones"):
            writer.add(episode)
        with pytest.raises(UserError, match="Every episode must have the same ones"):
            writer.add(change(episode, extra={"cost": np.ones(3, bool)}))


def test_a_second_recording_continues_the_first(tmp_path: Path) -> None:
    written = record(tmp_path / "data", SPEC, (3, 4))
    with LeRobotWriter(tmp_path / "data", SPEC) as writer:
        assert writer.num_episodes == 2
        written.append(make_episode(SPEC, 5, 9, "another task"))
        writer.add(written[-1])
    source = open_dataset(tmp_path / "data")
    assert [e.task for e in source.episodes] == ["push", "", "another task"]
    for index, episode in enumerate(written):
        assert_same(source.read(index), episode, lossy=("front",))
    stats = json.loads((tmp_path / "data/meta/stats.json").read_text())
    assert stats["action"]["count"] == [12]
    everything = np.concatenate([e.obs["state"] for e in written])
    np.testing.assert_allclose(stats["observation.state"]["std"], everything.std(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (LEAN.with_obs({"state": KeySpec("vector", (3,))}), "observation.state"),
        (LEAN.with_obs({**LEAN.obs, "more": KeySpec("vector", (1,))}), "observation.more"),
        (LEAN.with_obs({}), "observation.state"),
        (replace(LEAN, action=ActionSpec("discrete", 4)), "action"),
        (replace(LEAN, action=replace(LEAN.action, kind="continuous")), "action"),
        (replace(LEAN, fps=6), "fps is 5"),
        (LEAN.with_targets(signal_keys(terminated=True)), "next.reward"),
    ],
)
def test_a_dataset_of_another_spec_is_not_continued(tmp_path: Path, other: DataSpec, words: str) -> None:
    record(tmp_path / "data", LEAN)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"{words}.*Choose an empty folder"):
        LeRobotWriter(tmp_path / "data", other)
    assert snapshot(tmp_path) == before


def snapshot(path: Path) -> dict[str, int]:
    return {str(p.relative_to(path)): p.stat().st_size for p in path.rglob("*") if p.is_file()}


def test_a_fitted_spec_and_a_task_key_do_not_make_another_dataset(tmp_path: Path) -> None:
    record(tmp_path / "data", LEAN)
    fitted = {
        "state": replace(LEAN.obs["state"], mean=(0.0, 1.0), std=(1.0, 2.0)),
        "task": KeySpec("category", (2,), ("a", "b")),
    }
    with LeRobotWriter(tmp_path / "data", LEAN.with_obs(fitted)) as writer:
        writer.add(make_episode(LEAN, 3))
    assert open_dataset(tmp_path / "data").spec == LEAN


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"already holds something else \('holiday.jpg'\)"):
        LeRobotWriter(tmp_path, LEAN)
    assert snapshot(tmp_path) == {"holiday.jpg": 1}
    with pytest.raises(UserError, match="is a file"):
        LeRobotWriter(tmp_path / "holiday.jpg", LEAN)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file/data: cannot be written"):
        LeRobotWriter(tmp_path / "file/data", LEAN)


def test_a_foreign_dataset_is_refused_and_left_alone(tmp_path: Path) -> None:
    record(tmp_path / "data", LEAN)
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    del info["worldloom"]
    (tmp_path / "data/meta/info.json").write_text(json.dumps(info))
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="worldloom did not record"):
        LeRobotWriter(tmp_path / "data", LEAN)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "data/.journal").exists()


def test_a_recording_without_episodes_leaves_nothing(tmp_path: Path) -> None:
    LeRobotWriter(tmp_path / "data", LEAN).close()
    assert not (tmp_path / "data").exists()


def test_an_exception_in_the_recording_keeps_the_finished_episodes(tmp_path: Path) -> None:
    episode = make_episode(LEAN, 3)

    def stopped() -> None:
        with LeRobotWriter(tmp_path / "data", LEAN) as writer:
            writer.add(episode)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert_same(open_dataset(tmp_path / "data").read(0), episode)


def test_files_stay_below_their_limit_and_fill_chunks(tmp_path: Path) -> None:
    spec = DataSpec(
        {"image": KeySpec("image", (3, 96, 96)), **signal_keys(reward=True, terminated=True)}, LEAN.action, 5
    )
    rng = np.random.default_rng(0)
    with LeRobotWriter(tmp_path / "data", spec, limits=FileLimits(data_mb=1, chunk_files=2)) as writer:
        for seed in range(12):
            noise = rng.integers(0, 256, (12, 3, 96, 96), dtype=np.uint8)  # does not compress: 0.32 MB an episode
            writer.add(with_obs(make_episode(spec, 12, seed), image=noise))
    files = sorted((tmp_path / "data/data").glob("*/*.parquet"))
    assert [str(p.relative_to(tmp_path / "data/data")) for p in files] == [
        "chunk-000/file-000.parquet",
        "chunk-000/file-001.parquet",
        "chunk-001/file-000.parquet",
        "chunk-001/file-001.parquet",
    ]
    assert max(p.stat().st_size for p in files) <= 2**20
    assert [pq.read_metadata(p).num_row_groups for p in files] == [3, 3, 3, 3]


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_cameras_are_encoded_with_the_asked_codec(tmp_path: Path, codec: str) -> None:
    written = record(tmp_path / "data", SPEC, (4, 3), codec=codec)
    path = tmp_path / "data/videos/observation.images.front/chunk-000/file-000.mp4"
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name in {"h264": ("h264",), "av1": ("libdav1d", "av1")}[codec]
    info = json.loads((tmp_path / "data/meta/info.json").read_text())
    assert info["features"]["observation.images.front"]["info"]["video.codec"] == codec
    assert_same(open_dataset(tmp_path / "data").read(1), written[1], lossy=("front",))


def test_a_codec_that_cannot_store_the_camera_is_refused(tmp_path: Path) -> None:
    odd = LEAN.with_obs({"image": KeySpec("image", (3, 129, 200))})
    with pytest.raises(UserError, match="'image' is 129 x 200; AV1 takes even sides"):
        LeRobotWriter(tmp_path / "data", odd, codec="av1")
    with pytest.raises(UserError, match=r"unknown video codec 'h265'\. Did you mean 'h264'"):
        LeRobotWriter(tmp_path / "data", odd, codec="h265")  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_small_cameras_are_stored_without_loss_unless_asked_otherwise(tmp_path: Path) -> None:
    record(tmp_path / "pictures", SPEC, (3,))
    record(tmp_path / "videos", SPEC, (3,), lossless=False)
    kinds = {}
    for name in ("pictures", "videos"):
        features = json.loads((tmp_path / name / "meta/info.json").read_text())["features"]
        kinds[name] = (features["observation.image"]["dtype"], features["observation.images.front"]["dtype"])
    assert kinds == {"pictures": ("image", "video"), "videos": ("video", "video")}


def test_episodes_lie_in_the_order_of_their_places(tmp_path: Path) -> None:
    """They may come in any order and leave places empty, in one session and in the next."""
    path, episodes = tmp_path / "data", [make_episode(LEAN, 3 + i, i) for i in range(6)]
    for places in ((2, 0, 5), (1, 0)):
        with LeRobotWriter(path, LEAN) as writer:
            held = writer.num_episodes
            for count, place in enumerate(places, 1):
                writer.add(episodes[place], place=place)
                assert writer.num_episodes == held + count
    source = open_dataset(path)
    assert [info.length for info in source.episodes] == [3, 5, 8, 3, 4]
    for index, place in enumerate((0, 2, 5, 0, 1)):
        assert_same(source.read(index), episodes[place])
    table = pq.read_table(next(path.glob("data/*/file-001.parquet")))
    assert sorted(set(table["episode_index"].to_pylist())) == [3, 4]


def test_an_interrupted_recording_may_leave_places_empty(tmp_path: Path) -> None:
    path, episodes = tmp_path / "data", [make_episode(LEAN, 3 + i, i) for i in range(4)]
    writer = LeRobotWriter(path, LEAN, limits=FileLimits(0, 0))
    writer.add(episodes[2], place=1_000_000)
    writer.add(episodes[1], place=3)
    writer._release()
    with LeRobotWriter(path, LEAN) as writer:
        writer.add(episodes[3])
    source = open_dataset(path)
    for index, episode in enumerate((episodes[1], episodes[2], episodes[3])):
        assert_same(source.read(index), episode)


def test_a_place_is_given_once(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "data", LEAN) as writer:
        writer.add(make_episode(LEAN, 3), place=1)
        for place in (1, -1):
            with pytest.raises(UserError, match=f"place {place} is taken or negative"):
                writer.add(make_episode(LEAN, 4), place=place)
        writer.add(make_episode(LEAN, 5))
    assert [info.length for info in open_dataset(tmp_path / "data").episodes] == [3, 5]
