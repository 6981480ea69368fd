"""Real episodes and imagined branches in one dataset: the share asked for, marked, filtered, nothing real changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toy import write_toy_dataset
from worldloom.augment.augment import augment
from worldloom.augment.branches import to_episode
from worldloom.data.source import open_dataset
from worldloom.errors import UserError
from worldloom.learning.settings import DreamerSettings, learn
from worldloom.training.session import run_training
from worldloom.training.settings import TrainSettings

SHORT: dict[str, Any] = {"length": 8, "batch_size": 4, "image_size": 16, "steps": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("augment") / "data")


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    run_training(TrainSettings("rssm", (data,), data.parent / "run", "debug", **SHORT))
    return data.parent / "run"


@pytest.fixture(scope="module")
def ensemble(data: Path) -> Path:
    size = ("members=2", "member=rssm")
    run_training(TrainSettings("ensemble", (data,), data.parent / "ensemble", "debug", overrides=size, **SHORT))
    return data.parent / "ensemble"


def about(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "meta/info.json").read_text())["worldloom"]["about"])


def test_the_share_is_the_one_asked_for_and_no_real_row_is_changed(data: Path, trained: Path, tmp_path: Path) -> None:
    augment(trained, data, tmp_path / "mix", fraction=0.4, horizon=6)
    real, mixed, facts = open_dataset(data), open_dataset(tmp_path / "mix"), about(tmp_path / "mix")
    share = facts["imagined_rows"] / (facts["imagined_rows"] + facts["real_rows"])
    assert share == pytest.approx(0.4, abs=0.02)
    assert facts["synthetic"]
    assert facts["disagreement_limit"] == "not filtered"
    for index in range(len(real.episodes)):
        one, other = real.read(index), mixed.read(index)
        assert not other.extra["synthetic"].any()
        np.testing.assert_array_equal(one.action, other.action)
        np.testing.assert_allclose(one.reward, other.reward)
        for key in one.obs:
            np.testing.assert_array_equal(one.obs[key], other.obs[key])
    marked = sum(mixed.read(i).extra["synthetic"].sum() for i in range(len(mixed.episodes)))
    assert marked == facts["imagined_rows"]


def test_a_branch_begins_with_a_real_row_and_its_actions_are_in_the_datas_own_units(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    augment(trained, data, tmp_path / "mix", fraction=0.3, horizon=5, policy="random")
    mixed, count = open_dataset(tmp_path / "mix"), len(open_dataset(data).episodes)
    known = np.concatenate([mixed.read(i).obs["image"] for i in range(count)])
    low, high = (np.asarray(bound) for bound in (mixed.spec.action.low, mixed.spec.action.high))
    for index in range(count, len(mixed.episodes)):
        branch = mixed.read(index)
        assert branch.extra["synthetic"].tolist() == [False] + [True] * (len(branch) - 1)
        assert (known == branch.obs["image"][0]).all((1, 2, 3)).any()
        assert ((branch.action >= low - 1e-5) & (branch.action <= high + 1e-5))[:-1].all()
        assert branch.reward[0] == 0


def test_the_same_seed_gives_the_same_data(data: Path, trained: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        augment(trained, data, tmp_path / name, fraction=0.2, horizon=4, seed=seed)
    last = [open_dataset(tmp_path / name).read(len(open_dataset(data).episodes)) for name in ("one", "same", "other")]
    np.testing.assert_array_equal(last[0].obs["image"], last[1].obs["image"])
    assert not np.array_equal(last[0].action, last[2].action)


def test_an_ensemble_that_is_less_often_sure_cuts_and_drops_more(data: Path, ensemble: Path, tmp_path: Path) -> None:
    found = {}
    for keep in (1.0, 0.5):
        augment(ensemble, data, tmp_path / str(keep), fraction=0.3, horizon=8, keep=keep, policy="random")
        found[keep] = about(tmp_path / str(keep))
    assert found[0.5]["cut"] + found[0.5]["dropped"] > found[1.0]["cut"] + found[1.0]["dropped"]
    assert "0.5 of real dreams" in found[0.5]["disagreement_limit"]


def test_a_branch_ends_where_the_model_finds_an_end_likelier_than_not(data: Path) -> None:
    spec = open_dataset(data).spec
    first = {k: np.zeros((1, *s.shape), np.uint8 if s.kind == "image" else np.float32) for k, s in spec.obs.items()}
    values = {k: np.ones((4, *s.shape), np.float32) for k, s in spec.obs.items()}
    values |= {"terminated": np.array([0.1, 0.6, 0.9, 0.1]), "reward": np.arange(1.0, 5.0)}
    branch = to_episode(spec, first, values, np.ones((4, spec.action.size), np.float32))
    assert branch.terminated.tolist() == [False, False, True]
    assert branch.reward.tolist() == [0, 1, 2]
    assert branch.action[-1].tolist() == [0] * spec.action.size
    assert branch.obs["image"].max() == 255


def test_a_learned_policy_acts_in_the_branches(data: Path, trained: Path, tmp_path: Path) -> None:
    learn(DreamerSettings(env=str(trained), out=tmp_path / "policy", steps=2, batch_size=4, length=8))
    augment(trained, data, tmp_path / "mix", fraction=0.2, horizon=4, policy=str(tmp_path / "policy"))
    assert about(tmp_path / "mix")["branch_actions"] == str(tmp_path / "policy")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fraction": 1.0}, "--fraction is 1.0"),
        ({"fraction": -0.1}, "--fraction is -0.1"),
        ({"keep": 0.0}, "--keep is 0.0"),
        ({"horizon": 0}, "--horizon 0"),
        ({"policy": "nobody"}, "--policy nobody"),
        ({"context": 1000}, "no episode"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left_behind(
    data: Path, trained: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        augment(trained, data, tmp_path / "mix", **changes)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(data: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mix").mkdir()
    with pytest.raises(UserError, match="already exists"):
        augment(trained, data, tmp_path / "mix")
