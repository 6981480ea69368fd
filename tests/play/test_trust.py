"""The meter keeps its promises where the truth is known, and promises nothing that it cannot know."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.worlds import LinearModel, linear_dataset, linear_spec, run_of
from worldloom.errors import UserError
from worldloom.evaluation.windows import HeldOut, choose_windows, held_out_episodes
from worldloom.play import trust as meter
from worldloom.play.calibration_rollouts import CalibrationSamples, collect_samples, is_good
from worldloom.play.engine import Engine
from worldloom.play.session import PlaySession
from worldloom.play.trust import (
    MIN_EPISODES,
    Trust,
    calibrate,
    coverage,
    learn,
    least_threshold,
    load_or_calibrate,
    promise_coverage,
    split,
)
from worldloom.runs.sources import Source
from worldloom.safety.calibration import weights_hash
from worldloom.safety.conformal import episodes_needed

HORIZON = 20
SMALL = {"particles": 2, "horizon": 8, "context": 3, "windows": 60}


def fates(episodes: int, seed: int, says: str = "enough", first: int = 0) -> CalibrationSamples:
    """Dreams that fail at a by_kind rate: three in an episode, whose hazard the spread tells, hides, or half knows."""
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(first, first + episodes), 3)
    hardness = np.exp(rng.normal(0, 1, episodes))[episode - first]
    chance = np.clip(0.05 * hardness, 0, 0.5)[:, None]
    good = np.logical_and.accumulate(rng.random((len(episode), HORIZON + 1)) >= chance, 1)
    by_kind = {
        "enough": hardness,
        "nothing": rng.random(len(episode)),
        "little": hardness ** rng.normal(1, 2, len(episode)),
    }
    spread = by_kind[says][:, None] * np.linspace(1, 2, HORIZON + 1)
    steps = rng.integers(3, 40, episodes)[episode - first]
    return CalibrationSamples.of_rollouts(spread, good, steps, episode)


def held(episodes: int = 30, length: int = 24, image: bool = False, first: int = 0) -> list[HeldOut]:
    dataset = linear_dataset(linear_spec(image, ends=False), episodes, length, seed=7 + first)
    return held_out_episodes([Source(dataset, [], list(range(episodes)))])  # type: ignore[arg-type]


def model(noise: float = 0.0, image: bool = False, **options: Any) -> LinearModel:
    return LinearModel(linear_spec(image, ends=False), noise=noise, **options)


def share_kept(meters: Sequence[Trust], samples: Sequence[CalibrationSamples], promise: float) -> float:
    """Of all promises of several meters that end within their episode. A meter without any adds nothing."""
    kept_ones, known = 0.0, 0.0
    for learned, new in zip(meters, samples, strict=True):
        checked, broken = new.check(learned.steps(new.depth, new.spread, promise))
        kept_ones, known = kept_ones + new.by_episode(checked & ~broken).sum(), known + new.by_episode(checked).sum()
    return float(kept_ones / known)


@cache
def made_from(says: str) -> list[Trust]:
    return [learn(fates(80, seed, says), seed=seed) for seed in range(8)]


@pytest.mark.parametrize("promise", [0.5, 0.8, 0.9])
def test_with_an_informative_spread_promises_on_new_episodes_are_kept_as_often_as_promised(promise: float) -> None:
    meters = made_from("enough")
    new = [fates(60, 500 + seed) for seed in range(len(meters))]
    assert promise - 0.04 <= share_kept(meters, new, promise) <= promise + 0.06
    at_look = [each.steps(x.depth, x.spread, promise)[x.depth == 0].mean() for each, x in zip(meters, new, strict=True)]
    assert np.mean(at_look) > 1


@pytest.mark.parametrize("says", ["enough", "little", "nothing"])
def test_broken_promises_are_no_more_frequent_than_promised_for_any_spread(says: str) -> None:
    meters = made_from(says)
    for promise in (0.5, 0.8, 0.9):
        broken = []
        for seed, learned in enumerate(meters):
            new = fates(60, 500 + seed, says)
            broken.append(new.by_episode(new.check(learned.steps(new.depth, new.spread, promise))[1]).mean())
        assert np.mean(broken) <= 1 - promise


@pytest.mark.parametrize(("supporting", "promises"), [(8, False), (9, True)])
def test_a_promise_needs_enough_episodes_that_support_it(supporting: int, promises: bool) -> None:
    """Forty episodes of a node each, of which a few stand out and last: nine are needed to speak of nine in ten."""
    stands_out = np.arange(40) < supporting
    samples = CalibrationSamples(np.zeros(40, int), np.zeros(40), 5 * stands_out, np.full(40, 5), np.arange(40))
    survival = np.where(stands_out, 0.99, 0.01)[:, None].repeat(5, 1)
    assert (least_threshold(survival, samples, 0.1) <= 0.99) == promises


def test_a_more_informative_spread_gives_longer_promises() -> None:
    new = {says: fates(300, 99, says, first=1000) for says in ("enough", "nothing")}
    steps = {
        says: np.mean([each.steps(samples.depth, samples.spread).mean() for each in made_from(says)])
        for says, samples in new.items()
    }
    assert steps["enough"] > 1.5 * steps["nothing"]


def test_a_larger_spread_never_promises_more_even_if_the_data_disagree() -> None:
    contrary = fates(60, 1)
    contrary = replace(contrary, spread=1 / contrary.spread)
    spreads = np.array([0.0, *np.geomspace(1e-3, 1e3, 60), np.inf, np.nan])
    for learned in (learn(fates(60, 1)), learn(contrary)):
        for depth in range(HORIZON):
            for promise in learned.thresholds:
                left = learned.steps(np.full(len(spreads), depth), spreads, promise)
                assert (np.diff(left) <= 0).all(), (depth, promise, left)
                assert left[-2] == left[-1]


def test_nothing_is_promised_beyond_what_was_calibrated() -> None:
    good, steps = np.ones((40, HORIZON + 1), bool), np.full(40, 100)
    always = learn(CalibrationSamples.of_rollouts(np.ones(good.shape), good, steps, np.arange(40)))
    assert [always.left(depth, 1.0) for depth in (0, 5, HORIZON - 1)] == [HORIZON, HORIZON - 5, 1]
    assert [always.left(depth, 1.0) for depth in (HORIZON, HORIZON + 50)] == [0, 0]
    assert always.good(0, 1.0)
    assert not always.good(HORIZON, 1.0)
    short = learn(CalibrationSamples.of_rollouts(np.ones(good.shape), good, np.full(40, 6), np.arange(40)))
    assert [short.left(depth, 1.0) for depth in (0, 5, 6)] == [6, 1, 0]


def test_a_rollout_that_is_never_good_is_never_trusted() -> None:
    spread = np.random.default_rng(0).random((40, HORIZON + 1))
    never = learn(CalibrationSamples.of_rollouts(spread, np.zeros(spread.shape, bool), np.full(40, 100), np.arange(40)))
    assert {never.left(depth, s) for depth in range(HORIZON) for s in (0.0, 0.1, 1.0)} == {0.0}
    found = promise_coverage(
        never, CalibrationSamples.of_rollouts(spread, spread > 2, np.full(40, 100), np.arange(40)), 0.9
    )
    assert (found.observed.value, found.steps, found.made) == (None, 0.0, 0.0)


def test_the_end_of_an_episode_is_no_failure_and_no_success() -> None:
    good = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [0, 1, 1, 1, 1]], bool)
    samples = CalibrationSamples.of_rollouts(np.zeros(good.shape), good, np.array([2, 9, 9]), np.arange(3))
    table = dict(zip(zip(samples.episode, samples.depth, strict=True), samples.left, strict=True))
    assert table == {(0, 0): 2, (0, 1): 1, (1, 0): 1, (1, 1): 0, (1, 2): 0, (1, 3): 1} | {
        (2, depth): left for depth, left in enumerate([0, 3, 2, 1])
    }
    checked, broken = samples.check(np.where(samples.depth == 0, 3, 0))
    assert checked.tolist() == [False, False, True, False, False, False, True, False, False, False]
    assert broken.tolist() == checked.tolist()


def test_a_single_odd_frame_is_no_failure_but_a_lasting_error_is() -> None:
    allowed = np.ones((1, 8, 1))
    once, lasting = np.full(8, 0.5), np.full(8, 0.5)
    once[4], lasting[4:] = 1.9, 1.9
    assert is_good(once[None, :, None], allowed).all()
    assert is_good(lasting[None, :, None], allowed)[0].tolist() == [True] * 5 + [False] * 3
    assert not is_good(np.full((1, 8, 1), np.nan), allowed).any()


def test_calibration_rollouts_equal_a_session_of_play() -> None:
    wild, episodes = model(noise=0.1, image=True), held(image=True)
    found = collect_samples(wild, episodes, particles=3, horizon=4, context=2, windows=10, seed=5)
    window = choose_windows(episodes, 2, 10, 5)[0]
    rows = window.held.dataset.segment(window.held.episode, window.start, 6)
    obs = [
        {"image": rows.obs["image"][0, t].permute(1, 2, 0).numpy(), "state": rows.obs["state"][0, t].numpy()}
        for t in range(2)
    ]
    session = PlaySession(Engine(wild, 3), obs[0], seed=5)
    session.observe(rows.action[0, 0].numpy(), obs[1])
    nodes = [session.now] + [session.step(rows.action[0, t].numpy()) for t in range(1, 4)]
    mine = found.episode == window.held.index
    assert [node.open_loop_steps for node in nodes] == found.depth[mine][:4].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose([node.result.spread for node in nodes], found.spread[mine][:4], rtol=1e-5)


@pytest.mark.parametrize("image", [False, True])
def test_an_exact_model_is_trusted_and_a_wrong_one_is_not(image: bool) -> None:
    exact = calibrate(model(image=image), held(image=image), **SMALL)
    assert exact.left(0, 0.0) == SMALL["horizon"]
    deaf = calibrate(model(image=image, deaf=True), held(image=image), **SMALL)
    broken = calibrate(model(image=image, noise=3.0), held(image=image), **SMALL)
    assert exact.left(0, 0.0) > deaf.left(0, 0.0)
    assert not broken.good(1, 3.0)
    assert (
        promise_coverage(
            exact, collect_samples(model(image=image), held(image=image), **SMALL, seed=3), 0.9
        ).observed.value
        == 1
    )


def test_a_sampling_model_keeps_its_promise_on_other_episodes() -> None:
    samples = collect_samples(model(noise=0.12), held(100), **{**SMALL, "windows": 200}, seed=0)
    mixed = [np.random.default_rng(seed).permutation(100) for seed in range(8)]
    meters = [learn(samples.of_episodes(episodes[:50]), seed=seed) for seed, episodes in enumerate(mixed)]
    observed = share_kept(meters, [samples.of_episodes(episodes[50:]) for episodes in mixed], 0.8)
    assert 0.76 <= observed <= 0.86


@pytest.mark.parametrize(("sure", "made"), [(30, False), (100, True)])
def test_a_promise_that_would_be_rare_is_not_made(sure: int, made: bool) -> None:
    known, one = np.arange(1000) < sure, np.ones(1000, int)
    samples = CalibrationSamples(one, np.zeros(1000), 5 * known, 5 * one, np.arange(1000))
    survival = np.where(known, 0.99, 0.1)[:, None].repeat(5, 1)
    assert (least_threshold(survival, samples, 0.1) < 1) == made


def test_few_episodes_are_split_so_that_both_parts_are_enough() -> None:
    for promise in (0.5, 0.75, 0.9):
        need = episodes_needed(1 - promise)
        for count in range(need + MIN_EPISODES, 60):
            assert need <= split(count, promise) <= count - MIN_EPISODES


def test_coverage_reports_every_promise_and_refuses_another_model() -> None:
    sampling = model(noise=0.12)
    torch.manual_seed(3)
    learned = calibrate(sampling, held(40), **SMALL)
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))  # the global generator is untouched
    found = coverage(learned, sampling, held(30, first=1), windows=60)
    assert [each.promise for each in found] == [0.5, 0.8, 0.9, 0.95]
    for each in found[:3]:
        assert each.observed.low is not None
        assert each.observed.low <= each.observed.value <= each.observed.high  # type: ignore[operator]
        assert each.checked <= each.made <= 1
    assert [each.steps for each in found] == sorted((each.steps for each in found), reverse=True)
    sampling.scale.data += 1
    with pytest.raises(UserError, match="calibrated for another checkpoint"):
        coverage(learned, sampling, held())


def test_a_meter_is_the_same_after_json_and_a_damaged_one_is_refused() -> None:
    learned = replace(learn(fates(60, 2)), checkpoint="abc", settings={"particles": 4, "data": None})
    again = Trust.from_json(json.loads(json.dumps(learned.to_json(), allow_nan=False)))
    assert again.to_json() == learned.to_json()
    samples = fates(20, 3)
    for promise in learned.thresholds:
        before, after = (each.steps(samples.depth, samples.spread, promise) for each in (learned, again))
        assert np.array_equal(before, after)
    content = learned.to_json()
    broken: list[Any] = [{}, {**content, "format": 99}, {**content, "lasting": {}}, {**content, "sureness": 3}]
    for wrong in [*broken, {**content, "lasting": {**content["lasting"], "weights": [1.0]}}]:
        with pytest.raises(UserError, match="not a trust meter"):
            Trust.from_json(wrong)


def test_a_promise_that_was_not_calibrated_is_refused() -> None:
    with pytest.raises(UserError, match=r"0\.99 was not calibrated, only 0\.5"):
        learn(fates(60, 2)).left(1, 1.0, promise=0.99)
    few = learn(fates(20, 2))  # ten episodes cannot carry 0.95
    assert sorted(few.thresholds) == [0.5, 0.8, 0.9]


def test_it_is_saved_in_the_run_for_its_checkpoint_and_settings(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    known = model()
    episodes = held()
    run = replace(run_of(episodes[0].dataset, [], [], tmp_path), checkpoint_hash=weights_hash(known))  # type: ignore[arg-type]
    calls = []

    def counting(*args: Any, **settings: Any) -> CalibrationSamples:
        calls.append(settings)
        return original(*args, **settings)

    original = meter.collect_samples
    monkeypatch.setattr(meter, "collect_samples", counting)
    monkeypatch.setattr(meter, "open_sources", lambda run, data: [Source(episodes[0].dataset, [], list(range(30)))])
    first = load_or_calibrate(tmp_path, known, run, **SMALL)
    file = tmp_path / "trust" / "step-00000100.json"
    assert load_or_calibrate(tmp_path, known, run, **SMALL).to_json() == first.to_json() == json.loads(file.read_text())
    assert len(calls) == 1
    load_or_calibrate(tmp_path, known, run, **{**SMALL, "particles": 3})
    load_or_calibrate(tmp_path, known, replace(run, checkpoint_hash="d" * 64), **{**SMALL, "particles": 3})
    file.write_text("{")
    load_or_calibrate(tmp_path, known, run, **{**SMALL, "particles": 3})
    assert len(calls) == 4
    (tmp_path / "full").write_text("a file where a folder should be")
    assert load_or_calibrate(tmp_path / "full", known, run, **SMALL).to_json() == first.to_json()
    assert "is not saved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"held": held(13)}, "needs 14 held-out episodes that are longer than the context"),
        ({"held": held(length=3)}, "but there are 0"),
        ({"held": []}, "but there are 0"),
        ({"promise": 0.99}, "a promise of 0.99 needs 104 held-out episodes"),
        ({"promise": 1.0}, "it must lie between 0 and 1"),
        ({"particles": 0}, "particles is 0"),
        ({"horizon": 0}, "horizon is 0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(changed: dict[str, Any], words: str) -> None:
    given = {"held": held(), **SMALL, **changed}
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        calibrate(model(), given.pop("held"), **given)
    assert words in str(caught.value)


def test_a_model_that_decodes_no_observation_has_no_meter(monkeypatch: Any) -> None:
    monkeypatch.setattr(LinearModel, "decodes", ("reward",))
    with pytest.raises(UserError, match="'linear' decodes no observation"):
        calibrate(model(), held(), **SMALL)


def test_a_run_that_learned_while_acting_has_no_meter(tmp_path: Path) -> None:
    run = replace(run_of(linear_dataset(linear_spec()), [], [], tmp_path), datasets=[])
    with pytest.raises(UserError, match="learned while acting, so no data was held out"):
        load_or_calibrate(tmp_path, model(), run)
    assert not (tmp_path / "trust").exists()
