"""The recipe of Dyna with a learned model from end to end in seconds; what it is for takes half an hour."""

from pathlib import Path

import pytest

from tests.recipes.running import figures


def test_the_recipe_learns_with_and_without_imagined_steps_and_writes_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="the extra 'sb3' is not installed")
    found = figures("dyna_learned", folder=tmp_path)
    assert found["real_steps"] == [110, 220]
    assert len(found["returns"]) == 3
    # Until something is learned all three are one learner.
    first = [curves[0][0] for curves in found["returns"].values()]
    last = [curves[0][1] for curves in found["returns"].values()]
    assert len(set(first)) == 1
    assert len(set(last)) == 3
