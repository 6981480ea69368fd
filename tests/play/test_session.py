"""A walk is a value of its seed and what was done: whoever else plays, in whatever order, on whatever branch."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy import toy_episode, toy_spec
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.play.engine import Ask, Engine
from worldloom.play.replay import to_replay, walk, walking
from worldloom.play.session import Session, to_tensors

FAMILIES = ["rssm", "vae_rnn", "tdmpc", "ensemble", "mlp", "tabular"]
RIGHT, LEFT = [1.0, 0.0], [-1.0, 0.0]


def engine(family: str = "rssm", **options: Any) -> Engine:
    torch.manual_seed(0)
    return Engine(build(family, toy_spec(), "debug").eval(), **{"particles": 2, **options})


def first_obs(row: int = 0) -> dict[str, np.ndarray]:
    episode = toy_episode(3)
    return {"image": episode.obs["image"][row].transpose(1, 2, 0), "state": episode.obs["state"][row]}


def session(playing: Engine, seed: int = 0, **options: Any) -> Session:
    return Session(playing, first_obs(), seed, **options)


def same(a: Any, b: Any) -> bool:
    return a.digest == b.digest


def spec_for(family: str) -> DataSpec:
    """The toy world as far as the family can take it in: `mlp` sees numbers, `tabular` one of a few places."""
    spec = toy_spec(discrete=family == "tabular")
    seen = {"mlp": {"state": spec.obs["state"]}, "tabular": {"place": KeySpec("vector", (3,))}}
    return spec.with_obs(seen.get(family, spec.obs))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_moment_is_the_same_bit_for_bit_alone_and_in_a_crowd(family: str) -> None:
    torch.manual_seed(0)
    spec = spec_for(family)
    playing = Engine(build(family, spec, "debug").eval(), 2)
    seen = {**first_obs(), "place": np.eye(3, dtype=np.float32)[0]}
    start = Session(playing, {key: seen[key] for key in spec.obs}).now.answer.belief
    deeds = np.eye(spec.action.size, dtype=np.float32)
    asks = [Ask(luck, start, deeds[luck % len(deeds)]) for luck in range(6)]
    crowd = playing.answer(asks)
    for ask, among in zip(asks, crowd, strict=True):
        single = playing.answer([ask])[0]
        assert torch.equal(single.belief.features, among.belief.features)
        for alone, crowded in ((single.pictures, among.pictures), (single.vectors, among.vectors)):
            assert alone.keys() == crowded.keys()
            assert all(np.array_equal(alone[key], crowded[key]) for key in alone)
        assert (single.signals, single.spread) == (among.signals, among.spread)


def test_going_back_and_doing_the_same_leads_to_the_same_moment() -> None:
    walk_ = session(engine())
    far = [walk_.step(RIGHT) for _ in range(4)][-1]
    assert walk_.rewind(2).steps == 2
    assert walk_.rewind(0).steps == 2
    assert walk_.step(RIGHT).number == far.parent
    assert walk_.rewind(99).number == 0
    assert len(walk_.moments) == 5


def test_branches_differ_by_what_was_done_and_not_by_luck() -> None:
    walk_ = session(engine())
    walk_.step(RIGHT)
    right = [walk_.step(RIGHT) for _ in range(3)]
    walk_.rewind(3)
    other = walk_.step(LEFT)
    assert not same(other, right[0])
    assert [each.number for each in walk_.path()] == [0, 1, other.number]
    elsewhere = session(walk_.engine)
    assert same([elsewhere.step(RIGHT) for _ in range(4)][-1], right[-1])
    unlucky = session(walk_.engine, seed=1)
    assert not torch.equal(unlucky.now.answer.belief.features, elsewhere.moments[0].answer.belief.features)


def test_a_look_corrects_the_belief_and_tells_how_wrong_it_was() -> None:
    walk_ = session(engine())
    walk_.step(RIGHT)
    blind = walk_.step(RIGHT)
    seen = walk_.reanchor(first_obs(5))
    assert (blind.blind, seen.blind, seen.steps, seen.parent) == (2, 0, 2, blind.parent)
    assert set(seen.residual) == {"image", "state"}
    assert min(seen.residual.values()) > 0
    assert walk_.step(LEFT).blind == 1
    walk_.fork(0)
    assert walk_.reanchor(first_obs(7)).parent is None
    watched = walk_.watch(RIGHT, first_obs(8))
    assert (watched.steps, watched.blind, watched.kind) == (1, 0, "watch")


def test_an_edit_goes_on_beside_its_unedited_twin() -> None:
    walk_ = session(engine())
    plain = [walk_.step(RIGHT) for _ in range(3)]
    walk_.fork(plain[0].number)
    picture = walk_.now.answer.pictures["image"].copy()
    picture[4:8, 4:8] = 255
    edited = walk_.edit({"image": picture})
    assert walk_.persistence() == pytest.approx({"image": 1.0})
    later = walk_.step(RIGHT)
    assert later.twin is not None
    assert np.array_equal(later.twin.pictures["image"], plain[1].answer.pictures["image"]), "the twin is untouched"
    assert later.edited == edited.number
    assert np.isfinite(walk_.persistence()["image"])
    assert walk_.persistence(plain[2].number) == {}


def test_a_replay_shows_every_frame_again() -> None:
    walk_ = session(engine())
    walk_.step(RIGHT)
    walk_.step(LEFT)
    walk_.reanchor(first_obs(4))
    walk_.step([0.3, -0.7])
    walk_.fork(1)
    walk_.edit({"image": first_obs(9)["image"]})
    walk_.step(RIGHT)
    walk_.watch(LEFT, first_obs(6))
    kept = json.loads(json.dumps(to_replay(walk_, "abc")))
    again = walk(engine(), kept, "abc")
    assert again.different is None
    assert again.session.here == walk_.here
    assert [m.digest for m in again.session.moments] == [m.digest for m in walk_.moments]
    kept["digests"][3] = "0" * 64
    assert walk(engine(), kept, "abc").different == 3


def test_what_a_replay_holds_beside_what_the_model_sees_is_not_even_unpacked() -> None:
    kept = to_replay(session(engine()), "abc")
    kept["start"]["bomb"] = {"dtype": "uint8", "shape": [10**9], "data": "not even base64"}
    assert walk(engine(), kept, "abc").different is None


def test_a_replay_that_is_too_long_is_refused_before_it_is_walked() -> None:
    walk_ = session(engine())
    walk_.step(RIGHT)
    walk_.step(RIGHT)
    kept = to_replay(walk_, "abc")
    with pytest.raises(UserError, match="3 moments, but at most 2"):
        next(walking(engine(), kept, "abc", 2))
    for seed in (-1, 1.5, True, 10**30):
        with pytest.raises(UserError, match="its seed is"):
            walk(engine(), {**kept, "seed": seed}, "abc")


def test_a_replay_of_another_checkpoint_or_a_broken_one_is_refused() -> None:
    walk_ = session(engine())
    walk_.step(RIGHT)
    kept = json.loads(json.dumps(to_replay(walk_, "abc")))
    with pytest.raises(UserError, match="made with the checkpoint abc"):
        walk(engine(), kept, "abd")
    bomb = {"dtype": "uint8", "shape": [16, 16, 3], "data": kept["start"]["image"]["data"][:20]}
    broken: list[tuple[Any, str]] = [
        ({}, "no worldloom replay"),
        ([], "no worldloom replay"),
        ({**kept, "moments": [{"from": 7, "do": "step", "action": RIGHT}]}, "moment 7"),
        ({**kept, "moments": [{"from": 0, "do": "eval", "action": RIGHT}]}, "nobody can do"),
        ({**kept, "moments": [{"from": 0}]}, "damaged"),
        ({**kept, "moments": 3}, "damaged"),
        ({**kept, "digests": []}, "0 digests for 2 moments"),
        ({**kept, "particles": 3}, "made with particles 3"),
        ({**kept, "start": {**kept["start"], "image": bomb}}, "damaged|bytes"),
        ({**kept, "start": {"image": kept["start"]["image"]}}, "no 'state'"),
    ]
    for data, message in broken:
        with pytest.raises(UserError, match=message):
            walk(engine(), data, "abc")


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
    walk_ = session(engine())
    with pytest.raises(UserError, match=message):
        walk_.step(action)
    assert len(walk_.moments) == 1


def test_a_choice_is_a_number_or_one_hot() -> None:
    torch.manual_seed(0)
    playing = Engine(build("rssm", toy_spec(discrete=True), "debug").eval(), 1)
    walk_ = session(playing)
    assert walk_.step(2).action == (0, 0, 1, 0)
    walk_.rewind(1)
    assert walk_.step([0, 0, 1, 0]).number == 1
    for wrong in (4, -1, [1, 1, 0, 0], [0.5, 0.5, 0, 0]):
        with pytest.raises(UserError, match=r"outside the action space|no choice"):
            walk_.step(wrong)


def test_what_cannot_be_seen_is_refused() -> None:
    playing = engine()
    obs = first_obs()
    for wrong, message in [
        ({"state": obs["state"]}, "no 'image'"),
        ({**obs, "image": obs["image"][:8]}, "has the shape"),
        ({**obs, "image": obs["image"].astype(np.float32)}, "must be uint8"),
        ({**obs, "state": np.array([np.inf, 0])}, "not finite"),
    ]:
        with pytest.raises(UserError, match=message):
            Session(playing, wrong)


def test_a_full_tree_says_so_and_stays_whole() -> None:
    walk_ = session(engine(), most=3)
    walk_.step(RIGHT)
    walk_.step(RIGHT)
    with pytest.raises(UserError, match="3 moments, and 3 are its limit"):
        walk_.step(RIGHT)
    assert (len(walk_.moments), walk_.here) == (3, 2)
    assert walk_.rewind(1).number == 1


def test_a_moment_keeps_nothing_of_those_that_were_imagined_with_it() -> None:
    playing = engine()
    walk_ = session(playing)
    answer = walk_.step(RIGHT).answer
    assert all(picture.base is None for picture in answer.pictures.values())
    assert all(vector.base is None for vector in answer.vectors.values())
    features = answer.belief.features
    assert features.untyped_storage().nbytes() == features.numel() * features.element_size()


def test_uncertain_pixels_are_those_in_which_the_particles_differ() -> None:
    sure, unsure = engine(particles=1), engine(particles=8)
    for playing, most in ((sure, 0.0), (unsure, 1.0)):
        walk_ = session(playing)
        walk_.step(RIGHT)
        heat = playing.uncertain_pixels(walk_.now.answer.belief)["image"]
        assert heat.shape == (16, 16)
        assert heat.max() <= most
    assert heat.max() > 0
    assert to_tensors(first_obs(), toy_spec())["image"].shape == (1, 3, 16, 16)
