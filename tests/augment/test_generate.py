"""Where an imagined episode ends: at a drawn end, where the model is not sure, or where the rows are used up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldloom.augment.branches import random, with_noise
from worldloom.augment.generate import EpisodeGenerator
from worldloom.augment.start_states import BranchWindow, StartStates
from worldloom.data.cache import CachedDataset, cache_dataset
from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError
from worldloom.model import WorldModel
from worldloom.runs import checkpoint


@dataclass
class RejectsFrom:
    """Sure of the first steps of every branch and of no other."""

    sure: int

    def rejects(self, model: WorldModel, branches: Any) -> np.ndarray:
        return np.arange(branches.actions.shape[1]) >= np.full((len(branches.steps), 1), self.sure)


@pytest.fixture
def world(toy_runs: Path) -> tuple[WorldModel, CachedDataset]:
    model, run = checkpoint.load(toy_runs / "ensemble")
    return model, cache_dataset(run.datasets[0].path, run.image_size).with_spec(run.spec)


def generator(world: tuple[WorldModel, CachedDataset], sure: int = 9, horizon: int = 5) -> EpisodeGenerator:
    model, dataset = world
    return EpisodeGenerator(model, dataset, dataset.spec, random, BranchWindow(3, horizon), RejectsFrom(sure))  # type: ignore[arg-type]


def likely_end(monkeypatch: pytest.MonkeyPatch, model: WorldModel, probability: float) -> None:
    decode = model.decode

    def made(state: Any, key: str) -> torch.Tensor:
        found = decode(state, key)
        return torch.full_like(found, probability) if key == "terminated" else found

    monkeypatch.setattr(model, "decode", made)


@torch.inference_mode()
def test_a_branch_is_cut_before_the_first_doubtful_step(world: Any, monkeypatch: pytest.MonkeyPatch):
    likely_end(monkeypatch, world[0], 0.0)
    made = generator(world, sure=2)
    episodes = list(made.episodes(60, np.random.default_rng(0)))
    assert {len(e) for e in episodes} == {3}
    assert all(e.truncated[-1] for e in episodes)
    assert made.count.cut == made.count.kept == made.count.started == 20


@torch.inference_mode()
def test_where_every_step_is_doubtful_it_gives_up_and_says_so(world: Any):
    with pytest.raises(UserError, match=r"branches .* were dropped at once"):
        list(generator(world, sure=0).episodes(60, np.random.default_rng(0)))


@torch.inference_mode()
@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_ends_are_as_frequent_as_the_model_believes(world: Any, monkeypatch: pytest.MonkeyPatch, probability: float):
    likely_end(monkeypatch, world[0], probability)
    made = generator(world)
    episodes = list(made.episodes(1500, np.random.default_rng(0)))
    steps = sum(len(e) - 1 for e in episodes)
    assert made.count.terminated / steps == pytest.approx(probability, abs=0.03)
    assert all(e.terminated[-1] != e.truncated[-1] for e in episodes)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 31])
def test_the_last_branch_is_shortened_to_the_rows_asked_for(world: Any, monkeypatch: pytest.MonkeyPatch, rows: int):
    likely_end(monkeypatch, world[0], 0.0)
    total = sum(map(len, generator(world).episodes(rows, np.random.default_rng(0))))
    assert rows - 1 <= total <= rows


@torch.inference_mode()
def test_what_a_model_makes_infinite_is_cut(world: Any, monkeypatch: pytest.MonkeyPatch):
    likely_end(monkeypatch, world[0], float("nan"))
    with pytest.raises(UserError, match="dropped"):
        list(generator(world).episodes(10, np.random.default_rng(0)))


@torch.inference_mode()
def test_roots_are_rows_that_another_follows_and_the_beliefs_there(world: Any):
    model, dataset = world
    starts = StartStates.draw(model, dataset, range(len(dataset)), BranchWindow(50, 3), 64, np.random.default_rng(0))
    assert (starts.frame < dataset.lengths[starts.episode] - 1).all()
    assert len(set(zip(starts.episode, starts.frame, strict=True))) > 30
    for row in range(5):
        whole = dataset.segment(int(starts.episode[row]))
        frame = int(starts.frame[row])
        assert torch.equal(starts.obs["state"][row], whole.obs["state"][0, frame])
        belief = model.track(whole.obs, whole.action)[0, frame]
        assert torch.allclose(starts.belief[row].features, belief.features, atol=1e-5)


def test_noise_stays_within_the_actions_there_are():
    rng, zeros = np.random.default_rng(0), np.zeros((50, 4, 2), np.float32)
    moved = with_noise(zeros, ActionSpec("continuous", 2), 1.0, rng)
    assert moved.std() > 0.5
    assert np.abs(moved).max() <= 1
    left = np.eye(4, dtype=np.float32)[np.zeros((200, 4), int)]
    chosen = with_noise(left, ActionSpec("discrete", 4), 0.4, rng)
    assert (chosen.sum(-1) == 1).all()
    assert (chosen != left).any(-1).mean() == pytest.approx(0.3, abs=0.05)
