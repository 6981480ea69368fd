"""The recipe from end to end in seconds; what it is for takes hours, and its figures are in results/."""

from pathlib import Path

import pytest

from tests.recipes.running import figures


def test_the_recipe_learns_continues_and_writes_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("dm_control", reason="the extra 'dmc' is not installed")
    # The second time everything is there and only read.
    words = ["--tasks", "cartpole-swingup", "--out", str(tmp_path / "runs")]
    run = figures("dreamer_dmc", *words, folder=tmp_path, times=2)["runs"][0]
    assert run["curve"][-1]["env_steps"] == 120
    assert run["dreamerv3"] == 528
    assert len(run["final"]["returns"]) == 2
    assert run["reached"] is False
