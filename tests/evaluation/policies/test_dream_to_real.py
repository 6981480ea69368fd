"""A policy in the dream and outside it: the same first looks, the same length, and what the card says of the two."""

from pathlib import Path
from typing import Any

import pytest

from tests.agents.fakes import TOY
from worldloom.agents.play import play
from worldloom.agents.saved import load_agent
from worldloom.commands.learn import learn
from worldloom.envs import make_env
from worldloom.errors import UserError
from worldloom.evaluation.policies.dream_to_real import FIRST_SEED, environment_of, measure_gap
from worldloom.evaluation.verdict import verdict
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.settings import DreamerSettings
from worldloom.runs.checkpoint import load
from worldloom.stats.bootstrap import Figure

SHORT: dict[str, Any] = {
    "size": "debug", "random_steps": 24, "steps": 48, "batch_size": 4, "length": 8, "eval_episodes": 1,
    "image_size": 16, "policy": ActorCriticConfig(units=16, layers=1, horizon=3), "options": ("pixels=false",),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gap") / "run"
    learn(DreamerSettings(env=TOY, out=folder, **SHORT))
    return folder


def test_reality_is_what_playing_the_policy_pays(run: Path) -> None:
    found = measure_gap(run, load(run)[1], None, 3, "cpu")["policy"]
    seeds = range(FIRST_SEED, FIRST_SEED + 3)
    returns = [each.episode_return for each in play(load_agent(run), lambda: make_env(TOY, pixels=False), seeds, 3)]
    assert found["reality"].value == pytest.approx(sum(returns) / 3)
    dream, more = found["dream"].value, found["dream minus reality"].value
    assert dream is not None
    assert more == pytest.approx(dream - sum(returns) / 3, abs=1e-4)
    assert environment_of(run) == (TOY, ("pixels=false",), None)


def test_a_policy_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    learn(DreamerSettings(env=TOY, out=tmp_path / "other", **{**SHORT, "seed": 1}))
    with pytest.raises(UserError, match="learned with another model"):
        measure_gap(tmp_path / "other", load(run)[1], None, 1, "cpu")


def test_one_that_learned_inside_a_model_must_be_told_where_to_play(run: Path, tmp_path: Path) -> None:
    learn(DreamerSettings(env=str(run), out=tmp_path / "inside", **{**SHORT, "steps": 2}))
    model = load(run)[1]
    with pytest.raises(UserError, match="say with --env"):
        measure_gap(tmp_path / "inside", model, None, 1, "cpu")
    assert (
        measure_gap(tmp_path / "inside", model, (TOY, ("pixels=false",), 5), 1, "cpu")["policy"]["reality"].value
        is not None
    )


@pytest.mark.parametrize(("low", "mark", "words"), [(3.0, "no", "exploits the dream"), (-3.0, "yes", "overestimate")])
def test_the_card_says_when_a_policy_exploits_the_dream(low: float, mark: str, words: str) -> None:
    figures = {
        "reality": Figure(10.0, 8.0, 12.0),
        "dream": Figure(15.0, 14.0, 16.0),
        "dream minus reality": Figure(5.0, low, 7.0),
        "random": Figure(2.0, 1.0, 3.0),
    }
    last = verdict({"policy": figures}, [], [1], 10.0)[-1]
    assert last.mark == mark
    assert words in last.words
