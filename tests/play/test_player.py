"""The requests of a page and their answers, without a web server."""

import asyncio
import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.play.playing import frame, player, run, said, small_context
from worldloom.data.source import open_dataset
from worldloom.errors import UserError
from worldloom.play import messages

RIGHT, LEFT = [1.0, 0.0], [-1.0, 0.0]


def test_a_session_starts_after_its_observed_context_rows() -> None:
    async def test() -> None:
        async with player() as me:
            welcome, node = [a async for a in me.answer(read("new", start="b", seed=3))]
            assert isinstance(welcome, dict)
            assert welcome["starts"] == [{"name": "a", "label": "start a"}, {"name": "b", "label": "start b"}]
            assert (welcome["recording"], welcome["agent"], welcome["action"]["kind"]) == (True, True, "continuous")
            assert welcome["moments"] == 3, "two context rows after the first observation"
            assert isinstance(node, bytes)
            assert (me.session.now.steps, me.session.now.open_loop_steps, me.session.seed) == (2, 0, 3)

    run(test)


def read(kind: str, **fields: Any) -> Any:
    return messages.read(json.dumps({"type": kind, **fields}))


def test_steps_rewinds_and_branches_are_shown_as_they_are_in_the_tree() -> None:
    async def test() -> None:
        async with player() as me:
            first = (await said(me, "step", action=RIGHT))[0]
            again = (await said(me, "step", action=RIGHT))[0]
            assert (first["id"], first["here"], first["moment"]["blind"]) == (5, True, 1)
            assert again["moment"]["parent"] == first["moment"]["number"]
            assert np.array_equal(again["shown"]["dream", "image"], me.session.now.result.pictures["image"])
            back = (await said(me, "rewind", steps=1))[0]
            assert back["moment"]["number"] == first["moment"]["number"]
            other = (await said(me, "step", action=LEFT))[0]
            assert other["moment"]["parent"] == first["moment"]["number"]
            shown = await said(me, "show", moments=[0, again["moment"]["number"]])
            assert [m["moment"]["number"] for m in shown] == [0, again["moment"]["number"]]
            assert [m["here"] for m in shown] == [False, False]
            went = (await said(me, "go", moment=0))[0]
            assert went["here"]
            assert went["moment"]["kind"] == "start"

    run(test)


def test_a_page_that_reconnects_gets_the_whole_tree_without_pictures() -> None:
    async def test() -> None:
        async with player() as me:
            first = (await said(me, "step", action=RIGHT))[0]["moment"]
            await said(me, "rewind")
            other = (await said(me, "step", action=LEFT))[0]["moment"]
            nodes = (await said(me, "tree"))[0]["moments"]
            assert [node["number"] for node in nodes] == [0, 1, 2, 3, 4]
            assert nodes[3:] == [first, other]
            assert me.session.here == other["number"], "the current node does not change"

    run(test)


def test_real_observations_are_sent_as_long_as_the_session_takes_the_recorded_actions() -> None:
    async def test() -> None:
        async with player() as me:
            await said(me, "options", reality=True)
            true = (await said(me, "step", by="recording"))[0]
            assert np.array_equal(true["shown"]["real", "image"], frame(3)["image"])
            assert true["moment"]["real"] == {"state": frame(3)["state"].tolist()}
            corrected = (await said(me, "anchor"))[0]
            assert corrected["moment"]["kind"] == "look"
            assert corrected["moment"]["residual"]["image"] > 0
            lost = (await said(me, "step", action=[0.123, 0.4]))[0]
            assert ("real", "image") not in lost["shown"]
            assert lost["moment"]["real"] == {}
            await said(me, "options", reality=False)
            assert (await said(me, "go", moment=0))[0]["moment"]["real"] is None
            await said(me, "go", moment=lost["moment"]["number"])
            with pytest.raises(UserError, match="not known here"):
                await said(me, "anchor")

    run(test)


def test_the_agent_plays_and_the_player_can_take_over() -> None:
    async def test() -> None:
        async with player() as me:
            expected = me.context.agent_action(me.session.now.result.belief)
            node = (await said(me, "step", by="agent"))[0]["moment"]
            assert node["action"] == pytest.approx(expected.tolist())
            assert (await said(me, "step", action=LEFT))[0]["moment"]["action"] == LEFT
            me.context.actor = None
            with pytest.raises(UserError, match="no agent"):
                await said(me, "step", by="agent")

    run(test)


def test_plans_from_one_node_become_branches_that_diverge() -> None:
    async def test() -> None:
        async with player() as me:
            here = me.session.here
            answers = await said(me, "grid", moment=here, plans=[[RIGHT] * 3, [LEFT] * 2, [RIGHT] * 3])
            grid = answers[-1]
            assert [len(plan) for plan in grid["plans"]] == [3, 2, 3]
            assert grid["plans"][0] == grid["plans"][2], "equal plans share a branch"
            assert grid["plans"][0] != grid["plans"][1]
            assert grid["divergence"][0][0] > 0
            assert me.session.here == here, "the current node does not change"
            assert sorted({a["plan"] for a in answers[:-1]}) == [0, 1, 2]
            assert len(me.session.nodes) == 3 + 5

    run(test)


def test_an_edited_picture_continues_with_the_share_of_the_edit_that_is_left() -> None:
    async def test() -> None:
        async with player() as me:
            picture = me.session.now.result.pictures["image"].copy()
            picture[:5] = (255, 0, 0)
            pixels = base64.b64encode(picture.tobytes()).decode()
            edited = (await said(me, "edit", key="image", pixels=pixels))[0]["moment"]
            assert edited["kind"] == "edit"
            assert edited["persistence"]["image"] == pytest.approx(1)
            later = (await said(me, "step", action=RIGHT))[0]["moment"]
            assert np.isfinite(later["persistence"]["image"])
            for wrong, message in [
                ({"key": "state", "pixels": pixels}, "not an image key of this model"),
                ({"key": "image", "pixels": pixels[:-8]}, "bytes, not 16 x 16 x 3"),
                ({"key": "image", "pixels": "?"}, "not base64"),
            ]:
                with pytest.raises(UserError, match=message):
                    await said(me, "edit", **wrong)

    run(test)


def test_a_replay_that_was_saved_is_loaded_with_every_frame_the_same() -> None:
    async def test() -> None:
        context = small_context()
        async with player(context) as me, player(context) as other:
            for action in (RIGHT, LEFT, RIGHT):
                await said(me, "step", action=action)
            replay = (await said(me, "save"))[0]["replay"]
            loaded, welcome, node = await said(other, "load", replay=replay)
            assert loaded == {"type": "loaded", "id": 5, "moments": 6, "identical": True, "different": None}
            assert (welcome["type"], welcome["moments"], welcome["recording"]) == ("welcome", 6, False)
            assert np.array_equal(node["shown"]["dream", "image"], me.session.now.result.pictures["image"])
            assert other.session.node(3).digest == me.session.node(3).digest
            with pytest.raises(UserError, match="damaged"):
                await said(other, "load", replay={**replay, "moments": "x"})
            assert len(other.session.nodes) == 6, "the session before is unchanged"

    run(test)


def test_a_session_is_exported_as_a_picture_a_video_and_a_synthetic_dataset(tmp_path: Path) -> None:
    async def test() -> None:
        async with player() as me:
            for action in (RIGHT, LEFT, RIGHT):
                await said(me, "step", action=action)
            made = {}
            for kind in ("png", "mp4", "dataset"):
                answer = (await said(me, "export", kind=kind))[0]
                assert answer["url"].endswith("/" + answer["name"])
                made[kind] = me.exports.files[answer["url"].removeprefix("/files/")].read_bytes()
            picture = np.asarray(Image.open(io.BytesIO(made["png"])))
            assert np.array_equal(picture, me.session.now.result.pictures["image"])
            assert made["mp4"][4:8] == b"ftyp"
            zipfile.ZipFile(io.BytesIO(made["dataset"])).extractall(tmp_path)
            dataset = open_dataset(tmp_path / "session")
            assert dataset.about["synthetic"] is True
            episode = dataset.read(0)
            assert len(episode) == 6
            assert np.array_equal(episode.obs["image"][-1].transpose(1, 2, 0), picture)
            assert episode.action[3].tolist() == me.context.spec.action.unscale(np.array(LEFT, np.float32)).tolist()

    run(test)


def test_concurrent_players_get_the_same_results_as_a_single_one() -> None:
    async def test() -> None:
        context = small_context()
        async with player(context) as me:
            others = []
            for number in range(5):
                other = type(me)(str(number), context, me.turns, me.exports)
                await other.begin(seed=number)
                others.append(other)
            answers = await asyncio.gather(*[said(other, "step", action=RIGHT) for other in others])
            await me.begin(seed=2)
            alone = (await said(me, "step", action=RIGHT))[0]
            assert np.array_equal(alone["shown"]["dream", "image"], answers[2][0]["shown"]["dream", "image"])
            assert me.session.now.digest == others[2].session.now.digest

    run(test)


def test_plans_that_exceed_the_tree_are_refused_before_the_first_step() -> None:
    async def test() -> None:
        async with player(small_context(max_nodes=8)) as me:
            held = len(me.session.nodes)
            with pytest.raises(UserError, match="8 are its limit"):
                await said(me, "grid", moment=0, plans=[[RIGHT] * 4, [LEFT] * 4])
            assert len(me.session.nodes) == held
            await said(me, "grid", moment=0, plans=[[RIGHT] * (8 - held)])
            assert len(me.session.nodes) == 8
            again = await said(me, "grid", moment=0, plans=[[RIGHT] * (8 - held)])
            assert again[-1]["type"] == "grid", "known nodes need no room"

    run(test)


def test_uncertainty_is_sent_when_enabled() -> None:
    async def test() -> None:
        async with player() as me:
            await said(me, "step", action=RIGHT)
            heat = (await said(me, "options", heat=True))[0]["shown"]["heat", "image"]
            assert (heat.shape, heat.dtype) == ((16, 16, 1), np.uint8)
            assert ("heat", "image") in (await said(me, "step", action=RIGHT))[0]["shown"]
            *plans, _ = await said(me, "grid", moment=0, plans=[[RIGHT], [LEFT]])
            assert all(("heat", "image") not in each["shown"] for each in plans)

    run(test)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("step", {}, "needs an action"),
        ("step", {"action": 3}, "outside the action space"),
        ("step", {"action": [9.0, 0.0]}, "outside"),
        ("go", {"moment": 99}, "nodes 0 to 2"),
        ("show", {"moments": [0, 99]}, "nodes 0 to 2"),
        ("grid", {"moment": 99, "plans": [[RIGHT]]}, "nodes 0 to 2"),
        ("grid", {"moment": 0, "plans": [[RIGHT], [[5.0, 0.0]]]}, "outside"),
        ("grid", {"moment": 0, "plans": [[RIGHT, RIGHT, [5.0, 0.0]]]}, "outside"),
        ("new", {"start": "z"}, "no start 'z'"),
        ("train", {}, "not available in a model"),
    ],
)
def test_a_refused_request_changes_nothing(kind: str, fields: dict[str, Any], message: str) -> None:
    async def test() -> None:
        async with player() as me:
            before = (me.session, me.session.here, len(me.session.nodes))
            with pytest.raises(UserError, match=message):
                await said(me, kind, **fields)
            assert (me.session, me.session.here, len(me.session.nodes)) == before

    run(test)
