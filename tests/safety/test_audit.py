"""What an audit counts is what happened: rules on rewards, ends and pictures too, and returns of either sign."""

from functools import partial

import pytest
import torch

from tests.agents.fakes import make_toy, toy_model
from tests.toy import toy_segment, toy_spec
from worldloom.agents.play import EpisodeResult
from worldloom.agents.scripted import Scripted
from worldloom.data.spec import KeySpec
from worldloom.envs import make_env
from worldloom.envs.adapt import AdaptedEnv, adapt
from worldloom.envs.describe import describe
from worldloom.envs.point import clearance
from worldloom.planners.cem import CEM
from worldloom.safety.audit import Audit, ShieldTrial
from worldloom.safety.calibration import calibrate
from worldloom.safety.residuals import true_values
from worldloom.safety.rules import Never, Predicate
from worldloom.safety.shield import Shield

REWARDED = Predicate("rewarded", lambda values, action: values["reward"] - 0.1, ("reward",))
ALIVE = Predicate("alive", lambda values, action: 0.5 - values["terminated"], ("terminated",))
DARK = Predicate("dark", lambda values, action: 0.5 - values["image"].mean((-3, -2, -1)), ("image",))


def make(steps: int = 12) -> AdaptedEnv:
    return adapt(make_toy(steps=steps), "toy")


def drift(push: float) -> Scripted:
    return Scripted(describe(make()), lambda obs: torch.full((len(obs["state"]), 2), push))


def trial(*rules: Predicate, steps: int = 12) -> ShieldTrial:
    return ShieldTrial(partial(make, steps), (1, 2, 3), rules, describe(make()), num_envs=2)


def test_rules_that_calibration_accepts_can_be_audited() -> None:
    rules = (REWARDED, ALIVE, DARK)
    episodes = [toy_segment(1, 12, seed) for seed in range(12)]
    calibrate(toy_model(), rules, episodes, horizon=2, alpha=0.3, alpha_ood=0.3)
    _, audit = trial(*rules).run(drift(1.0))
    assert audit.summary()["violated_episodes"] == 3, "all are driven over the border"
    for episode in audit.episodes.values():
        found = episode.margins(rules, audit.spec)
        torch.testing.assert_close(found[:, 0], torch.tensor(episode.rewards[1:]) - 0.1)
        assert found[:, 1].tolist() == [0.5] * (len(found) - 1) + [-0.5]


@pytest.mark.parametrize(("push", "ended"), [(1.0, True), (0.0, False)])
def test_an_episode_keeps_how_it_ended(push: float, ended: bool) -> None:
    for segment in trial(ALIVE).run(drift(push))[1].segments():
        last = [False] * (segment.shape[1] - 1)
        assert segment.terminated[0].tolist() == [*last, ended]
        assert segment.truncated[0].tolist() == [*last, not ended]


def test_a_picture_is_judged_in_the_units_in_which_it_is_forecast() -> None:
    segment = toy_segment()
    known = true_values(segment, ("image",), toy_spec())["image"]
    torch.testing.assert_close(known, segment.obs["image"][:, 1:] / 255)
    _, audit = trial(DARK).run(drift(0.0))
    for episode in audit.episodes.values():
        torch.testing.assert_close(episode.margins((DARK,), audit.spec), torch.full((12, 1), 0.5 - 90 / 255))


def test_a_promise_is_audited_only_for_the_rules_it_was_made_for() -> None:
    model, episodes = toy_model(), [toy_segment(1, 12, seed) for seed in range(12)]
    small = lambda: adapt(make_toy(steps=3), "toy", image_size=16)  # noqa: E731, as large as the model's pictures
    agent = Scripted(describe(small()), lambda obs: torch.zeros(len(obs["state"]), 2))
    calibration = calibrate(model, (REWARDED,), episodes, horizon=2, alpha=0.3, alpha_ood=0.3)
    search = CEM(horizon=2, samples=8, elites=2, iterations=1)
    shield = Shield(agent, model, (REWARDED,), calibration, fallback=(0.0, 0.0), planner=search)
    promised, not_promised = (
        ShieldTrial(small, (1, 2), rules, agent.spec).run(shield)[1].summary() for rules in ((REWARDED,), (ALIVE,))
    )
    assert 0 <= promised["promise_missed"] <= 1
    assert not_promised["promise_missed"] is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_who_earns_less_loses_return_whatever_its_sign(sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    returns = iter((sign * 10.0, sign * 10.0 - 5.0))

    def play(*_: object) -> list[EpisodeResult]:
        return [EpisodeResult(1, next(returns), 1, False, None, None, 1, [], 0.0)]

    monkeypatch.setattr("worldloom.safety.audit.play", play)
    monkeypatch.setattr(Audit, "summary", lambda self: {})
    found = trial(REWARDED).compare({"bare": drift(0.0), "worse": drift(0.0)})
    assert [figures["return_lost"] for figures in found.values()] == [0.0, 0.5]


def test_a_signal_that_the_environment_reports_is_audited() -> None:
    near = make_env("point", goal=False)
    spec = describe(near).with_targets({"cost": KeySpec("flag", (), role="target")})
    ahead = Scripted(describe(near), lambda obs: torch.ones(len(obs["state"]), 2))
    _, audit = ShieldTrial(partial(make_env, "point", goal=False), range(8), (Never("cost"),), spec, 4, 30).run(ahead)
    for episode in audit.episodes.values():
        inside = [clearance(obs["state"][:2]) < 0 for obs in episode.obs]
        segment = episode.segment(spec)
        assert segment.signals["cost"][0].tolist() == inside
        assert (episode.margins(audit.rules, spec)[:, 0] < 0).tolist() == inside[1:]
    assert audit.summary()["violations"] > 0
