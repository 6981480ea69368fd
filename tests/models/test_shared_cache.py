"""A belief of 2 MB whose frames are shared: nobody who handles beliefs copies them."""

import pytest
import torch

from tests.models.segments import SPECS, random_segment
from tests.models.shared_cache import ENTRY, FRAME, SLOTS, CacheState, SharedCache, SharedCacheConfig
from worldloom.conformance import check_world_model
from worldloom.models import FAMILIES, build
from worldloom.models.ensemble import Ensemble
from worldloom.planners.cem import CEM
from worldloom.planners.gradient import Gradient
from worldloom.planners.objectives import Decoded
from worldloom.planners.planner import Plan, Planner, Problem

BYTES = 4 * FRAME


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES.entries, "shared_cache", ENTRY)


def model(**config: float) -> SharedCache:
    torch.manual_seed(0)
    return SharedCache(SPECS["vector"], SharedCacheConfig(**config))


def held(*beliefs: CacheState) -> int:
    """Frames in memory because of these beliefs."""
    storages = {block.untyped_storage().data_ptr(): block.untyped_storage() for b in beliefs for block in b.blocks}
    return sum(storage.nbytes() for storage in storages.values()) // BYTES


@torch.no_grad()
def full(made: SharedCache, rows: int = 1) -> CacheState:
    """Beliefs whose frames are all different."""
    segment = random_segment(SPECS["vector"], batch=rows, time=SLOTS + 1)
    return made.track(segment.obs, segment.action)[:, -1].clone()


def test_a_family_with_an_algebra_of_its_own_keeps_the_contract() -> None:
    check_world_model(model(), random_segment(SPECS["vector"]), overfit_steps=60)


def test_an_ensemble_of_it_keeps_the_contract() -> None:
    torch.manual_seed(0)
    made = build("ensemble", SPECS["vector"], "debug", member="shared_cache", members=2, batched=False)
    assert isinstance(made, Ensemble)
    check_world_model(made, random_segment(SPECS["vector"], time=4), overfit_steps=0)


def test_candidates_share_the_frames_they_start_from() -> None:
    belief = full(model())
    assert held(belief) == SLOTS
    assert held(belief, belief.repeat(512), belief.repeat(512).unflatten(2).flatten()) == SLOTS


def test_the_rows_of_a_window_share_their_frames() -> None:
    made, segment = model(), random_segment(SPECS["vector"], batch=3, time=40)
    with torch.no_grad():
        tracked = made.track(segment.obs, segment.action)
    assert held(tracked) == 3 * 40
    assert held(tracked, tracked[:, 5:], tracked.flatten(), *(tracked[:, t] for t in range(40))) == 3 * 40


@torch.no_grad()
def test_a_node_owns_one_frame_and_keeps_nothing_of_its_batch() -> None:
    made, action = model(), torch.zeros(8, 3)
    nodes = [full(made)]
    for _ in range(3):
        imagined = made.predict(nodes[-1].repeat(8), action)
        nodes += [imagined[i : i + 1].clone() for i in range(2)]  # of eight that were imagined together
    assert held(*nodes) == SLOTS + 6
    assert nodes[-1].nbytes < 1.1 * BYTES


@pytest.mark.parametrize("planner", [CEM(5, samples=64, elites=8, iterations=2), Gradient(5, samples=16, iterations=2)])
def test_a_plan_keeps_the_frames_of_its_own_trajectory_alone(planner: Planner) -> None:
    made = model()
    belief = full(made, rows=2)
    near = Decoded(lambda seen: -seen["state"].square().sum(-1), ("state",))
    plan: Plan = planner.plan(Problem(made, belief, near))
    assert plan.found.all()
    assert isinstance(plan.states, CacheState)
    assert held(belief, plan.states) <= 2 * (SLOTS + 5)
