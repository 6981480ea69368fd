import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.fakes import FakeSource
from worldloom.data.cache import CachedDataset, cache_source
from worldloom.data.loader import POOL, SegmentLoader, merge_specs
from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError


@pytest.fixture
def dataset(tmp_path: Path) -> CachedDataset:
    return cache_source(FakeSource([9, 3, 12, 7]), (8, 8), cache_dir=tmp_path)


@pytest.fixture
def pair(tmp_path: Path) -> list[CachedDataset]:
    """Two datasets under one spec; one has a further signal, so their tables differ in width."""
    sources = [
        FakeSource([9, 3, 12], tasks=["lift", "push"]),
        FakeSource([30, 31], tasks=["fold"], name="other", extra=True),
    ]
    made = [cache_source(source, (8, 8), cache_dir=tmp_path) for source in sources]
    spec = merge_specs([d.spec for d in made], tasks=[d.tasks for d in made])
    return [d.with_spec(spec) for d in made]


def rows_of(segment: Segment) -> list[list[tuple[int, int]]]:
    """(episode, row) of every unmasked entry, read from the images."""
    image = segment.obs["image"][:, :, :, 0, 0]
    return [
        [(int(e), int(t)) for (e, t, _), valid in zip(window, mask, strict=True) if valid]
        for window, mask in zip(image.tolist(), segment.mask.tolist(), strict=True)
    ]


def test_windows_hold_consecutive_rows_of_one_episode_in_every_field(dataset: CachedDataset) -> None:
    loader = SegmentLoader([dataset], [[0, 1, 2]], batch_size=8, length=4)
    for _ in range(20):
        segment = next(loader)
        assert segment.shape == (8, 4)
        for number, window in enumerate(rows_of(segment)):
            episode, first = window[0]
            assert episode in (0, 1, 2)
            assert window == [(episode, first + i) for i in range(len(window))]
            assert len(window) == min(4, int(dataset.lengths[episode]) - first)
            rows = slice(0, len(window))
            alone = dataset.segment(episode, first, 4)
            for key in ("image", "state"):
                assert torch.equal(alone.obs[key][0, rows], segment.obs[key][number, rows])
            for name in ("action", "reward", "terminated", "truncated", "mask"):
                assert torch.equal(getattr(alone, name)[0], getattr(segment, name)[number])


def test_an_epoch_shows_every_row_nearly_as_often_as_a_window_is_long(dataset: CachedDataset) -> None:
    loader = SegmentLoader([dataset], [range(4)], batch_size=1, length=4)
    count = {(e, t): 0 for e, rows in enumerate(dataset.lengths) for t in range(rows)}
    for _ in range(31 + 4 * 2):
        for row in rows_of(next(loader))[0]:
            count[row] += 1
    assert min(count.values()) >= 3
    assert loader.state_dict()["epochs"] == [0]


def test_a_kept_batch_is_never_overwritten(dataset: CachedDataset) -> None:
    loader = SegmentLoader([dataset], [range(4)], batch_size=4, length=4)
    other = SegmentLoader([dataset], [range(4)], batch_size=4, length=4)
    kept = [next(loader) for _ in range(3 * POOL)]
    only_state = [next(loader).obs["state"][1:] for _ in range(3 * POOL)]
    for segment in kept:
        assert torch.equal(segment.obs["image"], next(other).obs["image"])
    for state in only_state:
        assert torch.equal(state, next(other).obs["state"][1:])


def test_a_forgotten_batch_gives_its_memory_to_a_later_one(dataset: CachedDataset) -> None:
    loader = SegmentLoader([dataset], [range(4)], batch_size=4, length=4)
    addresses = set()
    for segment in (next(loader) for _ in range(20)):
        addresses.add(segment.obs["image"].data_ptr())
    assert len(addresses) <= 2


def test_the_same_seed_gives_the_same_batches(dataset: CachedDataset) -> None:
    loaders = [SegmentLoader([dataset], [range(4)], batch_size=4, length=4, seed=s) for s in (5, 5, 6)]
    first, second, third = ([rows_of(next(loader)) for _ in range(10)] for loader in loaders)
    assert first == second
    assert first != third


@pytest.mark.parametrize("stop", [3, 11, 40])
def test_a_resumed_loader_continues_the_sequence(pair: list[CachedDataset], stop: int) -> None:
    options: dict[str, Any] = {"batch_size": 6, "length": 4, "seed": 2}
    loader = SegmentLoader(pair, [[0, 1, 2], [0, 1]], **options)
    for _ in range(stop):
        next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = SegmentLoader(pair, [[0, 1, 2], [0, 1]], **options)
    resumed.load_state_dict(state)
    for _ in range(25):
        assert rows_of(next(resumed)) == rows_of(next(loader))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_out_the_batch_of_a_single_process(pair: list[CachedDataset], world_size: int) -> None:
    options: dict[str, Any] = {"batch_size": 6, "length": 4, "weights": [1, 2]}
    single = SegmentLoader(pair, [[0, 1, 2], [0, 1]], **options)
    ranks = [
        SegmentLoader(pair, [[0, 1, 2], [0, 1]], **options, rank=r, world_size=world_size) for r in range(world_size)
    ]
    for _ in range(10):
        whole, parts = next(single), [next(loader) for loader in ranks]
        for name in ("action", "reward", "terminated", "truncated", "mask"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        for key in whole.obs:
            assert torch.equal(torch.cat([part.obs[key] for part in parts]), whole.obs[key])
    assert {json.dumps(loader.state_dict()) for loader in ranks} == {json.dumps(single.state_dict())}


def test_a_state_moves_between_world_sizes(dataset: CachedDataset) -> None:
    single = SegmentLoader([dataset], [range(4)], batch_size=4, length=4)
    for _ in range(7):
        next(single)
    second = SegmentLoader([dataset], [range(4)], batch_size=4, length=4, rank=1, world_size=2)
    second.load_state_dict(single.state_dict())
    assert rows_of(next(second)) == rows_of(next(single))[2:]


def test_weights_set_the_share_of_each_dataset(pair: list[CachedDataset]) -> None:
    loader = SegmentLoader(pair, [[0, 1, 2], [0, 1]], batch_size=20, length=3, weights=[3, 1])
    tasks = torch.cat([next(loader).obs["task"][:, 0] for _ in range(100)])
    assert abs(float(tasks[:, 2].mean()) - 0.25) < 0.05
    only = SegmentLoader(pair, [[0, 1, 2], [0, 1]], batch_size=20, length=3, weights=[0, 1])
    assert next(only).obs["task"][:, :, 2].all()


def test_mixed_datasets_keep_their_own_rows_and_tasks(pair: list[CachedDataset]) -> None:
    loader = SegmentLoader(pair, [[0, 1, 2], [0, 1]], batch_size=12, length=3)
    names = pair[0].spec.obs["task"].names
    assert names == ("lift", "push", "fold")
    for _ in range(10):
        segment = next(loader)
        for number, window in enumerate(rows_of(segment)):
            task = names[int(segment.obs["task"][number, 0].argmax())]
            which = pair[1] if task == "fold" else pair[0]
            episode, first = window[0]
            assert which.task(episode) == task
            assert torch.equal(which.segment(episode, first, 3).obs["state"][0], segment.obs["state"][number])
            assert torch.equal(which.segment(episode, first, 3).action[0], segment.action[number])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 1}, "length must be at least 2"),
        ({"batch_size": 5, "world_size": 2}, "batch size 5"),
        ({"batch_size": 0}, "batch size 0"),
        ({"weights": [1.0]}, "1 weights"),
        ({"weights": [1.0, -1.0]}, "not negative"),
        ({"weights": [0.0, 0.0]}, "not all zero"),
        ({"weights": [1.0, float("nan")]}, "finite"),
        ({"episodes": [[0, 1, 2], [0, 9]]}, "unknown episode 9"),
        ({"episodes": [[0, 1, 2], []]}, "no episodes"),
        ({"episodes": [[0, 1, 2]]}, "one list per dataset"),
    ],
)
def test_wrong_settings_are_refused(pair: list[CachedDataset], change: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"episodes": [[0, 1, 2], [0, 1]], "batch_size": 4, "length": 4, **change}
    with pytest.raises(UserError, match=message):
        SegmentLoader(pair, settings.pop("episodes"), **settings)


def test_resuming_on_other_data_or_windows_is_refused(dataset: CachedDataset) -> None:
    state = SegmentLoader([dataset], [range(4)], batch_size=4, length=4).state_dict()
    with pytest.raises(UserError, match="slots"):
        SegmentLoader([dataset], [range(3)], batch_size=4, length=4).load_state_dict(state)
    with pytest.raises(UserError, match="length"):
        SegmentLoader([dataset], [range(4)], batch_size=4, length=5).load_state_dict(state)


def vectors(
    mean: float,
    std: float,
    obs: dict[str, KeySpec] | None = None,
    reward: bool = True,
    end: bool = False,
    **changes: Any,
) -> DataSpec:
    seen = obs or {"state": KeySpec("vector", (1,), mean=(mean,), std=(std,))}
    action = ActionSpec("continuous", 1, low=(mean,), high=(mean + 1,))
    return replace(DataSpec({**seen, **signal_keys(reward=reward, terminated=end)}, action, 10.0), **changes)


def test_a_merged_spec_describes_the_equal_mixture() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(0, 1, 100_000), rng.normal(4, 2, 100_000)]
    merged = merge_specs([vectors(float(x.mean()), float(x.std()), end=i == 1) for i, x in enumerate(samples)])
    both = np.concatenate(samples)
    assert np.allclose(merged.obs["state"].mean, both.mean())  # type: ignore[arg-type]
    assert np.allclose(merged.obs["state"].std, both.std())  # type: ignore[arg-type]
    assert np.allclose([merged.action.low, merged.action.high], [[samples[0].mean()], [samples[1].mean() + 1]])  # type: ignore[arg-type]
    assert merged.has_end
    assert merged.has_reward
    assert not merged.keys["reward"].masked
    assert merge_specs([vectors(0, 1), vectors(0, 1, reward=False)]).keys["reward"].masked


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (vectors(0, 1, obs={"pose": KeySpec("vector", (1,))}), "'state' is missing"),
        (vectors(0, 1, obs={"state": KeySpec("vector", (2,))}), r"'state' is vector \(1,\).*vector \(2,\)"),
        (vectors(0, 1, action=ActionSpec("discrete", 1)), "action is continuous of size 1.*discrete"),
        (vectors(0, 1, action=ActionSpec("continuous", 3)), "size 3"),
        (vectors(0, 1, fps=5.0), "10 frames per second and the other 5"),
    ],
)
def test_data_that_cannot_be_mixed_are_named(other: DataSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge_specs([vectors(0, 1), other])


def test_action_names_must_agree() -> None:
    specs = [vectors(0, 1, action=ActionSpec("discrete", 2, names=names)) for names in (("a", "b"), ("b", "a"))]
    with pytest.raises(UserError, match="names"):
        merge_specs(specs)


def test_datasets_under_different_specs_are_refused(tmp_path: Path) -> None:
    one = cache_source(FakeSource([9]), (8, 8), cache_dir=tmp_path)
    other = one.with_spec(one.fit([0]))
    with pytest.raises(UserError, match="merge_specs"):
        SegmentLoader([one, other], [[0], [0]], batch_size=2, length=3)
