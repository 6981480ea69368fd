"""Frames through mp4 files: the right picture at the right time, whatever the size, rate or codec."""

from pathlib import Path

import av
import numpy as np
import pytest

from worldloom.data import video


def grey(levels: list[int], size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """Frames `[T, 3, H, W]` of one grey level each, so that a frame tells its place."""
    return np.broadcast_to(np.array(levels, np.uint8)[:, None, None, None], (len(levels), 3, *size)).copy()


def levels_of(frames: np.ndarray) -> np.ndarray:
    return frames.astype(float).mean((1, 2, 3))


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("fps", [4, 30, 7])
def test_frame_t_is_shown_at_t_over_fps(tmp_path: Path, codec: video.Codec, fps: int) -> None:
    levels = list(range(10, 250, 20))
    video.encode(tmp_path / "a.mp4", grey(levels, (128, 128)), fps, codec)
    found = video.decode(tmp_path / "a.mp4", np.arange(12) / fps, fps)
    np.testing.assert_allclose(levels_of(found), levels, atol=4)
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [float(f.time) for f in container.decode(video=0) if f.time is not None]
    np.testing.assert_allclose(times, np.arange(12) / fps, atol=1e-6)


def test_only_the_asked_frames_come_back(tmp_path: Path) -> None:
    levels = list(range(0, 250, 5))
    video.encode(tmp_path / "a.mp4", grey(levels), 10)
    found = video.decode(tmp_path / "a.mp4", np.arange(23, 31) / 10, 10)
    np.testing.assert_allclose(levels_of(found), levels[23:31], atol=2)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_joined_files_keep_every_frame_at_its_shifted_time(tmp_path: Path, codec: video.Codec) -> None:
    parts = [[10, 60, 110], [200], [150, 100, 50, 20, 240]]
    paths = [tmp_path / f"{i}.mp4" for i in range(3)]
    for path, levels in zip(paths, parts, strict=True):
        video.encode(path, grey(levels, (128, 128)), 7, codec)
    video.join(paths, [3, 1, 5], tmp_path / "all.mp4", 7)
    found = video.decode(tmp_path / "all.mp4", np.arange(9) / 7, 7)
    np.testing.assert_allclose(levels_of(found), [level for part in parts for level in part], atol=2)
    last = video.decode(tmp_path / "all.mp4", np.arange(4, 9) / 7, 7)
    np.testing.assert_array_equal(last, video.decode(paths[2], np.arange(5) / 7, 7))


def test_small_and_odd_frames_keep_their_colours(tmp_path: Path) -> None:
    """4:2:0 halves the resolution of colour; saturated one-pixel stripes show whether it was used."""
    frames = np.zeros((3, 3, 33, 31), np.uint8)
    frames[:, 0, ::2], frames[:, 2, 1::2] = 255, 255
    video.encode(tmp_path / "a.mp4", frames, 10)
    found = video.decode(tmp_path / "a.mp4", np.arange(3) / 10, 10)
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 12


def test_large_frames_use_what_every_player_knows() -> None:
    assert video.pixel_format(128, 128, "h264") == "yuv420p"
    assert video.pixel_format(64, 64, "h264") == "yuv444p"
    assert video.pixel_format(129, 128, "h264") == "yuv444p"
    assert video.pixel_format(64, 64, "av1") == "yuv420p"


def test_scaling_down_averages_luma_and_colour(tmp_path: Path) -> None:
    """Columns of target pixels alternate in colour: a scaler that halves the colour resolution would blend them."""
    frames = np.full((2, 3, 128, 256), 100, np.uint8)
    frames.reshape(2, 3, 128, 8, 2, 16)[:, 0, :, :, 0] = 160
    frames.reshape(2, 3, 128, 8, 2, 16)[:, 2, :, :, 1] = 160
    video.encode(tmp_path / "a.mp4", frames, 10)
    full = video.decode(tmp_path / "a.mp4", np.arange(2) / 10, 10)
    small = video.decode(tmp_path / "a.mp4", np.arange(2) / 10, 10, size=(8, 16))
    np.testing.assert_allclose(small, full.reshape(2, 3, 8, 16, 16, 16).mean((3, 5)), atol=3)


def test_one_channel_is_decoded_as_grey(tmp_path: Path) -> None:
    video.encode(tmp_path / "a.mp4", grey([30, 200]), 10)
    found = video.decode(tmp_path / "a.mp4", np.arange(2) / 10, 10, channels=1)
    assert found.shape == (2, 1, 32, 48)
    np.testing.assert_allclose(levels_of(found), [30, 200], atol=3)


def test_a_grey_picture_can_be_stored(tmp_path: Path) -> None:
    video.encode(tmp_path / "a.mp4", grey([30, 200])[:, :1], 10)
    found = video.decode(tmp_path / "a.mp4", np.arange(2) / 10, 10, channels=1)
    np.testing.assert_allclose(levels_of(found), [30, 200], atol=3)


def test_a_time_after_the_end_names_its_row(tmp_path: Path) -> None:
    video.encode(tmp_path / "a.mp4", grey([1, 2, 3]), 10)
    with pytest.raises(video.BrokenVideo, match=r"ends at 0\.2000 s, before the frame of 0\.3000 s") as caught:
        video.decode(tmp_path / "a.mp4", np.arange(5) / 10, 10)
    assert caught.value.row == 3


def test_a_hole_in_the_video_names_its_row(tmp_path: Path) -> None:
    video.encode(tmp_path / "a.mp4", grey([1, 2, 3]), 2)
    with pytest.raises(video.BrokenVideo, match=r"has no frame at 0\.0500 s, the nearest is at 0\.0000 s") as caught:
        video.decode(tmp_path / "a.mp4", np.arange(5) / 20, 20)
    assert caught.value.row == 1


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_a_file_that_is_no_video_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(video.BrokenVideo, match="cannot be decoded"):
        video.decode(tmp_path / "a.mp4", np.arange(2) / 10, 10)
