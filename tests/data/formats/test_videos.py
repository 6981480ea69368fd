from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.foreign import cut, moving_square, save_video, square_at
from worldloom.data.episode import BrokenEpisode
from worldloom.data.formats.videos import VideosSource
from worldloom.errors import UserError


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".gif", ".mkv"])
def test_every_frame_is_a_row_in_order(tmp_path: Path, suffix: str) -> None:
    save_video(tmp_path / f"a{suffix}", moving_square(9))
    source = VideosSource(tmp_path)
    episode = source.read(0)
    assert len(episode) == source.episodes[0].length == 9
    assert episode.obs["image"].shape == (9, 3, 48, 64)
    assert [square_at(frame) for frame in episode.obs["image"]] == list(range(9))
    assert episode.action.shape == (9, 0)
    assert source.spec.action.size == 0
    assert episode.truncated.tolist() == [False] * 8 + [True]
    assert not episode.terminated.any()
    assert source.spec.fps == 20


def test_videos_below_the_folder_come_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1.mp4", "a/2.mp4", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_video(tmp_path / name, moving_square(3 + len(name)))
    (tmp_path / "notes.txt").write_text("not a video")
    assert [c.path.name for c in VideosSource(tmp_path).clips] == ["2.mp4", "1.mp4", "c.mp4"]


def test_one_file_is_a_dataset_too(tmp_path: Path) -> None:
    assert VideosSource.detect(save_video(tmp_path / "a.mp4", moving_square(4)))
    assert len(VideosSource(tmp_path / "a.mp4").read(0)) == 4


def test_another_rate_shows_the_latest_frame_at_each_time(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", moving_square(12), fps=30)
    slow, fast = VideosSource(tmp_path, fps=10), VideosSource(tmp_path, fps=60)
    assert [square_at(f) for f in slow.read(0).obs["image"]] == [0, 3, 6, 9]
    assert [square_at(f) for f in fast.read(0).obs["image"]] == [t // 2 for t in range(24)]
    assert [s.episodes[0].length for s in (slow, fast)] == [4, 24]
    assert slow.spec.fps == 10


def test_a_file_with_a_rate_of_its_own_is_brought_to_that_of_the_others(tmp_path: Path) -> None:
    for name, fps in (("a", 20), ("b", 20), ("c", 10)):
        save_video(tmp_path / f"{name}.mp4", moving_square(6), fps=fps)
    source = VideosSource(tmp_path)
    assert source.spec.fps == 20
    assert [square_at(f) for f in source.read(2).obs["image"]] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_frames_that_come_late_leave_the_one_before_on_screen(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt, stream.time_base = 48, 64, "yuv420p", Fraction(1, 20)
        for t, pixels in zip((0, 1, 5, 6), moving_square(4), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = [square_at(f) for f in VideosSource(path, fps=10).read(0).obs["image"]]
    assert shown[:4] == [0, 1, 1, 3]


def test_a_phone_video_stands_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    lying = np.rot90(moving_square(3), -1, (1, 2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height, stream.width, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        for pixels in lying:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))
    source = VideosSource(path)
    assert source.spec.obs["image"].shape == (3, 48, 64)
    assert [square_at(f) for f in source.read(0).obs["image"]] == [0, 1, 2]
    assert source.read(0, (24, 32)).obs["image"].shape == (3, 3, 24, 32)


def test_an_interrupted_download_is_a_broken_episode_and_the_others_stay(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_video(tmp_path / f"{name}.mp4", moving_square(6))
    cut(tmp_path / "a.mp4")
    source = VideosSource(tmp_path)
    with pytest.raises(BrokenEpisode, match=r"a.mp4 cannot be opened \(.*\); .*--skip-broken"):
        source.read(0)
    assert len(source.read(1)) == 6


def test_a_video_that_stops_before_its_header_says_is_broken(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    path = save_video(tmp_path / "a.mp4", noise, options={"movflags": "faststart"})
    cut(path, 0.6)
    source = VideosSource(path)
    assert source.episodes[0].length == 10
    with pytest.raises(BrokenEpisode, match=r"a.mp4.*(stops after \d of 10 frames|frame \d, cannot be decoded)"):
        source.read(0)


def test_pictures_of_another_size_need_an_image_size(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", moving_square(4))
    save_video(tmp_path / "b.mp4", moving_square(4, height=64))
    source = VideosSource(tmp_path)
    with pytest.raises(BrokenEpisode, match=r"b.mp4 is 64 x 64 where the dataset is 64 x 48; give --image-size"):
        source.read(1)
    assert source.read(1, (16, 16)).obs["image"].shape == (4, 3, 16, 16)


def test_a_video_too_long_for_memory_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_video(tmp_path / "a.mp4", moving_square(4))
    monkeypatch.setattr("worldloom.data.formats.videos.MOST_MEMORY", 4 * 3 * 48 * 64 - 1)
    with pytest.raises(UserError, match="4 frames of 64 x 48; give a smaller --image-size") as caught:
        VideosSource(tmp_path).read(0)
    assert not isinstance(caught.value, BrokenEpisode)
    assert len(VideosSource(tmp_path).read(0, (24, 32))) == 4


def test_a_folder_without_a_video_that_opens_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no video that can be opened: a.mp4 cannot be opened"):
        VideosSource(tmp_path)


def test_a_lerobot_folder_is_not_a_folder_of_videos(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", moving_square(2))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    assert not VideosSource.detect(tmp_path)


def test_the_fingerprint_follows_data_and_rate(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", moving_square(4))
    first = VideosSource(tmp_path).fingerprint()
    assert VideosSource(tmp_path).fingerprint() == first != VideosSource(tmp_path, fps=5).fingerprint()
    save_video(tmp_path / "b.mp4", moving_square(4))
    assert VideosSource(tmp_path).fingerprint() != first
