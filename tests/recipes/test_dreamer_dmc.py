"""The recipe from end to end in seconds; what it is for takes hours, and its figures are in results/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "dreamer_dmc.py"


def test_the_recipe_learns_continues_and_writes_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("dm_control", reason="the extra 'dmc' is not installed")
    table = tmp_path / "curves.json"
    command = [sys.executable, str(RECIPE), "--debug", "--tasks", "cartpole-swingup", "--out", str(tmp_path / "runs")]
    for _ in range(2):  # the second time everything is there and only read
        subprocess.run([*command, "--json", str(table)], check=True, capture_output=True, text=True)
    run = json.loads(table.read_text())["runs"][0]
    assert run["curve"][-1]["env_steps"] == 120
    assert run["dreamerv3"] == 528
    assert len(run["final"]["returns"]) == 2
    assert run["reached"] is False
