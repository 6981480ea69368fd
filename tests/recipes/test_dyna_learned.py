"""The recipe of Dyna with a learned model from end to end in seconds; what it is for takes half an hour."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "dyna_learned.py"


def test_the_recipe_learns_with_and_without_imagined_steps_and_writes_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3", reason="the extra 'sb3' is not installed")
    table = tmp_path / "figures.json"
    command = [sys.executable, str(RECIPE), "--debug", "--json", str(table)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    assert figures["real_steps"] == [110, 220]
    assert len(figures["returns"]) == 3
    # Until something is learned all three are one learner.
    first = [curves[0][0] for curves in figures["returns"].values()]
    last = [curves[0][1] for curves in figures["returns"].values()]
    assert len(set(first)) == 1
    assert len(set(last)) == 3
