from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.foreign import cut, save_vpt, square_at, vpt_line
from worldloom.data.episode import BrokenEpisode
from worldloom.data.formats.videos import VideosSource
from worldloom.data.formats.vpt import COLUMN, NAMES, VPTSource, read_actions
from worldloom.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Real names hold dots; frame t shows the square at t, line t presses hotbar key t + 1."""
    lines = [vpt_line(keys=[f"key.keyboard.{t + 1}"]) for t in range(6)]
    save_vpt(tmp_path, "cheeky-cornflower.v1.0-20211014", lines, 6)
    return tmp_path


def replace_line(folder: Path, number: int, line: bytes) -> None:
    path = next(folder.glob("*.jsonl"))
    lines = path.read_bytes().splitlines()
    lines[number] = line
    path.write_bytes(b"\n".join(lines))


def actions_of(tmp_path: Path, lines: list[dict[str, Any]]) -> np.ndarray:
    save_vpt(tmp_path, "x", lines, len(lines))
    return read_actions(tmp_path / "x.jsonl")


def test_line_t_is_what_was_done_while_frame_t_was_shown(folder: Path) -> None:
    source = VPTSource(folder)
    episode = source.read(0)
    assert len(episode) == source.episodes[0].length == 6
    assert [square_at(frame) for frame in episode.obs["image"]] == list(range(6))
    pressed = episode.action[:, COLUMN["hotbar.1"] : COLUMN["hotbar.9"] + 1]
    assert pressed[:5].argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert (episode.action[5] == 0).all()
    assert episode.truncated.tolist() == [False] * 5 + [True]
    assert source.spec.fps == 20


def test_keys_buttons_and_camera_have_names_and_ranges(tmp_path: Path) -> None:
    doing = vpt_line(
        keys=["key.keyboard.w", "key.keyboard.left.shift", "key.keyboard.f3"], dx=20, dy=-10, buttons=[1, 2]
    )
    save_vpt(tmp_path, "x", [vpt_line(), doing, vpt_line()], 3)
    source = VPTSource(tmp_path)
    row = source.read(0).action[1]
    on = {"forward", "sneak", "use", "pickItem"}
    assert {name for name in NAMES[:-2] if row[COLUMN[name]]} == on
    assert row[COLUMN["camera.yaw"]] == pytest.approx(3.0)
    assert row[COLUMN["camera.pitch"]] == pytest.approx(-1.5)
    scaled = source.spec.action.scale(source.read(0).action)
    assert set(scaled[:, :-2].ravel()) == {-1, 1}
    assert scaled[1, COLUMN["camera.yaw"]] == pytest.approx(0.3)


def test_the_camera_is_cut_off_at_its_range(tmp_path: Path) -> None:
    table = actions_of(tmp_path, [vpt_line(dx=1000.0, dy=-1000.0)])
    assert table[0, -2:].tolist() == [-10, 10]


def test_an_attack_button_down_from_the_start_counts_once_it_is_pressed_anew(tmp_path: Path) -> None:
    held = {"buttons": [0]}
    lines = [vpt_line(**held, newButtons=[0]), vpt_line(**held), vpt_line(**held, newButtons=[0]), vpt_line(**held)]
    assert actions_of(tmp_path, lines)[:, COLUMN["attack"]].tolist() == [0, 0, 1, 1]


def test_a_slot_changed_by_the_wheel_counts_as_its_key(tmp_path: Path) -> None:
    table = actions_of(tmp_path, [vpt_line(), vpt_line(hotbar=3), vpt_line(hotbar=3)])
    assert table[:, COLUMN["hotbar.4"]].tolist() == [0, 1, 0]


@pytest.mark.parametrize(("frames", "last_done"), [(5, 3), (6, 4), (7, 5)])
def test_one_frame_more_or_less_than_lines_is_fine(tmp_path: Path, frames: int, last_done: int) -> None:
    lines = [vpt_line(keys=[f"key.keyboard.{t + 1}"]) for t in range(6)]
    save_vpt(tmp_path, "x", lines, frames)
    episode = VPTSource(tmp_path).read(0)
    pressed = episode.action[:, COLUMN["hotbar.1"] : COLUMN["hotbar.9"] + 1]
    assert len(episode) == frames
    assert pressed[-2].argmax() == last_done
    assert (pressed[-1] == 0).all()


@pytest.mark.parametrize("frames", [4, 8])
def test_two_frames_more_or_less_than_lines_are_an_error(tmp_path: Path, frames: int) -> None:
    save_vpt(tmp_path, "x", [vpt_line()] * 6, frames)
    words = rf"x.mp4 has {frames} frames and x.jsonl 6 lines, more than one apart; .*--skip-broken"
    with pytest.raises(BrokenEpisode, match=words):
        VPTSource(tmp_path).read(0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"mouse": {"dx": 0.0', r"line 3, is no VPT action \(Expecting.*'\{\"mouse\""),
        (b"", r"line 3, is no VPT action \(Expecting"),
        (b"[1, 2]", r"line 3, is no VPT action"),
        (b'{"mouse": {"dx": 0, "dy": 0, "buttons": []}}', r"line 3, .*'keyboard' is missing"),
        (
            b'{"mouse": {"dx": NaN, "dy": 0, "buttons": []}, "keyboard": {"keys": []}}',
            r"line 3, .*the mouse moved by nan",
        ),
        (b'{"mouse": {"dx": "a", "dy": 0, "buttons": []}, "keyboard": {"keys": []}}', r"line 3, is no VPT action"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: bytes, words: str) -> None:
    replace_line(folder, 2, line)
    with pytest.raises(BrokenEpisode, match=words) as caught:
        VPTSource(folder).read(0)
    assert "20211014.jsonl" in str(caught.value)
    assert "--skip-broken" in str(caught.value)


def test_halves_of_a_pair_and_cut_videos_are_broken_episodes(folder: Path) -> None:
    save_vpt(folder, "a", [vpt_line()] * 3, 3)
    save_vpt(folder, "b", [vpt_line()] * 3, 3)
    save_vpt(folder, "d", [vpt_line()] * 3, 3)
    (folder / "a.jsonl").unlink()
    (folder / "b.mp4").unlink()
    cut(folder / "d.mp4")
    source = VPTSource(folder)
    assert len(source.episodes) == 4
    with pytest.raises(BrokenEpisode, match=r"a.jsonl is missing beside a.mp4"):
        source.read(0)
    with pytest.raises(BrokenEpisode, match=r"b.mp4 is missing beside b.jsonl"):
        source.read(1)
    with pytest.raises(BrokenEpisode, match=r"d.mp4 cannot be opened"):
        source.read(3)
    assert len(source.read(2)) == 6


def test_pairs_are_recognised_and_are_no_plain_videos(folder: Path) -> None:
    assert VPTSource.detect(folder)
    assert not VideosSource.detect(folder)


def test_a_folder_without_a_video_that_opens_is_one_line(folder: Path) -> None:
    cut(next(folder.glob("*.mp4")))
    with pytest.raises(UserError, match=r"holds no NAME.mp4 beside a NAME.jsonl that can be opened"):
        VPTSource(folder)
