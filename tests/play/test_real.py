"""A person plays a real environment: every episode is saved whole."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.play.playing import run, understood
from worldloom.data.source import open_dataset
from worldloom.errors import UserError
from worldloom.play import messages
from worldloom.play.real import RealPlayer, Recorder, make_recorder

ENV = "tests.play.test_real:Counting"


class Counting(gymnasium.Env[Any, Any]):
    """Counts to five and ends; shows the number as a grey picture."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(3)
    action_names = ("less", "same", "more")
    metadata = {"render_fps": 10}  # noqa: RUF012 - gymnasium's own name

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._picture(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._picture(), float(action), self.count == 5, False, {}

    def _picture(self) -> np.ndarray:
        return np.full((16, 16, 3), 40 * self.count, np.uint8)


async def said(made: RealPlayer, asked: str, **fields: Any) -> list[Any]:
    request = messages.read(json.dumps({"type": asked, "id": 5, **fields}))
    return [understood(outgoing) async for outgoing in made.answer(request)]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return make_recorder(ENV, (), tmp_path / "played")


def test_terminated_and_unfinished_episodes_are_saved_whole(recorder: Recorder) -> None:
    async def test() -> None:
        me = RealPlayer("me", recorder)
        await me.begin()
        for step in range(5):
            node = (await said(me, "step", action=2))[0]
            assert node["shown"]["real", "image"][0, 0, 0] == 40 * (step + 1)
        assert node["moment"]["over"] is True
        assert node["moment"]["recorded"] == {"episodes": 1, "steps": 5}
        with pytest.raises(UserError, match="the episode has ended"):
            await said(me, "step", action=1)
        welcome, first = await said(me, "new")
        assert (welcome["mode"], welcome["trains"], first["moment"]["over"]) == ("real", True, False)
        await said(me, "step", action=0)
        me.close()

    run(test)
    dataset = open_dataset(recorder.out)
    whole, left = dataset.read(0), dataset.read(1)
    assert (len(whole), bool(whole.terminated[-1]), bool(whole.truncated[-1])) == (6, True, False)
    assert (len(left), bool(left.terminated[-1]), bool(left.truncated[-1])) == (2, False, True)
    assert whole.reward.tolist() == [0, 2, 2, 2, 2, 2]
    assert dataset.about["synthetic"] is False
    assert dataset.spec.action.names == ("less", "same", "more")
    assert make_recorder(ENV, (), recorder.out).episodes == 2, "a recording is gone on with"


def test_an_episode_without_steps_is_not_saved(recorder: Recorder) -> None:
    async def test() -> None:
        me = RealPlayer("me", recorder)
        await me.begin()
        await said(me, "new")
        me.close()

    run(test)
    assert recorder.episodes == 0
    assert not recorder.out.exists()


def test_invalid_requests_are_refused(recorder: Recorder) -> None:
    async def test() -> None:
        me = RealPlayer("me", recorder)
        await me.begin()
        for asked, fields, message in [
            ("step", {"action": 3}, "outside the action space"),
            ("step", {"by": "agent"}, "action of the player"),
            ("rewind", {}, "not available in a real environment"),
            ("train", {}, "too few to train on"),
        ]:
            with pytest.raises(UserError, match=message):
                await said(me, asked, **fields)
        me.close()

    run(test)


def test_a_first_model_is_trained_by_a_process_of_its_own(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder.episodes = 2
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    for script, state, text in [("true", "done", "worldloom play"), ("echo no room; false", "failed", "no room")]:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        progress = recorder.train()
        for _ in range(200):
            if progress["state"] != "running":
                break
            time.sleep(0.05)
            progress = recorder.progress()
        assert (progress["state"], text in progress["text"]) == (state, True), progress
        recorder.model.mkdir()
    assert recorder.model.name == f"{recorder.out.name}-model-2", "another training, another folder"


def test_a_folder_that_cannot_be_written_is_refused_before_the_server_starts(
    recorder: Recorder, tmp_path: Path
) -> None:
    async def test() -> None:
        me = RealPlayer("me", recorder)
        await me.begin()
        await said(me, "step", action=2)
        me.close()

    run(test)
    assert make_recorder(ENV, (), recorder.out).episodes == 1
    (tmp_path / "file").write_text("")
    for out in (recorder.out, tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=str(out)):
            make_recorder("point", (), out)
    with pytest.raises(UserError, match="cannot be made with"):
        make_recorder("dmc:walker-walk", ("action_repeat=x",), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_environment_that_fails_ends_the_episode_and_keeps_it(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        me = RealPlayer("me", recorder)
        await me.begin()
        await said(me, "step", action=2)

        def crash(action: object) -> None:
            raise RuntimeError("the simulator crashed")

        monkeypatch.setattr(me.env, "step", crash)
        with pytest.raises(UserError, match=r"the simulator crashed.*begin a new episode"):
            await said(me, "step", action=2)
        with pytest.raises(UserError, match="the episode has ended"):
            await said(me, "step", action=2)
        await said(me, "new")
        assert (recorder.episodes, recorder.steps) == (1, 1)

    run(test)


def test_the_progress_request_starts_no_training(recorder: Recorder) -> None:
    async def test() -> None:
        me = RealPlayer("me", recorder)
        await me.begin()
        recorder.episodes = 2
        for _ in range(3):
            assert (await said(me, "training"))[0] == {"type": "training", "id": 5, "state": "none", "text": ""}
        assert recorder.training is None
        assert not recorder.log.exists()
        me.close()

    run(test)
