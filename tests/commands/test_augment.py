"""`worldloom augment`: what is mixed, how it is marked, and what it says when something is wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy import toy_episode, toy_spec, write_toy_dataset
from worldloom.agents.saved import PlanningSettings, save_agent
from worldloom.augment.generate import EpisodeGenerator
from worldloom.commands.augment import AugmentSettings, augment
from worldloom.data.card.figures import data_card
from worldloom.data.episode import Episode
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.errors import UserError
from worldloom.runs import checkpoint


def mix(toy_runs: Path, out: Path, run: str = "ensemble", **options: Any) -> list[Episode]:
    augment(
        AugmentSettings(
            run=toy_runs / run, data=toy_runs / "data", out=out, **{"horizon": 4, "threads": 1, "keep": 1.0} | options
        )
    )
    source = open_dataset(out)
    return [source.read(index) for index in range(len(source.episodes))]


def apart(episodes: list[Episode]) -> tuple[list[Episode], list[Episode]]:
    """Real ones and imagined ones."""
    return [e for e in episodes if not e.extra["synthetic"].any()], [e for e in episodes if e.extra["synthetic"].any()]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.8])
def test_the_imagined_rows_are_the_fraction_asked_for_and_marked(toy_runs: Path, tmp_path: Path, fraction: float):
    real, imagined = apart(mix(toy_runs, tmp_path / "out", fraction=fraction))
    assert all(e.extra["synthetic"].all() for e in imagined)
    recorded, made = (sum(map(len, episodes)) for episodes in (real, imagined))
    assert abs(made - fraction / (1 - fraction) * recorded) <= 1.5
    assert all(2 <= len(e) <= 5 for e in imagined)


def test_every_real_episode_is_there_as_it_was_and_in_its_place(toy_runs: Path, tmp_path: Path):
    mixed, source = mix(toy_runs, tmp_path / "out"), open_dataset(toy_runs / "data")
    for index in range(len(source.episodes)):
        before = source.read(index)
        assert np.array_equal(mixed[index].obs["image"], before.obs["image"])
        assert np.array_equal(mixed[index].action, before.action)
        assert np.array_equal(mixed[index].terminated, before.terminated)
        assert set(mixed[index].extra["source_episode"]) == {index}


def test_an_imagined_episode_begins_with_a_real_row_of_its_source(toy_runs: Path, tmp_path: Path):
    real, imagined = apart(mix(toy_runs, tmp_path / "out"))
    for episode in imagined:
        rows = real[int(episode.extra["source_episode"][0])].obs["state"]
        assert (rows == episode.obs["state"][0]).all(1).any()
        assert not (rows == episode.obs["state"][1]).all(1).any()
        assert np.abs(episode.action).max() <= 2
        assert not episode.action[-1].any()


def test_without_noise_recorded_actions_are_those_that_followed(toy_runs: Path, tmp_path: Path):
    real, imagined = apart(mix(toy_runs, tmp_path / "out", noise=0.0))
    for episode in imagined:
        whole = real[int(episode.extra["source_episode"][0])]
        frame = int((whole.obs["state"] == episode.obs["state"][0]).all(1).argmax())
        taken = episode.action[:-1]
        assert taken == pytest.approx(whole.action[frame : frame + len(taken)], abs=1e-5)


@pytest.mark.parametrize("policy", ["recorded", "other", "random"])
def test_the_seed_decides_everything(toy_runs: Path, tmp_path: Path, policy: str):
    torch.manual_seed(0)
    first = mix(toy_runs, tmp_path / "a", policy=policy, seed=1)
    torch.manual_seed(1)
    second = mix(toy_runs, tmp_path / "b", policy=policy, seed=1)
    third = mix(toy_runs, tmp_path / "c", policy=policy, seed=2)
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert all(np.array_equal(one.obs[key], two.obs[key]) for key in one.obs)
        assert np.array_equal(one.action, two.action)
        assert np.array_equal(one.reward, two.reward)
    assert not all(np.array_equal(one.action, two.action) for one, two in zip(first, third, strict=False))


def test_a_saved_agent_acts_in_the_branches(toy_runs: Path, tmp_path: Path):
    _, run = checkpoint.load(toy_runs / "single")
    planner = {"horizon": 2, "samples": 4, "elites": 2, "iterations": 1}
    save_agent(tmp_path / "agent", PlanningSettings("cem", planner, use_prior=False), run)
    _, imagined = apart(mix(toy_runs, tmp_path / "out", fraction=0.2, policy=str(tmp_path / "agent")))
    assert open_dataset(tmp_path / "out").about["branches"]["policy"] == str(tmp_path / "agent")
    assert np.std([e.action[0] for e in imagined]) > 0


def test_the_card_says_what_is_synthetic_and_how_it_was_made(toy_runs: Path, tmp_path: Path):
    _, imagined = apart(mix(toy_runs, tmp_path / "out", keep=0.5, seed=3))
    _, run = checkpoint.load(toy_runs / "ensemble")
    card = data_card(open_dataset(tmp_path / "out"))
    about, rows = card.about, sum(map(len, imagined))
    assert about["synthetic"] == {
        "fraction": pytest.approx(rows / card.rows, abs=1e-4), "rows": rows, "episodes": len(imagined),
        "column": "synthetic",
    }  # fmt: skip
    assert about["checkpoint"] == run.checkpoint_hash
    assert about["filter"]["keep"] == 0.5
    branches = about["branches"]
    assert (branches["policy"], branches["seed"]) == ("recorded", 3)
    assert branches["begun"] == len(imagined) + branches["dropped"]
    assert branches["dropped"] + branches["cut"] > 0
    assert any("of the rows are imagined" in note for note in card.notes)
    assert card.signals["synthetic"]["mean"] == pytest.approx(rows / card.rows)


def test_the_stricter_the_filter_the_fewer_branches_pass(toy_runs: Path, tmp_path: Path):
    lost = {}
    for keep in (0.2, 1.0):
        mix(toy_runs, tmp_path / str(keep), keep=keep, noise=0.0)
        about = open_dataset(tmp_path / str(keep)).about
        lost[keep] = (about["branches"]["dropped"] + about["branches"]["cut"]) / about["branches"]["begun"]
    assert lost[0.2] > lost[1.0] + 0.3


def test_a_single_model_warns_and_filters_nothing(toy_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mix(toy_runs, tmp_path / "out", run="single", keep=None)
    assert "nothing is filtered" in capsys.readouterr().err
    assert open_dataset(tmp_path / "out").about["filter"].startswith("none")
    with pytest.raises(UserError, match=r"--keep 0.9: .* single model"):
        mix(toy_runs, tmp_path / "other", run="single", keep=0.9)


def test_branches_longer_than_the_model_was_found_useful_for_are_warned_of(
    toy_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    _, run = checkpoint.load(toy_runs / "ensemble")
    shutil.copytree(toy_runs / "ensemble", tmp_path / "ensemble")
    judged = {"metrics": {"useful_horizon": {"state": {"value": 3.0}}}}
    provenance = {"provenance": {"checkpoint": {"sha256": run.checkpoint_hash}}}
    (tmp_path / "ensemble" / "card.json").write_text(json.dumps(judged | provenance))
    for horizon in (3, 4):
        augment(
            AugmentSettings(
                run=tmp_path / "ensemble",
                data=toy_runs / "data",
                out=tmp_path / str(horizon),
                horizon=horizon,
                threads=1,
            )
        )
        assert ("--horizon 4" in capsys.readouterr().err) is (horizon == 4)


def test_data_whose_last_rows_have_actions_stay_like_that(toy_runs: Path, tmp_path: Path):
    data = tmp_path / "data"
    with LeRobotWriter(data, toy_spec(fitted=False), terminal_rows=False) as writer:
        for seed in range(4):
            episode = toy_episode(seed, length=6)
            rows = len(episode) - 1  # the last one has no action
            obs = {key: value[:rows] for key, value in episode.obs.items()}
            flags = np.zeros(rows, bool), np.arange(rows) == rows - 1
            writer.add(Episode(obs, episode.action[:rows], episode.reward[:rows], *flags))
    augment(AugmentSettings(run=toy_runs / "ensemble", data=data, out=tmp_path / "out", horizon=4, threads=1))
    source = open_dataset(tmp_path / "out")
    _, imagined = apart([source.read(index) for index in range(len(source.episodes))])
    assert imagined
    assert all(episode.action[-1].any() for episode in imagined)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fraction": 1.0}, "--fraction is 1.0, but must be below 1"),
        ({"fraction": -0.1}, r"--fraction is -0.1"),
        ({"fraction": float("nan")}, r"--fraction is nan"),
        ({"keep": 0.0}, "--keep is 0.0, but must be above 0"),
        ({"noise": -1.0}, r"--noise is -1.0"),
        ({"horizon": 0}, r"--horizon is 0"),
        ({"context": 0}, r"--context is 0"),
        ({"seed": -1}, r"--seed is -1"),
        ({"policy": "recoded"}, r"Did you mean 'recorded'"),
        ({"policy": "."}, r"holds no saved agent"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_is_written(
    toy_runs: Path, tmp_path: Path, options: dict[str, Any], says: str
):
    with pytest.raises(UserError, match=says):
        mix(toy_runs, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over_or_into_the_data(toy_runs: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        mix(toy_runs, tmp_path / "out")
    with pytest.raises(UserError, match="lies inside"):
        mix(toy_runs, toy_runs / "data" / "mixed")


def test_a_mixture_that_breaks_leaves_nothing(toy_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(EpisodeGenerator, "episodes", broken)
    with pytest.raises(KeyboardInterrupt):
        mix(toy_runs, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_imagined_rows_are_not_imagined_from(toy_runs: Path, tmp_path: Path):
    mix(toy_runs, tmp_path / "out")
    with pytest.raises(UserError, match="imagined already"):
        augment(AugmentSettings(run=toy_runs / "ensemble", data=tmp_path / "out", out=tmp_path / "again"))


def test_a_model_of_other_data_is_refused(toy_runs: Path, tmp_path: Path):
    other = write_toy_dataset(tmp_path / "discrete", episodes=2, length=6, discrete=True)
    with pytest.raises(UserError, match="do not fit"):
        augment(AugmentSettings(run=toy_runs / "ensemble", data=other, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["image", "reward", "terminated"])
def test_a_model_that_decodes_less_than_a_row_holds_is_refused(
    toy_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
):
    known = ("image", "state", "reward", "terminated")
    monkeypatch.setattr("tests.toy.ToyModel.decodes", tuple(k for k in known if k != key))
    monkeypatch.setattr(checkpoint.Checkpoint, "fill", lambda *_: None)
    with pytest.raises(UserError, match=rf"data hold '{key}' too"):
        mix(toy_runs, tmp_path / "out", run="single", keep=None)
