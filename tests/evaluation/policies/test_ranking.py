"""Does the dream rank policies as reality does? Known answers, honest refusals, and the command from end to end."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.agents.fakes import TOY
from worldloom.cli import main
from worldloom.commands.learn import learn
from worldloom.errors import UserError
from worldloom.evaluation.policies.dream_to_real import FIRST_SEED
from worldloom.evaluation.policies.ranking import FEWEST, measure_policies, play_all, rank
from worldloom.evaluation.verdict import verdict
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.settings import DreamerSettings
from worldloom.runs.checkpoint import load, steps_saved
from worldloom.runs.named import Named, parse_all
from worldloom.stats.bootstrap import Figure

POLICY = ActorCriticConfig(units=16, layers=1, horizon=3)
WHERE = (TOY, ("steps=6",), None)
QUALITY, LUCK = np.arange(8.0)[:, None], np.random.default_rng(0).normal(size=20)


@pytest.fixture(scope="module")
def learned(rssm_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One learning of which eight checkpoints are kept."""
    out = tmp_path_factory.mktemp("ranking") / "policy"
    learn(
        DreamerSettings(
            env=str(rssm_run), out=out, steps=8, checkpoint_every=1, keep=8, batch_size=4, length=8, policy=POLICY
        )
    )
    return out


def every(learned: Path) -> tuple[Path, ...]:
    return tuple(Path(f"{learned}@{step}") for step in range(1, 9))


def test_a_dream_that_adds_the_same_to_every_policy_ranks_them_all() -> None:
    found = rank(QUALITY + LUCK + 100, QUALITY + LUCK)
    assert found["spearman"].to_json() == {"value": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1)}
    assert (found["mmrv"].value, found["regret"].value) == (0, 0)


def test_a_dream_that_turns_the_order_round_picks_the_worst() -> None:
    found = rank(-QUALITY + LUCK, QUALITY + LUCK)
    assert found["pearson"].value == pytest.approx(-1)
    assert found["regret"].value == pytest.approx(7)
    assert found["mmrv"].value == pytest.approx((7 + 6 + 5 + 4 + 4 + 5 + 6 + 7) / 8)


def test_an_interval_is_as_wide_as_the_luck_of_episodes() -> None:
    noise = np.random.default_rng(1).normal(size=(2, 8, 20))
    narrow, wide = (rank(QUALITY + scale * noise[0], QUALITY + scale * noise[1])["spearman"] for scale in (0.1, 10.0))
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < 0 < 0.9 < narrow.low


@pytest.mark.parametrize(
    ("dream", "real", "missing", "why"),
    [
        (QUALITY[:7] + LUCK, QUALITY[:7] + LUCK, ("pearson", "spearman", "mmrv", "regret"), "only 7 policies"),
        (QUALITY + LUCK, 0 * QUALITY + LUCK, ("pearson", "spearman", "mmrv", "regret"), "the same in reality"),
        (0 * QUALITY + LUCK, QUALITY + LUCK, ("pearson", "spearman"), "the dream scores all policies the same"),
        (QUALITY + LUCK + np.inf, QUALITY + LUCK, ("pearson", "spearman", "mmrv", "regret"), "not finite"),
    ],
)
def test_what_cannot_be_known_says_why(dream: np.ndarray, real: np.ndarray, missing: tuple[str, ...], why: str) -> None:
    found = rank(dream, real)
    assert {name for name, each in found.items() if each.value is None} == set(missing)
    assert all(why in str(found[name].why) for name in missing)
    json.dumps({name: each.to_json() for name, each in found.items()}, allow_nan=False)


def test_one_episode_gives_figures_without_intervals() -> None:
    found = rank(QUALITY, QUALITY)
    assert found["spearman"].value == pytest.approx(1)
    assert found["spearman"].low is None


def test_as_many_checkpoints_are_kept_as_asked_for(learned: Path) -> None:
    assert steps_saved(learned) == list(range(1, 9))


def test_policies_start_alike_and_dreams_are_of_one_length(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dream(gap: Any, first: dict[str, Any], steps: int) -> list[float]:
        asked.append((first["state"].tolist(), steps, tuple(gap.seeds)))
        return [0.0] * gap.episodes

    monkeypatch.setattr("worldloom.evaluation.policies.dream_to_real.DreamToRealGap.dream", dream)
    run = load(learned)[1]
    real, dreamed = play_all(parse_all(every(learned)[:3], run), run, WHERE, 2, "cpu")
    assert real.shape == dreamed.shape == (3, 2)
    assert all(each == asked[0] for each in asked)
    assert asked[0][1:] == (6, (FIRST_SEED, FIRST_SEED + 1))


def test_a_name_is_a_folder_or_one_of_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "odd@3").mkdir()
    assert Named.parse(tmp_path / "odd@3") == Named(tmp_path / "odd@3")
    assert Named.parse(tmp_path / "other@3") == Named(tmp_path / "other", 3)
    assert Named.parse(tmp_path / "mail@home") == Named(tmp_path / "mail@home")
    assert str(Named(tmp_path, 12)) == f"{tmp_path}@12"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("policy@1", "policy@1"), "policy@1 are the same policy"),
        (("policy@8", "policy"), "are the same policy"),
        (("policy", "copy"), "are the same policy"),
        (("policy@99", "policy"), "has no checkpoint of step 99"),
        (("nowhere", "policy"), "nowhere is no learned policy"),
        (("run", "policy"), "run is no learned policy"),
    ],
)
def test_what_is_no_policy_or_counts_twice_is_refused(
    rssm_run: Path, learned: Path, tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    (tmp_path / "run").symlink_to(rssm_run)
    (tmp_path / "policy").symlink_to(learned)
    shutil.copytree(learned, tmp_path / "copy")
    with pytest.raises(UserError, match=words):
        measure_policies([tmp_path / name for name in names], load(rssm_run)[1], WHERE, 1, "cpu")


def test_a_policy_of_another_model_is_refused(rssm_run: Path, learned: Path) -> None:
    with pytest.raises(UserError, match="learned with another model"):
        parse_all(every(learned), replace(load(rssm_run)[1], checkpoint_hash="0" * 64))


def command(monkeypatch: pytest.MonkeyPatch, run: Path, policies: tuple[Path, ...], *more: str) -> dict[str, Any]:
    words = ["--windows", "4", "--context", "3", "--horizons", "1", "--samples", "1", "--env", TOY, "--options"]
    words += ["steps=6", "--policy-episodes", "3", *more, "--policy", *map(str, policies)]
    monkeypatch.setattr(sys, "argv", ["worldloom", "evaluate", str(run), *words])
    main()
    return json.loads((run / "card.json").read_text())["metrics"]


def test_the_command_ranks_eight_policies_on_the_card_and_the_page(
    rssm_run: Path, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command(monkeypatch, rssm_run, every(learned))
    assert "policy" not in found
    assert list(found["policy_reality"]) == list(found["policy_dream"]) == [str(name) for name in every(learned)]
    assert found["policy_ranking"]["mmrv"]["value"] is not None
    page = (rssm_run / "report.html").read_text().split("<h2>Policies, dream against reality</h2>")[1]
    assert page.split("</svg>")[0].count('<circle class="dot model"') == 8
    assert "Regret of the dream" in page


def test_the_command_says_on_the_card_that_two_are_too_few(
    rssm_run: Path, learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command(monkeypatch, rssm_run, every(learned)[:2])
    assert f"fewer than {FEWEST}" in found["policy_ranking"]["spearman"]["why"]
    assert found["policy_reality"][str(every(learned)[0])]["value"] is not None
    assert "only 2 policies" in (rssm_run / "report.html").read_text()


def test_one_policy_is_told_as_before(rssm_run: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = command(monkeypatch, rssm_run, (learned,))
    assert set(found["policy"]) == {"reality", "dream", "dream minus reality", "random"}
    assert not {"policy_reality", "policy_dream", "policy_ranking"} & set(found)
    assert "Policies, dream against reality" not in (rssm_run / "report.html").read_text()


def test_a_mistaken_policy_is_named_before_anything_is_measured(
    rssm_run: Path, learned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("worldloom.commands.evaluate.evaluate_model", lambda *_: pytest.fail("measured first"))
    with pytest.raises(SystemExit):
        command(monkeypatch, rssm_run, (learned, learned))
    assert "are the same policy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ranks", "mark"),
    [
        (Figure(0.9, 0.4, 1.0), "yes"),
        (Figure(0.9, -0.1, 1.0), "partly"),
        (Figure(0.3, 0.1, 0.5), "partly"),
        (Figure(-0.2, -0.6, 0.3), "no"),
        (Figure.missing("only 2 policies"), "open"),
    ],
)
def test_the_verdict_names_the_dreams_favourite_and_what_it_costs(ranks: Figure, mark: str) -> None:
    pearson = ranks if ranks.value is None else Figure(0.8, 0.2, 1.0)
    metrics = {
        "policy_reality": {"a": Figure(3.0, 2.0, 4.0), "b": Figure(7.0, 6.0, 8.0)},
        "policy_dream": {"a": Figure(9.0, 8.0, 9.5), "b": Figure(5.0, 4.0, 6.0)},
        "policy_ranking": {
            "spearman": ranks, "pearson": pearson, "mmrv": Figure(4.0, 0.0, 4.0), "regret": Figure(4.0, 0.0, 5.0)
        },
    }  # fmt: skip
    last = verdict(metrics, [], [1], 10.0)[-1]
    assert last.mark == mark
    if ranks.value is not None:
        assert "its favourite a gets 3.00 [2.00, 4.00] in reality, 4.00 [0.00, 5.00] less than the best" in last.words
    else:
        assert "only 2 policies" in last.words
