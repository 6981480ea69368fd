"""The recipe from end to end in seconds; what it is for takes an hour, and its figures are in results/."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "cartpole_pixels.py"


def test_the_recipe_learns_from_pictures_alone_and_plays(tmp_path: Path) -> None:
    pytest.importorskip("pygame", reason="drawing CartPole needs pygame")
    table, run = tmp_path / "figures.json", tmp_path / "run"
    command = [sys.executable, str(RECIPE), "--debug", "--out", str(run), "--json", str(table)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(table.read_text())
    keys = json.loads((run / "run.json").read_text())["spec"]["keys"]
    assert [name for name, key in keys.items() if key.get("role") != "target"] == ["image"]
    assert figures["updates"] >= 1
    assert len(figures["policy"]["returns"]) == len(figures["random"]["returns"]) == 2
    assert all(0 < value <= 20 for value in figures["policy"]["returns"])
