"""A node is a function of the seed and the actions: independent of other players, order and branch."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy import toy_episode, toy_spec
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.play.engine import Engine, Query
from worldloom.play.replay import play_replay, replay_steps, to_replay
from worldloom.play.session import PlaySession, to_tensors

FAMILIES = ["rssm", "vae_rnn", "tdmpc", "ensemble", "mlp", "tabular"]
RIGHT, LEFT = [1.0, 0.0], [-1.0, 0.0]


def engine(family: str = "rssm", **options: Any) -> Engine:
    torch.manual_seed(0)
    return Engine(build(family, toy_spec(), "debug").eval(), **{"particles": 2, **options})


def first_obs(row: int = 0) -> dict[str, np.ndarray]:
    episode = toy_episode(3)
    return {"image": episode.obs["image"][row].transpose(1, 2, 0), "state": episode.obs["state"][row]}


def new_session(playing: Engine, seed: int = 0, **options: Any) -> PlaySession:
    return PlaySession(playing, first_obs(), seed, **options)


def same(a: Any, b: Any) -> bool:
    return a.digest == b.digest


def spec_for(family: str) -> DataSpec:
    """The toy world as far as the family can take it in: `mlp` sees numbers, `tabular` one of a few places."""
    spec = toy_spec(discrete=family == "tabular")
    seen = {"mlp": {"state": spec.obs["state"]}, "tabular": {"place": KeySpec("vector", (3,))}}
    return spec.with_obs(seen.get(family, spec.obs))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_result_is_the_same_bit_for_bit_alone_and_among_others(family: str) -> None:
    torch.manual_seed(0)
    spec = spec_for(family)
    playing = Engine(build(family, spec, "debug").eval(), 2)
    seen = {**first_obs(), "place": np.eye(3, dtype=np.float32)[0]}
    start = PlaySession(playing, {key: seen[key] for key in spec.obs}).now.result.belief
    deeds = np.eye(spec.action.size, dtype=np.float32)
    queries = [Query(noise_seed, start, deeds[noise_seed % len(deeds)]) for noise_seed in range(6)]
    crowd = playing.run(queries)
    for query, among in zip(queries, crowd, strict=True):
        single = playing.run([query])[0]
        assert torch.equal(single.belief.features, among.belief.features)
        for alone, crowded in ((single.pictures, among.pictures), (single.vectors, among.vectors)):
            assert alone.keys() == crowded.keys()
            assert all(np.array_equal(alone[key], crowded[key]) for key in alone)
        assert (single.signals, single.spread) == (among.signals, among.spread)


def test_rewinding_and_taking_the_same_action_leads_to_the_same_node() -> None:
    session = new_session(engine())
    far = [session.step(RIGHT) for _ in range(4)][-1]
    assert session.rewind(2).steps == 2
    assert session.rewind(0).steps == 2
    assert session.step(RIGHT).number == far.parent
    assert session.rewind(99).number == 0
    assert len(session.nodes) == 5


def test_branches_differ_by_their_actions_and_not_by_noise() -> None:
    session = new_session(engine())
    session.step(RIGHT)
    right = [session.step(RIGHT) for _ in range(3)]
    session.rewind(3)
    other = session.step(LEFT)
    assert not same(other, right[0])
    assert [each.number for each in session.path()] == [0, 1, other.number]
    elsewhere = new_session(session.engine)
    assert same([elsewhere.step(RIGHT) for _ in range(4)][-1], right[-1])
    reseeded = new_session(session.engine, seed=1)
    assert not torch.equal(reseeded.now.result.belief.features, elsewhere.nodes[0].result.belief.features)


def test_an_observation_corrects_the_belief_and_measures_its_error() -> None:
    session = new_session(engine())
    session.step(RIGHT)
    predicted = session.step(RIGHT)
    corrected = session.reanchor(first_obs(5))
    assert (predicted.open_loop_steps, corrected.open_loop_steps, corrected.steps, corrected.parent) == (
        2,
        0,
        2,
        predicted.parent,
    )
    assert set(corrected.residual) == {"image", "state"}
    assert min(corrected.residual.values()) > 0
    assert session.step(LEFT).open_loop_steps == 1
    session.fork(0)
    assert session.reanchor(first_obs(7)).parent is None
    observed = session.observe(RIGHT, first_obs(8))
    assert (observed.steps, observed.open_loop_steps, observed.kind) == (1, 0, "watch")


def test_an_edit_continues_beside_its_unedited_twin() -> None:
    session = new_session(engine())
    plain = [session.step(RIGHT) for _ in range(3)]
    session.fork(plain[0].number)
    picture = session.now.result.pictures["image"].copy()
    picture[4:8, 4:8] = 255
    edited = session.edit({"image": picture})
    assert session.persistence() == pytest.approx({"image": 1.0})
    later = session.step(RIGHT)
    assert later.twin is not None
    assert np.array_equal(later.twin.pictures["image"], plain[1].result.pictures["image"]), "the twin is untouched"
    assert later.edited == edited.number
    assert np.isfinite(session.persistence()["image"])
    assert session.persistence(plain[2].number) == {}


def test_a_replay_reproduces_every_frame() -> None:
    session = new_session(engine())
    session.step(RIGHT)
    session.step(LEFT)
    session.reanchor(first_obs(4))
    session.step([0.3, -0.7])
    session.fork(1)
    session.edit({"image": first_obs(9)["image"]})
    session.step(RIGHT)
    session.observe(LEFT, first_obs(6))
    kept = json.loads(json.dumps(to_replay(session, "abc")))
    again = play_replay(engine(), kept, "abc")
    assert again.different is None
    assert again.session.here == session.here
    assert [m.digest for m in again.session.nodes] == [m.digest for m in session.nodes]
    kept["digests"][3] = "0" * 64
    assert play_replay(engine(), kept, "abc").different == 3


def test_keys_of_a_replay_that_the_model_does_not_observe_are_not_unpacked() -> None:
    kept = to_replay(new_session(engine()), "abc")
    kept["start"]["bomb"] = {"dtype": "uint8", "shape": [10**9], "data": "not even base64"}
    assert play_replay(engine(), kept, "abc").different is None


def test_a_replay_that_is_too_long_is_refused_before_it_is_played() -> None:
    session = new_session(engine())
    session.step(RIGHT)
    session.step(RIGHT)
    kept = to_replay(session, "abc")
    with pytest.raises(UserError, match="3 nodes, but at most 2"):
        next(replay_steps(engine(), kept, "abc", 2))
    for seed in (-1, 1.5, True, 10**30):
        with pytest.raises(UserError, match="its seed is"):
            play_replay(engine(), {**kept, "seed": seed}, "abc")


def test_a_replay_of_another_checkpoint_or_a_broken_one_is_refused() -> None:
    session = new_session(engine())
    session.step(RIGHT)
    kept = json.loads(json.dumps(to_replay(session, "abc")))
    with pytest.raises(UserError, match="made with the checkpoint abc"):
        play_replay(engine(), kept, "abd")
    bomb = {"dtype": "uint8", "shape": [16, 16, 3], "data": kept["start"]["image"]["data"][:20]}
    broken: list[tuple[Any, str]] = [
        ({}, "not a worldloom replay"),
        ([], "not a worldloom replay"),
        ({**kept, "moments": [{"from": 7, "do": "step", "action": RIGHT}]}, "node 7"),
        ({**kept, "moments": [{"from": 0, "do": "eval", "action": RIGHT}]}, "unknown kind 'eval'"),
        ({**kept, "moments": [{"from": 0}]}, "damaged"),
        ({**kept, "moments": 3}, "damaged"),
        ({**kept, "digests": []}, "0 digests for 2 nodes"),
        ({**kept, "particles": 3}, "made with particles 3"),
        ({**kept, "start": {**kept["start"], "image": bomb}}, "damaged|bytes"),
        ({**kept, "start": {"image": kept["start"]["image"]}}, "no 'state'"),
    ]
    for data, message in broken:
        with pytest.raises(UserError, match=message):
            play_replay(engine(), data, "abc")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (3, "want 2 numbers"),
        ([0.0], "want 2 finite numbers"),
        ([np.nan, 0.0], "want 2 finite numbers"),
        ([2.0, 0.0], r"outside \[-1, 1\]"),
        ("left", "not a number"),
        (True, "not a number"),
        ([[1], [2, 3]], "not made of numbers"),
    ],
)
def test_an_action_outside_the_space_is_refused_and_changes_nothing(action: Any, message: str) -> None:
    session = new_session(engine())
    with pytest.raises(UserError, match=message):
        session.step(action)
    assert len(session.nodes) == 1


def test_a_choice_is_a_number_or_one_hot() -> None:
    torch.manual_seed(0)
    playing = Engine(build("rssm", toy_spec(discrete=True), "debug").eval(), 1)
    session = new_session(playing)
    assert session.step(2).action == (0, 0, 1, 0)
    session.rewind(1)
    assert session.step([0, 0, 1, 0]).number == 1
    for wrong in (4, -1, [1, 1, 0, 0], [0.5, 0.5, 0, 0]):
        with pytest.raises(UserError, match=r"outside the action space|no choice"):
            session.step(wrong)


def test_an_invalid_observation_is_refused() -> None:
    playing = engine()
    obs = first_obs()
    for wrong, message in [
        ({"state": obs["state"]}, "no 'image'"),
        ({**obs, "image": obs["image"][:8]}, "has the shape"),
        ({**obs, "image": obs["image"].astype(np.float32)}, "must be uint8"),
        ({**obs, "state": np.array([np.inf, 0])}, "not finite"),
    ]:
        with pytest.raises(UserError, match=message):
            PlaySession(playing, wrong)


def test_a_full_tree_refuses_a_step_and_does_not_change() -> None:
    session = new_session(engine(), max_nodes=3)
    session.step(RIGHT)
    session.step(RIGHT)
    with pytest.raises(UserError, match="3 nodes, and 3 are its limit"):
        session.step(RIGHT)
    assert (len(session.nodes), session.here) == (3, 2)
    assert session.rewind(1).number == 1


def test_a_result_holds_no_memory_of_its_batch() -> None:
    playing = engine()
    session = new_session(playing)
    result = session.step(RIGHT).result
    assert all(picture.base is None for picture in result.pictures.values())
    assert all(vector.base is None for vector in result.vectors.values())
    features = result.belief.features
    assert features.untyped_storage().nbytes() == features.numel() * features.element_size()


def test_uncertain_pixels_are_those_in_which_the_particles_differ() -> None:
    sure, unsure = engine(particles=1), engine(particles=8)
    for playing, most in ((sure, 0.0), (unsure, 1.0)):
        session = new_session(playing)
        session.step(RIGHT)
        heat = playing.uncertain_pixels(session.now.result.belief)["image"]
        assert heat.shape == (16, 16)
        assert heat.max() <= most
    assert heat.max() > 0
    assert to_tensors(first_obs(), toy_spec())["image"].shape == (1, 3, 16, 16)
