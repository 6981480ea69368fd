"""What other people's numbers are like: told on the data card, or refused, never changed without a word."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.data.lerobot.test_reader import write_foreign
from worldloom.data import video
from worldloom.data.card.figures import data_card
from worldloom.data.files import files_below, identity
from worldloom.data.formats.columns import actions, key_spec, one_hot
from worldloom.data.lerobot.rows import loses_digits
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec


def notes(path: Path) -> str:
    return "\n".join(data_card(open_dataset(path)).notes)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("leap", [0, 100])
def test_a_leap_inside_an_episode_is_told(tmp_path: Path, scale: float, leap: int) -> None:
    rng = np.random.default_rng(0)
    place = np.cumsum(rng.normal(size=(400, 2)), 0) * scale
    place[200:] += leap * scale
    file = tmp_path / "data.npz"
    np.savez(file, observations=place.astype("f4"), actions=rng.uniform(-1, 1, (400, 2)).astype("f4"),
             rewards=np.zeros(400, "f4"), terminals=np.zeros(400, bool), timeouts=np.arange(400) == 399)  # fmt: skip
    assert ("Is an episode's end missing?" in notes(file)) == bool(leap)


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        (4_500_000 + 0.01 * np.arange(20), True),
        (1.7e18 + 1e7 * np.arange(20), True),
        (4_500_000 + 40.0 * np.arange(20), False),
        (0.5 + 1e-12 * np.arange(20), False),
        (np.full(20, 4.5e6), False),
        (np.arange(20.0), False),
    ],
)
def test_what_float32_cannot_hold_is_known(values: np.ndarray, lost: bool) -> None:
    assert loses_digits(np.stack([values, np.arange(20.0)], 1)) == lost
    assert not loses_digits(values.astype(np.float32)[:, None])


def test_lost_digits_are_on_the_card(tmp_path: Path) -> None:
    column = pa.array((4_500_000 + 0.01 * np.arange(12))[:, None].tolist(), pa.list_(pa.float64()))
    path = write_foreign(
        tmp_path / "data", {"observation.state": ("float64", [1])}, {"observation.state": column}, [12]
    )
    assert "observation.state loses digits: float32 keeps 7" in notes(path)


@pytest.mark.parametrize(
    ("rate", "rows", "drifts"),
    [(30000 / 1001, 200, False), (30000 / 1001, 700, True), (30, 700, False), (60, 300, False), (29.5, 60, True)],
)
def test_a_video_that_drifts_from_its_rows_is_refused(tmp_path: Path, rate: float, rows: int, drifts: bool) -> None:
    step = Fraction(1001, 30000) if round(rate, 2) == 29.97 else 1 / Fraction(rate).limit_denominator(100)
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream: Any = file.add_stream("libx264", rate=1 / step, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv444p"
        for t in range(rows * 2 if rate == 60 else rows):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), t % 250, np.uint8), format="rgb24")
            frame.pts, frame.time_base = t, step
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    times = np.arange(rows) / 30
    if drifts:
        with pytest.raises(video.BrokenVideo, match=r"frames a second where the rows have 30|has no frame at"):
            video.decode(tmp_path / "a.mp4", times, 30)
    else:
        assert len(video.decode(tmp_path / "a.mp4", times, 30)) == rows


@pytest.mark.parametrize("fps", [240, 1000, 4000])
def test_fast_cameras_show_each_row_its_own_frame(tmp_path: Path, fps: int) -> None:
    levels = np.arange(10, 240, 5, dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 3, 32, 32))
    video.encode(tmp_path / "a.mp4", frames, fps)
    found = video.decode(tmp_path / "a.mp4", np.arange(len(levels)) / fps, fps)
    np.testing.assert_allclose(found.astype(float).mean((1, 2, 3)), levels, atol=2.5)


@pytest.mark.parametrize("deep", [True, False])
def test_depth_of_sixteen_bits_is_left_out_and_listed(tmp_path: Path, deep: bool) -> None:
    depth = np.linspace(400, 3000, 256).reshape(16, 16).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(depth if deep else (depth // 16).astype(np.uint8)).save(buffer, "PNG")
    pictures = pa.array([{"bytes": buffer.getvalue(), "path": None}] * 3)
    features = {"observation.images.depth": ("image", [16, 16, 1]), "observation.state": ("float32", [1])}
    columns = {"observation.images.depth": pictures, "observation.state": pa.array([[0.0], [1.0], [2.0]])}
    path = write_foreign(tmp_path / "data", features, columns, [3])
    assert ("depth" not in open_dataset(path).spec.obs) == deep
    assert ("not used: observation.images.depth" in notes(path)) == deep


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2)])
def test_a_trajectory_without_actions_keeps_their_width(shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    assert actions(np.zeros((0, *shape)), 1, ActionSpec("continuous", size), "here").shape == (1, size)
    assert one_hot(np.zeros((0, 1)), 4, "here").shape == (0, 4)


def test_one_hot_takes_the_memory_of_its_rows() -> None:
    encoded = one_hot(np.array([59_999, 0]), 60_000, "here")
    assert encoded.nonzero()[1].tolist() == [59_999, 0]


def test_files_are_found_through_links_once_and_hidden_ones_never(tmp_path: Path) -> None:
    store, root = tmp_path / "store", tmp_path / "root"
    store.mkdir()
    (store / "a.bin").write_bytes(b"1")
    (store / ".hidden").write_bytes(b"2")
    root.mkdir()
    (root / "link").symlink_to(store)
    (store / "loop").symlink_to(root)
    assert [file.relative_to(root).as_posix() for file in files_below(root)] == ["link/a.bin"]


def test_an_identity_outlives_copying_and_touching_and_nothing_else(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "meta").mkdir(parents=True)
        (folder / "meta/info.json").write_text('{"fps": 10}')
        (folder / "a.bin").write_bytes(b"123")
    assert identity(one) == identity(two)
    (two / "a.bin").write_bytes(b"1234")
    assert identity(one) != identity(two)
    (two / "a.bin").write_bytes(b"123")
    (two / "meta/info.json").write_text('{"fps": 20}')
    assert identity(one) != identity(two)


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 9), (8, 12), (7, 7, 3), (5,)])
def test_pictures_are_told_by_shape_alike_in_every_format(shape: tuple[int, ...]) -> None:
    found = key_spec(shape, np.dtype(np.uint8))
    assert found is not None
    assert (found.kind == "image") == (min(sorted(shape)[-2:]) >= 8 and len(shape) > 1)
