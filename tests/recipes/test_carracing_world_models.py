"""The recipe from end to end in seconds; what it is for takes hours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "carracing_world_models.py"


def test_the_recipe_records_trains_evolves_plays_and_does_nothing_twice(tmp_path: Path) -> None:
    pytest.importorskip("Box2D", reason="the extra 'box2d' is not installed")
    pytest.importorskip("cma", reason="the extra 'cma' is not installed")
    out, table, figures = tmp_path / "runs", tmp_path / "figures.json", []
    command = [sys.executable, str(RECIPE), "--debug", "--out", str(out), "--json", str(table)]
    for _ in range(2):  # the second time everything is there and only judged
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        figures.append(json.loads(table.read_text()))
    first, again = figures
    assert first["frames"] >= 60
    assert set(first["minutes"]) == {"record", "train", "learn", "play"}
    assert all(again["minutes"][stage] == first["minutes"][stage] for stage in ("record", "train", "learn"))
    for who in ("controller", "dream", "random"):
        assert len(first[who]["returns"]) == 2
        assert first[who]["returns"] == again[who]["returns"]
        assert first[who]["low"] <= first[who]["mean"] <= first[who]["high"]
    assert first["paper"]["z and h"] == [906, 21]
