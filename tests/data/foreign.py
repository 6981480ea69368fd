"""Tiny datasets in other people's formats, laid out as their own tools write them."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

STEPS = (4, 3)


def serialised_box(shape: tuple[int, ...], dtype: str, low: float, high: float) -> dict[str, Any]:
    """As Minari's `serialize_space` does it: bounds as nested lists."""
    bounds = {side: np.full(shape, value, dtype).tolist() for side, value in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **bounds}


def make_minari(path: Path, seed: int = 0) -> Path:
    """Nested observations (vector, picture, choice, mission text) and a Box action; the first episode terminates."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(seed)
    space = {
        "type": "Dict",
        "subspaces": {
            "robot": {"type": "Dict", "subspaces": {"arm": serialised_box((2,), "float64", -np.inf, np.inf)}},
            "camera": serialised_box((8, 10, 3), "uint8", 0, 255),
            "direction": {"type": "Discrete", "dtype": "int64", "start": 1, "n": 4},
            "mission": {"type": "Text", "max_length": 20, "min_length": 1, "charset": "abc"},
        },
    }
    metadata = {
        "total_episodes": len(STEPS),
        "total_steps": sum(STEPS),
        "data_format": "hdf5",
        "observation_space": json.dumps(space),
        "action_space": json.dumps(serialised_box((2,), "float32", -1, 1)),
        "dataset_id": "toy/box-v0",
        "minari_version": "0.5.3",
        "author": ["A. Uthor"],
        "code_permalink": "https://example.org/code",
    }
    (path / "data").mkdir(parents=True)
    (path / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(path / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for i, steps in enumerate(STEPS):
            group = file.create_group(f"episode_{i}")
            group.attrs["id"], group.attrs["total_steps"] = i, steps
            group["observations/robot/arm"] = rng.normal(size=(steps + 1, 2))
            group["observations/camera"] = rng.integers(0, 256, (steps + 1, 8, 10, 3), np.uint8)
            group["observations/direction"] = rng.integers(1, 5, steps + 1)
            group["observations/mission"] = [f"go to door {i}".encode()] * (steps + 1)
            group["actions"] = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
            group["rewards"] = np.arange(1, steps + 1, dtype=np.float64)
            group["terminations"] = np.arange(steps) == (steps - 1 if i == 0 else -1)
            group["truncations"] = np.arange(steps) == (steps - 1 if i == 1 else -1)
            group["infos/success"] = np.arange(steps + 1) == steps
    return path


def make_robomimic(path: Path, after: bool = True, seed: int = 0) -> Path:
    """Eleven demos, so that demo_10 must come after demo_9; `after` says whether next_obs is there."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 33
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 10}})
        for i in range(11):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = 3
            demo.attrs["model_file"] = "<mujoco/>"
            eef = rng.normal(size=(4, 3)) + 100 * i
            image = rng.integers(0, 256, (4, 8, 12, 3), np.uint8)
            demo["obs/robot0_eef_pos"], demo["obs/agentview_image"] = eef[:3], image[:3]
            demo["obs/agentview_depth"] = np.zeros((3, 80, 80, 1), np.float32)
            if after:
                demo["next_obs/robot0_eef_pos"], demo["next_obs/agentview_image"] = eef[1:], image[1:]
                demo["next_obs/agentview_depth"] = np.zeros((3, 80, 80, 1), np.float32)
            demo["actions"] = rng.uniform(-1, 1, (3, 7))
            demo["rewards"] = np.array([0.0, 0.0, 1.0])
            demo["dones"] = np.array([0, 1, 1])
            demo["states"] = rng.normal(size=(3, 20))
        file["mask/train"] = [b"demo_0"]
    return path


def ogbench_arrays(seed: int = 0, visual: bool = False) -> dict[str, np.ndarray]:
    """Two trajectories of 5 and 4 states; `terminals` marks the last state, whose action is not valid."""
    rng = np.random.default_rng(seed)
    shape, dtype = ((9, 8, 8, 3), np.uint8) if visual else ((9, 4), np.float32)
    return {
        "observations": rng.integers(0, 256, shape).astype(dtype),
        "actions": rng.uniform(-1, 1, (9, 2)).astype(np.float32),
        "terminals": np.isin(np.arange(9), [4, 8]),
        "qpos": rng.normal(size=(9, 3)).astype(np.float32),
        "qvel": rng.normal(size=(9, 2)).astype(np.float32),
    }


def d4rl_arrays(seed: int = 0, after: bool = True) -> dict[str, np.ndarray]:
    """Transitions: a trajectory of 4 that terminates, one of 3 that times out, 2 left over at the end of the file."""
    rng = np.random.default_rng(seed)
    states = [rng.normal(size=(n + 1, 4)).astype(np.float32) for n in (4, 3, 2)]
    arrays = {
        "observations": np.concatenate([s[:-1] for s in states]),
        "next_observations": np.concatenate([s[1:] for s in states]),
        "actions": rng.uniform(-1, 1, (9, 2)).astype(np.float32),
        "rewards": np.arange(1, 10, dtype=np.float32),
        "terminals": np.arange(9) == 3,
        "timeouts": np.arange(9) == 6,
        "infos/qpos": rng.normal(size=(9, 3)),
    }
    return arrays if after else {k: v for k, v in arrays.items() if k != "next_observations"}


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def moving_square(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Uint8 `[T, H, W, 3]`: a white square moving four pixels per frame on grey: frames can be told apart."""
    video = np.full((frames, height, width, 3), 60, np.uint8)
    for t in range(frames):
        video[t, 8:24, (4 * t) % width : (4 * t) % width + 12] = 255
    return video


def square_at(frame: np.ndarray) -> int:
    """The number of the frame `[C, H, W]` of `moving_square` (64 wide, up to 16 frames), however it was compressed."""
    columns = frame[:, 8:24].astype(float).mean((0, 1))
    shapes = moving_square(16)[:, 8:24].astype(float).mean((1, 3))
    return int(np.abs(shapes - columns).sum(1).argmin())


def save_video(path: Path, video: np.ndarray, fps: int = 20, options: dict[str, str] | None = None) -> Path:
    """Uint8 `[T, H, W, 3]` in the codec that the suffix calls for."""
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".gif": "gif"}.get(path.suffix, "libx264")
    pixel_format = {"gif": "rgb8"}.get(codec, "yuv420p")
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], pixel_format
        for pixels in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def vpt_line(**changes: Any) -> dict[str, Any]:
    """One tick as the contractor recorder writes it, doing nothing unless told; keys and mouse fields by name."""
    mouse = {"x": 640.0, "y": 360.0, "dx": 0.0, "dy": 0.0, "scaledX": 0.0, "scaledY": 0.0, "dwheel": 0.0}
    mouse |= {"buttons": [], "newButtons": []}
    line = {"mouse": mouse, "keyboard": {"keys": [], "newKeys": [], "chars": ""}, "hotbar": 0, "isGuiOpen": False}
    for name, value in changes.items():
        if name == "keys":
            line["keyboard"]["keys"] = value
        elif name in mouse:
            mouse[name] = value
        else:
            line[name] = value
    return line


def save_vpt(folder: Path, stem: str, lines: list[dict[str, Any]], frames: int) -> None:
    folder.mkdir(exist_ok=True)
    save_video(folder / f"{stem}.mp4", moving_square(frames))
    (folder / f"{stem}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def cut(path: Path, keep: float = 0.5) -> None:
    """What an interrupted download leaves: the first part of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
