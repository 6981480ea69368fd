"""The table of keys: one namespace, roles, groups of actions, and the files of earlier versions."""

import numpy as np
import pytest

from tests.models.segments import SPECS
from worldloom.augment.branches import with_noise
from worldloom.data.spec import SIGNALS, ActionGroup, ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError
from worldloom.evaluation.actions import random_actions

NOTHING = ActionSpec("continuous", 0)
OLD = {
    "obs": {
        "state": {"kind": "vector", "shape": [2], "names": None, "mean": [1.0, 2.0], "std": [1.0, 1.0]},
        "task": {"kind": "category", "shape": [2], "names": ["a", "b"], "mean": None, "std": None},
    },
    "action": {"kind": "discrete", "size": 2, "names": ["l", "r"], "low": None, "high": None},
    "fps": 10.0,
    "has_reward": True,
    "has_end": False,
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_spec_survives_json(spec: DataSpec) -> None:
    assert DataSpec.from_json(spec.to_json()) == spec


def test_a_spec_of_before_the_table_is_read() -> None:
    spec = DataSpec.from_json(OLD)
    assert list(spec.keys) == ["state", "task", "reward"]
    assert spec.keys["state"] == KeySpec("vector", (2,), mean=(1.0, 2.0), std=(1.0, 1.0))
    assert spec.keys["task"].role == "given"
    assert (spec.has_reward, spec.has_end) == (True, False)


@pytest.mark.parametrize("name", [*SIGNALS, "truncated", "action", "mask", "task_index", "state.mask"])
def test_an_observation_can_have_no_name_of_a_signal(name: str) -> None:
    with pytest.raises(UserError, match=f"{name!r}.*rename it"):
        DataSpec({name: KeySpec("vector", (1,))}, NOTHING, 10.0)


def test_targets_are_no_observations_and_come_in_one_order() -> None:
    keys = {"pose": KeySpec("vector", (2,), role="target"), "state": KeySpec("vector", (1,))}
    spec = DataSpec({**keys, **signal_keys(cost=True, terminated=True, reward=True)}, NOTHING, 10.0)
    assert list(spec.obs) == ["state"]
    assert list(spec.targets) == ["reward", "terminated", "cost", "pose"]
    assert spec.vector_keys == ("state",)


def test_groups_are_named_slices_of_one_vector() -> None:
    groups = (
        ActionGroup("arm", "continuous", 2, ("x", "y"), low=(-2.0, 0.0), high=(2.0, 10.0)),
        ActionGroup("gripper", "discrete", 3, ("open", "stay", "close")),
    )
    spec = ActionSpec.of(groups)
    assert (spec.kind, spec.size) == ("mixed", 5)
    assert spec.slices == {"arm": slice(0, 2), "gripper": slice(2, 5)}
    assert spec.names == ("arm.x", "arm.y", "gripper.open", "gripper.stay", "gripper.close")
    own = np.array([[2.0, 5.0, 0, 1, 0]], np.float32)
    assert spec.scale(own).tolist() == [[1.0, 0.0, 0, 1, 0]]
    np.testing.assert_allclose(spec.unscale(spec.scale(own)), own)


def test_one_choice_alone_is_a_discrete_action() -> None:
    assert ActionSpec.of((ActionGroup("move", "discrete", 2, ("l", "r")),)) == ActionSpec("discrete", 2, ("l", "r"))


def test_devices_that_are_all_continuous_stay_continuous() -> None:
    one = ActionGroup("left", "continuous", 1, low=(-1.0,), high=(1.0,))
    spec = ActionSpec.of((one, ActionGroup("right", "continuous", 1)))
    assert (spec.kind, spec.low) == ("continuous", None)  # an open range of one leaves the whole to the data


def test_random_and_noisy_mixed_actions_are_choices_and_numbers_in_range() -> None:
    groups = (ActionGroup("go", "discrete", 3), ActionGroup("turn", "continuous", 2, None, (-2.0, -2.0), (2.0, 2.0)))
    spec, rng = ActionSpec.of(groups), np.random.default_rng(0)
    drawn = random_actions(spec, 200, rng)
    noisy = with_noise(drawn.reshape(20, 10, 5), spec, 0.5, rng).reshape(-1, 5)
    for actions in (drawn, noisy):
        assert set(np.unique(actions[:, :3])) == {0, 1}
        assert (actions[:, :3].sum(1) == 1).all()
        assert (np.abs(actions[:, 3:]) <= 1).all()
    assert 0.02 < (drawn[:, :3] != noisy[:, :3]).any(1).mean() < 0.6
