"""Starts of sessions, and the real observations beside them."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.play.playing import start
from tests.toy import toy_spec
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.play.starts import Recording, Simulation, picture_start, read_picture

SPEC = DataSpec(
    {"state": KeySpec("vector", (1,)), "task": KeySpec("category", (2,), names=("go", "stop"))},
    ActionSpec("discrete", 2),
    10.0,
)
STAY, ON = (1.0, 0.0), (0.0, 1.0)


@dataclass
class Counter:
    """Counts its steps of action 1, terminates at 3, and counts its resets."""

    count: int = 0
    begun: int = 0
    name: str = field(default="counter")

    def reset(self, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.count, self.begun = seed, self.begun + 1
        return self._see(), {"task": "stop"}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.count += action
        return self._see(), 0.0, self.count == 3, False, {}

    def _see(self) -> dict[str, np.ndarray]:
        return {"state": np.array([self.count], np.float32)}

    def close(self) -> None:
        self.count = -1


def path(*actions: tuple[float, ...]) -> Any:
    return [SimpleNamespace(action=action) for action in (None, *actions)]


def real(reality: Simulation, *actions: tuple[float, ...]) -> float | None:
    obs = reality.at(path(*actions))
    return None if obs is None else float(obs["state"][0])


def test_a_real_environment_follows_every_branch_and_keeps_its_task() -> None:
    env = Counter()
    reality = Simulation(env, SPEC, 0)  # type: ignore[arg-type]
    assert reality.begin()["task"].tolist() == [0, 1]
    assert [real(reality, *[ON] * n) for n in range(3)] == [0, 1, 2]
    assert env.begun == 1
    assert real(reality, ON) == 1, "earlier nodes are stored"
    assert env.begun == 1
    assert real(reality, ON, STAY) == 1, "another branch resets and replays"
    assert env.begun == 2
    later = reality.at(path(ON, STAY, ON))
    assert later is not None
    assert later["task"].tolist() == [0, 1], "what is to be done is still to be done"
    assert real(reality, ON, ON, ON) == 3
    assert real(reality, ON, ON, ON, ON) is None, "there is no observation after the end"


def test_a_recording_is_known_as_long_as_its_actions_are_taken() -> None:
    begun = start()
    recording = Recording(begun)
    actions = [tuple(action.tolist()) for action, _ in recording.rows]
    assert recording.at(path()) is begun.first
    assert recording.at(path(*actions[:4])) is recording.rows[3][1]
    assert recording.at(path(actions[0], (0.1, 0.2))) is None
    assert recording.at(path(*actions, actions[0])) is None
    assert np.array_equal(recording.next_action(path(*actions[:2])), recording.rows[2][0])  # type: ignore[arg-type]
    assert recording.next_action(path(*actions)) is None


def test_a_picture_of_any_size_is_cut_to_the_models_proportions(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert read_picture(tmp_path / "wide.png", 16, 16).min() == 255, "the middle is kept"
    begun = picture_start(tmp_path / "wide.png", toy_spec())
    assert begun.first["image"].shape == (16, 16, 3)
    assert begun.first["state"].tolist() == [100, -3], "vectors are the mean of the data"
    assert begun.reality() is None


def test_orientation_and_transparency_are_applied_and_deep_pictures_refused(tmp_path: Path) -> None:
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:16] = 255
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(upright).save(tmp_path / "phone.png", exif=turned)
    assert read_picture(tmp_path / "phone.png", 16, 16)[0].max() == 0
    hidden = np.full((32, 32, 4), 255, np.uint8)
    hidden[..., 3] = 0
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    assert read_picture(tmp_path / "hidden.png", 16, 16).max() == 0
    Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="8 bits"):
        read_picture(tmp_path / "deep.png", 16, 16)


def test_an_unreadable_picture_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "folder.png", "missing.png"):
        with pytest.raises(UserError, match=name):
            picture_start(tmp_path / name, toy_spec())
    with pytest.raises(UserError, match="no picture"):
        picture_start(tmp_path / "text.png", SPEC)
