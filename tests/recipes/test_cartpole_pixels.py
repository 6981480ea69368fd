"""The recipe from end to end in seconds; what it is for takes an hour, and its figures are in results/."""

import json
from pathlib import Path

import pytest

from tests.recipes.running import figures


def test_the_recipe_learns_from_pictures_alone_and_plays(tmp_path: Path) -> None:
    pytest.importorskip("pygame", reason="drawing CartPole needs pygame")
    run = tmp_path / "run"
    found = figures("cartpole_pixels", "--out", str(run), folder=tmp_path)
    keys = json.loads((run / "run.json").read_text())["spec"]["keys"]
    assert [name for name, key in keys.items() if key.get("role") != "target"] == ["image"]
    assert found["updates"] >= 1
    assert len(found["policy"]["returns"]) == len(found["random"]["returns"]) == 2
    assert all(0 < value <= 20 for value in found["policy"]["returns"])
